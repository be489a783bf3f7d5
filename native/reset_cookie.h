/* Our session id of the first exchange over UDP, made from what we are told and kept nowhere: the same bytes as
 * cvpnd/wire/reset_cookie.py, which is the specification (openvpn-wire.md section 5.2). For one thread at a time. */
#ifndef CVPND_RESET_COOKIE_H
#define CVPND_RESET_COOKIE_H

#include "address.h"
#include "mac.h"

enum { SESSION_ID_SIZE = 8, COOKIE_SECRET_SHORTEST = 32, COOKIE_SLOTS = 3 };

struct reset_cookie {
    struct mac mac;
};

bool reset_cookie_init(struct reset_cookie *cookie, const uint8_t *secret, size_t length);
void reset_cookie_destroy(struct reset_cookie *cookie);

/* `slot`: the monotonic clock in units of half the endpoint's hand-window. */
bool reset_cookie_make(struct reset_cookie *cookie, const struct socket_address *source,
                       const uint8_t client_sid[static SESSION_ID_SIZE], int64_t slot,
                       uint8_t session_id[static SESSION_ID_SIZE]);

/* Of this slot or one of the two before. Constant time in the bytes; all slots are tried whatever the result. */
bool reset_cookie_verify(struct reset_cookie *cookie, const struct socket_address *source,
                         const uint8_t client_sid[static SESSION_ID_SIZE], int64_t slot,
                         const uint8_t session_id[static SESSION_ID_SIZE]);

#endif
