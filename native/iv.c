#include "iv.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <string.h>

enum { POOL_IVS = 64 };

static _Thread_local struct {
    unsigned left;
    uint8_t bytes[POOL_IVS * IV_SIZE];
} pool;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool forks_are_seen;

/* In the only thread that the child has. */
static void begin_anew(void) { pool.left = 0; }

static void see_forks(void) { forks_are_seen = pthread_atfork(NULL, NULL, begin_anew) == 0; }

bool iv_take(uint8_t iv[static IV_SIZE])
{
    if (pool.left == 0) {
        pthread_once(&once, see_forks);
        if (!forks_are_seen || RAND_bytes(pool.bytes, sizeof pool.bytes) != 1)
            return false;
        pool.left = POOL_IVS;
    }
    uint8_t *next = pool.bytes + --pool.left * IV_SIZE;
    memcpy(iv, next, IV_SIZE);
    OPENSSL_cleanse(next, IV_SIZE);
    return true;
}
