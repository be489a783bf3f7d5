/* What is whole, what is given up and when; a model over random fragments. What each header says is tried on both planes by
 * tests/dataplane/test_fragments.py. */
#include "check.h"
#include "checksum.h"
#include "fragments.h"

enum { SOURCE = 10, TARGET = 20 };

static struct counters counters;

static uint64_t given_up(void) { return atomic_exchange(&counters.drops[DROP_INCOMPLETE], 0); }

/* Of an IPv4 packet. */
static enum drop_reason hold(struct unfinished *unfinished, uint16_t id, uint32_t offset, uint32_t end, bool more,
                             uint64_t now_ms, struct datagram **whole)
{
    uint32_t length = IPV4_HEADER + end - offset;
    uint8_t *packet = calloc(1, length); /* with no byte to spare */
    CHECK(packet != NULL);
    packet[0] = 0x45;
    put_u16(packet + IPV4_LENGTH, (uint16_t)length);
    put_u16(packet + IPV4_ID, id);
    put_u16(packet + IPV4_FRAGMENT_FIELD, (uint16_t)((more ? 0x2000 : 0) | offset / 8));
    packet[IPV4_PROTOCOL] = PROTOCOL_UDP;
    packet[IPV4_ADDRESSES] = SOURCE;
    packet[IPV4_ADDRESSES + 4] = TARGET;
    checksum_set_field(packet + IPV4_CHECKSUM, (uint16_t)~checksum_add(0, packet, IPV4_HEADER));
    memset(packet + IPV4_HEADER, (int)(offset / 8), end - offset);
    CHECK(may_be_fragment(packet) == (more || offset != 0));
    enum drop_reason reason = fragments_hold(unfinished, packet, length, now_ms, &counters, whole);
    free(packet);
    return reason;
}

static void a_packet_is_whole_with_its_last_hole_filled(void)
{
    struct unfinished unfinished = {0};
    struct datagram *whole = NULL;
    CHECK_EQUAL(hold(&unfinished, 1, 16, 20, false, 0, &whole), PACKET_WAITS);
    CHECK_EQUAL(hold(&unfinished, 1, 0, 8, true, 0, &whole), PACKET_WAITS);
    CHECK(whole == NULL && unfinished.count == 1);
    CHECK_EQUAL(hold(&unfinished, 1, 8, 16, true, 0, &whole), PACKET_COMPLETES);
    CHECK(whole != NULL && unfinished.count == 0 && unfinished.cost == 0 && unfinished.oldest == NULL);
    datagrams_place(whole, 7);
    const struct datagram *list = whole;
    struct batch batch;
    CHECK_EQUAL(datagram_take(&list, &batch), 7);
    CHECK(list == NULL && batch.count == 3);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQUAL(get_u16(batch.packets[i].bytes + IPV4_FRAGMENT_FIELD) & IPV4_OFFSET, i);
    datagrams_free(&whole);
    CHECK_EQUAL(given_up(), 0);
}

static void what_waits_for_half_a_minute_is_given_up(void)
{
    struct unfinished unfinished = {0};
    struct datagram *whole = NULL;
    hold(&unfinished, 1, 0, 8, true, 1000, &whole);
    hold(&unfinished, 2, 0, 8, true, 2000, &whole);
    fragments_expire(&unfinished, 1000 + UNFINISHED_MS - 1, &counters);
    CHECK_EQUAL(given_up(), 0);
    fragments_expire(&unfinished, 1000 + UNFINISHED_MS, &counters);
    CHECK_EQUAL(given_up(), 1);
    CHECK_EQUAL(unfinished.count, 1);
    CHECK_EQUAL(hold(&unfinished, 2, 8, 16, false, 2000 + UNFINISHED_MS, &whole), PACKET_WAITS); /* too late */
    CHECK_EQUAL(given_up(), 1);
    CHECK(whole == NULL && unfinished.count == 1);
    fragments_clear(&unfinished);
    CHECK(unfinished.count == 0 && unfinished.cost == 0 && unfinished.oldest == NULL);
}

static void a_packet_of_too_many_fragments_is_given_up(void)
{
    struct unfinished unfinished = {0};
    struct datagram *whole = NULL;
    for (uint32_t i = 0; i < FRAGMENTS_OF_PACKET; i++)
        CHECK_EQUAL(hold(&unfinished, 1, 8 * i, 8 * i + 8, true, 0, &whole), PACKET_WAITS);
    CHECK_EQUAL(hold(&unfinished, 1, 8 * FRAGMENTS_OF_PACKET, 8 * FRAGMENTS_OF_PACKET + 8, false, 0, &whole),
                PACKET_WAITS);
    CHECK_EQUAL(given_up(), FRAGMENTS_OF_PACKET);
    fragments_clear(&unfinished);
    for (uint32_t i = 0; i < FRAGMENTS_OF_PACKET; i++)
        hold(&unfinished, 1, 8 * i, 8 * i + 8, i < FRAGMENTS_OF_PACKET - 1, 0, &whole);
    CHECK(whole != NULL);
    datagrams_free(&whole);
}

