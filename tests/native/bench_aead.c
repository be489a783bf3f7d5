/* What sealing and opening one packet costs, for each backend and cipher: meson test --benchmark. Medians. */
#include <time.h>

#include "aead.h"
#include "check.h"

enum { PACKETS = 4000, RUNS = 9 };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* Opening is timed on packets whose tag is wrong in the end, which costs the same. */
static double measure(const struct aead_backend *backend, enum aead_cipher_id cipher, bool seal, size_t length)
{
    static const uint8_t key[AEAD_KEY_MAX] = "some key";
    static uint8_t text[2048];
    double runs[RUNS];
    struct aead_context *context = backend->context_new(cipher, seal ? AEAD_SEAL : AEAD_OPEN, key);
    CHECK(context != NULL);
    for (unsigned run = 0; run < RUNS; run++) {
        double start = now_ns();
        for (uint32_t i = 0; i < PACKETS; i++) {
            uint8_t nonce[NONCE_SIZE] = {0}, ad[DATA_AD] = {0}, tag[TAG_SIZE] = {0};
            put_u32(nonce, i);
            if (seal)
                backend->seal(context, nonce, ad, DATA_AD, text, length, tag);
            else
                backend->open(context, nonce, ad, DATA_AD, text, length, tag);
        }
        runs[run] = (now_ns() - start) / PACKETS;
    }
    backend->context_free(context);
    qsort(runs, RUNS, sizeof runs[0], by_value);
    return runs[RUNS / 2];
}

int main(void)
{
    static const size_t lengths[] = {64, 512, 1400};
    for (enum aead_choice choice = AEAD_CHOOSE_OPENSSL; choice < AEAD_CHOICES; choice++) {
        const struct aead_backend *backend = aead_backend_of(choice);
        if (backend == NULL)
            continue;
        printf("%s, ns a packet of 64, 512, 1400 bytes\n", backend->describe());
        for (int cipher = 0; cipher < AEAD_CIPHERS; cipher++)
            for (int seal = 1; seal >= 0; seal--) {
                printf("  %-18s %s", AEAD_CIPHER[cipher].name, seal ? "seal" : "open");
                for (unsigned i = 0; i < 3; i++)
                    printf(" %6.0f", measure(backend, (enum aead_cipher_id)cipher, seal, lengths[i]));
                printf("\n");
            }
    }
    return 0;
}
