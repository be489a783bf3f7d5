/* The parts that tests/dataplane/test_path.py cannot see: every cut of a packet, and the sums. */
#include "check.h"
#include "checksum.h"
#include "fixture.h"
#include "path.h"
#include "too_big.h"
#include "transport.h"

static uint16_t whole_sum(const uint8_t *bytes, size_t length) { return checksum_add(0, bytes, length); }

/* An IPv4 packet of `length` bytes that may be fragmented. */
static void make_packet(uint8_t *packet, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        packet[i] = (uint8_t)(i * 7 + (i >> 8));
    fixture_ipv4(packet, "10.20.0.1", "10.100.0.2");
    put_u16(packet + IPV4_LENGTH, (uint16_t)length);
    put_u16(packet + IPV4_FRAGMENT_FIELD, 0);
}

static void pieces_fit_and_are_the_packet(void)
{
    for (uint32_t mtu = PATH_TUNNEL_MIN; mtu < 1500; mtu += 13) {
        for (uint32_t length = mtu + 1; length <= PACKET_MAX; length += 31) {
            uint8_t packet[PACKET_MAX], last[PACKET_MAX], rest[PACKET_MAX];
            make_packet(packet, length);
            memcpy(last, packet, length);
            uint32_t at = IPV4_HEADER, left = length;
            while (left > mtu) {
                uint32_t rest_length = too_big_cut(last, &left, mtu, rest);
                unsigned field = get_u16(last + IPV4_FRAGMENT_FIELD);
                CHECK(left <= mtu && get_u16(last + IPV4_LENGTH) == left);
                CHECK_EQUAL(field, 0x2000 | (at - IPV4_HEADER) / 8);
                CHECK_EQUAL(whole_sum(last, IPV4_HEADER), 0xFFFF);
                CHECK(memcmp(last + IPV4_HEADER, packet + at, left - IPV4_HEADER) == 0);
                at += left - IPV4_HEADER;
                left = rest_length;
                memcpy(last, rest, rest_length);
            }
            CHECK_EQUAL(get_u16(last + IPV4_FRAGMENT_FIELD), (at - IPV4_HEADER) / 8);
            CHECK(memcmp(last + IPV4_HEADER, packet + at, left - IPV4_HEADER) == 0);
            CHECK_EQUAL(at + left - IPV4_HEADER, length);
        }
    }
}

static void the_pieces_of_a_full_batch_are_bounded(void)
{
    struct fixture *fixture = fixture_new();
    static uint8_t room[BATCH_PACKETS][SEAL_HEADROOM + PACKET_MAX + SEAL_TAILROOM];
    struct batch batch = {.count = BATCH_PACKETS};
    for (unsigned i = 0; i < BATCH_PACKETS; i++) {
        make_packet(room[i] + SEAL_HEADROOM, 1500);
        batch.packets[i] = (struct packet){.bytes = room[i] + SEAL_HEADROOM, .length = 1500};
    }
    tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
    uint64_t dropped = fixture_dropped(fixture, DROP_TOO_BIG);
    CHECK_EQUAL(batch.count + dropped, BATCH_PACKETS);
    CHECK_EQUAL(fixture->aside.pieces.count, batch.count);
    CHECK(fixture->aside.used <= sizeof fixture->aside.bytes);
    CHECK_EQUAL(atomic_load(&fixture->peer->packets_out), 2 * batch.count);
    fixture_free(fixture);
}

static void a_packet_that_is_too_big_is_answered_once_in_ten_milliseconds(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t room[SEAL_HEADROOM + PACKET_MAX + SEAL_TAILROOM];
    for (unsigned i = 0; i < 20; i++, fixture->forwarder.now_ms += 5) {
        make_packet(room + SEAL_HEADROOM, 1500);
        put_u16(room + SEAL_HEADROOM + IPV4_FRAGMENT_FIELD, IPV4_DF);
        struct batch batch = {.count = 1};
        batch.packets[0] = (struct packet){.bytes = room + SEAL_HEADROOM, .length = 1500};
        tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
        CHECK_EQUAL(batch.count, 0);
    }
    CHECK_EQUAL(fixture->aside.answers.count, 10);
    const struct packet *answer = &fixture->aside.answers.packets[0];
    CHECK_EQUAL(whole_sum(answer->bytes, IPV4_HEADER), 0xFFFF);
    CHECK_EQUAL(whole_sum(answer->bytes + IPV4_HEADER, answer->length - IPV4_HEADER), 0xFFFF);
    fixture_free(fixture);
}

int main(void)
{
    RUN(pieces_fit_and_are_the_packet);
    RUN(the_pieces_of_a_full_batch_are_bounded);
    RUN(a_packet_that_is_too_big_is_answered_once_in_ten_milliseconds);
    return 0;
}
