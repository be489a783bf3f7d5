/* The trie lives in one array of cache lines. A node is one line, and says how many bits of the address all prefixes
 * below it agree in: those are compared at once, however many levels they would be, and who differs in one has left the
 * trie with what was found so far. The bits that follow choose one of its slots, which is a value or another node.
 *
 * Most nodes choose by 6 bits and keep two bitmaps instead of 64 slots (as Asai and Ohara's Poptrie does): which slots
 * are nodes, and which begin a run of equal values. Where many prefixes differ in the bits that follow, a node has all
 * its slots in an array instead, for up to 16 bits: one step rather than three. A slot of those below which there is a
 * single prefix has a leaf, which takes a quarter of a line (half of one for IPv6). Values of shorter prefixes are written
 * into every slot that no longer one takes, so a search never goes back.
 *
 * Among 50,000 prefixes a search mostly reads one slot of the widest node and one leaf or node. That they are in no nearby
 * cache is then half of what it costs, so what counts is how much memory the table takes. */
#include "lpm.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

/* An address, its first bit the highest; IPv4 fills the upper 32. */
typedef unsigned __int128 address_bits;

enum {
    ADDRESS_BITS = 128,
    NARROW_BITS = 6,
    WIDE_BITS = 16,      /* 256 kB of slots: what is larger saves a step and takes the caches' room */
    SLOTS_FOR_EACH = 16, /* a wide node has at most so many slots for each of them that says something of its own */
    NARROW_SLOTS = 1 << NARROW_BITS,
    LINE_WORDS = 16,
    OWN_RUNS = 4,        /* values of runs that find room in the node's own line */
    LINES_MAX = 1 << 28, /* so that a word's index fits into 32 bits */
};

/* In a slot: the rest is a node's line, or a leaf's quarter of one. Otherwise it is a value. */
static const uint32_t IS_NODE = 1u << 31, IS_LEAF = 1u << 30;

union line {
    struct {
        address_bits path; /* its first `depth` bits are compared */
        uint64_t nodes;    /* narrow: slots that are nodes */
        uint64_t runs;     /* narrow: slots that begin a run of values; nodes do not interrupt it */
        uint32_t outside;  /* value of addresses that have left the path */
        uint32_t first;    /* narrow: line of the first slot that is a node; the others follow */
        uint32_t word;     /* narrow: of the first run's value; wide: of the first slot */
        uint8_t depth;
        uint8_t bits; /* NARROW_BITS or more */
        uint8_t unused[2];
        uint32_t own_runs[OWN_RUNS];
    } node;
    uint32_t words[LINE_WORDS];
};

/* The only prefix below a slot, and the value of the slot's other addresses. */
struct leaf_v4 {
    uint32_t path;
    uint32_t value, outside;
    uint8_t length; /* not 0 */
};
struct leaf_v6 {
    address_bits path;
    uint32_t value, outside;
    uint8_t length; /* not 0 */
};

_Static_assert(sizeof(union line) == 64 && offsetof(union line, node.own_runs) == 48, "a node fills one cache line");
_Static_assert(sizeof(struct leaf_v4) == 16 && sizeof(struct leaf_v6) == 32, "a leaf is in one line");
enum { OWN_RUNS_WORD = 12, QUARTER = 16 };

struct lpm {
    union line *lines;
    uint32_t count;
    uint32_t capacity;
    uint32_t root_v4, root_v6; /* slots */
};

struct entry {
    address_bits address;
    uint8_t length;
    uint32_t value;
    uint32_t order;
};

/* -- finding */

/* The `bits` behind the first `depth`. */
static inline unsigned slot_of(address_bits address, unsigned depth, unsigned bits)
{
    return (unsigned)((uint64_t)(address << depth >> 64) >> (64 - bits));
}

static inline void *leaf_at(const struct lpm *lpm, uint32_t quarter)
{
    return (char *)lpm->lines + (size_t)quarter * QUARTER;
}

