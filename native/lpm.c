/* Finding; lpm_internal.h says in what. */
#include "lpm_internal.h"

static inline address_bits joined(const uint64_t path[static 2]) { return (address_bits)path[0] << 64 | path[1]; }

static inline uint32_t find_in_bucket(const void *at, address_bits address, bool v6)
{
    const struct bucket_v4 *four = at;
    const struct bucket_v6 *six = at;
    uint32_t found = four->head.outside, upper = (uint32_t)(address >> 96);
    for (unsigned i = 0, count = four->head.entries; i < count; i++) {
        if (v6) {
            if ((address ^ joined(six->entries[i].path)) >> (ADDRESS_BITS - six->entries[i].length) == 0)
                found = six->entries[i].value;
        } else {
            uint64_t entry = four->entries[i];
            if ((upper ^ (uint32_t)(entry >> 32)) >> (31 - (entry & 31)) == 0)
                found = (uint32_t)entry >> 5;
        }
    }
    return found;
}

/* `v6` is a constant where this is inlined: all of IPv4 happens in the upper half, which saves a fifth. */
__attribute__((always_inline)) static inline uint32_t find(const struct lpm *lpm, uint64_t slot, address_bits address,
                                                           bool v6)
{
    uint64_t upper = (uint64_t)(address >> 64);
    unsigned decided = 0;
    while (slot & IS_BELOW) {
        const union line *line = half_at(lpm, (uint32_t)slot);
        unsigned depth = line->node.head.depth, bits = line->node.head.bits;
        if (bits == 0)
            return find_in_bucket(line, address, v6);
        /* shifted in two steps, since depth may be 0 */
        if (v6 ? (address ^ joined(line->node.path)) >> 1 >> (ADDRESS_BITS - 1 - depth) != 0
               : (upper ^ line->node.path[0]) >> 1 >> (63 - depth) != 0)
            return line->node.head.outside;
        unsigned index = v6 ? slot_of(address, depth, bits) : (unsigned)(upper << depth >> (64 - bits));
        if (bits != NARROW_BITS) {
            decided = depth + bits;
            slot = lpm->lines[line->node.first + index / LINE_SLOTS].slots[index % LINE_SLOTS];
            continue;
        }
        uint64_t up_to = ((uint64_t)2 << index) - 1;
        if (line->node.nodes >> index & 1) {
            uint32_t child = line->node.first + (uint32_t)__builtin_popcountll(line->node.nodes & up_to) - 1;
            slot = IS_BELOW | child * 2;
            continue;
        }
        uint32_t word = line->node.word + (uint32_t)__builtin_popcountll(line->node.runs & up_to) - 1;
        return lpm->lines[word / LINE_WORDS].words[word % LINE_WORDS];
    }
    if (!(slot & IS_SINGLE))
        return (uint32_t)slot;
    uint16_t behind = v6 ? (uint16_t)slot_of(address, decided, SINGLE_PATH_BITS) : (uint16_t)(upper << decided >> 48);
    bool matches = (behind ^ (uint16_t)(slot >> SINGLE_PATH_AT)) >> (16 - (slot >> SINGLE_LENGTH_AT & 31)) == 0;
    return slot >> (matches ? 0 : SINGLE_VALUE_BITS) & ((1u << SINGLE_VALUE_BITS) - 1);
}

/* x86-64 has an instruction for counting bits since 2008, but the compiler may not assume it and would call a function.
 * aarch64 has always had one. */
#if defined(__x86_64__)
static bool has_popcount;

__attribute__((constructor)) static void probe_cpu(void) { has_popcount = __builtin_cpu_supports("popcnt"); }

__attribute__((target("popcnt"))) static uint32_t find_v4_popcount(const struct lpm *lpm, address_bits address)
{
    return find(lpm, lpm->root_v4, address, false);
}

__attribute__((target("popcnt"))) static uint32_t find_v6_popcount(const struct lpm *lpm, address_bits address)
{
    return find(lpm, lpm->root_v6, address, true);
}
#endif

uint32_t lpm_find_v4(const struct lpm *lpm, const uint8_t address[static 4])
{
#if defined(__x86_64__)
    if (has_popcount)
        return find_v4_popcount(lpm, from_v4(address));
#endif
    return find(lpm, lpm->root_v4, from_v4(address), false);
}

uint32_t lpm_find_v6(const struct lpm *lpm, const uint8_t address[static 16])
{
#if defined(__x86_64__)
    if (has_popcount)
        return find_v6_popcount(lpm, from_v6(address));
#endif
    return find(lpm, lpm->root_v6, from_v6(address), true);
}

size_t lpm_size(const struct lpm *lpm) { return sizeof *lpm + lpm->capacity * sizeof lpm->lines[0]; }
