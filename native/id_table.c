#include "id_table.h"

#include <stdlib.h>

bool id_table_put(struct id_table *table, uint32_t id, void *pointer)
{
    struct id_table_page *page = atomic_load(&table->pages[id / ID_TABLE_PAGE]);
    if (page == NULL) {
        page = calloc(1, sizeof *page);
        if (page == NULL)
            return false;
        atomic_store(&table->pages[id / ID_TABLE_PAGE], page);
    }
    atomic_store(&page->entries[id % ID_TABLE_PAGE], pointer);
    return true;
}

void *id_table_take(struct id_table *table, uint32_t id)
{
    if (id > ID_TABLE_MAX)
        return NULL;
    struct id_table_page *page = atomic_load(&table->pages[id / ID_TABLE_PAGE]);
    return page == NULL ? NULL : atomic_exchange(&page->entries[id % ID_TABLE_PAGE], NULL);
}

void *id_table_next(struct id_table *table, uint32_t *id)
{
    for (uint32_t at = *id; at <= ID_TABLE_MAX;) {
        struct id_table_page *page = atomic_load(&table->pages[at / ID_TABLE_PAGE]);
        if (page == NULL) {
            at = (at / ID_TABLE_PAGE + 1) * ID_TABLE_PAGE;
            continue;
        }
        void *entry = atomic_load(&page->entries[at % ID_TABLE_PAGE]);
        if (entry != NULL) {
            *id = at;
            return entry;
        }
        at++;
    }
    *id = ID_TABLE_MAX + 1;
    return NULL;
}

void id_table_clear(struct id_table *table)
{
    for (unsigned i = 0; i < ID_TABLE_PAGES; i++) {
        free(atomic_load(&table->pages[i]));
        atomic_store(&table->pages[i], NULL);
    }
}
