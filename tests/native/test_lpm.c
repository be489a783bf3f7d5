#include "check.h"
#include "lpm_model.h"
#include "rules.h"

enum { ROUNDS = 60, PREFIXES = 2000, LOOKUPS = 1000, SIZE_OF_EACH = 1024 };

/* How the addresses of a table lie to each other: few distinct bytes, so that prefixes nest; one operator's networks
 * behind a long common path; neighbours, which fill wide nodes; anything. */
enum layout { NESTED, ONE_OPERATOR, NEIGHBOURS, ANYWHERE, LAYOUTS };

static void random_address(uint8_t *bytes, enum layout layout, uint64_t *random)
{
    static const uint8_t likely[] = {0, 1, 10, 127, 128, 254, 255};
    for (unsigned i = 0; i < 16; i++) {
        uint64_t pick = next_random(random);
        bytes[i] = layout == NESTED && pick % 8 != 7 ? likely[pick % 7] : (uint8_t)(pick >> 8);
    }
    if (layout == ONE_OPERATOR)
        memcpy(bytes, "\x0a\x14\x0d\xb8\x00\x10", 6); /* of IPv4 everything: all are nested in one path */
    if (layout == NEIGHBOURS)
        memcpy(bytes, "\x0a\x0d\xb8", 2 + next_random(random) % 2);
}

/* Also some twice, with different values, and /0, /32 and /128 more often than chance would have them. */
static unsigned random_prefixes(struct lpm_prefix *prefixes, enum layout layout, uint64_t *random)
{
    unsigned count = (unsigned)(next_random(random) % (layout == NESTED ? PREFIXES / 8 : PREFIXES));
    for (unsigned i = 0; i < count; i++) {
        struct lpm_prefix *prefix = &prefixes[i];
        uint64_t pick = next_random(random);
        if (i > 0 && pick % 16 == 0) {
            *prefix = prefixes[next_random(random) % i];
        } else {
            prefix->v6 = pick & 32;
            unsigned longest = prefix->v6 ? 128 : 32;
            prefix->length = (uint8_t)(pick % 16 == 1 ? longest : (pick >> 8) % (longest + 1));
            if (layout != NESTED && prefix->length < 16 && pick % 16 != 2)
                prefix->length = (uint8_t)(prefix->length + 16);
            random_address(prefix->bytes, layout, random); /* with host bits */
        }
        prefix->value = 1 + (uint32_t)(pick >> 16) % (i % 2 == 0 ? 3 : LPM_VALUE_MAX); /* equal neighbours too */
    }
    return count;
}

/* Around one of the prefixes: its first and last address, what is just beside it, or anything inside. */
static void interesting_address(uint8_t *address, const struct lpm_prefix *prefix, uint64_t *random)
{
    uint64_t pick = next_random(random);
    for (unsigned bit = 0; bit < 128; bit++) {
        uint8_t mask = (uint8_t)(0x80 >> bit % 8);
        bool inside = bit < prefix->length;
        bool set = inside || pick % 4 == 3 ? prefix->bytes[bit / 8] & mask : pick % 4 == 0 ? false : pick % 4 == 1;
        if (!inside && pick % 4 == 2)
            set = next_random(random) & 1024;
        if (bit + 1 == prefix->length && pick & 64)
            set = !set;
        address[bit / 8] = (uint8_t)(set ? address[bit / 8] | mask : address[bit / 8] & ~mask);
    }
}

static void agrees_with_searching_a_list(void)
{
    static struct lpm_prefix prefixes[PREFIXES];
    uint64_t random = 7;
    for (unsigned round = 0; round < ROUNDS; round++) {
        enum layout layout = round % LAYOUTS;
        unsigned count = random_prefixes(prefixes, layout, &random);
        struct lpm *lpm = lpm_build(prefixes, count);
        CHECK(lpm != NULL && lpm_size(lpm) <= (count + 1) * SIZE_OF_EACH);
        for (unsigned i = 0; i < LOOKUPS; i++) {
            uint8_t address[16];
            random_address(address, layout, &random);
            if (count > 0 && i % 4 != 0)
                interesting_address(address, &prefixes[next_random(&random) % count], &random);
            CHECK_EQUAL(lpm_find_v4(lpm, address), model_find(prefixes, count, false, address));
            CHECK_EQUAL(lpm_find_v6(lpm, address), model_find(prefixes, count, true, address));
        }
        lpm_free(lpm);
    }
}

