#include "address_table.h"

#include <stdlib.h>

static struct lease TOMB;

/* Leases come from our own pools, so nobody chooses them to collide: mixing is all that is needed. The last octets,
 * where leases differ, are the top bytes here, so they are folded down before the multiplication carries them up. */
static size_t hash(const struct ip_address *address)
{
    uint64_t high, low;
    memcpy(&high, address->bytes, 8);
    memcpy(&low, address->bytes + 8, 8);
    uint64_t mixed = low ^ high * UINT64_C(0x9E3779B97F4A7C15);
    mixed ^= mixed >> 32;
    mixed *= UINT64_C(0xD6E8FEB86659FD93);
    return (size_t)(mixed ^ mixed >> 29);
}

static struct address_slots *slots_new(size_t size)
{
    struct address_slots *slots = calloc(1, sizeof *slots + size * sizeof slots->slots[0]);
    if (slots != NULL)
        slots->size = size;
    return slots;
}

static void slots_put(struct address_slots *slots, struct lease *lease)
{
    size_t at = hash(&lease->address) & (slots->size - 1);
    while (atomic_load(&slots->slots[at]) != NULL)
        at = (at + 1) & (slots->size - 1);
    atomic_store(&slots->slots[at], lease);
}

bool address_table_init(struct address_table *table)
{
    struct address_slots *slots = slots_new(64);
    atomic_store(&table->slots, slots);
    table->leases = table->tombs = 0;
    return slots != NULL;
}

struct lease *address_table_find(struct address_table *table, const struct ip_address *address)
{
    struct address_slots *slots = atomic_load(&table->slots);
    size_t at = hash(address) & (slots->size - 1);
    for (;;) {
        struct lease *lease = atomic_load(&slots->slots[at]);
        if (lease == NULL)
            return NULL;
        if (lease != &TOMB && ip_equal(&lease->address, address))
            return lease;
        at = (at + 1) & (slots->size - 1);
    }
}

bool address_table_reserve(struct address_table *table, size_t more, struct address_slots **retired)
{
    *retired = NULL;
    struct address_slots *old = atomic_load(&table->slots);
    if ((table->leases + table->tombs + more) * 2 <= old->size)
        return true;
    size_t size = 64;
    while (size < (table->leases + more) * 4)
        size *= 2;
    struct address_slots *slots = slots_new(size);
    if (slots == NULL)
        return false;
    for (size_t i = 0; i < old->size; i++) {
        struct lease *lease = atomic_load(&old->slots[i]);
        if (lease != NULL && lease != &TOMB)
            slots_put(slots, lease);
    }
    atomic_store(&table->slots, slots);
    table->tombs = 0;
    *retired = old;
    return true;
}

void address_table_put(struct address_table *table, struct lease *lease)
{
    slots_put(atomic_load(&table->slots), lease);
    table->leases++;
}

void address_table_take(struct address_table *table, struct lease *lease)
{
    struct address_slots *slots = atomic_load(&table->slots);
    size_t at = hash(&lease->address) & (slots->size - 1);
    while (atomic_load(&slots->slots[at]) != lease)
        at = (at + 1) & (slots->size - 1);
    atomic_store(&slots->slots[at], &TOMB);
    table->leases--;
    table->tombs++;
}

void address_table_clear(struct address_table *table)
{
    free(atomic_load(&table->slots));
    atomic_store(&table->slots, NULL);
}
