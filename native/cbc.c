#include "cbc.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "iv.h"
#include "mac.h"

struct cbc_cipher {
    const char *name;
    size_t key_size;
    const EVP_CIPHER *(*evp)(void);
};

static const struct cbc_cipher CIPHERS[] = {
    {"AES-128-CBC", 16, EVP_aes_128_cbc},
    {"AES-192-CBC", 24, EVP_aes_192_cbc},
    {"AES-256-CBC", 32, EVP_aes_256_cbc},
};
static const struct cbc_digest DIGESTS[] = {{"SHA1", 20}, {"SHA256", 32}, {"SHA384", 48}, {"SHA512", 64}};

enum {
    CIPHER_COUNT = sizeof CIPHERS / sizeof *CIPHERS,
    DIGEST_COUNT = sizeof DIGESTS / sizeof *DIGESTS,
    KEY_MAX = 32
};
_Static_assert((int)MAC_MAX == (int)HMAC_MAX && (int)IV_SIZE == (int)CBC_BLOCK, "the numbers of wire.h");

/* One direction, one worker. */
struct context {
    EVP_CIPHER_CTX *cipher; /* key and direction set; NULL = not made yet */
    struct mac mac;
};

struct cbc_keys {
    /* Constant. */
    struct cbc_suite suite;
    unsigned workers;
    uint8_t seal_key[KEY_MAX]; /* kept for workers that have no context yet */
    uint8_t seal_hmac_key[HMAC_MAX];

    struct context open; /* the peer's worker only */

    /* Its worker only. */
    struct sealer {
        alignas(64) struct context context;
    } sealers[];
};

bool cbc_suite_find(struct cbc_suite *suite, const char *cipher, const char *digest)
{
    *suite = (struct cbc_suite){NULL, NULL};
    for (unsigned i = 0; i < CIPHER_COUNT; i++)
        if (strcmp(CIPHERS[i].name, cipher) == 0)
            suite->cipher = &CIPHERS[i];
    for (unsigned i = 0; i < DIGEST_COUNT; i++)
        if (strcmp(DIGESTS[i].name, digest) == 0)
            suite->digest = &DIGESTS[i];
    return suite->cipher != NULL && suite->digest != NULL;
}

size_t cbc_key_size(const struct cbc_suite *suite) { return suite->cipher->key_size; }

/* -- contexts ----------------------------------------------------------------------------------------------------- */

static void context_clear(struct context *context)
{
    EVP_CIPHER_CTX_free(context->cipher); /* both wipe their keys */
    context->cipher = NULL;
    mac_destroy(&context->mac);
}

static bool context_init(struct context *context, const struct cbc_suite *suite, bool seal, const uint8_t *key,
                         const uint8_t *hmac_key)
{
    context->cipher = EVP_CIPHER_CTX_new();
    /* Padding is ours: OpenSSL's would hold the last block back until the end. */
    if (context->cipher != NULL && mac_init(&context->mac, suite->digest->name) &&
        mac_set_key(&context->mac, hmac_key, suite->digest->size) &&
        EVP_CipherInit_ex(context->cipher, suite->cipher->evp(), NULL, key, NULL, seal) &&
        EVP_CIPHER_CTX_set_padding(context->cipher, 0))
        return true;
    context_clear(context);
    return false;
}

/* Whole blocks, in place, in the context's direction. */
static bool crypt_blocks(const struct context *context, const uint8_t *iv, uint8_t *blocks, uint32_t length)
{
    int written = 0;
    return EVP_CipherInit_ex(context->cipher, NULL, NULL, NULL, iv, -1) &&
           EVP_CipherUpdate(context->cipher, blocks, &written, blocks, (int)length) && written == (int)length;
}

struct cbc_keys *cbc_keys_new(const struct cbc_suite *suite, unsigned workers, const uint8_t *open_key,
                              const uint8_t *open_hmac_key, const uint8_t *seal_key, const uint8_t *seal_hmac_key)
{
    size_t size = (sizeof(struct cbc_keys) + workers * sizeof(struct sealer) + 63) / 64 * 64;
    struct cbc_keys *keys = aligned_alloc(64, size);
    if (keys == NULL)
        return NULL;
    memset(keys, 0, size);
    keys->suite = *suite;
    keys->workers = workers;
    memcpy(keys->seal_key, seal_key, suite->cipher->key_size);
    memcpy(keys->seal_hmac_key, seal_hmac_key, suite->digest->size);
    if (context_init(&keys->open, suite, false, open_key, open_hmac_key))
        return keys;
    cbc_keys_free(keys);
    return NULL;
}

void cbc_keys_free(struct cbc_keys *keys)
{
    if (keys == NULL)
        return;
    context_clear(&keys->open);
    for (unsigned i = 0; i < keys->workers; i++)
        context_clear(&keys->sealers[i].context);
    OPENSSL_cleanse(keys, sizeof *keys + keys->workers * sizeof keys->sealers[0]);
    free(keys);
}

/* -- packets ------------------------------------------------------------------------------------------------------ */

/* Takes PKCS#7 padding off authentic blocks, so whoever measures how long this takes learns what he knew. */
static bool strip_padding(const uint8_t *text, uint32_t *length)
{
    uint8_t padding = text[*length - 1];
    if (padding < 1 || padding > CBC_BLOCK)
        return false;
    for (unsigned i = 2; i <= padding; i++)
        if (text[*length - i] != padding)
            return false;
    *length -= padding;
    return true;
}

enum drop_reason cbc_open(struct cbc_keys *keys, uint8_t **bytes, uint32_t *length)
{
    const size_t hmac_size = keys->suite.digest->size;
    const size_t before = hmac_size + CBC_BLOCK;
    if (*length < before + CBC_BLOCK || (*length - before) % CBC_BLOCK != 0)
        return DROP_TRUNCATED;
    const uint8_t *hmac = *bytes, *iv = hmac + hmac_size;
    const struct part authentic = {iv, *length - hmac_size};
    if (!mac_matches(&keys->open.mac, &authentic, 1, hmac, hmac_size))
        return DROP_AUTH_FAILED;
    *bytes += before;
    *length -= (uint32_t)before;
    if (!crypt_blocks(&keys->open, iv, *bytes, *length))
        return DROP_NO_KEY; /* the library failed */
    return strip_padding(*bytes, length) ? PACKET_PASSES : DROP_NOT_IP;
}

bool cbc_seal(struct cbc_keys *keys, unsigned worker, uint8_t **bytes, uint32_t *length)
{
    struct context *context = &keys->sealers[worker].context;
    if (context->cipher == NULL && !context_init(context, &keys->suite, true, keys->seal_key, keys->seal_hmac_key))
        return false;
    uint32_t padding = CBC_BLOCK - *length % CBC_BLOCK, blocks = *length + padding;
    memset(*bytes + *length, (int)padding, padding);
    uint8_t *iv = *bytes - CBC_BLOCK, hmac[MAC_MAX];
    const struct part authentic = {iv, CBC_BLOCK + blocks};
    if (!iv_take(iv) || !crypt_blocks(context, iv, *bytes, blocks) ||
        !mac_compute(&context->mac, &authentic, 1, hmac))
        return false;
    const size_t hmac_size = keys->suite.digest->size;
    memcpy(iv - hmac_size, hmac, hmac_size);
    *bytes = iv - hmac_size;
    *length = (uint32_t)hmac_size + CBC_BLOCK + blocks;
    return true;
}