/* `v6` is a constant where this is inlined: all of IPv4 happens in the upper half, which saves a fifth. */
__attribute__((always_inline)) static inline uint32_t find(const struct lpm *lpm, uint32_t slot, address_bits address,
                                                           bool v6)
{
    uint64_t upper = (uint64_t)(address >> 64);
    while (slot & IS_NODE) {
        const union line *line = &lpm->lines[slot & ~IS_NODE];
        unsigned depth = line->node.depth, bits = line->node.bits;
        /* shifted in two steps, since depth may be 0 */
        if (v6 ? (address ^ line->node.path) >> 1 >> (ADDRESS_BITS - 1 - depth) != 0
               : (upper ^ (uint64_t)(line->node.path >> 64)) >> 1 >> (63 - depth) != 0)
            return line->node.outside;
        unsigned index = v6 ? slot_of(address, depth, bits) : (unsigned)(upper << depth >> (64 - bits));
        uint32_t word = line->node.word;
        if (bits != NARROW_BITS) {
            word += index;
        } else {
            uint64_t up_to = ((uint64_t)2 << index) - 1;
            if (line->node.nodes >> index & 1) {
                slot = IS_NODE | (line->node.first + (uint32_t)__builtin_popcountll(line->node.nodes & up_to) - 1);
                continue;
            }
            word += (uint32_t)__builtin_popcountll(line->node.runs & up_to) - 1;
        }
        slot = lpm->lines[word / LINE_WORDS].words[word % LINE_WORDS];
    }
    if (!(slot & IS_LEAF))
        return slot;
    const void *at = leaf_at(lpm, slot & ~IS_LEAF);
    if (v6) {
        const struct leaf_v6 *leaf = at;
        return (address ^ leaf->path) >> (ADDRESS_BITS - leaf->length) == 0 ? leaf->value : leaf->outside;
    }
    const struct leaf_v4 *leaf = at;
    return ((uint32_t)(upper >> 32) ^ leaf->path) >> (32 - leaf->length) == 0 ? leaf->value : leaf->outside;
}

