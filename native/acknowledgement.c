#include "acknowledgement.h"

#include <string.h>

#include "transport.h"
#include "wire.h"

enum {
    TIMESTAMP_SIZE = 12, /* with the two no operations before it */
    SACK_HEAD = 4,       /* the same, kind and length */
    SACK_BLOCK = 8,
    REPEATS_COUNTED = 3, /* duplicates by which a segment is taken for lost (RFC 5681 3.2): each has to arrive */
};

/* How everybody writes them, behind two times no operation (RFC 7323 appendix A, RFC 2018). */
static const uint8_t TIMESTAMP_OPTION[] = {1, 1, 8, 10}, SACK_OPTION[] = {1, 1, 5};

bool acknowledgement_read(struct acknowledgement *read, const uint8_t *tcp, uint32_t size)
{
    *read = (struct acknowledgement){.tcp = tcp, .size = (uint16_t)size};
    uint32_t at = TCP_HEADER;
    read->stamped = size >= at + TIMESTAMP_SIZE && memcmp(tcp + at, TIMESTAMP_OPTION, sizeof TIMESTAMP_OPTION) == 0;
    if (read->stamped)
        at += TIMESTAMP_SIZE;
    if (size == at)
        return true;
    if (size < at + SACK_HEAD + SACK_BLOCK || (size - at - SACK_HEAD) % SACK_BLOCK != 0 ||
        memcmp(tcp + at, SACK_OPTION, sizeof SACK_OPTION) != 0 || tcp[at + 3] != size - at - 2)
        return false;
    read->sack = (uint16_t)(at + SACK_HEAD);
    return true;
}

static bool later(uint32_t one, uint32_t other) { return (int32_t)(one - other) > 0; }

static uint32_t acknowledged(const struct acknowledgement *of) { return get_u32(of->tcp + TCP_ACKNOWLEDGEMENT); }

/* A block's edges are sequence numbers, of which the right one is outside of it. */
static unsigned blocks(const struct acknowledgement *of)
{
    return of->sack == 0 ? 0 : (of->size - of->sack) / (unsigned)SACK_BLOCK;
}

static const uint8_t *block_at(const struct acknowledgement *of, unsigned index)
{
    return of->tcp + of->sack + index * SACK_BLOCK;
}

static bool has_in_blocks(const struct acknowledgement *of, unsigned from, const uint8_t *block)
{
    for (unsigned i = from; i < blocks(of); i++) {
        const uint8_t *around = block_at(of, i);
        if (!later(get_u32(around), get_u32(block)) && !later(get_u32(block + 4), get_u32(around + 4)))
            return true;
    }
    return false;
}

/* A block of what had arrived before (RFC 2883): of what is acknowledged anyway, or inside of the second block. */
static bool tells_of_duplicates(const struct acknowledgement *of)
{
    for (unsigned i = 0; i < blocks(of); i++)
        if (!later(get_u32(block_at(of, i)), acknowledged(of)))
            return true;
    return blocks(of) > 0 && has_in_blocks(of, 1, block_at(of, 0));
}

/* All that has arrived by the one's blocks has by the other. */
static bool has_all_blocks(const struct acknowledgement *now, const struct acknowledgement *before)
{
    for (unsigned i = 0; i < blocks(before); i++) {
        const uint8_t *block = block_at(before, i);
        if (later(get_u32(block + 4), acknowledged(now)) && !has_in_blocks(now, 0, block))
            return false;
    }
    return true;
}

/* Duplicates are counted, and so stay; but of those beyond what is counted it matters only what blocks they have (RFC 6675). */
bool acknowledgement_says_all(const struct acknowledgement *now, const struct acknowledgement *before,
                              unsigned repeats)
{
    const uint8_t *a = before->tcp, *b = now->tcp;
    uint32_t time = TCP_HEADER + sizeof TIMESTAMP_OPTION;
    if (memcmp(a + TCP_SEQUENCE, b + TCP_SEQUENCE, 4) != 0 || before->stamped != now->stamped ||
        (now->stamped && later(get_u32(a + time), get_u32(b + time))))
        return false;
    if (repeats > 0 && (repeats <= REPEATS_COUNTED || before->sack == 0))
        return false;
    if (tells_of_duplicates(before) || !has_all_blocks(now, before))
        return false;
    if (acknowledged(now) != acknowledged(before))
        return later(acknowledged(now), acknowledged(before));
    return repeats > 0 && now->sack != 0 && !has_in_blocks(before, 0, block_at(now, 0)) &&
           memcmp(a + TCP_WINDOW, b + TCP_WINDOW, 2) == 0;
}
