/* Control packets as anybody may send them: parse, and why not (openvpn-wire.md sections 2.2 and 3).
 * cvpnd/wire/packet.py is the specification; the words are those of DropReason in cvpnd/wire/errors.py. */
#ifndef CVPND_CONTROL_PACKET_H
#define CVPND_CONTROL_PACKET_H

#include "reset_cookie.h"
#include "wire.h"

#define CONTROL_DROPS(X)                                                                                             \
    X(TRUNCATED, "truncated")                                                                                        \
    X(BAD_OPCODE, "bad_opcode")                                                                                      \
    X(BAD_KEY_ID, "bad_key_id")                                                                                      \
    X(BAD_SESSION_ID, "bad_session_id")                                                                              \
    X(TOO_MANY_ACKS, "too_many_acks")                                                                                \
    X(TOO_LONG, "too_long")                                                                                          \
    X(NO_ACK, "no_ack")                                                                                              \
    X(LATE_PACKET, "late_packet")                                                                                    \
    X(BAD_COOKIE, "bad_cookie")                                                                                      \
    X(NOT_AUTHENTIC, "not_authentic")                                                                                \
    X(BAD_CLIENT_KEY, "bad_client_key")                                                                              \
    X(STATE_NEEDED, "state_needed")                                                                                  \
    X(RATE_LIMITED, "rate_limited")                                                                                  \
    X(QUEUE_FULL, "queue_full")                                                                                      \
    X(LIVE_CLIENT, "live_client")                                                                                    \
    X(CLOSED, "closed")                                                                                              \
    X(REPLAYED, "replayed")                                                                                          \
    X(UNROUTABLE, "unroutable")                                                                                      \
    X(UNKNOWN_KEY_ID, "unknown_key_id")                                                                              \
    X(FOREIGN_ACK, "foreign_ack")                                                                                    \
    X(BEYOND_WINDOW, "beyond_window")

enum control_drop {
#define X(name, word) CONTROL_##name,
    CONTROL_DROPS(X)
#undef X
        CONTROL_DROP_COUNT,
    CONTROL_GOOD = CONTROL_DROP_COUNT,
};

extern const char *const CONTROL_DROP_WORDS[CONTROL_DROP_COUNT];

enum {
    CONTROL_HEADER = 1 + SESSION_ID_SIZE,
    CONTROL_DATAGRAM_MAX = 2048, /* largest any client may be configured to send (section 1) */
    CONTROL_PAYLOAD_MAX = 1600,
    ACKS_MAX = 8,
    CLIENT_KEY_SHORTEST = 32 + 256 + 2, /* wrapped: tag, key, length (section 6.4) */
    CLIENT_KEY_LONGEST = 1024,
};

/* The part in clear: what the first byte and the sender's session id say. */
struct control_header {
    uint8_t opcode;
    uint8_t key_id;
    const uint8_t *session_id;
};

/* The part behind it, unwrapped. */
struct control_body {
    unsigned ack_count;
    uint32_t acks[ACKS_MAX];
    uint32_t highest_ack;
    const uint8_t *remote_session_id; /* NULL without acknowledgements */
    uint32_t packet_id;               /* 0 in P_ACK_V1, which has none */
    struct cursor payload;            /* empty in P_ACK_V1 */
};

/* CONTROL_GOOD, or why not. What they point at lies in `packet`. */
enum control_drop control_parse_header(struct control_header *header, const uint8_t *packet, size_t length);
enum control_drop control_parse_body(struct control_body *body, uint8_t opcode, struct cursor rest);

/* The length of a packet of `control_brings_key` without the wrapped key at its end. */
enum control_drop control_split_client_key(const uint8_t *packet, size_t length, size_t *inner_length);

static inline bool control_is_client_reset(uint8_t opcode)
{
    return opcode == P_CONTROL_HARD_RESET_CLIENT_V2 || opcode == P_CONTROL_HARD_RESET_CLIENT_V3;
}
/* These carry the sender's own key (tls-crypt-v2). */
static inline bool control_brings_key(uint8_t opcode)
{
    return opcode == P_CONTROL_HARD_RESET_CLIENT_V3 || opcode == P_CONTROL_WKC_V1;
}

#endif
