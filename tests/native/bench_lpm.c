/* What the longest-prefix match costs, by the number of rules. Destinations are inside random rules, so that caches help
 * as little as they can, and each lookup waits for the one before, as a packet's does for its own. */
#include <string.h>

#include "bench.h"
#include "check.h"
#include "lpm.h"

enum { LOOKUPS = 1 << 16 };

static const uint8_t V4_LENGTHS[] = {8, 12, 16, 20, 24, 24, 24, 28, 32};
static const uint8_t V6_LENGTHS[] = {32, 40, 48, 48, 56, 64, 64, 128};
static uint8_t
    destinations[LOOKUPS * 16]; /* next to each other: a packet's own would not push the table out of a cache */

static void fill(uint8_t *bytes, uint64_t *state)
{
    uint64_t parts[2] = {bench_random(state), bench_random(state)};
    memcpy(bytes, parts, 16);
}

static void measure(uint32_t count, bool v6, unsigned lookups)
{
    uint64_t state = 4 + v6;
    size_t size = v6 ? 16 : 4;
    struct lpm_prefix *prefixes = calloc(count, sizeof *prefixes);
    CHECK(prefixes != NULL);
    for (uint32_t i = 0; i < count; i++) {
        fill(prefixes[i].bytes, &state);
        prefixes[i].v6 = v6;
        prefixes[i].value = i + 1;
        prefixes[i].length = v6 ? V6_LENGTHS[i % sizeof V6_LENGTHS] : V4_LENGTHS[i % sizeof V4_LENGTHS];
        if (v6)
            memcpy(prefixes[i].bytes, "\x20\x01\x0d\xb8", 4); /* as one operator's networks are */
    }
    for (unsigned i = 0; i < LOOKUPS; i++) {
        const struct lpm_prefix *prefix = &prefixes[bench_random(&state) % count];
        uint8_t address[16];
        fill(address, &state);
        memcpy(address, prefix->bytes, prefix->length / 8);
        memcpy(destinations + i * size, address, size);
    }
    double begun = bench_now_ns();
    struct lpm *lpm = lpm_build(prefixes, count);
    CHECK(lpm != NULL);
    double built = (bench_now_ns() - begun) / count;
    double runs[BENCH_RUNS];
    for (unsigned run = 0; run < BENCH_RUNS; run++) {
        uint32_t at = 0;
        double start = bench_now_ns();
        for (unsigned i = 0; i < lookups; i++) {
            const uint8_t *to = destinations + at % LOOKUPS * size;
            uint32_t value = v6 ? lpm_find_v6(lpm, to) : lpm_find_v4(lpm, to);
            at += 1 + (value >> 31); /* always 1, but only the lookup tells */
        }
        runs[run] = (bench_now_ns() - start) / lookups;
        CHECK_EQUAL(at, lookups);
    }
    const char *family = v6 ? "IPv6" : "IPv4";
    char row[64];
    snprintf(row, sizeof row, "longest-prefix match, %s", family);
    bench_tell(row, count, bench_median(runs, BENCH_RUNS));
    snprintf(row, sizeof row, "building its table, %s, a rule", family);
    bench_tell(row, count, built);
    lpm_free(lpm);
    free(prefixes);
}

int main(int argc, char **argv)
{
    (void)argv;
    static const uint32_t counts[] = {5, 50, 500, 5000, 50000};
    for (unsigned i = 0; i < (argc > 1 ? 3 : sizeof counts / sizeof counts[0]); i++) {
        measure(counts[i], false, argc > 1 ? 1000 : LOOKUPS);
        measure(counts[i], true, argc > 1 ? 1000 : LOOKUPS);
    }
    return 0;
}
