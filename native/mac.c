#include "mac.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <string.h>

bool mac_init(struct mac *mac, const char *digest)
{
    mac->context = NULL;
    const EVP_MD *md = EVP_get_digestbyname(digest);
    EVP_MAC *hmac = md == NULL ? NULL : EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (hmac == NULL)
        return false;
    mac->size = (size_t)EVP_MD_get_size(md);
    mac->context = EVP_MAC_CTX_new(hmac); /* holds a reference of its own */
    EVP_MAC_free(hmac);
    char name[16] = {0};
    strncpy(name, digest, sizeof name - 1);
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
        OSSL_PARAM_construct_end(),
    };
    if (mac->context != NULL && mac->size <= MAC_MAX && EVP_MAC_CTX_set_params(mac->context, parameters))
        return true;
    mac_destroy(mac);
    return false;
}

void mac_destroy(struct mac *mac)
{
    EVP_MAC_CTX_free(mac->context);
    mac->context = NULL;
}

bool mac_set_key(struct mac *mac, const uint8_t *key, size_t length)
{
    return EVP_MAC_init(mac->context, key, length, NULL) == 1;
}

bool mac_compute(struct mac *mac, const struct part *parts, unsigned count, uint8_t result[static MAC_MAX])
{
    /* Without a key it begins anew with the one it has, which costs no hashing of the key. */
    bool done = EVP_MAC_init(mac->context, NULL, 0, NULL) == 1;
    for (unsigned i = 0; done && i < count; i++)
        done = parts[i].length == 0 || EVP_MAC_update(mac->context, parts[i].bytes, parts[i].length) == 1;
    size_t written;
    return done && EVP_MAC_final(mac->context, result, &written, MAC_MAX) == 1;
}

bool mac_matches(struct mac *mac, const struct part *parts, unsigned count, const uint8_t *expected, size_t length)
{
    uint8_t result[MAC_MAX];
    return mac_compute(mac, parts, count, result) && length <= mac->size &&
           CRYPTO_memcmp(result, expected, length) == 0;
}
