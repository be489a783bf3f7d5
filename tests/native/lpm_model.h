/* The specification of longest-prefix match: of all prefixes that contain the address, the longest; of equal ones the
 * first. */
#ifndef CVPND_LPM_MODEL_H
#define CVPND_LPM_MODEL_H

#include "lpm.h"

static inline bool model_contains(const struct lpm_prefix *prefix, const uint8_t *address)
{
    for (unsigned bit = 0; bit < prefix->length; bit++)
        if (((prefix->bytes[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8)) & 1)
            return false;
    return true;
}

static inline uint32_t model_find(const struct lpm_prefix *prefixes, unsigned count, bool v6, const uint8_t *address)
{
    int best = -1;
    uint32_t value = LPM_NONE;
    for (unsigned i = 0; i < count; i++)
        if (prefixes[i].v6 == v6 && (int)prefixes[i].length > best && model_contains(&prefixes[i], address)) {
            best = prefixes[i].length;
            value = prefixes[i].value;
        }
    return value;
}

#endif
