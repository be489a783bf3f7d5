/* Longest-prefix match over IPv4 and IPv6: a trie whose nodes are as wide as what is below them deserves.
 *
 * Built once and never changed afterwards, so that workers read it without a lock; a new one takes its place.
 * Of equal prefixes the first in the list counts, as in the plain twin. */
#ifndef CVPND_LPM_H
#define CVPND_LPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LPM_NONE = 0, LPM_VALUE_MAX = (1 << 27) - 1 }; /* values are between them */

struct lpm_prefix {
    uint8_t bytes[16]; /* 4 or 16 used; host bits are ignored */
    uint8_t length;    /* in bits: at most 32 or 128 */
    bool v6;
    uint32_t value;
};

struct lpm;

/* NULL when memory is short. */
struct lpm *lpm_build(const struct lpm_prefix *prefixes, uint32_t count);
void lpm_free(struct lpm *lpm);

/* The value of the longest prefix that contains the address, or LPM_NONE. */
uint32_t lpm_find_v4(const struct lpm *lpm, const uint8_t address[static 4]);
uint32_t lpm_find_v6(const struct lpm *lpm, const uint8_t address[static 16]);

/* Memory it takes: less than 1 kB for each prefix, and 1 kB (lpm.c). */
size_t lpm_size(const struct lpm *lpm);

#endif
