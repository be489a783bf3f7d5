#include "check.h"
#include "lpm.h"
#include "rules.h"

enum { PREFIXES = 300, LOOKUPS = 20000 };

static bool contains(const struct lpm_prefix *prefix, const uint8_t *address)
{
    for (unsigned bit = 0; bit < prefix->length; bit++)
        if (((prefix->bytes[bit / 8] ^ address[bit / 8]) >> (7 - bit % 8)) & 1)
            return false;
    return true;
}

/* The specification: of all prefixes that contain the address, the longest. */
static uint32_t search(const struct lpm_prefix *prefixes, unsigned count, bool v6, const uint8_t *address)
{
    int best = -1;
    uint32_t value = LPM_NONE;
    for (unsigned i = 0; i < count; i++)
        if (prefixes[i].v6 == v6 && (int)prefixes[i].length > best && contains(&prefixes[i], address)) {
            best = prefixes[i].length;
            value = prefixes[i].value;
        }
    return value;
}

static bool is_new(const struct lpm_prefix *prefixes, unsigned count, const struct lpm_prefix *prefix)
{
    for (unsigned i = 0; i < count; i++)
        if (prefixes[i].v6 == prefix->v6 && prefixes[i].length == prefix->length &&
            memcmp(prefixes[i].bytes, prefix->bytes, 16) == 0)
            return false;
    return true;
}

/* Few distinct bytes, so that prefixes nest and lookups hit. */
static void random_address(uint8_t *bytes, unsigned size, uint64_t *random)
{
    static const uint8_t likely[] = {0, 1, 10, 127, 128, 254, 255};
    for (unsigned i = 0; i < size; i++) {
        uint64_t pick = next_random(random);
        bytes[i] = pick % 8 == 7 ? (uint8_t)(pick >> 8) : likely[pick % 7];
    }
}

static unsigned random_prefixes(struct lpm_prefix *prefixes, uint64_t *random)
{
    unsigned count = 0;
    unsigned wanted = 1 + (unsigned)(next_random(random) % PREFIXES);
    for (unsigned tries = 0; tries < 4 * wanted && count < wanted; tries++) {
        struct lpm_prefix prefix = {.v6 = next_random(random) % 2 == 0};
        prefix.length = (uint8_t)(next_random(random) % (prefix.v6 ? 129 : 33));
        random_address(prefix.bytes, prefix.v6 ? 16 : 4, random);
        lpm_prefix_mask(&prefix);
        prefix.value = count + 1;
        if (is_new(prefixes, count, &prefix))
            prefixes[count++] = prefix;
    }
    return count;
}

static void agrees_with_searching_a_list(void)
{
    uint64_t random = 7;
    for (unsigned round = 0; round < 20; round++) {
        struct lpm_prefix prefixes[PREFIXES], sorted[PREFIXES];
        unsigned count = random_prefixes(prefixes, &random);
        memcpy(sorted, prefixes, sizeof sorted);
        struct lpm *lpm = lpm_build(sorted, count);
        CHECK(lpm != NULL);
        for (unsigned i = 0; i < LOOKUPS / 20; i++) {
            uint8_t address[16];
            random_address(address, 16, &random);
            CHECK_EQUAL(lpm_find_v4(lpm, address), search(prefixes, count, false, address));
            CHECK_EQUAL(lpm_find_v6(lpm, address), search(prefixes, count, true, address));
        }
        lpm_free(lpm);
    }
}

static void empty_table_contains_nothing(void)
{
    struct lpm *lpm = lpm_build(NULL, 0);
    CHECK(lpm != NULL);
    const uint8_t address[16] = {10};
    CHECK_EQUAL(lpm_find_v4(lpm, address), LPM_NONE);
    CHECK_EQUAL(lpm_find_v6(lpm, address), LPM_NONE);
    lpm_free(lpm);
}

/* The longest prefix decides even when only a shorter one names the peer's group. */
static void longest_prefix_decides_whoever_it_names(void)
{
    static const uint8_t all[] = {1}, far[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 4}; /* group 74 */
    const struct rule list[] = {
        {.prefix = {.bytes = {10}, .length = 8}, .groups = all, .groups_length = sizeof all},
        {.prefix = {.bytes = {10, 1}, .length = 16}, .groups = far, .groups_length = sizeof far},
        {.prefix = {.bytes = {0xfd}, .length = 8, .v6 = true}, .groups = far, .groups_length = sizeof far},
    };
    struct rules *rules = rules_build(list, 3);
    struct groups *everybody = groups_new(all, sizeof all);
    struct groups *far_only = groups_new(far, sizeof far);
    struct groups *nobody = groups_new(NULL, 0);
    CHECK(rules != NULL && everybody != NULL && far_only != NULL && nobody != NULL);
    const uint8_t wide[16] = {10, 2, 0, 1}, narrow[16] = {10, 1, 0, 1}, outside[16] = {11}, six[16] = {0xfd, 1};
    CHECK(rules_allow_v4(rules, everybody, wide));
    CHECK(!rules_allow_v4(rules, everybody, narrow));
    CHECK(rules_allow_v4(rules, far_only, narrow));
    CHECK(!rules_allow_v4(rules, far_only, wide));
    CHECK(!rules_allow_v4(rules, everybody, outside));
    CHECK(!rules_allow_v4(rules, nobody, wide));
    CHECK(rules_allow_v6(rules, far_only, six));
    CHECK(!rules_allow_v6(rules, everybody, six));
    rules_free(rules);
    free(everybody);
    free(far_only);
    free(nobody);
}

int main(void)
{
    RUN(agrees_with_searching_a_list);
    RUN(empty_table_contains_nothing);
    RUN(longest_prefix_decides_whoever_it_names);
    return 0;
}
