/* The Internet checksum, as far as rewriting one 16-bit field needs it (RFC 1624). */
#ifndef CVPND_CHECKSUM_H
#define CVPND_CHECKSUM_H

#include <stdint.h>

/* The checksum after a 16-bit word it covers changed from `before` to `after`. */
static inline uint16_t checksum_replace(uint16_t checksum, uint16_t before, uint16_t after)
{
    uint32_t sum = (uint32_t)(uint16_t)~checksum + (uint16_t)~before + after;
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum;
}

#endif
