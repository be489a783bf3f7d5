/* The doorman's limits and its queue. */
#include <poll.h>

#include "check.h"
#include "door_queue.h"

static struct door_queue queue;

static struct door_packet packet_from(uint32_t host, uint16_t port, uint8_t session)
{
    static const uint8_t bytes[14];
    struct door_packet packet = {.key = {.listener = 1}, .bytes = bytes, .length = sizeof bytes};
    packet.key.source.ip =
        ip_from_v4((const uint8_t[]){10, (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host});
    packet.key.source.port = port;
    packet.key.session_id[0] = session;
    return packet;
}

static bool readable(void) { return poll(&(struct pollfd){.fd = queue.fd, .events = POLLIN}, 1, 0) == 1; }

static unsigned fetch(unsigned most, unsigned counts[static DOOR_CLASSES])
{
    unsigned mosts[DOOR_CLASSES] = {most, most, most, most}, count = 0;
    memset(counts, 0, DOOR_CLASSES * sizeof *counts);
    enum door_class before = DOOR_ESTABLISHED;
    for (struct door_item *item = door_fetch(&queue, mosts), *next; item != NULL; item = next, count++) {
        next = item->next;
        CHECK(item->standing >= before); /* the established first */
        before = item->standing;
        counts[item->standing]++;
        free(item);
    }
    return count;
}

static void sessions_are_found_until_forgotten(void)
{
    enum { SESSIONS = 5000 };
    CHECK(door_queue_init(&queue));
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct door_packet packet = packet_from(i / 4, (uint16_t)(i % 4), (uint8_t)i);
        CHECK(door_know(&queue, &packet.key, DOOR_HANDSHAKE) && door_know(&queue, &packet.key, DOOR_HANDSHAKE));
    }
    CHECK_EQUAL(queue.session_count, SESSIONS);
    unsigned counts[DOOR_CLASSES];
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct door_packet packet = packet_from(i / 4, (uint16_t)(i % 4), (uint8_t)i);
        CHECK_EQUAL(door_push_known_locked(&queue, &packet, 0), DOOR_QUEUED);
        CHECK(readable());
        CHECK_EQUAL(fetch(1, counts), 1);
        CHECK(!readable());
        packet.key.session_id[1] = 1;
        CHECK_EQUAL(door_push_known_locked(&queue, &packet, 0), DOOR_UNKNOWN);
        packet.key.session_id[1] = 0;
        if (i % 2 == 0)
            door_forget(&queue, &packet.key), door_forget(&queue, &packet.key);
        CHECK_EQUAL(door_push_known_locked(&queue, &packet, 0), i % 2 == 0 ? DOOR_UNKNOWN : DOOR_QUEUED);
        fetch(1, counts);
    }
    door_forget_listener(&queue, 2);
    CHECK_EQUAL(queue.session_count, SESSIONS / 2);
    door_forget_listener(&queue, 1);
    CHECK_EQUAL(queue.session_count, 0);
    door_queue_destroy(&queue);
}

static void nobody_has_more_than_a_share(void)
{
    unsigned counts[DOOR_CLASSES], queued = 0;
    CHECK(door_queue_init(&queue));
    struct door_packet one = packet_from(1, 1, 1), other = packet_from(1, 2, 1);
    CHECK(door_know(&queue, &one.key, DOOR_ESTABLISHED) && door_know(&queue, &other.key, DOOR_ESTABLISHED));
    for (unsigned i = 0; i < 10000; i++)
        queued += door_push_known_locked(&queue, &one, 0) == DOOR_QUEUED;
    CHECK_EQUAL(queued, DOOR_SESSION_WAITING);
    CHECK_EQUAL(door_push_known_locked(&queue, &other, 0), DOOR_QUEUED);

    unsigned first = 0;
    for (unsigned i = 0; i < 10000; i++) {
        struct door_packet stranger = packet_from(7, (uint16_t)(100 + i), 9);
        first += door_push_first_locked(&queue, &stranger, 0) == DOOR_QUEUED;
    }
    CHECK_EQUAL(first, DOOR_PREFIX_WAITING);
    for (unsigned i = 0; i < 100000; i++) {
        struct door_packet stranger = packet_from(1000 + i, 1, 9);
        first += door_push_first_locked(&queue, &stranger, 0) == DOOR_QUEUED;
    }
    CHECK_EQUAL(first, 1024);
    CHECK_EQUAL(queue.session_count, 2 + first); /* who was not let through is not remembered */
    CHECK_EQUAL(door_push_known_locked(&queue, &other, 0), DOOR_QUEUED); /* strangers take nobody's place */

    CHECK_EQUAL(fetch(16, counts), 32);
    CHECK(counts[DOOR_ESTABLISHED] == 16 && counts[DOOR_STRANGER] == 16);
    CHECK(readable());
    while (fetch(500, counts) > 0) {
    }
    CHECK(!readable());
    CHECK_EQUAL(queue.waiting, 0);
    for (unsigned i = 0; i < DOOR_PREFIX_COUNTS; i++)
        CHECK_EQUAL(queue.prefix_waiting[i], 0);
    queued = 0;
    for (unsigned i = 0; i < 10000; i++) { /* a session's rate, however fast it is fetched */
        queued += door_push_known_locked(&queue, &one, 1) == DOOR_QUEUED;
        fetch(1, counts);
    }
    CHECK(queued < DOOR_SESSION_PACKETS_PER_S + 2);
    door_queue_destroy(&queue);
}

