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
#ifndef CVPND_LPM_INTERNAL_H
#define CVPND_LPM_INTERNAL_H

#include <stddef.h>

#include "lpm.h"
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

/* The `bits` behind the first `depth`. */
static inline unsigned slot_of(address_bits address, unsigned depth, unsigned bits)
{
    return (unsigned)((uint64_t)(address << depth >> 64) >> (64 - bits));
}

static inline void *half_at(const struct lpm *lpm, uint32_t half) { return (char *)lpm->lines + (size_t)half * HALF; }

static inline address_bits from_v4(const uint8_t *bytes) { return (address_bits)get_u32(bytes) << 96; }
static inline address_bits from_v6(const uint8_t *bytes)
{
    return (address_bits)get_u64(bytes) << 64 | get_u64(bytes + 8);
}

#endif
