/* The trie lives in one array of cache lines. A node is one line, and says how many bits of the address all prefixes
 * below it agree in: those are compared at once, however many levels they would be, and who differs in one has left the
 * trie with what was found so far. The bits that follow choose one of its slots. Values of shorter prefixes are written
 * into every slot that no longer one takes, so a search never goes back.
 *
 * Most nodes choose by 6 bits and keep two bitmaps instead of 64 slots (as Asai and Ohara's Poptrie does): which slots
 * have something below, and which begin a run of equal values. Where many prefixes differ in the bits that follow, a node
 * has all its slots in an array instead, for up to 16 bits: one step rather than three.
 *
 * Where few prefixes are left they lie in a bucket, half a line or one, and are compared one by one. A single one that is
 * at most 16 bits longer than what has been decided is in the wide slot itself.
 *
 * Among 50,000 prefixes most searches read one slot of the widest node and nothing else. That it is in no nearby cache is
 * then most of what it costs, so what counts is how many lines are read and how much memory the table takes. */
#include "lpm.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

/* An address, its first bit the highest; IPv4 fills the upper 32. */
typedef unsigned __int128 address_bits;

enum {
    ADDRESS_BITS = 128,
    NARROW_BITS = 6,
    WIDE_BITS = 16,      /* 512 kB of slots: what is larger saves a step and takes the caches' room */
    SLOTS_FOR_EACH = 16, /* a wide node has at most so many slots for each of them that says something of its own */
    NARROW_SLOTS = 1 << NARROW_BITS,
    LINE_WORDS = 16,
    LINE_SLOTS = 8,
    OWN_RUNS = 4,        /* values of runs that find room in the node's own line */
    LINES_MAX = 1 << 28, /* so that a word's index fits into 32 bits */
};

/* A wide node's slot, or a root: a value; where a node or bucket is, in halves of a line; or the only prefix below, by the
 * bits behind those that have been decided: */
enum {
    SINGLE_VALUE_BITS = 20, /* of its value, from bit 0, and of the slot's other addresses, from bit 20 */
    SINGLE_PATH_AT = 40,
    SINGLE_PATH_BITS = 16,
    SINGLE_LENGTH_AT = 56, /* 1 to 16 */
};
static const uint64_t IS_BELOW = UINT64_C(1) << 63, IS_SINGLE = UINT64_C(1) << 62;

/* What begins a node and a bucket. */
struct head {
    uint8_t bits;     /* of a node, NARROW_BITS or more; 0 is a bucket */
    uint8_t depth;    /* of a node: so many bits of the path are compared */
    uint8_t entries;  /* of a bucket */
    uint32_t outside; /* value of addresses that are on no path here */
};

union line {
    struct {
        struct head head;
        uint64_t path[2];
        uint64_t nodes; /* narrow: slots that have something below */
        uint64_t runs;  /* narrow: slots that begin a run of values; what is below does not interrupt it */
        uint32_t first; /* narrow: line of what is below the first such slot, the others follow; wide: of its slots */
        uint32_t word;  /* narrow: of the first run's value */
        uint32_t own_runs[OWN_RUNS];
    } node;
    uint32_t words[LINE_WORDS];
    uint64_t slots[LINE_SLOTS];
};

/* The containing before the contained: the last that matches decides. */
struct bucket_v4 {
    struct head head;
    uint64_t entries[]; /* from the lowest bit: length less 1 in 5, value in 27, address in 32 */
};
struct bucket_v6 {
    struct head head;
    struct {
        uint64_t path[2];
        uint32_t value;
        uint8_t length;
    } entries[];
};

enum {
    OWN_RUNS_WORD = 12,
    HALF = 32,
    BUCKET_V4_HALF = (HALF - sizeof(struct head)) / 8,
    BUCKET_V4 = (2 * HALF - sizeof(struct head)) / 8,
    BUCKET_V6_HALF = (HALF - sizeof(struct head)) / 24,
    BUCKET_V6 = (2 * HALF - sizeof(struct head)) / 24,
};
_Static_assert(sizeof(union line) == 2 * HALF && offsetof(union line, node.own_runs) == OWN_RUNS_WORD * 4,
               "a cache line");
