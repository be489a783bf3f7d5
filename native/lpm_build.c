/* Building; lpm_internal.h says what. */
#include <stdlib.h>
#include <string.h>

#include "lpm_internal.h"

struct entry {
    address_bits address;
    uint8_t length;
    uint32_t value;
    uint32_t order;
};

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
