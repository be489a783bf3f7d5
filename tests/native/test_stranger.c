/* Judging strangers: what each compare keeps out. tests/server/test_doorman_twin.py holds all of it to the plain Python. */
#include <arpa/inet.h>

#include "check.h"
#include "siv.h"
#include "stranger.h"

static const uint8_t SECRET[32] = "a secret of thirty-two bytes, or";
static const uint8_t CLIENT_SID[SESSION_ID_SIZE] = "clientid";
static const struct moment NOW = {.monotonic_s = 1000, .wall_s = 1700000000};
static uint8_t key2[KEY2_SIZE], server_key[SERVER_KEY_SIZE];
static struct reset_cookie cookie;

static struct socket_address source(const char *text, uint16_t port)
{
    uint8_t bytes[4];
    CHECK(inet_pton(AF_INET, text, bytes) == 1);
    return (struct socket_address){.ip = ip_from_v4(bytes), .port = port};
}

static struct stranger_rules rules_of(const struct protection_settings *settings)
{
    struct protection *protection = protection_new(settings);
    CHECK(protection != NULL);
    return (struct stranger_rules){&cookie, protection, 30};
}

static size_t make_reset(uint8_t packet[static 14])
{
    memset(packet, 0, 14);
    packet[0] = P_CONTROL_HARD_RESET_CLIENT_V2 << 3;
    memcpy(packet + 1, CLIENT_SID, SESSION_ID_SIZE);
    return 14;
}

static size_t make_echo(uint8_t packet[static 26], const uint8_t *session_id)
{
    memset(packet, 0, 26);
    packet[0] = P_CONTROL_V1 << 3;
    memcpy(packet + 1, CLIENT_SID, SESSION_ID_SIZE);
    packet[9] = 1;
    memcpy(packet + 14, session_id, SESSION_ID_SIZE);
    packet[25] = 1;
    return 26;
}

static enum wish judge(const struct stranger_rules *rules, const struct moment *now, const uint8_t *packet,
                       size_t length, const struct socket_address *from, enum control_drop *drop)
{
    struct opened opened;
    return stranger_judge(rules, now, packet, length, from, &opened, drop);
}

static void first_exchange(void)
{
    struct stranger_rules rules = rules_of(&(struct protection_settings){.shared = WRAP_PLAIN});
    struct socket_address here = source("192.0.2.7", 40000), there = source("192.0.2.7", 40001);
    uint8_t packet[26], reply[REPLY_MAX];
    struct opened opened;
    enum control_drop drop;
    size_t length = make_reset(packet);
    CHECK(stranger_judge(&rules, &NOW, packet, length, &here, &opened, &drop) == WISH_ANSWER);
    CHECK_EQUAL(stranger_answer(&rules, &NOW, length, &here, &opened, reply), 26);
    CHECK_EQUAL(reply[0], P_CONTROL_HARD_RESET_SERVER_V2 << 3);
    CHECK(memcmp(reply + 14, CLIENT_SID, SESSION_ID_SIZE) == 0);
    CHECK_EQUAL(stranger_answer(&rules, &NOW, 13, &here, &opened, reply), 0); /* never more than 12 bytes longer */

    length = make_echo(packet, reply + 1);
    CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_BEGIN);
    CHECK(judge(&rules, &NOW, packet, length, &there, &drop) == WISH_NOTHING && drop == CONTROL_BAD_COOKIE);
    for (unsigned bit = 0; bit < 64; bit++) {
        packet[14 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_NOTHING && drop == CONTROL_BAD_COOKIE);
        packet[14 + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    struct moment later = {.monotonic_s = NOW.monotonic_s + 60};
    CHECK(judge(&rules, &later, packet, length, &here, &drop) == WISH_BEGIN);
    later.monotonic_s += 60;
    CHECK(judge(&rules, &later, packet, length, &here, &drop) == WISH_NOTHING && drop == CONTROL_BAD_COOKIE);
    packet[25] = 2;
    CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_NOTHING && drop == CONTROL_LATE_PACKET);
    packet[25] = 1, packet[13] = 2;
    CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_NOTHING && drop == CONTROL_LATE_PACKET);
    protection_free(rules.protection);
}

