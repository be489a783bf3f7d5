/* What a packet of an unknown sender deserves, without keeping anything of it: cvpnd/wire/stateless.py is the
 * specification, and tests hold both to the same packets. No clock, no descriptors, no limits: those are the doorman's.
 *
 * The reply to a reset is 12 bytes longer than the shortest such reset and never longer than that; there is no other. */
#ifndef CVPND_STRANGER_H
#define CVPND_STRANGER_H

#include "protection.h"

enum {
    REPLY_GROWTH = 12, /* most bytes that a reply is longer than its request */
    REPLY_MAX = CONTROL_HEADER + 1 + 4 + SESSION_ID_SIZE + 4 + 6 + WRAP_OVERHEAD_MAX,
};

enum wish {
    WISH_NOTHING,        /* dropped */
    WISH_ANSWER,         /* an authentic reset: stranger_answer */
    WISH_BEGIN,          /* it echoes our cookie: its session may begin */
    WISH_BEGIN_UNPROVEN, /* an authentic reset of a client that cannot (tls-crypt-v2 of OpenVPN 2.5) */
};

/* Who judges: all belong to the caller, and to one thread at a time. */
struct stranger_rules {
    struct reset_cookie *cookie;
    struct protection *protection;
    unsigned slot_s; /* half the endpoint's hand-window */
};

struct moment {
    uint64_t monotonic_s;
    uint32_t wall_s;
};

/* `drop` is set with WISH_NOTHING. `opened` is for stranger_answer, before the next call. */
enum wish stranger_judge(const struct stranger_rules *rules, const struct moment *now, const uint8_t *packet,
                         size_t length, const struct socket_address *source, struct opened *opened,
                         enum control_drop *drop);

/* The length of the reply; 0 if the library fails or it would be too long. */
size_t stranger_answer(const struct stranger_rules *rules, const struct moment *now, size_t request_length,
                       const struct socket_address *source, const struct opened *opened,
                       uint8_t reply[static REPLY_MAX]);

#endif
