/* IVs for CBC, which nobody may be able to predict and which no two packets share.
 *
 * Each thread takes them from a pool of its own that OpenSSL's generator fills, so a packet costs no system call and
 * threads share nothing. No pool outlives its process: a child of fork begins with an empty one. */
#ifndef CVPND_IV_H
#define CVPND_IV_H

#include <stdbool.h>
#include <stdint.h>

enum { IV_SIZE = 16 };

/* False when there is no randomness to be had; `iv` is then worthless. */
bool iv_take(uint8_t iv[static IV_SIZE]);

#endif
