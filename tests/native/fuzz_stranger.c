/* A stranger's datagram against every protection. The first byte chooses it, and whether the rest is wrapped first with the
 * right key, so that what lies behind the MAC is reached too. Input lies on the heap with no byte to spare. */
#include "check.h"
#include "stranger.h"

enum { PROTECTIONS = 5 };

static uint8_t key2[KEY2_SIZE], turned[KEY2_SIZE];
static struct reset_cookie cookie;
static struct protection *server[PROTECTIONS], *client[PROTECTIONS];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_up(void)
{
    for (unsigned i = 0; i < KEY2_SIZE; i++)
        turned[(i + KEY2_SIZE / 2) % KEY2_SIZE] = key2[i] = (uint8_t)(i * 31 + 1);
    CHECK(reset_cookie_init(&cookie, key2, COOKIE_SECRET_SHORTEST));
    const struct protection_settings servers[PROTECTIONS] = {
        {.shared = WRAP_PLAIN},
        {.shared = WRAP_TLS_AUTH, .key2 = key2, .digest = "SHA1", .direction = 0},
        {.shared = WRAP_TLS_AUTH, .key2 = key2, .digest = "SHA512", .direction = -1},
        {.shared = WRAP_TLS_CRYPT, .key2 = key2},
        {.shared = WRAP_REFUSED, .server_key = key2, .allow_stateful = true},
    };
    const struct protection_settings clients[PROTECTIONS] = {
        {.shared = WRAP_PLAIN},
        {.shared = WRAP_TLS_AUTH, .key2 = key2, .digest = "SHA1", .direction = 1},
        {.shared = WRAP_TLS_AUTH, .key2 = key2, .digest = "SHA512", .direction = -1},
        {.shared = WRAP_TLS_CRYPT, .key2 = turned},
        {.shared = WRAP_TLS_CRYPT, .key2 = turned},
    };
    for (unsigned i = 0; i < PROTECTIONS; i++)
        CHECK((server[i] = protection_new(&servers[i])) != NULL && (client[i] = protection_new(&clients[i])) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (cookie.mac.context == NULL)
        set_up();
    if (size < 1 || size - 1 > CONTROL_DATAGRAM_MAX - WRAP_OVERHEAD_MAX)
        return 0;
    unsigned which = data[0] % PROTECTIONS;
    bool seal = data[0] & 0x80 && size - 1 >= CONTROL_HEADER;
    data++, size--;
    uint8_t *packet = malloc(size + (seal ? WRAP_OVERHEAD_MAX : 0) + 1);
    CHECK(packet != NULL);
    struct opened opened = {0};
    if (seal)
        size = protection_seal(client[which], &opened, data, data + CONTROL_HEADER, size - CONTROL_HEADER, 1, packet);
    else
        memcpy(packet, data, size);
    uint8_t *tight = malloc(size);
    CHECK(tight != NULL || size == 0);
    if (size > 0)
        memcpy(tight, packet, size);
    free(packet);
    const struct stranger_rules rules = {&cookie, server[which], 30};
    const struct moment now = {.monotonic_s = 100, .wall_s = 1700000000};
    const struct socket_address from = {.ip = ip_from_v4(key2), .port = 1};
    enum control_drop drop;
    uint8_t reply[REPLY_MAX];
    switch (stranger_judge(&rules, &now, tight, size, &from, &opened, &drop)) {
    case WISH_NOTHING: CHECK(drop < CONTROL_DROP_COUNT); break;
    case WISH_ANSWER: {
        size_t length = stranger_answer(&rules, &now, size, &from, &opened, reply);
        CHECK(length > 0 && length <= size + REPLY_GROWTH && length <= REPLY_MAX);
        break;
    }
    case WISH_BEGIN:
    case WISH_BEGIN_UNPROVEN: CHECK(size >= CONTROL_HEADER); break;
    }
    free(tight);
    return 0;
}
