/* The Internet checksum: sums of whole packets, and rewriting one 16-bit field (RFC 1071, RFC 1624).
 *
 * A sum here is that of 16-bit words as they lie in memory, folded to 16 bits and not inverted. Its value does not
 * depend on the order of bytes within words as long as it is read and written the same way (RFC 1071 section 2B), so
 * nothing is swapped: what goes into it as a number goes through htons first. */
#ifndef CVPND_CHECKSUM_H
#define CVPND_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The sum of `length` bytes, an odd last one padded with zero, added to `sum`. */
uint16_t checksum_add(uint16_t sum, const uint8_t *bytes, size_t length);

static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint16_t checksum_field(const uint8_t *at)
{
    uint16_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void checksum_set_field(uint8_t *at, uint16_t word) { memcpy(at, &word, sizeof word); }

/* The checksum after a 16-bit word it covers changed from `before` to `after`. */
static inline uint16_t checksum_replace(uint16_t checksum, uint16_t before, uint16_t after)
{
    uint32_t sum = (uint32_t)(uint16_t)~checksum + (uint16_t)~before + after;
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum;
}

#endif
