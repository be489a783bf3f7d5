/* The wrappings of control packets that an endpoint accepts from strangers, and what its reply to them is wrapped in:
 * plain, tls-auth, tls-crypt, tls-crypt-v2 (openvpn-wire.md section 6). cvpnd/wire/wrap/protection.py is the specification.
 *
 * Nothing of a packet is used before its MAC has been verified. Replay ids are authentic then, and not looked at: there
 * is no window for a stranger. Immutable but for its contexts, which are for one thread at a time. */
#ifndef CVPND_PROTECTION_H
#define CVPND_PROTECTION_H

#include "control_keys.h"

enum { SERVER_KEY_SIZE = 128 };

struct protection_settings {
    enum wrapping shared;
    const uint8_t *key2;       /* of tls-auth and tls-crypt */
    const char *digest;        /* of tls-auth */
    int direction;             /* of tls-auth: 0, 1, or -1 for none */
    const uint8_t *server_key; /* of tls-crypt-v2; NULL: not accepted */
    bool allow_stateful;       /* let clients in that cannot echo a cookie (tls-crypt-v2 of OpenVPN 2.5) */
};

struct protection;

/* NULL: no such digest, or memory is short. */
struct protection *protection_new(const struct protection_settings *settings);
void protection_free(struct protection *protection); /* wipes its keys */

bool protection_allows_stateful(const struct protection *protection);

struct client;

/* An authentic packet. The body lies in the packet or in the protection's scratch space: until the next call. */
struct opened {
    struct control_header header;
    struct control_body body;
    struct client *client;  /* whose own key it brought, for the reply; NULL: it uses the shared one */
    bool early_negotiation; /* and understands that it should bring it again */
};

/* CONTROL_GOOD, or why it is dropped. */
enum control_drop protection_open(struct protection *protection, const uint8_t *packet, size_t length,
                                  struct opened *opened);

/* Wraps `header | body` as the reply to what was opened last, with replay id 1; the length, or 0 if the library
 * fails. `wire` has room for WRAP_OVERHEAD_MAX more bytes. */
size_t protection_seal(struct protection *protection, const struct opened *opened,
                       const uint8_t header[static CONTROL_HEADER], const uint8_t *body, size_t body_length,
                       uint32_t wall_s, uint8_t *wire);

#endif
