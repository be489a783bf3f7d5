/* AES-256-CTR with the HMAC-SHA256 tag as its initial counter: tls-crypt and the wrapped client keys of tls-crypt-v2
 * (openvpn-wire.md sections 6.3 and 6.4). The contexts are for one thread at a time. */
#ifndef CVPND_SIV_H
#define CVPND_SIV_H

#include <openssl/types.h>

#include "mac.h"

enum { SIV_KEY_SIZE = 32, SIV_TAG_SIZE = 32 };

struct siv {
    EVP_CIPHER_CTX *aes;
    struct mac mac;
};

bool siv_init(struct siv *siv); /* false: destroy it all the same */
void siv_destroy(struct siv *siv);
bool siv_set_key(struct siv *siv, const uint8_t cipher[static SIV_KEY_SIZE], const uint8_t hmac[static SIV_KEY_SIZE]);

/* Decrypts first, as the construction demands; false leaves `plain` for nobody to use. */
bool siv_open(struct siv *siv, const uint8_t *ad, size_t ad_length, const uint8_t *tag, const uint8_t *sealed,
              size_t length, uint8_t *plain);
bool siv_seal(struct siv *siv, const uint8_t *ad, size_t ad_length, const uint8_t *plain, size_t length, uint8_t *tag,
              uint8_t *sealed);

#endif
