/* Inner address -> the peer that leases it; one table for each endpoint, IPv4 and IPv6 in one, open addressing.
 *
 * Readers take no lock: a slot is one atomic pointer to a lease, and a lease never changes. Writers hold the
 * control lock. When the table grows, the old one must outlive its readers: address_table_reserve hands it back. */
#ifndef CVPND_ADDRESS_TABLE_H
#define CVPND_ADDRESS_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

/* Belongs to its peer. */
struct lease {
    struct ip_address address;
    struct peer *peer;
};

struct address_slots {
    size_t size; /* a power of two */
    _Atomic(struct lease *) slots[];
};

struct address_table {
    _Atomic(struct address_slots *) slots;
    size_t leases;
    size_t tombs; /* slots whose lease was taken out: probing goes on past them */
};

bool address_table_init(struct address_table *table);

/* The lease of an address, or NULL. */
struct lease *address_table_find(struct address_table *table, const struct ip_address *address);

/* Makes room for `more` leases. False when memory is short. *retired is NULL or what the caller frees once every
 * worker has been quiescent. */
bool address_table_reserve(struct address_table *table, size_t more, struct address_slots **retired);

/* After a reserve; the address is not in the table. */
void address_table_put(struct address_table *table, struct lease *lease);

void address_table_take(struct address_table *table, struct lease *lease);

void address_table_clear(struct address_table *table);

#endif
