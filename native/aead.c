#include "aead.h"

#include <string.h>

#include "aead_evp.h"
#include "aead_ipsec_mb.h"

const struct aead_cipher AEAD_CIPHER[AEAD_CIPHERS] = {
    [AES_128_GCM] = {"AES-128-GCM", 16, true},
    [AES_192_GCM] = {"AES-192-GCM", 24, true},
    [AES_256_GCM] = {"AES-256-GCM", 32, true},
    [CHACHA20_POLY1305] = {"CHACHA20-POLY1305", 32, false},
};

enum aead_cipher_id aead_cipher_find(const char *name)
{
    for (int i = 0; i < AEAD_CIPHERS; i++)
        if (strcmp(AEAD_CIPHER[i].name, name) == 0)
            return (enum aead_cipher_id)i;
    return AEAD_CIPHERS;
}

enum aead_choice aead_choice_find(const char *word)
{
    static const char *const words[AEAD_CHOICES] = {
        [AEAD_CHOOSE_FASTEST] = "auto", [AEAD_CHOOSE_OPENSSL] = "openssl", [AEAD_CHOOSE_IPSEC_MB] = "ipsec-mb"};
    for (int i = 0; i < AEAD_CHOICES; i++)
        if (strcmp(words[i], word) == 0)
            return (enum aead_choice)i;
    return AEAD_CHOICES;
}

const struct aead_backend *aead_backend_of(enum aead_choice choice)
{
    const struct aead_backend *faster = choice == AEAD_CHOOSE_OPENSSL ? NULL : aead_ipsec_mb();
    return faster == NULL && choice != AEAD_CHOOSE_IPSEC_MB ? &AEAD_EVP : faster;
}

const struct aead_backend *aead_backend(void) { return aead_backend_of(AEAD_CHOOSE_FASTEST); }
