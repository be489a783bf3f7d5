/* Longest-prefix match over IPv4 and IPv6: a trie of 256-way nodes, one byte of the address a level.
 *
 * Built once and never changed afterwards, so that workers read it without a lock; a new one takes its place.
 * A prefix that ends inside a byte is written into every entry it covers; prefixes are inserted shortest first,
 * so the longest is what stays. */
#ifndef CVPND_LPM_H
#define CVPND_LPM_H

#include <stdbool.h>
#include <stdint.h>

enum { LPM_NONE = 0 }; /* values start at 1 */

struct lpm_prefix {
    uint8_t bytes[16]; /* 4 or 16 used, host bits zero */
    uint8_t length;    /* in bits */
    bool v6;
    uint32_t value;
};

/* Clears the host bits. */
void lpm_prefix_mask(struct lpm_prefix *prefix);

struct lpm;

/* Sorts `prefixes`. NULL when memory is short. */
struct lpm *lpm_build(struct lpm_prefix *prefixes, uint32_t count);
void lpm_free(struct lpm *lpm);

/* The value of the longest prefix that contains the address, or LPM_NONE. */
uint32_t lpm_find_v4(const struct lpm *lpm, const uint8_t address[static 4]);
uint32_t lpm_find_v6(const struct lpm *lpm, const uint8_t address[static 16]);

#endif
