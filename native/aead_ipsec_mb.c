#include "aead_ipsec_mb.h"

#ifdef HAVE_IPSEC_MB

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct aead_context {
    enum aead_cipher_id cipher;
    union {
        alignas(64) struct gcm_key_data gcm;
        uint8_t chacha[AEAD_KEY_MAX];
    } key;
    union {
        struct gcm_context_data gcm;
        struct chacha20_poly1305_context_data chacha;
    } scratch;
};

/* The library's table of functions for this CPU. Written once, only read afterwards, so every thread may use it. */
static IMB_MGR *library;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find_library(void)
{
    const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_AVX;
    IMB_MGR *found = alloc_mb_mgr(0);
    if (found == NULL)
        return;
    if ((found->features & needed) == needed) {
        init_mb_mgr_auto(found, NULL);
        if (imb_get_errno(found) == 0) {
            library = found; /* kept until the process ends */
            return;
        }
    }
    free_mb_mgr(found);
}

static struct aead_context *mb_context_new(enum aead_cipher_id cipher, enum aead_direction direction,
                                           const uint8_t *key)
{
    (void)direction; /* a key schedule serves both */
    struct aead_context *context = aligned_alloc(64, (sizeof *context + 63) / 64 * 64);
    if (context == NULL)
        return NULL;
    context->cipher = cipher;
    switch (cipher) {
    case AES_128_GCM: IMB_AES128_GCM_PRE(library, key, &context->key.gcm); break;
    case AES_192_GCM: IMB_AES192_GCM_PRE(library, key, &context->key.gcm); break;
    case AES_256_GCM: IMB_AES256_GCM_PRE(library, key, &context->key.gcm); break;
    default: memcpy(context->key.chacha, key, AEAD_KEY_MAX);
    }
    return context;
}

static void mb_context_free(struct aead_context *context)
{
    if (context == NULL)
        return;
    OPENSSL_cleanse(context, sizeof *context);
    free(context);
}

static bool mb_seal(struct aead_context *context, const uint8_t nonce[static NONCE_SIZE], const uint8_t *ad,
                    size_t ad_length, uint8_t *text, size_t length, uint8_t tag[static TAG_SIZE])
{
    const struct gcm_key_data *key = &context->key.gcm;
    struct gcm_context_data *scratch = &context->scratch.gcm;
    struct chacha20_poly1305_context_data *chacha = &context->scratch.chacha;
    switch (context->cipher) {
    case AES_128_GCM:
        IMB_AES128_GCM_ENC(library, key, scratch, text, text, length, nonce, ad, ad_length, tag, TAG_SIZE);
        return true;
    case AES_192_GCM:
        IMB_AES192_GCM_ENC(library, key, scratch, text, text, length, nonce, ad, ad_length, tag, TAG_SIZE);
        return true;
    case AES_256_GCM:
        IMB_AES256_GCM_ENC(library, key, scratch, text, text, length, nonce, ad, ad_length, tag, TAG_SIZE);
        return true;
    default:
        IMB_CHACHA20_POLY1305_INIT(library, context->key.chacha, chacha, nonce, ad, ad_length);
        IMB_CHACHA20_POLY1305_ENC_UPDATE(library, context->key.chacha, chacha, text, text, length);
        IMB_CHACHA20_POLY1305_ENC_FINALIZE(library, chacha, tag, TAG_SIZE);
        return true;
    }
}

static bool mb_open(struct aead_context *context, const uint8_t nonce[static NONCE_SIZE], const uint8_t *ad,
                    size_t ad_length, uint8_t *text, size_t length, const uint8_t tag[static TAG_SIZE])
{
    const struct gcm_key_data *key = &context->key.gcm;
    struct gcm_context_data *scratch = &context->scratch.gcm;
    struct chacha20_poly1305_context_data *chacha = &context->scratch.chacha;
    uint8_t right[TAG_SIZE];
    switch (context->cipher) {
    case AES_128_GCM:
        IMB_AES128_GCM_DEC(library, key, scratch, text, text, length, nonce, ad, ad_length, right, TAG_SIZE);
        break;
    case AES_192_GCM:
        IMB_AES192_GCM_DEC(library, key, scratch, text, text, length, nonce, ad, ad_length, right, TAG_SIZE);
        break;
    case AES_256_GCM:
        IMB_AES256_GCM_DEC(library, key, scratch, text, text, length, nonce, ad, ad_length, right, TAG_SIZE);
        break;
    default:
        IMB_CHACHA20_POLY1305_INIT(library, context->key.chacha, chacha, nonce, ad, ad_length);
        IMB_CHACHA20_POLY1305_DEC_UPDATE(library, context->key.chacha, chacha, text, text, length);
        IMB_CHACHA20_POLY1305_DEC_FINALIZE(library, chacha, right, TAG_SIZE);
    }
    return CRYPTO_memcmp(right, tag, TAG_SIZE) == 0; /* in constant time */
}

static const char *mb_describe(void)
{
    static char text[96]; /* the same text each time */
    static const char *const architectures[IMB_ARCH_NUM] = {
        [IMB_ARCH_SSE] = "SSE", [IMB_ARCH_AVX] = "AVX", [IMB_ARCH_AVX2] = "AVX2", [IMB_ARCH_AVX512] = "AVX-512"};
    const char *architecture = library->used_arch < IMB_ARCH_NUM ? architectures[library->used_arch] : NULL;
    snprintf(text, sizeof text, "ipsec-mb (%s, %s%s)", imb_get_version_str(), architecture ? architecture : "?",
             library->features & IMB_FEATURE_VAES ? ", VAES" : "");
    return text;
}

static const struct aead_backend AEAD_IPSEC_MB = {
    .context_new = mb_context_new,
    .context_free = mb_context_free,
    .seal = mb_seal,
    .open = mb_open,
    .describe = mb_describe,
};

const struct aead_backend *aead_ipsec_mb(void)
{
    pthread_once(&once, find_library);
    return library == NULL ? NULL : &AEAD_IPSEC_MB;
}

#else

const struct aead_backend *aead_ipsec_mb(void) { return NULL; }

#endif
