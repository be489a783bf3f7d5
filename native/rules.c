#include "rules.h"

#include <stdlib.h>
#include <string.h>

struct rules {
    struct lpm *lpm;
    size_t words;    /* of each bit set: all as wide as the widest */
    uint64_t bits[]; /* bit set of value v at (v - 1) * words */
};

static void bits_from_bytes(uint64_t *bits, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bits[i / 8] |= (uint64_t)bytes[i] << (i % 8 * 8);
}

static size_t words_for(size_t bytes) { return (bytes + 7) / 8; }

struct groups *groups_new(const uint8_t *little_endian, size_t length)
{
    size_t words = words_for(length);
    struct groups *groups = calloc(1, sizeof *groups + words * sizeof groups->bits[0]);
    if (groups == NULL)
        return NULL;
    groups->words = words;
    bits_from_bytes(groups->bits, little_endian, length);
    return groups;
}

struct rules *rules_build(const struct rule *rules, uint32_t count)
{
    size_t words = 0;
    for (uint32_t i = 0; i < count; i++)
        if (words_for(rules[i].groups_length) > words)
            words = words_for(rules[i].groups_length);
    struct rules *built = calloc(1, sizeof *built + count * words * sizeof built->bits[0]);
    struct lpm_prefix *prefixes = malloc((count + 1) * sizeof *prefixes);
    if (built == NULL || prefixes == NULL)
        goto fail;
    built->words = words;
    for (uint32_t i = 0; i < count; i++) {
        prefixes[i] = rules[i].prefix;
        prefixes[i].value = i + 1;
        bits_from_bytes(built->bits + i * words, rules[i].groups, rules[i].groups_length);
    }
    built->lpm = lpm_build(prefixes, count);
    if (built->lpm == NULL)
        goto fail;
    free(prefixes);
    return built;
fail:
    free(prefixes);
    free(built);
    return NULL;
}

void rules_free(struct rules *rules)
{
    if (rules == NULL)
        return;
    lpm_free(rules->lpm);
    free(rules);
}

static bool meets(const struct rules *rules, uint32_t value, const struct groups *groups)
{
    if (value == LPM_NONE)
        return false;
    const uint64_t *bits = rules->bits + (value - 1) * rules->words;
    size_t words = rules->words < groups->words ? rules->words : groups->words;
    for (size_t i = 0; i < words; i++)
        if (bits[i] & groups->bits[i])
            return true;
    return false;
}

bool rules_allow_v4(const struct rules *rules, const struct groups *groups, const uint8_t destination[static 4])
{
    return meets(rules, lpm_find_v4(rules->lpm, destination), groups);
}

bool rules_allow_v6(const struct rules *rules, const struct groups *groups, const uint8_t destination[static 16])
{
    return meets(rules, lpm_find_v6(rules->lpm, destination), groups);
}
