/* What sealing and opening one packet costs, for each backend and cipher. */
#include "aead.h"
#include "bench.h"
#include "check.h"

/* Opening is timed on packets whose tag is wrong in the end, which costs the same. */
static double measure(const struct aead_backend *backend, enum aead_cipher_id cipher, bool seal, size_t length,
                      unsigned packets)
{
    static const uint8_t key[AEAD_KEY_MAX] = "some key";
    static uint8_t text[2048];
    double runs[BENCH_RUNS];
    struct aead_context *context = backend->context_new(cipher, seal ? AEAD_SEAL : AEAD_OPEN, key);
    CHECK(context != NULL);
    for (unsigned run = 0; run < BENCH_RUNS; run++) {
        double start = bench_now_ns();
        for (uint32_t i = 0; i < packets; i++) {
            uint8_t nonce[NONCE_SIZE] = {0}, ad[DATA_AD] = {0}, tag[TAG_SIZE] = {0};
            put_u32(nonce, i);
            if (seal)
                backend->seal(context, nonce, ad, DATA_AD, text, length, tag);
            else
                backend->open(context, nonce, ad, DATA_AD, text, length, tag);
        }
        runs[run] = (bench_now_ns() - start) / packets;
    }
    backend->context_free(context);
    return bench_median(runs, BENCH_RUNS);
}

int main(int argc, char **argv)
{
    (void)argv;
    static const size_t lengths[] = {64, 512, 1400};
    static const char *const backends[] = {"", "OpenSSL", "ipsec-mb"};
    for (enum aead_choice choice = AEAD_CHOOSE_OPENSSL; choice < AEAD_CHOICES; choice++) {
        const struct aead_backend *backend = aead_backend_of(choice);
        if (backend == NULL)
            continue;
        for (int cipher = 0; cipher < AEAD_CIPHERS; cipher++)
            for (int seal = 1; seal >= 0; seal--)
                for (unsigned i = 0; i < 3; i++) {
                    char row[64];
                    snprintf(row, sizeof row, "%s %s, %s", seal ? "seal" : "open", AEAD_CIPHER[cipher].name,
                             backends[choice]);
                    bench_tell(row, lengths[i],
                               measure(backend, (enum aead_cipher_id)cipher, seal, lengths[i], argc > 1 ? 10 : 4000));
                }
    }
    return 0;
}
