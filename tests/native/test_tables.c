/* Ids and addresses: against plain arrays. */
#include "address_table.h"
#include "check.h"
#include "events.h"
#include "id_table.h"

static void ids_are_found_and_visited_in_order(void)
{
    static struct id_table table;
    static const uint32_t ids[] = {0, 1, 4095, 4096, 70000, ID_TABLE_MAX};
    static int things[6];
    for (unsigned i = 0; i < 6; i++)
        CHECK(id_table_put(&table, ids[i], &things[i]));
    uint32_t id = 0;
    for (unsigned i = 0; i < 6; i++, id++) {
        CHECK(id_table_get(&table, ids[i]) == &things[i]);
        CHECK(id_table_next(&table, &id) == &things[i]);
        CHECK_EQUAL(id, ids[i]);
    }
    CHECK(id_table_next(&table, &id) == NULL);
    CHECK(id_table_get(&table, 2) == NULL);
    CHECK(id_table_get(&table, ID_TABLE_MAX + 1) == NULL);
    CHECK(id_table_take(&table, 4096) == &things[3]);
    CHECK(id_table_take(&table, 4096) == NULL);
    CHECK(id_table_get(&table, 4096) == NULL);
    id_table_clear(&table);
    CHECK(id_table_get(&table, 0) == NULL);
}

static void addresses_survive_growth_and_removal(void)
{
    enum { LEASES = 3000 };
    static struct lease leases[LEASES];
    static bool present[LEASES];
    struct address_table table;
    CHECK(address_table_init(&table));
    for (unsigned i = 0; i < LEASES; i++) {
        uint8_t v4[4] = {10, 100, (uint8_t)(i >> 8), (uint8_t)i},
                v6[16] = {0xfd, [14] = (uint8_t)(i >> 8), (uint8_t)i};
        leases[i].address = i % 3 == 0 ? ip_from_v6(v6) : ip_from_v4(v4);
    }
    uint64_t random = 3;
    for (unsigned step = 0; step < 40000; step++) {
        unsigned i = (unsigned)(next_random(&random) % LEASES);
        if (present[i]) {
            address_table_take(&table, &leases[i]);
        } else {
            struct address_slots *retired;
            CHECK(address_table_reserve(&table, 1, &retired));
            free(retired);
            address_table_put(&table, &leases[i]);
        }
        present[i] = !present[i];
        unsigned other = (unsigned)(next_random(&random) % LEASES);
        CHECK(address_table_find(&table, &leases[other].address) == (present[other] ? &leases[other] : NULL));
    }
    for (unsigned i = 0; i < LEASES; i++)
        CHECK(address_table_find(&table, &leases[i].address) == (present[i] ? &leases[i] : NULL));
    address_table_clear(&table);
}

static size_t count_and_free(struct event *event)
{
    size_t count = 0;
    for (struct event *next; event != NULL; event = next, count++) {
        next = event->next;
        free(event);
    }
    return count;
}

static void event_queue_is_bounded_in_number_and_bytes(void)
{
    static uint8_t payload[64 << 10];
    struct events events;
    CHECK(events_init(&events));
    struct event event = {.kind = EVENT_PEER_EXIT, .peer_id = 1};
    for (unsigned i = 0; i < EVENTS_MAX; i++)
        CHECK(events_push(&events, &event, NULL, 0));
    CHECK(!events_push(&events, &event, NULL, 0));
    CHECK_EQUAL(count_and_free(events_take(&events)), EVENTS_MAX);
    CHECK(events_take(&events) == NULL);
    for (unsigned i = 0; i < EVENT_BYTES_MAX / sizeof payload; i++)
        CHECK(events_push(&events, &event, payload, sizeof payload));
    CHECK(!events_push(&events, &event, payload, 1));
    events_destroy(&events);
}

static unsigned push_control(struct events *events, struct event_share *share, unsigned attempts)
{
    static const uint8_t payload[2000];
    const struct event event = {.kind = EVENT_TCP_CONTROL, .peer_id = 1};
    unsigned taken = 0;
    for (unsigned i = 0; i < attempts; i++)
        taken += events_push_control(events, share, &event, payload, attempts == 1 ? 1 : sizeof payload);
    return taken;
}

static void no_peer_takes_the_room_of_others(void)
{
    enum { NOISY = EVENTS_OF_CLIENTS };
    static struct event_share shares[NOISY], quiet;
    struct events events;
    CHECK(events_init(&events));
    for (unsigned round = 0; round < 2; round++) {
        CHECK_EQUAL(push_control(&events, &shares[0], EVENTS_OF_PEER + 9), EVENTS_OF_PEER);
        CHECK_EQUAL(push_control(&events, &quiet, 1), 1);
        for (unsigned i = 1; i < NOISY; i++)
            push_control(&events, &shares[i], EVENTS_OF_PEER + 1);
        CHECK(events.bytes <= EVENT_BYTES_OF_CLIENTS);
        for (unsigned i = 0; i < NOISY; i++)
            while (push_control(&events, &shares[i], 1) == 1) {
            }
        CHECK(events.count <= EVENTS_OF_CLIENTS);
        const struct event of_plane = {.kind = EVENT_FLOAT_SEEN, .peer_id = 2};
        for (unsigned i = EVENTS_OF_CLIENTS; i < EVENTS_MAX; i++)
            CHECK(events_push(&events, &of_plane, NULL, 0));
        size_t waiting = events.count;
        CHECK_EQUAL(count_and_free(events_take(&events)), waiting);
    }
    events_destroy(&events);
}

static void removed_peer_is_forgotten(void)
{
    struct events events;
    CHECK(events_init(&events));
    for (uint32_t peer = 0; peer < 6; peer++) {
        struct event event = {.kind = EVENT_TCP_CONTROL, .peer_id = peer % 2};
        CHECK(events_push(&events, &event, "packet", 6));
    }
    struct event stray = {.kind = EVENT_STRAY_CONTROL, .listener = 1};
    CHECK(events_push(&events, &stray, "packet", 6));
    events_forget_peer(&events, 0); /* a stray control packet is of no peer */
    struct event last = {.kind = EVENT_PEER_EXIT, .peer_id = 1};
    CHECK(events_push(&events, &last, NULL, 0));
    CHECK_EQUAL(count_and_free(events_take(&events)), 5);
    events_destroy(&events);
}

int main(void)
{
    RUN(ids_are_found_and_visited_in_order);
    RUN(addresses_survive_growth_and_removal);
    RUN(event_queue_is_bounded_in_number_and_bytes);
    RUN(no_peer_takes_the_room_of_others);
    RUN(removed_peer_is_forgotten);
    return 0;
}