/* Seals with a protection that sees the key from the client's side, if there is one. */
static size_t wrap(struct protection *client, const uint8_t *plain, size_t length, uint8_t *wire)
{
    struct opened none = {0};
    return protection_seal(client, &none, plain, plain + CONTROL_HEADER, length - CONTROL_HEADER, 1, wire);
}

static void changed_bytes_are_not_authentic(enum wrapping shared, const char *digest)
{
    uint8_t turned[KEY2_SIZE]; /* tls-crypt gives each side its half */
    memcpy(turned, key2 + KEY2_SIZE / 2, KEY2_SIZE / 2);
    memcpy(turned + KEY2_SIZE / 2, key2, KEY2_SIZE / 2);
    bool auth = shared == WRAP_TLS_AUTH;
    struct protection *client = protection_new(&(struct protection_settings){
        .shared = shared, .key2 = auth ? key2 : turned, .digest = digest, .direction = 1});
    struct stranger_rules rules =
        rules_of(&(struct protection_settings){.shared = shared, .key2 = key2, .digest = digest, .direction = 0});
    struct socket_address here = source("192.0.2.7", 40000);
    uint8_t plain[14], wire[14 + WRAP_OVERHEAD_MAX];
    enum control_drop drop;
    size_t length = wrap(client, plain, make_reset(plain), wire);
    CHECK(judge(&rules, &NOW, wire, length, &here, &drop) == WISH_ANSWER);
    for (size_t at = 1; at < length; at++) {
        wire[at] ^= 1;
        CHECK(judge(&rules, &NOW, wire, length, &here, &drop) == WISH_NOTHING && drop == CONTROL_NOT_AUTHENTIC);
        wire[at] ^= 1;
        CHECK(judge(&rules, &NOW, wire, at, &here, &drop) == WISH_NOTHING);
    }
    CHECK(judge(&rules, &NOW, plain, sizeof plain, &here, &drop) == WISH_NOTHING && drop == CONTROL_NOT_AUTHENTIC);
    protection_free(client);
    protection_free(rules.protection);
}

static void wrapped_packets(void)
{
    changed_bytes_are_not_authentic(WRAP_TLS_AUTH, "SHA1");
    changed_bytes_are_not_authentic(WRAP_TLS_AUTH, "SHA512");
    changed_bytes_are_not_authentic(WRAP_TLS_CRYPT, "");
    CHECK(protection_new(&(struct protection_settings){.shared = WRAP_TLS_AUTH, .key2 = key2, .digest = "MD0"}) ==
          NULL);
}

/* openvpn3 2026: the length field of a client key was believed. */
static void client_key_of_any_length_stays_inside_its_packet(void)
{
    struct stranger_rules rules = rules_of(
        &(struct protection_settings){.shared = WRAP_REFUSED, .server_key = server_key, .allow_stateful = true});
    struct socket_address here = source("192.0.2.7", 40000);
    for (size_t length = CONTROL_HEADER; length <= 1200; length += 13) {
        uint8_t *packet = calloc(1, length); /* with no byte to spare */
        CHECK(packet != NULL);
        for (unsigned claimed = 0; claimed <= UINT16_MAX; claimed += 7) {
            enum control_drop drop;
            packet[0] = P_CONTROL_HARD_RESET_CLIENT_V3 << 3;
            packet[1] = 1;
            put_u16(packet + length - 2, (uint16_t)claimed);
            CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_NOTHING);
        }
        free(packet);
    }
    protection_free(rules.protection);
}

enum { WKC_SIZE = SIV_TAG_SIZE + KEY2_SIZE + 4 + 2, V3_SIZE = CONTROL_HEADER + 8 + SIV_TAG_SIZE + 5 };

/* A client's key2, all bytes of it `which`, wrapped with four bytes of metadata. */
static void make_wkc(struct siv *server, uint8_t which, uint32_t metadata, uint8_t wkc[static WKC_SIZE])
{
    uint8_t plain[KEY2_SIZE + 4];
    memset(plain, which, KEY2_SIZE);
    put_u32(plain + KEY2_SIZE, metadata);
    put_u16(wkc + WKC_SIZE - 2, WKC_SIZE);
    CHECK(siv_seal(server, wkc + WKC_SIZE - 2, 2, plain, sizeof plain, wkc, wkc + SIV_TAG_SIZE));
}