_Static_assert(sizeof(((struct bucket_v6 *)0)->entries[0]) == 24 && BUCKET_V6_HALF == 1, "a bucket is in one line");
_Static_assert(LPM_VALUE_MAX < 1 << 27, "a value fits into a bucket's entry");

struct lpm {
    union line *lines;
    uint32_t count;
    uint32_t capacity;
    uint64_t root_v4, root_v6; /* slots */
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

static inline void *half_at(const struct lpm *lpm, uint32_t half) { return (char *)lpm->lines + (size_t)half * HALF; }

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

/* Half a line is enough, or a line; 0 when they are too many for a bucket. */
static unsigned bucket_halves(uint32_t count, unsigned width)
{
    bool v4 = width == 32;
    return count <= (v4 ? BUCKET_V4_HALF : BUCKET_V6_HALF) ? 1 : count <= (v4 ? BUCKET_V4 : BUCKET_V6) ? 2 : 0;
}

static void write_bucket(void *at, const struct entry *entries, uint32_t count, unsigned width, uint32_t outside)
{
    struct bucket_v4 *four = at;
    struct bucket_v6 *six = at;
    four->head = (struct head){.entries = (uint8_t)count, .outside = outside};
    for (uint32_t i = 0; i < count; i++) {
        const struct entry *entry = &entries[i];
        if (width == 32) {
            four->entries[i] = (uint64_t)(entry->address >> 96) << 32 | entry->value << 5 | (entry->length - 1u);
        } else {
            six->entries[i].path[0] = (uint64_t)(entry->address >> 64);
            six->entries[i].path[1] = (uint64_t)entry->address;
            six->entries[i].value = entry->value;
            six->entries[i].length = entry->length;
        }
    }
}

/* The slot of a wide node that has this prefix alone below it; 0 when it does not fit. */
static uint64_t single_slot(const struct entry *entry, unsigned decided, uint32_t outside)
{
    unsigned more = entry->length - decided;
    if (more > SINGLE_PATH_BITS || (entry->value | outside) >> SINGLE_VALUE_BITS != 0)
        return 0;
    return IS_SINGLE | (uint64_t)more << SINGLE_LENGTH_AT |
           (uint64_t)slot_of(entry->address, decided, SINGLE_PATH_BITS) << SINGLE_PATH_AT |
           (uint64_t)outside << SINGLE_VALUE_BITS | entry->value;
}

static bool build_node(struct lpm *lpm, uint32_t at, const struct entry *entries, uint32_t count, unsigned width,
                       uint32_t outside);

/* A bucket or a node, from this half on; the halves are zeroed. */
static bool build_below(struct lpm *lpm, uint32_t half, const struct entry *entries, uint32_t count, unsigned width,
                        uint32_t outside)
{
    if (bucket_halves(count, width) == 0)
        return build_node(lpm, half / 2, entries, count, width, outside);
    write_bucket(half_at(lpm, half), entries, count, width, outside);
    return true;
}

static uint64_t *slot_at(struct lpm *lpm, uint32_t first, uint32_t slot)
{
    return &lpm->lines[first + slot / LINE_SLOTS].slots[slot % LINE_SLOTS];
}

/* What is below the slots of a wide node, which hold the values around it so far. */
static bool build_wide(struct lpm *lpm, uint32_t slots, const struct entry *entries, uint32_t count, unsigned depth,
                       unsigned bits, unsigned width)
{
    unsigned decided = depth + bits;
    uint32_t halves = 0, lines = 0, first_half, first_line;
    for (uint32_t from, to = 0; next_below(entries, count, decided, &from, &to);) {
        uint64_t *slot = slot_at(lpm, slots, slot_of(entries[from].address, depth, bits));
        uint64_t single = to - from == 1 ? single_slot(&entries[from], decided, (uint32_t)*slot) : 0;
        if (single != 0)
            *slot = single;
        else if (bucket_halves(to - from, width) == 1)
            halves++;
        else
            lines++;
    }
    if (!add_lines(lpm, lines, &first_line) || !add_lines(lpm, (halves + 1) / 2, &first_half))
        return false;
    first_half *= 2;
    first_line *= 2;
    for (uint32_t from, to = 0; next_below(entries, count, decided, &from, &to);) {
        uint64_t *slot = slot_at(lpm, slots, slot_of(entries[from].address, depth, bits));
        if (*slot & IS_SINGLE)
            continue;
        uint32_t outside = (uint32_t)*slot, *next = bucket_halves(to - from, width) == 1 ? &first_half : &first_line;
        uint32_t half = *next;
        *slot = IS_BELOW | half;
        *next += next == &first_half ? 1 : 2;
        if (!build_below(lpm, half, entries + from, to - from, width, outside)) /* the array may move */
            return false;
    }
    return true;
}

/* The same of a narrow node in line `at`. */
static bool build_narrow(struct lpm *lpm, uint32_t at, const struct entry *entries, uint32_t count, unsigned depth,
                         unsigned width, const uint32_t slots[static NARROW_SLOTS])
{
    unsigned decided = depth + NARROW_BITS;
    uint32_t below = 0, child;
    uint64_t nodes = 0;
    for (uint32_t from, to = 0; next_below(entries, count, decided, &from, &to); below++)
        nodes |= (uint64_t)1 << slot_of(entries[from].address, depth, NARROW_BITS);
    if (!add_lines(lpm, below, &child))
        return false;
    lpm->lines[at].node.nodes = nodes;
    lpm->lines[at].node.first = child;
    if (!write_runs(lpm, at, slots))
        return false;
    for (uint32_t from, to = 0; next_below(entries, count, decided, &from, &to); child++) {
        uint32_t around = slots[slot_of(entries[from].address, depth, NARROW_BITS)];
        if (!build_below(lpm, child * 2, entries + from, to - from, width, around))
            return false;
    }
    return true;
}

static void set_slot(uint32_t *narrow, uint64_t *wide, uint32_t slot, uint32_t value)
{
    if (wide == NULL)
        narrow[slot] = value;
    else
        wide[slot] = value;
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

    uint32_t values[NARROW_SLOTS], slots = 0;
    bool narrow = bits == NARROW_BITS;
    if (!narrow && !add_lines(lpm, (1u << bits) / LINE_SLOTS, &slots))
        return false;
    uint64_t *wide = narrow ? NULL : lpm->lines[slots].slots;
    for (uint32_t i = 0; i < 1u << bits; i++)
        set_slot(values, wide, i, outside);
    for (uint32_t i = 0; i < count; i++)
        if (entries[i].length <= decided)
            for (uint32_t slot = slot_of(entries[i].address, depth, bits), left = 1u << (decided - entries[i].length);
                 left > 0; left--)
                set_slot(values, wide, slot++, entries[i].value);

    union line *line = &lpm->lines[at];
    line->node.head = (struct head){.bits = (uint8_t)bits, .depth = (uint8_t)depth, .outside = outside};
    line->node.path[0] = (uint64_t)(entries[0].address >> 64);
    line->node.path[1] = (uint64_t)entries[0].address;
    line->node.first = slots;
    return narrow ? build_narrow(lpm, at, entries, count, depth, width, values)
                  : build_wide(lpm, slots, entries, count, depth, bits, width);
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

static bool build_family(struct lpm *lpm, const struct entry *entries, uint32_t count, unsigned width, uint64_t *root)
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
    *root = IS_BELOW | line * 2;
    return build_below(lpm, line * 2, entries, count, width, outside);
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