static inline address_bits from_v4(const uint8_t *bytes) { return (address_bits)get_u32(bytes) << 96; }
static inline address_bits from_v6(const uint8_t *bytes)
{
    return (address_bits)get_u64(bytes) << 64 | get_u64(bytes + 8);
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

/* -- building */

static unsigned common_bits(address_bits a, address_bits b)
{
    uint64_t high = (uint64_t)(a >> 64) ^ (uint64_t)(b >> 64), low = (uint64_t)a ^ (uint64_t)b;
    if (high != 0)
        return (unsigned)__builtin_clzll(high);
    return low != 0 ? 64 + (unsigned)__builtin_clzll(low) : ADDRESS_BITS;
}

static bool resize(struct lpm *lpm, uint32_t capacity)
{
    union line *lines = aligned_alloc(sizeof *lines, capacity * sizeof *lines);
    if (lines == NULL)
        return false;
    if (lpm->count > 0)
        memcpy(lines, lpm->lines, lpm->count * sizeof *lines);
    free(lpm->lines);
    lpm->lines = lines;
    lpm->capacity = capacity;
    return true;
}

static uint32_t *word_at(struct lpm *lpm, uint32_t word)
{
    return &lpm->lines[word / LINE_WORDS].words[word % LINE_WORDS];
}

static uint32_t lines_for(size_t bytes) { return (uint32_t)((bytes + sizeof(union line) - 1) / sizeof(union line)); }

/* Zeroed lines; the array may move. */
static bool add_lines(struct lpm *lpm, uint32_t count, uint32_t *first)
{
    *first = lpm->count;
    if (count > LINES_MAX - lpm->count)
        return false;
    uint32_t needed = lpm->count + count;
    if (needed > lpm->capacity && !resize(lpm, needed < LINES_MAX / 2 ? needed * 2 : LINES_MAX))
        return false;
    memset(lpm->lines + lpm->count, 0, count * sizeof lpm->lines[0]);
    lpm->count = needed;
    return true;
}

/* How many bits to choose by. Entries are in order, and agree in `depth` bits. */
static unsigned choose_bits(const struct entry *entries, uint32_t count, unsigned depth, unsigned width)
{
    uint32_t apart[WIDE_BITS] = {0}; /* neighbours that agree in so many bits behind `depth` */
    for (uint32_t i = 1; i < count; i++) {
        unsigned agree = common_bits(entries[i - 1].address, entries[i].address) - depth;
        if (agree < WIDE_BITS)
            apart[agree]++;
    }
    unsigned chosen = NARROW_BITS;
    uint64_t distinct = 1;
    for (unsigned bits = 1; bits <= WIDE_BITS && depth + bits <= width; bits++) {
        distinct += apart[bits - 1];
        if (bits > NARROW_BITS && apart[bits - 1] > 0 && distinct * SLOTS_FOR_EACH >= (uint64_t)1 << bits)
            chosen = bits;
    }
    return chosen;
}

/* Values of the slots that are no nodes, equal neighbours once. */
static bool write_runs(struct lpm *lpm, uint32_t at, const uint32_t slots[static NARROW_SLOTS])
{
    uint32_t values[NARROW_SLOTS];
    unsigned count = 0;
    uint64_t runs = 0, nodes = lpm->lines[at].node.nodes;
    for (unsigned i = 0; i < NARROW_SLOTS; i++)
        if (!(nodes >> i & 1) && (count == 0 || values[count - 1] != slots[i])) {
            runs |= (uint64_t)1 << i;
            values[count++] = slots[i];
        }
    uint32_t word = at * LINE_WORDS + OWN_RUNS_WORD;
    if (count > OWN_RUNS) {
        uint32_t line;
        if (!add_lines(lpm, lines_for(count * sizeof values[0]), &line))
            return false;
        word = line * LINE_WORDS;
    }
    memcpy(word_at(lpm, word), values, count * sizeof values[0]);
    lpm->lines[at].node.runs = runs;
    lpm->lines[at].node.word = word;
    return true;
}

/* The next entries that are longer than `decided` and agree in so many bits: [*from, *to). False when there are none. */
static bool next_below(const struct entry *entries, uint32_t count, unsigned decided, uint32_t *from, uint32_t *to)
{
    uint32_t i = *to;
    while (i < count && entries[i].length <= decided)
        i++;
    *from = i;
    while (i < count && common_bits(entries[*from].address, entries[i].address) >= decided)
        i++;
    *to = i;
    return *from < count;
}

static void write_leaf(struct lpm *lpm, uint32_t quarter, const struct entry *entry, unsigned width, uint32_t outside)
{
    if (width == 32)
        *(struct leaf_v4 *)leaf_at(lpm, quarter) =
            (struct leaf_v4){(uint32_t)(entry->address >> 96), entry->value, outside, entry->length};
    else
        *(struct leaf_v6 *)leaf_at(lpm, quarter) =
            (struct leaf_v6){entry->address, entry->value, outside, entry->length};
}

/* The node in line `at`, which is zeroed. Entries are in order, so those that contain others come before them and
 * the first is the shortest of those with its address; `outside` is the value of the prefix around all of them. */
static bool build_node(struct lpm *lpm, uint32_t at, const struct entry *entries, uint32_t count, unsigned width,
                       uint32_t outside)
{
    unsigned depth = common_bits(entries[0].address, entries[count - 1].address);
    if (depth > entries[0].length)
        depth = entries[0].length;
    unsigned bits = choose_bits(entries, count, depth, width);
    if (depth > ADDRESS_BITS - bits)
        depth = ADDRESS_BITS - bits;
    unsigned decided = depth + bits;

    uint32_t narrow_slots[NARROW_SLOTS], wide_line = 0;
    bool narrow = bits == NARROW_BITS;
    if (!narrow && !add_lines(lpm, (1u << bits) / LINE_WORDS, &wide_line))
        return false;
    uint32_t *slots = narrow ? narrow_slots : lpm->lines[wide_line].words;
    for (uint32_t i = 0; i < 1u << bits; i++)
        slots[i] = outside;
    for (uint32_t i = 0; i < count; i++)
        if (entries[i].length <= decided)
            for (uint32_t slot = slot_of(entries[i].address, depth, bits), left = 1u << (decided - entries[i].length);
                 left > 0; left--)
                slots[slot++] = entries[i].value;

    uint32_t below = 0, leaves = 0, first, first_leaf;
    uint64_t nodes = 0;
    for (uint32_t from, to = 0; next_below(entries, count, decided, &from, &to);) {
        if (narrow)
            nodes |= (uint64_t)1 << slot_of(entries[from].address, depth, bits);
        *(!narrow && to - from == 1 ? &leaves : &below) += 1;
    }
    unsigned leaf_size = width == 32 ? sizeof(struct leaf_v4) : sizeof(struct leaf_v6);
    if (!add_lines(lpm, below, &first) || !add_lines(lpm, lines_for((size_t)leaves * leaf_size), &first_leaf))
        return false;
    union line *line = &lpm->lines[at];
    line->node.path = entries[0].address;
    line->node.depth = (uint8_t)depth;
    line->node.bits = (uint8_t)bits;
    line->node.outside = outside;
    line->node.nodes = nodes;
    line->node.first = first;
    line->node.word = wide_line * LINE_WORDS;
    if (narrow && !write_runs(lpm, at, narrow_slots))
        return false;

    uint32_t child = first, leaf = first_leaf * (uint32_t)(sizeof(union line) / QUARTER);
    for (uint32_t from, to = 0; next_below(entries, count, decided, &from, &to);) {
        uint32_t slot = slot_of(entries[from].address, depth, bits);
        uint32_t around = narrow ? narrow_slots[slot] : *word_at(lpm, wide_line * LINE_WORDS + slot);
        if (!narrow && to - from == 1) {
            write_leaf(lpm, leaf, &entries[from], width, around);
            *word_at(lpm, wide_line * LINE_WORDS + slot) = IS_LEAF | leaf;
            leaf += leaf_size / QUARTER;
            continue;
        }
        if (!build_node(lpm, child, entries + from, to - from, width, around))
            return false;
        if (!narrow)
            *word_at(lpm, wide_line * LINE_WORDS + slot) = IS_NODE | child;
        child++;
    }
    return true;
}

static bool equal(const struct entry *a, const struct entry *b)
{
    return a->address == b->address && a->length == b->length;
}

/* By address, the containing before the contained, equal ones as in the list. */
static int in_order(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    if (a->length != b->length)
        return a->length < b->length ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

/* One family's prefixes in order, none of them twice. How many. */
static uint32_t sort_out(const struct lpm_prefix *prefixes, uint32_t count, bool v6, struct entry *entries)
{
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < count; i++)
        if (prefixes[i].v6 == v6) {
            unsigned length = prefixes[i].length;
            address_bits mask = length == 0 ? 0 : ~(address_bits)0 << (ADDRESS_BITS - length);
            address_bits address = v6 ? from_v6(prefixes[i].bytes) : from_v4(prefixes[i].bytes);
            entries[chosen++] = (struct entry){address & mask, prefixes[i].length, prefixes[i].value, i};
        }
    if (chosen > 1)
        qsort(entries, chosen, sizeof *entries, in_order);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < chosen; i++)
        if (kept == 0 || !equal(&entries[kept - 1], &entries[i]))
            entries[kept++] = entries[i];
    return kept;
}

