/* The backend that is always there: OpenSSL's EVP interface. */
#ifndef CVPND_AEAD_EVP_H
#define CVPND_AEAD_EVP_H

#include "aead.h"

extern const struct aead_backend AEAD_EVP;

#endif
