#include "checksum.h"

#include <stdbool.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* 32-bit words into 64 bits: no carry gets lost in 4 GB. */
static uint64_t sum_plain(const uint8_t *bytes, size_t length)
{
    uint64_t sum = 0;
    for (; length >= 8; bytes += 8, length -= 8) {
        uint32_t words[2];
        memcpy(words, bytes, 8);
        sum += (uint64_t)words[0] + words[1];
    }
    uint64_t rest = 0;
    memcpy(&rest, bytes, length);
    return sum + (rest & 0xFFFFFFFF) + (rest >> 32);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *bytes, size_t length)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i low = zero, high = zero;
    for (; length >= 32; bytes += 32, length -= 32) {
        __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
        low = _mm256_add_epi64(low, _mm256_unpacklo_epi32(words, zero));
        high = _mm256_add_epi64(high, _mm256_unpackhi_epi32(words, zero));
    }
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)(void *)lanes, _mm256_add_epi64(low, high));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3] + sum_plain(bytes, length);
}

static bool has_avx2;

__attribute__((constructor)) static void probe_cpu(void) { has_avx2 = __builtin_cpu_supports("avx2"); }
#endif

uint16_t checksum_add(uint16_t sum, const uint8_t *bytes, size_t length)
{
#if defined(__x86_64__)
    if (has_avx2 && length >= 64)
        return checksum_fold(sum + sum_avx2(bytes, length));
#endif
    return checksum_fold(sum + sum_plain(bytes, length));
}