static bool build_family(struct lpm *lpm, const struct entry *entries, uint32_t count, unsigned width, uint32_t *root)
{
    /* What /0 says is what is outside of all others: as the shortest below a node it would keep the path from starting
     * any deeper than at the first bit. */
    uint32_t outside = LPM_NONE;
    if (count > 0 && entries[0].length == 0) {
        outside = entries[0].value;
        entries++;
        count--;
    }
    *root = outside;
    if (count == 0)
        return true;
    uint32_t line;
    if (!add_lines(lpm, 1, &line))
        return false;
    *root = IS_NODE | line;
    return build_node(lpm, line, entries, count, width, outside);
}

struct lpm *lpm_build(const struct lpm_prefix *prefixes, uint32_t count)
{
    struct lpm *lpm = calloc(1, sizeof *lpm);
    struct entry *entries = malloc(((size_t)count + 1) * sizeof *entries);
    bool built = false;
    if (lpm == NULL || entries == NULL)
        goto finally;
    uint32_t v4 = sort_out(prefixes, count, false, entries);
    if (!build_family(lpm, entries, v4, 32, &lpm->root_v4))
        goto finally;
    uint32_t v6 = sort_out(prefixes, count, true, entries);
    if (!build_family(lpm, entries, v6, 128, &lpm->root_v6))
        goto finally;
    built = lpm->count == 0 || resize(lpm, lpm->count); /* no larger than needed */
finally:
    free(entries);
    if (built)
        return lpm;
    lpm_free(lpm);
    return NULL;
}

void lpm_free(struct lpm *lpm)
{
    if (lpm == NULL)
        return;
    free(lpm->lines);
    free(lpm);
}