static void while_all_have_much_each_may_have_less(void)
{
    enum { END = 60000, PEERS = UNFINISHED_BYTES_OF_ALL / (IPV4_HEADER + END + FRAGMENT_COST) + 1 };
    static struct unfinished peers[PEERS];
    struct unfinished late = {0};
    struct datagram *whole = NULL;
    for (unsigned i = 0; i < PEERS; i++)
        hold(&peers[i], 1, 0, END, true, 0, &whole);
    CHECK_EQUAL(given_up(), 0);
    hold(&late, 1, 0, 20000, true, 0, &whole);
    CHECK_EQUAL(late.count, 1);
    hold(&late, 2, 0, 20000, true, 0, &whole);
    CHECK_EQUAL(late.count, 1);
    CHECK_EQUAL(given_up(), 1);
    hold(&late, 3, 0, END, true, 0, &whole);
    CHECK(late.count == 0 && late.cost == 0);
    CHECK_EQUAL(given_up(), 2);
    hold(&peers[0], 2, 0, 8, true, 0, &whole); /* who had more may keep no more either */
    CHECK_EQUAL(given_up(), 1);
    CHECK_EQUAL(peers[0].count, 1);

    for (unsigned i = 0; i < PEERS; i++)
        fragments_clear(&peers[i]);
    for (uint16_t id = 0; id < 4; id++)
        hold(&late, id, 0, END, true, 0, &whole);
    CHECK_EQUAL(late.count, 4);
    CHECK_EQUAL(given_up(), 0);
    fragments_expire(&late, UNFINISHED_MS, &counters);
    CHECK_EQUAL(given_up(), 4);
}

/* Random fragments of few packets: what goes on is without holes and overlaps, and each is in one place in the end. */
static void random_fragments_make_whole_packets_only(void)
{
    uint64_t random = 4711, now_ms = 0;
    uint64_t put_in = 0, gone_on = 0, lost = 0;
    struct unfinished unfinished = {0};
    for (unsigned round = 0; round < 200000; round++) {
        struct datagram *whole = NULL;
        uint64_t dice = next_random(&random);
        uint32_t offset = (uint32_t)(dice >> 8 & 7) * 8, length = (uint32_t)(dice >> 16 & 3) * 8 + 8;
        bool more = dice >> 24 & 3;
        if (offset == 0 && !more)
            offset = 8;
        now_ms += dice >> 32 & 0x3FF;
        put_in++;
        enum drop_reason reason =
            hold(&unfinished, (uint16_t)(dice & 63), offset, offset + length, more, now_ms, &whole);
        CHECK(reason == PACKET_WAITS || reason == PACKET_COMPLETES);
        CHECK((reason == PACKET_COMPLETES) == (whole != NULL));
        CHECK(unfinished.count <= UNFINISHED_PACKETS && unfinished.cost <= UNFINISHED_BYTES);
        if (dice >> 60 == 0)
            fragments_expire(&unfinished, now_ms, &counters);
        if (whole != NULL) {
            const struct datagram *list = whole;
            struct batch batch;
            datagram_take(&list, &batch);
            uint32_t at = 0;
            for (unsigned i = 0; i < batch.count; i++) {
                unsigned field = get_u16(batch.packets[i].bytes + IPV4_FRAGMENT_FIELD);
                CHECK_EQUAL((field & IPV4_OFFSET) * 8, at);
                CHECK((field & 0x2000) == (i + 1 < batch.count ? 0x2000 : 0));
                at += batch.packets[i].length - IPV4_HEADER;
            }
            gone_on += batch.count;
        }
        datagrams_free(&whole);
        lost += given_up();
    }
    fragments_expire(&unfinished, now_ms + UNFINISHED_MS, &counters);
    lost += given_up();
    CHECK(unfinished.count == 0 && unfinished.cost == 0);
    CHECK_EQUAL(gone_on + lost, put_in);
    CHECK(gone_on > 1000 && lost > 1000);
}

int main(void)
{
    RUN(a_packet_is_whole_with_its_last_hole_filled);
    RUN(what_waits_for_half_a_minute_is_given_up);
    RUN(a_packet_of_too_many_fragments_is_given_up);
    RUN(while_all_have_much_each_may_have_less);
    RUN(random_fragments_make_whole_packets_only);
    return 0;
}
