/* The data channel's ciphers behind two calls, seal and open, both in place.
 *
 * A context holds one key in one direction and belongs to one worker. It is made once and kept: giving OpenSSL the
 * key again for each packet costs 370 ns, a new context 880 (DATAPLANE.md), so a packet only sets the nonce. */
#ifndef CVPND_AEAD_H
#define CVPND_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum { AEAD_KEY_MAX = 32 };

enum aead_cipher_id { AES_128_GCM, AES_192_GCM, AES_256_GCM, CHACHA20_POLY1305, AEAD_CIPHERS };

struct aead_cipher {
    const char *name; /* as pushed to clients */
    size_t key_size;
    bool counts_blocks; /* AES-GCM has a limit on blocks under one key (section 11.4), ChaCha20-Poly1305 has none */
};

extern const struct aead_cipher AEAD_CIPHER[AEAD_CIPHERS];

/* AEAD_CIPHERS when there is no such cipher. */
enum aead_cipher_id aead_cipher_find(const char *name);

enum aead_direction { AEAD_OPEN, AEAD_SEAL };

/* The backend's own; key material inside is wiped by context_free. */
struct aead_context;

struct aead_backend {
    /* NULL when memory is short or the library does not offer the cipher. */
    struct aead_context *(*context_new)(enum aead_cipher_id cipher, enum aead_direction direction,
                                        const uint8_t *key);
    void (*context_free)(struct aead_context *context); /* NULL is allowed */

    /* Encrypts `text` in place and writes the tag. False only on a failure inside the library. */
    bool (*seal)(struct aead_context *context, const uint8_t nonce[static NONCE_SIZE], const uint8_t *ad,
                 size_t ad_length, uint8_t *text, size_t length, uint8_t tag[static TAG_SIZE]);

    /* Decrypts `text` in place; false when the tag does not match, and `text` is then worthless. */
    bool (*open)(struct aead_context *context, const uint8_t nonce[static NONCE_SIZE], const uint8_t *ad,
                 size_t ad_length, uint8_t *text, size_t length, const uint8_t tag[static TAG_SIZE]);

    /* For the log line at start. Static storage. */
    const char *(*describe)(void);
};

/* What daemon.packet_crypto says. */
enum aead_choice { AEAD_CHOOSE_FASTEST, AEAD_CHOOSE_OPENSSL, AEAD_CHOOSE_IPSEC_MB, AEAD_CHOICES };

/* AEAD_CHOICES when there is no such word: "auto", "openssl", "ipsec-mb". */
enum aead_choice aead_choice_find(const char *word);

/* The backend of that choice, the fastest for AEAD_CHOOSE_FASTEST; NULL when it is not to be had on this machine. */
const struct aead_backend *aead_backend_of(enum aead_choice choice);

/* The fastest backend for this machine. */
const struct aead_backend *aead_backend(void);

#endif