/* Of data, the bytes where control packets have their session id are whatever the client writes. */
static void data_that_looks_like_its_session_makes_no_room_for_more(void)
{
    CHECK(door_queue_init(&queue));
    struct door_packet one = packet_from(1, 1, 1);
    CHECK(door_know(&queue, &one.key, DOOR_ESTABLISHED));
    for (unsigned i = 0; i < DOOR_SESSION_WAITING; i++) {
        CHECK_EQUAL(door_push_known_locked(&queue, &one, 0), DOOR_QUEUED);
        CHECK_EQUAL(door_push_data_locked(&queue, &one, 0), DOOR_QUEUED);
    }
    const unsigned only_data[DOOR_CLASSES] = {[DOOR_DATA] = DOOR_SESSION_WAITING};
    for (struct door_item *item = door_fetch(&queue, only_data), *next; item != NULL; item = next) {
        next = item->next;
        free(item);
    }
    CHECK_EQUAL(door_push_known_locked(&queue, &one, 0), DOOR_RATE_LIMITED);
    door_queue_destroy(&queue);
}

static void many_noisy_sessions_leave_the_others_room(void)
{
    unsigned queued = 0, counts[DOOR_CLASSES];
    CHECK(door_queue_init(&queue));
    for (unsigned i = 0; i < 100; i++) {
        struct door_packet noisy = packet_from(1, (uint16_t)(1 + i), 1);
        CHECK(door_know(&queue, &noisy.key, DOOR_ESTABLISHED));
        for (unsigned n = 0; n < 200; n++)
            queued += door_push_known_locked(&queue, &noisy, 0) == DOOR_QUEUED;
    }
    CHECK_EQUAL(queued, 1024 + 84 * DOOR_SESSION_WAITING_CROWDED); /* 16 of them have filled half of it */
    struct door_packet quiet = packet_from(2, 1, 1);
    CHECK(door_know(&queue, &quiet.key, DOOR_ESTABLISHED));
    CHECK_EQUAL(door_push_known_locked(&queue, &quiet, 0), DOOR_QUEUED);
    while (fetch(500, counts) > 0) {
    }
    door_queue_destroy(&queue);
}

static void handshakes_of_one_prefix_leave_the_others_room(void)
{
    unsigned queued = 0, counts[DOOR_CLASSES];
    CHECK(door_queue_init(&queue));
    for (unsigned i = 0; i < 2000; i++) {
        struct door_packet handshake = packet_from(1, (uint16_t)(1 + i), 1);
        CHECK(door_know(&queue, &handshake.key, DOOR_HANDSHAKE));
        queued += door_push_known_locked(&queue, &handshake, 0) == DOOR_QUEUED;
    }
    CHECK_EQUAL(queued, DOOR_PREFIX_HANDSHAKES);
    struct door_packet other = packet_from(2, 1, 1);
    CHECK(door_know(&queue, &other.key, DOOR_HANDSHAKE));
    CHECK_EQUAL(door_push_known_locked(&queue, &other, 0), DOOR_QUEUED);
    while (fetch(500, counts) > 0) {
    }
    for (unsigned i = 0; i < DOOR_PREFIX_COUNTS; i++)
        CHECK_EQUAL(queue.prefix_handshakes[i], 0);
    door_queue_destroy(&queue);
}

/* Packets behind a first one, which come before the control side has said whether there is a session. */
static void what_follows_a_first_packet_comes_through(void)
{
    unsigned counts[DOOR_CLASSES];
    CHECK(door_queue_init(&queue));
    struct door_packet packet = packet_from(1, 1, 1);
    CHECK_EQUAL(door_push_first_locked(&queue, &packet, 0), DOOR_QUEUED);
    CHECK_EQUAL(door_push_known_locked(&queue, &packet, 0), DOOR_QUEUED);
    CHECK_EQUAL(fetch(9, counts), 2);
    CHECK_EQUAL(counts[DOOR_STRANGER], 2);
    door_forget(&queue, &packet.key);
    CHECK_EQUAL(door_push_known_locked(&queue, &packet, 0), DOOR_UNKNOWN);
    door_queue_destroy(&queue);
}

