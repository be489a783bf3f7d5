#include "lpm.h"

#include <stdlib.h>
#include <string.h>

struct lpm_entry {
    uint32_t value; /* longest prefix that ends in this node and covers this entry */
    uint32_t child; /* node of the next byte; 0 = none, since node 0 is nobody's child */
};

struct lpm_node {
    struct lpm_entry entries[256];
};

/* Nodes 0 and 1 are the roots of IPv4 and IPv6. */
struct lpm {
    struct lpm_node *nodes;
    uint32_t count;
    uint32_t capacity;
};

enum { ROOT_V4 = 0, ROOT_V6 = 1, ROOTS = 2 };

static uint32_t find(const struct lpm *lpm, uint32_t node, const uint8_t *address, unsigned size)
{
    uint32_t value = LPM_NONE;
    for (unsigned i = 0; i < size; i++) {
        const struct lpm_entry *entry = &lpm->nodes[node].entries[address[i]];
        if (entry->value != LPM_NONE)
            value = entry->value;
        if (entry->child == 0)
            break;
        node = entry->child;
    }
    return value;
}

uint32_t lpm_find_v4(const struct lpm *lpm, const uint8_t address[static 4])
{
    return find(lpm, ROOT_V4, address, 4);
}

uint32_t lpm_find_v6(const struct lpm *lpm, const uint8_t address[static 16])
{
    return find(lpm, ROOT_V6, address, 16);
}

/* 0 when memory is short. */
static uint32_t add_node(struct lpm *lpm)
{
    if (lpm->count == lpm->capacity) {
        uint32_t capacity = lpm->capacity * 2;
        struct lpm_node *nodes = realloc(lpm->nodes, capacity * sizeof *nodes);
        if (nodes == NULL)
            return 0;
        lpm->nodes = nodes;
        lpm->capacity = capacity;
    }
    memset(&lpm->nodes[lpm->count], 0, sizeof lpm->nodes[0]);
    return lpm->count++;
}

static bool insert(struct lpm *lpm, const struct lpm_prefix *prefix)
{
    uint32_t node = prefix->v6 ? ROOT_V6 : ROOT_V4;
    unsigned byte = 0;
    unsigned left = prefix->length;
    for (; left > 8; left -= 8, byte++) {
        uint32_t child = lpm->nodes[node].entries[prefix->bytes[byte]].child;
        if (child == 0) {
            child = add_node(lpm);
            if (child == 0)
                return false;
            lpm->nodes[node].entries[prefix->bytes[byte]].child = child;
        }
        node = child;
    }
    unsigned first = left == 0 ? 0 : prefix->bytes[byte];
    unsigned covered = 1u << (8 - left);
    for (unsigned i = first; i < first + covered; i++)
        lpm->nodes[node].entries[i].value = prefix->value;
    return true;
}

void lpm_prefix_mask(struct lpm_prefix *prefix)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned kept = prefix->length > i * 8 ? prefix->length - i * 8 : 0;
        if (kept < 8)
            prefix->bytes[i] &= (uint8_t)(0xFF00u >> kept);
    }
}

static int by_length(const void *a, const void *b)
{
    return (int)((const struct lpm_prefix *)a)->length - (int)((const struct lpm_prefix *)b)->length;
}

struct lpm *lpm_build(struct lpm_prefix *prefixes, uint32_t count)
{
    struct lpm *lpm = calloc(1, sizeof *lpm);
    if (lpm == NULL)
        return NULL;
    lpm->capacity = 8;
    lpm->nodes = malloc(lpm->capacity * sizeof *lpm->nodes);
    if (lpm->nodes == NULL)
        goto fail;
    while (lpm->count < ROOTS)
        add_node(lpm);
    if (count > 1)
        qsort(prefixes, count, sizeof *prefixes, by_length);
    for (uint32_t i = 0; i < count; i++)
        if (!insert(lpm, &prefixes[i]))
            goto fail;
    return lpm;
fail:
    lpm_free(lpm);
    return NULL;
}

void lpm_free(struct lpm *lpm)
{
    if (lpm == NULL)
        return;
    free(lpm->nodes);
    free(lpm);
}