/* The widest node there is, each slot of it in use, and addresses at both ends of the address space. */
static void neighbours_fill_a_table_without_gaps(void)
{
    enum { COUNT = 1 << 16 };
    struct lpm_prefix *prefixes = calloc(COUNT, sizeof *prefixes);
    CHECK(prefixes != NULL);
    for (uint32_t i = 0; i < COUNT; i++)
        prefixes[i] = (struct lpm_prefix){.bytes = {(uint8_t)(i >> 8), (uint8_t)i}, .length = 16, .value = i + 1};
    struct lpm *lpm = lpm_build(prefixes, COUNT);
    CHECK(lpm != NULL);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint8_t *first = prefixes[i].bytes, last[4] = {first[0], first[1], 0xFF, 0xFF};
        CHECK_EQUAL(lpm_find_v4(lpm, first), i + 1);
        CHECK_EQUAL(lpm_find_v4(lpm, last), i + 1);
    }
    lpm_free(lpm);
    free(prefixes);
}

/* Every length at once, each the only one to decide about one bit. */
static void one_path_of_all_lengths(void)
{
    struct lpm_prefix prefixes[129];
    for (unsigned length = 0; length <= 128; length++) {
        prefixes[length] = (struct lpm_prefix){.length = (uint8_t)length, .v6 = true, .value = length + 1};
        memset(prefixes[length].bytes, 0xA5, 16);
    }
    struct lpm *lpm = lpm_build(prefixes, 129);
    CHECK(lpm != NULL);
    for (unsigned bit = 0; bit < 128; bit++) {
        uint8_t address[16];
        memset(address, 0xA5, 16);
        CHECK_EQUAL(lpm_find_v6(lpm, address), 129);
        address[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
        CHECK_EQUAL(lpm_find_v6(lpm, address), bit + 1);
    }
    lpm_free(lpm);
}

static void of_equal_prefixes_the_first_counts(void)
{
    const struct lpm_prefix prefixes[] = {
        {.bytes = {10, 1, 2, 3}, .length = 8, .value = 7}, /* its host bits do not make it another */
        {.bytes = {10}, .length = 8, .value = 3},
        {.bytes = {0}, .length = 0, .v6 = true, .value = 5},
        {.bytes = {1}, .length = 0, .v6 = true, .value = 4},
    };
    struct lpm *lpm = lpm_build(prefixes, 4);
    CHECK(lpm != NULL);
    const uint8_t address[16] = {10, 200};
    CHECK_EQUAL(lpm_find_v4(lpm, address), 7);
    CHECK_EQUAL(lpm_find_v6(lpm, address), 5);
    lpm_free(lpm);
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

/* Rules share their sets of groups: what one allows, no other may come to allow. */
static void many_rules_with_few_sets_of_groups(void)
{
    enum { RULES = 200, GROUPS = 70 };
    static struct rule list[RULES];
    static uint8_t sets[RULES][12];
    uint64_t random = 11;
    for (unsigned i = 0; i < RULES; i++) {
        unsigned group = i % 9 == 0 ? GROUPS - 1 : (unsigned)(next_random(&random) % GROUPS);
        sets[i][group / 8] |= (uint8_t)(1 << group % 8);
        if (i % 5 == 0)
            sets[i][0] |= 2;
        /* zeros behind the last bit are no difference; one rule is for nobody */
        list[i] = (struct rule){.prefix = {.bytes = {10, (uint8_t)i}, .length = 16},
                                .groups = sets[i],
                                .groups_length = i == 1       ? 0
                                                 : i % 2 == 0 ? 9
                                                              : sizeof sets[i]};
    }
    struct rules *rules = rules_build(list, RULES);
    CHECK(rules != NULL);
    for (unsigned group = 0; group < GROUPS; group++) {
        uint8_t bits[9] = {0};
        bits[group / 8] = (uint8_t)(1 << group % 8);
        struct groups *groups = groups_new(bits, sizeof bits);
        CHECK(groups != NULL);
        for (unsigned i = 0; i < RULES; i++) {
            const uint8_t destination[4] = {10, (uint8_t)i, 3, 4};
            bool named = sets[i][group / 8] >> group % 8 & 1;
            CHECK_EQUAL(rules_allow_v4(rules, groups, destination), named && i != 1);
        }
        free(groups);
    }
    rules_free(rules);
}

int main(void)
{
    RUN(agrees_with_searching_a_list);
    RUN(neighbours_fill_a_table_without_gaps);
    RUN(one_path_of_all_lengths);
    RUN(of_equal_prefixes_the_first_counts);
    RUN(many_rules_with_few_sets_of_groups);
    RUN(empty_table_contains_nothing);
    RUN(longest_prefix_decides_whoever_it_names);
    return 0;
}