static void address_of_an_established_session_is_occupied(void)
{
    unsigned counts[DOOR_CLASSES], resets = 0;
    CHECK(door_queue_init(&queue));
    struct door_packet session = packet_from(1, 1, 1), stranger = packet_from(1, 1, 2),
                       next_door = packet_from(1, 2, 2);
    CHECK(door_know(&queue, &session.key, DOOR_HANDSHAKE));
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 0), DOOR_UNKNOWN);
    CHECK_EQUAL(door_push_data_locked(&queue, &stranger, 0), DOOR_UNKNOWN);
    CHECK_EQUAL(door_push_reset_locked(&queue, &stranger, 0), DOOR_RATE_LIMITED);
    CHECK(door_know(&queue, &session.key, DOOR_ESTABLISHED));
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 0), DOOR_OCCUPIED);
    CHECK_EQUAL(door_push_known_locked(&queue, &next_door, 0), DOOR_UNKNOWN);
    CHECK_EQUAL(door_push_data_locked(&queue, &stranger, 60000), DOOR_QUEUED);
    for (unsigned i = 0; i < 100; i++)
        resets += door_push_reset_locked(&queue, &stranger, 60000) == DOOR_QUEUED;
    CHECK_EQUAL(resets, DOOR_RESETS_PER_S);
    CHECK_EQUAL(fetch(9, counts), 1 + DOOR_RESETS_PER_S);
    CHECK_EQUAL(counts[DOOR_DATA], 1);
    door_queue_destroy(&queue);
}

static void address_of_a_handshake_under_way_is_busy(void)
{
    unsigned counts[DOOR_CLASSES];
    CHECK(door_queue_init(&queue));
    struct door_packet handshake = packet_from(1, 1, 1), stranger = packet_from(1, 1, 2);
    struct door_packet next_door = packet_from(1, 2, 2);
    handshake.proven = true;
    CHECK_EQUAL(door_push_first_locked(&queue, &handshake, 1000), DOOR_QUEUED);
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 1001), DOOR_BUSY);
    CHECK_EQUAL(door_push_known_locked(&queue, &next_door, 1001), DOOR_UNKNOWN);
    CHECK(door_know(&queue, &handshake.key, DOOR_HANDSHAKE));
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 1000 + DOOR_BUSY_MS - 1), DOOR_BUSY);
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 1000 + DOOR_BUSY_MS),
                DOOR_UNKNOWN); /* its client has gone */
    CHECK_EQUAL(door_push_known_locked(&queue, &handshake, 5000), DOOR_QUEUED);
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 5001), DOOR_BUSY);
    door_forget(&queue, &handshake.key);

    handshake.proven = false; /* anybody may have begun that, and must not keep the client out by it */
    CHECK_EQUAL(door_push_first_locked(&queue, &handshake, 6000), DOOR_QUEUED);
    CHECK_EQUAL(door_push_known_locked(&queue, &stranger, 6001), DOOR_UNKNOWN);
    while (fetch(500, counts) > 0) {
    }
    door_queue_destroy(&queue);
}

static void flood_from_one_prefix_leaves_the_others_their_answers(void)
{
    static struct prefix_rates rates;
    struct hash_key key;
    CHECK(hash_key_init(&key));
    struct ip_address attacker = ip_from_v4((const uint8_t[]){192, 0, 2, 1});
    unsigned answered = 0, refused = 0;
    for (uint32_t n = 0; n < 1000000; n++) {
        uint64_t hash = hash_words(&key, source_prefix(&attacker), 0);
        answered += prefix_take(&rates, hash, 100, 100000 + n / 1000);
        struct ip_address other =
            ip_from_v4((const uint8_t[]){10, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n});
        if (n % 1000 == 0)
            refused += !prefix_take(&rates, hash_words(&key, source_prefix(&other), 0), 100, 100000 + n / 1000);
    }
    CHECK(answered >= 190 && answered <= 400); /* a second's worth at once, a second's refill; two buckets */
    CHECK_EQUAL(refused, 0);
    /* An IPv6 site is one source, and not the same as an IPv4 address. */
    uint8_t one[16] = {0x20, 0x01, 0xd, 0xb8, [15] = 1}, two[16] = {0x20, 0x01, 0xd, 0xb8, [15] = 2};
    uint8_t far[16] = {0x20, 0x01, 0xd, 0xb8, [7] = 1};
    struct ip_address a = ip_from_v6(one), b = ip_from_v6(two), c = ip_from_v6(far);
    CHECK(source_prefix(&a) == source_prefix(&b) && source_prefix(&a) != source_prefix(&c));
}

static void bucket_never_holds_more_than_a_second(void)
{
    struct bucket bucket = {0};
    unsigned taken = 0;
    for (unsigned i = 0; i < 1000; i++)
        taken += bucket_take(&bucket, 10, UINT32_MAX - 5); /* the clock is about to wrap */
    CHECK_EQUAL(taken, 10);
    for (unsigned i = 0; i < 1000; i++)
        taken += bucket_take(&bucket, 10, 494);
    CHECK_EQUAL(taken, 15);
    CHECK(!bucket_take(&bucket, 0, 100000));
}

int main(void)
{
    RUN(sessions_are_found_until_forgotten);
    RUN(nobody_has_more_than_a_share);
    RUN(data_that_looks_like_its_session_makes_no_room_for_more);
    RUN(many_noisy_sessions_leave_the_others_room);
    RUN(handshakes_of_one_prefix_leave_the_others_room);
    RUN(what_follows_a_first_packet_comes_through);
    RUN(address_of_an_established_session_is_occupied);
    RUN(address_of_a_handshake_under_way_is_busy);
    RUN(flood_from_one_prefix_leaves_the_others_their_answers);
    RUN(bucket_never_holds_more_than_a_second);
    return 0;
}
