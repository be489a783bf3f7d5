/* Numbers up to 24 bits -> pointers: two levels, pages made when first needed and kept until the end.
 *
 * Readers take no lock. Writers hold the data plane's control lock, and free what they took out only after every
 * worker has been quiescent since (dataplane.h). */
#ifndef CVPND_ID_TABLE_H
#define CVPND_ID_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ID_TABLE_PAGE = 4096, ID_TABLE_PAGES = 4096, ID_TABLE_MAX = 0xFFFFFF };

struct id_table_page {
    _Atomic(void *) entries[ID_TABLE_PAGE];
};
struct id_table {
    _Atomic(struct id_table_page *) pages[ID_TABLE_PAGES];
};

static inline void *id_table_get(struct id_table *table, uint32_t id)
{
    if (id > ID_TABLE_MAX)
        return NULL;
    struct id_table_page *page = atomic_load(&table->pages[id / ID_TABLE_PAGE]);
    return page == NULL ? NULL : atomic_load(&page->entries[id % ID_TABLE_PAGE]);
}

/* False when memory is short. `id` is in range. */
bool id_table_put(struct id_table *table, uint32_t id, void *pointer);

/* What was there, now unpublished; NULL when nothing was. */
void *id_table_take(struct id_table *table, uint32_t id);

/* The first entry at or after *id; NULL after the last one. *id is set to the entry's number. */
void *id_table_next(struct id_table *table, uint32_t *id);

/* Frees the pages, not what they point at. */
void id_table_clear(struct id_table *table);

#endif
