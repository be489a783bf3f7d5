#include "siv.h"

#include <openssl/evp.h>
#include <string.h>

bool siv_init(struct siv *siv)
{
    siv->aes = EVP_CIPHER_CTX_new();
    return mac_init(&siv->mac, "SHA256") && siv->aes != NULL &&
           EVP_CipherInit_ex(siv->aes, EVP_aes_256_ctr(), NULL, NULL, NULL, 1) == 1;
}

void siv_destroy(struct siv *siv)
{
    EVP_CIPHER_CTX_free(siv->aes);
    mac_destroy(&siv->mac);
}

bool siv_set_key(struct siv *siv, const uint8_t cipher[static SIV_KEY_SIZE], const uint8_t hmac[static SIV_KEY_SIZE])
{
    return EVP_CipherInit_ex(siv->aes, NULL, NULL, cipher, NULL, 1) == 1 &&
           mac_set_key(&siv->mac, hmac, SIV_KEY_SIZE);
}

static bool siv_crypt(struct siv *siv, const uint8_t tag[static SIV_TAG_SIZE], const uint8_t *from, size_t length,
                      uint8_t *into)
{
    int written;
    return EVP_CipherInit_ex(siv->aes, NULL, NULL, NULL, tag, 1) == 1 &&
           EVP_CipherUpdate(siv->aes, into, &written, from, (int)length) == 1;
}

bool siv_open(struct siv *siv, const uint8_t *ad, size_t ad_length, const uint8_t *tag, const uint8_t *sealed,
              size_t length, uint8_t *plain)
{
    const struct part parts[] = {{ad, ad_length}, {plain, length}};
    return siv_crypt(siv, tag, sealed, length, plain) && mac_matches(&siv->mac, parts, 2, tag, SIV_TAG_SIZE);
}

bool siv_seal(struct siv *siv, const uint8_t *ad, size_t ad_length, const uint8_t *plain, size_t length, uint8_t *tag,
              uint8_t *sealed)
{
    uint8_t result[MAC_MAX];
    const struct part parts[] = {{ad, ad_length}, {plain, length}};
    if (!mac_compute(&siv->mac, parts, 2, result))
        return false;
    memcpy(tag, result, SIV_TAG_SIZE);
    return siv_crypt(siv, tag, plain, length, sealed);
}
