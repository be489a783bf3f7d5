/* One wrapping of control packets and its keys: plain, tls-auth, tls-crypt (openvpn-wire.md section 6). cvpnd/wire/wrap is the
 * specification. The server's side of it: what a client sealed is opened, and the other way round.
 *
 * Nothing of a packet is used before its MAC has been verified. The contexts are for one thread at a time. */
#ifndef CVPND_CONTROL_KEYS_H
#define CVPND_CONTROL_KEYS_H

#include "control_packet.h"
#include "siv.h"

enum {
    KEY2_SIZE = 256, /* a whole pre-shared key: two halves of 64 bytes for a cipher and 64 for an HMAC */
    KEY2_HALF = 128,
    REPLAY_ID_SIZE = 8,
    WRAP_OVERHEAD_MAX = MAC_MAX + REPLAY_ID_SIZE, /* tls-auth with SHA512 */
};

enum wrapping { WRAP_REFUSED /* nobody without a key of its own */, WRAP_PLAIN, WRAP_TLS_AUTH, WRAP_TLS_CRYPT };

struct control_keys {
    enum wrapping kind;
    struct mac auth_open, auth_seal;   /* tls-auth */
    struct siv crypt_open, crypt_seal; /* tls-crypt */
};

/* `digest`: of tls-auth. False: no such digest, or memory is short; destroy them all the same. */
bool control_keys_init(struct control_keys *keys, enum wrapping kind, const char *digest);
void control_keys_destroy(struct control_keys *keys); /* wipes them */

/* `direction`: of tls-auth: 0, 1, or -1 for none. May be called again. False only if the library fails. */
bool control_keys_set(struct control_keys *keys, const uint8_t key2[static KEY2_SIZE], int direction);

size_t control_keys_overhead(const struct control_keys *keys);

/* CONTROL_GOOD, and the body, which lies in the packet or in `scratch`; or why it is dropped. The header was parsed. The
 * replay id, NULL where nothing counts, is authentic and nobody has looked at it. */
enum control_drop control_keys_open(struct control_keys *keys, const uint8_t *packet, size_t length,
                                    uint8_t scratch[static CONTROL_DATAGRAM_MAX], struct cursor *body,
                                    const uint8_t **replay_id);

/* The length of `wire`, which has room for WRAP_OVERHEAD_MAX more than `header | body`; 0 if the library fails. */
size_t control_keys_seal(struct control_keys *keys, const uint8_t header[static CONTROL_HEADER],
                         const uint8_t replay_id[static REPLAY_ID_SIZE], const uint8_t *body, size_t body_length,
                         uint8_t *wire);

#endif