/* A reset under the key `which`, with room behind it for the wrapped key. */
static size_t make_v3(uint8_t which, const uint8_t wkc[static WKC_SIZE], uint8_t packet[static V3_SIZE + WKC_SIZE])
{
    uint8_t key[SIV_KEY_SIZE];
    const uint8_t body[5] = {0};
    struct siv siv;
    memset(key, which, sizeof key);
    CHECK(siv_init(&siv) && siv_set_key(&siv, key, key));
    packet[0] = P_CONTROL_HARD_RESET_CLIENT_V3 << 3;
    memcpy(packet + 1, CLIENT_SID, SESSION_ID_SIZE);
    put_u32(packet + CONTROL_HEADER, 0x0F000001);
    put_u32(packet + CONTROL_HEADER + 4, 1);
    uint8_t *tag = packet + CONTROL_HEADER + 8;
    CHECK(siv_seal(&siv, packet, CONTROL_HEADER + 8, body, sizeof body, tag, tag + SIV_TAG_SIZE));
    siv_destroy(&siv);
    memcpy(packet + V3_SIZE, wkc, WKC_SIZE);
    return V3_SIZE + WKC_SIZE;
}

static void answered_under(uint8_t which, const uint8_t *reply, size_t length)
{
    uint8_t key[SIV_KEY_SIZE], plain[64];
    struct siv siv;
    memset(key, which, sizeof key);
    CHECK(siv_init(&siv) && siv_set_key(&siv, key, key));
    const uint8_t *tag = reply + CONTROL_HEADER + 8;
    size_t sealed = length - CONTROL_HEADER - 8 - SIV_TAG_SIZE;
    CHECK(sealed <= sizeof plain);
    CHECK(siv_open(&siv, reply, CONTROL_HEADER + 8, tag, tag + SIV_TAG_SIZE, sealed, plain));
    siv_destroy(&siv);
}

/* What is kept of a client key serves its own client's packets and no others, whoever else has its place meanwhile. */
static void kept_client_keys_serve_their_own(void)
{
    struct stranger_rules rules =
        rules_of(&(struct protection_settings){.shared = WRAP_REFUSED, .server_key = server_key});
    struct socket_address here = source("192.0.2.7", 40000);
    struct siv server;
    CHECK(siv_init(&server) && siv_set_key(&server, server_key, server_key + 64));
    uint8_t wkc[2][WKC_SIZE], packet[V3_SIZE + WKC_SIZE], reply[REPLY_MAX];
    make_wkc(&server, 0, 0, wkc[0]);
    uint32_t metadata = 0;
    do
        make_wkc(&server, 1, metadata++, wkc[1]);
    while (wkc[1][0] != wkc[0][0]); /* both in one place */
    struct opened opened;
    enum control_drop drop;
    for (unsigned turn = 0; turn < 6; turn++) {
        uint8_t which = turn / 2 % 2; /* twice each: from what is kept, too */
        size_t length = make_v3(which, wkc[which], packet);
        CHECK(stranger_judge(&rules, &NOW, packet, length, &here, &opened, &drop) == WISH_ANSWER);
        answered_under(which, reply, stranger_answer(&rules, &NOW, length, &here, &opened, reply));
        make_v3(!which, wkc[which], packet); /* somebody else's packet in front of this key */
        CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_NOTHING && drop == CONTROL_NOT_AUTHENTIC);
        make_v3(which, wkc[which], packet);
        for (size_t at = V3_SIZE + 1; at < length - 2; at += 3) {
            packet[at] ^= 1;
            CHECK(judge(&rules, &NOW, packet, length, &here, &drop) == WISH_NOTHING &&
                  drop == CONTROL_BAD_CLIENT_KEY);
            packet[at] ^= 1;
        }
    }
    siv_destroy(&server);
    protection_free(rules.protection);
}

int main(void)
{
    for (unsigned i = 0; i < KEY2_SIZE; i++)
        key2[i] = (uint8_t)(i * 7 + 3);
    memcpy(server_key, key2, sizeof server_key);
    CHECK(reset_cookie_init(&cookie, SECRET, sizeof SECRET));
    RUN(first_exchange);
    RUN(wrapped_packets);
    RUN(client_key_of_any_length_stays_inside_its_packet);
    RUN(kept_client_keys_serve_their_own);
    reset_cookie_destroy(&cookie);
    return 0;
}
