/* The faster backend, where the library was there at build time and the CPU has what it is made for: Intel's
 * multi-buffer library, of which only the direct calls on one buffer are used. OpenSSL's EVP loses about 300 ns of
 * each packet on its way to the same instructions (DATAPLANE.md). */
#ifndef CVPND_AEAD_IPSEC_MB_H
#define CVPND_AEAD_IPSEC_MB_H

#include "aead.h"

/* NULL when this build, or this CPU, cannot. */
const struct aead_backend *aead_ipsec_mb(void);

#endif
