/* One message of an error queue, as the kernel makes it of what anybody has sent: whose packet is quoted, and what is said
 * of it. Nobody's path is told anything but by who quotes its secret, or by this host about what it has just refused; and
 * whatever a path is told, it wishes for packets between its bounds. The quote lies on the heap with no byte to spare.
 *
 *   byte 0   how long the quote is
 *   byte 1   1: it holds what only the way to the client has seen; 2: this host has just refused a packet
 *   then     the quote, then control messages: which kind, how long, content */
#include "blind.h"
#include "check.h"
#include "fixture.h"

enum { KNOWS_SECRET = 1, REFUSED = 2, CONTENT_MAX = 64, CONTROL_ROOM = 512, LONGEST = 1420 };

static const uint8_t SECRET[PATH_SECRET] = "twelve bytes";
static const struct path_settings SETTINGS = {
    .outer_mtu = 1500, .header = 24, .tunnel_mtu = LONGEST, .mss_v4 = 1380, .mss_v6 = 1360};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Well-formed, as the kernel writes them; how many bytes. */
static size_t put_control(uint8_t *into, const uint8_t *data, size_t size)
{
    static const int kinds[][2] = {
        {IPPROTO_IP, IP_RECVERR}, {IPPROTO_IPV6, IPV6_RECVERR}, {IPPROTO_IP, IP_PKTINFO}, {SOL_SOCKET, SCM_RIGHTS}};
    size_t at = 0;
    while (size >= 2) {
        const int *kind = kinds[data[0] % 4];
        size_t length = data[1] % CONTENT_MAX;
        data += 2, size -= 2;
        length = length < size ? length : size;
        if (CONTROL_ROOM - at < CMSG_SPACE(length))
            break;
        struct cmsghdr *control = (struct cmsghdr *)(void *)(into + at);
        *control = (struct cmsghdr){CMSG_LEN(length), kind[0], kind[1]};
        memcpy(CMSG_DATA(control), data, length);
        at += CMSG_SPACE(length);
        data += length, size -= length;
    }
    return at;
}

static void begin(struct path *path)
{
    *path = (struct path){0};
    path_init(path, &SETTINGS);
    memcpy(path->secret, SECRET, PATH_SECRET);
    path->has_secret = true;
    atomic_store(&path->moved, true);
    path_look(path, UDP_OVER_IPV4, 1000);
}

static void check_wishes(struct path *path)
{
    const uint16_t least = PATH_OUTER_MIN - UDP_OVER_IPV4 - 24;
    for (uint64_t now_ms = 2000; now_ms < 8000; now_ms += 1000) {
        uint16_t wish = path_look(path, UDP_OVER_IPV4, now_ms).blind;
        CHECK(wish == 0 || (wish >= least && wish <= LONGEST));
        CHECK(atomic_load(&path->fits) >= least && atomic_load(&path->fits) <= LONGEST);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fixture *fixture;
    if (fixture == NULL)
        fixture = fixture_new();
    if (size < 2)
        return 0;
    size_t length = data[0] % (BLIND_HEADER + 1);
    unsigned flags = data[1];
    data += 2, size -= 2;
    length = length < size ? length : size;
    uint8_t *quote = malloc(length);
    CHECK(quote != NULL || length == 0);
    if (length > 0)
        memcpy(quote, data, length);
    if ((flags & KNOWS_SECRET) && length == BLIND_HEADER) {
        put_u32(quote + BLIND_OWNER, FIXTURE_PEER);
        memcpy(quote + BLIND_SECRET, SECRET, PATH_SECRET);
    }
    bool knows = length == BLIND_HEADER && get_u32(quote + BLIND_OWNER) == FIXTURE_PEER &&
                 memcmp(quote + BLIND_SECRET, SECRET, PATH_SECRET) == 0;

    alignas(struct cmsghdr) uint8_t control[CONTROL_ROOM] = {0};
    struct iovec vector = {quote, length};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = put_control(control, data + length, size - length)};
    const struct blind blind = {.worker = fixture->peer->worker, .peers = &fixture->peers, .fd_v4 = -1, .fd_v6 = -1};
    struct path *of_peer = &fixture->peer->path, refused;
    begin(of_peer);
    begin(&refused);
    uint32_t mtu;
    struct path *path = blind_understand(&blind, &message, length, flags & REFUSED ? &refused : NULL, &mtu);
    CHECK(path == NULL || mtu > 0);
    CHECK(path == NULL || (path == of_peer && knows) || (path == &refused && (flags & REFUSED)));
    if (path != NULL) {
        path_told(path, mtu);
        check_wishes(path);
    }
    free(quote);
    return 0;
}
