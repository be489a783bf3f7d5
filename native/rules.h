/* Authorization: the longest prefix that contains the destination decides, and its groups must meet the peer's. */
#ifndef CVPND_RULES_H
#define CVPND_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lpm.h"

/* Group numbers as a bit set of any width. Never changed once published. */
struct groups {
    size_t words;
    uint64_t bits[];
};

struct groups *groups_new(const uint8_t *little_endian, size_t length);

/* One prefix; `groups` are the bit set's bytes, lowest first. */
struct rule {
    struct lpm_prefix prefix; /* value is set by rules_build */
    const uint8_t *groups;
    size_t groups_length;
};

/* Never changed once published. */
struct rules;

/* NULL when memory is short. */
struct rules *rules_build(const struct rule *rules, uint32_t count);
void rules_free(struct rules *rules);

bool rules_allow_v4(const struct rules *rules, const struct groups *groups, const uint8_t destination[static 4]);
bool rules_allow_v6(const struct rules *rules, const struct groups *groups, const uint8_t destination[static 16]);

#endif
