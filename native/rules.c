#include "rules.h"

#include <stdlib.h>
#include <string.h>

struct rules {
    struct lpm *lpm;
    size_t words;    /* of each bit set: all as wide as the widest */
    uint64_t bits[]; /* the set with number v at (v - 1) * words */
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

/* -- each bit set once: rules are many and sets of groups few, and a table of few values is small and fast */

struct numbered {
    const uint8_t *bytes;
    size_t length; /* without zeros behind the last bit */
    uint32_t rule;
};

static struct numbered number(const struct rule *rule, uint32_t index)
{
    size_t length = rule->groups_length;
    while (length > 0 && rule->groups[length - 1] == 0)
        length--;
    return (struct numbered){rule->groups, length, index};
}

static int by_set(const void *left, const void *right)
{
    const struct numbered *a = left, *b = right;
    if (a->length != b->length)
        return a->length < b->length ? -1 : 1;
    return a->length == 0 ? 0 : memcmp(a->bytes, b->bytes, a->length);
}

struct rules *rules_build(const struct rule *rules, uint32_t count)
{
    struct rules *built = NULL;
    struct numbered *sets = malloc(((size_t)count + 1) * sizeof *sets);
    struct lpm_prefix *prefixes = malloc(((size_t)count + 1) * sizeof *prefixes);
    if (sets == NULL || prefixes == NULL || count > LPM_VALUE_MAX)
        goto finally;
    for (uint32_t i = 0; i < count; i++)
        sets[i] = number(&rules[i], i);
    if (count > 1)
        qsort(sets, count, sizeof *sets, by_set);
    uint32_t distinct = 0;
    for (uint32_t i = 0; i < count; i++) {
        distinct += i == 0 || by_set(&sets[i - 1], &sets[i]) != 0;
        prefixes[sets[i].rule] = rules[sets[i].rule].prefix;
        prefixes[sets[i].rule].value = distinct;
    }
    size_t words = count > 0 ? words_for(sets[count - 1].length) : 0; /* the longest is last */
    built = calloc(1, sizeof *built + distinct * words * sizeof built->bits[0]);
    if (built == NULL)
        goto finally;
    built->words = words;
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || by_set(&sets[i - 1], &sets[i]) != 0)
            bits_from_bytes(built->bits + (prefixes[sets[i].rule].value - 1) * words, sets[i].bytes, sets[i].length);
    built->lpm = lpm_build(prefixes, count);
    if (built->lpm == NULL) {
        free(built);
        built = NULL;
    }
finally:
    free(prefixes);
    free(sets);
    return built;
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
