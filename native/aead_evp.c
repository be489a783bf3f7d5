#include "aead_evp.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>

/* A context of ours is an EVP_CIPHER_CTX with key and direction set. */
static EVP_CIPHER_CTX *evp(struct aead_context *context) { return (EVP_CIPHER_CTX *)context; }

static struct aead_context *evp_context_new(enum aead_cipher_id cipher, enum aead_direction direction,
                                            const uint8_t *key)
{
    static const EVP_CIPHER *(*const ciphers[AEAD_CIPHERS])(void) = {
        [AES_128_GCM] = EVP_aes_128_gcm,
        [AES_192_GCM] = EVP_aes_192_gcm,
        [AES_256_GCM] = EVP_aes_256_gcm,
        [CHACHA20_POLY1305] = EVP_chacha20_poly1305,
    };
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context == NULL)
        return NULL;
    if (!EVP_CipherInit_ex(context, ciphers[cipher](), NULL, key, NULL, direction == AEAD_SEAL)) {
        EVP_CIPHER_CTX_free(context);
        return NULL;
    }
    return (struct aead_context *)context;
}

static void evp_context_free(struct aead_context *context) { EVP_CIPHER_CTX_free(evp(context)); }

static bool evp_seal(struct aead_context *context, const uint8_t nonce[static NONCE_SIZE], const uint8_t *ad,
                     size_t ad_length, uint8_t *text, size_t length, uint8_t tag[static TAG_SIZE])
{
    EVP_CIPHER_CTX *ctx = evp(context);
    int written;
    return EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce) &&
           EVP_EncryptUpdate(ctx, NULL, &written, ad, (int)ad_length) &&
           EVP_EncryptUpdate(ctx, text, &written, text, (int)length) &&
           EVP_EncryptFinal_ex(ctx, text + length, &written) &&
           EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, tag);
}

static bool evp_open(struct aead_context *context, const uint8_t nonce[static NONCE_SIZE], const uint8_t *ad,
                     size_t ad_length, uint8_t *text, size_t length, const uint8_t tag[static TAG_SIZE])
{
    EVP_CIPHER_CTX *ctx = evp(context);
    int written;
    uint8_t expected[TAG_SIZE]; /* the ctrl call takes it without const */
    memcpy(expected, tag, TAG_SIZE);
    return EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, nonce) &&
           EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, expected) &&
           EVP_DecryptUpdate(ctx, NULL, &written, ad, (int)ad_length) &&
           EVP_DecryptUpdate(ctx, text, &written, text, (int)length) &&
           EVP_DecryptFinal_ex(ctx, text + length, &written);
}

static const char *evp_describe(void)
{
    static char text[64]; /* the same text each time */
    snprintf(text, sizeof text, "OpenSSL EVP (OpenSSL %s)", OpenSSL_version(OPENSSL_VERSION_STRING));
    return text;
}

const struct aead_backend AEAD_EVP = {
    .context_new = evp_context_new,
    .context_free = evp_context_free,
    .seal = evp_seal,
    .open = evp_open,
    .describe = evp_describe,
};
