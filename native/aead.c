#include "aead.h"

#include <string.h>

#include "aead_evp.h"

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

const struct aead_backend *aead_backend(void) { return &AEAD_EVP; }
