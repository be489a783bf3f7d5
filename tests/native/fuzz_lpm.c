/* Any list of prefixes, then any addresses, against a search of the list. A prefix is a byte of flags, a length and an
 * address; one with the flag COPY begins with as many bits of the prefix before it as its next byte says, since a
 * fuzzer does not find by itself what nests. */
#include "check.h"
#include "lpm_model.h"
#include "wire.h"

enum { PREFIXES = 512, V6 = 1, COPY = 2, SIZE_OF_EACH = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy_bits(uint8_t *into, const uint8_t *from, unsigned bits)
{
    for (unsigned i = 0; i < bits; i++) {
        uint8_t bit = (uint8_t)(0x80 >> i % 8);
        into[i / 8] = (uint8_t)((into[i / 8] & ~bit) | (from[i / 8] & bit));
    }
}

static bool take_prefix(struct cursor *input, struct lpm_prefix *prefix, const struct lpm_prefix *before)
{
    uint8_t flags, length, copied = 0;
    const uint8_t *bytes;
    if (!take_u8(input, &flags) || !take_u8(input, &length) || (flags & COPY && !take_u8(input, &copied)))
        return false;
    *prefix = (struct lpm_prefix){.v6 = flags & V6, .length = (uint8_t)(length % (flags & V6 ? 129 : 33))};
    unsigned size = prefix->v6 ? 16 : 4;
    if (!take_bytes(input, size, &bytes))
        return false;
    memcpy(prefix->bytes, bytes, size);
    if (before != NULL)
        copy_bits(prefix->bytes, before->bytes, copied % (size * 8 + 1));
    prefix->value = 1 + (flags >> 2) % 8; /* few, so that neighbours are equal */
    return true;
}

static void compare(const struct lpm *lpm, const struct lpm_prefix *prefixes, unsigned count, const uint8_t *address)
{
    CHECK(lpm_find_v4(lpm, address) == model_find(prefixes, count, false, address));
    CHECK(lpm_find_v6(lpm, address) == model_find(prefixes, count, true, address));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lpm_prefix prefixes[PREFIXES];
    struct cursor input = cursor_over(data, size);
    uint8_t wanted = 0;
    unsigned count = 0;
    take_u8(&input, &wanted);
    while (count < wanted * 2u && count < PREFIXES &&
           take_prefix(&input, &prefixes[count], count == 0 ? NULL : &prefixes[count - 1]))
        count++;
    struct lpm *lpm = lpm_build(prefixes, count);
    CHECK(lpm != NULL && lpm_size(lpm) <= (count + 1) * SIZE_OF_EACH);
    for (unsigned i = 0; i < count; i++) {
        uint8_t address[16];
        memcpy(address, prefixes[i].bytes, 16);
        compare(lpm, prefixes, count, address);
        for (unsigned bit = prefixes[i].length; bit < 128; bit++) /* its last address */
            address[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
        compare(lpm, prefixes, count, address);
        if (prefixes[i].length > 0) { /* its neighbour */
            address[(prefixes[i].length - 1) / 8] ^= (uint8_t)(0x80 >> (prefixes[i].length - 1) % 8);
            compare(lpm, prefixes, count, address);
        }
    }
    for (const uint8_t *address; take_bytes(&input, 16, &address);)
        compare(lpm, prefixes, count, address);
    lpm_free(lpm);
    return 0;
}
