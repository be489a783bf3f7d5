/* CBC with an HMAC, for clients that have no AEAD cipher (openvpn-wire.md 11.2). On the wire, behind the header:
 *
 *   HMAC | IV | ciphertext, a multiple of the block      the HMAC covers all that follows it, and not the header
 *
 * Inside the ciphertext a text and PKCS#7 padding. A context is made once and kept, and belongs to one worker, as in
 * aead.h; OpenSSL makes all of them, as who has no AEAD has no hurry. */
#ifndef CVPND_CBC_H
#define CVPND_CBC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counters.h"
#include "wire.h"

struct cbc_cipher; /* one of a few constants */

struct cbc_digest {
    const char *name; /* as OpenVPN and OpenSSL both call it */
    size_t size;      /* of its result, and of its key */
};

struct cbc_suite {
    const struct cbc_cipher *cipher;
    const struct cbc_digest *digest;
};

/* False when there is no such cipher or digest. */
bool cbc_suite_find(struct cbc_suite *suite, const char *cipher, const char *digest);

size_t cbc_key_size(const struct cbc_suite *suite);

/* Both directions of one key id. */
struct cbc_keys;

/* NULL when memory is short. */
struct cbc_keys *cbc_keys_new(const struct cbc_suite *suite, unsigned workers, const uint8_t *open_key,
                              const uint8_t *open_hmac_key, const uint8_t *seal_key, const uint8_t *seal_hmac_key);
void cbc_keys_free(struct cbc_keys *keys); /* wipes; NULL is allowed */

/* Opens in place what follows a header, as the peer's worker: afterwards `*bytes` and `*length` are the text, perhaps
 * of no byte. Nothing is decrypted before the HMAC was found right. */
enum drop_reason cbc_open(struct cbc_keys *keys, uint8_t **bytes, uint32_t *length);

/* Seals a text in place, which grows by HMAC and IV before it and by one byte to a block behind it: see SEAL_HEADROOM
 * and SEAL_TAILROOM. False on a failure inside the library, or when memory is short. */
bool cbc_seal(struct cbc_keys *keys, unsigned worker, uint8_t **bytes, uint32_t *length);

#endif
