/* What the two journeys of a packet cost in the core, without system calls, by its length. */
#include "bench.h"
#include "check.h"
#include "fixture.h"

enum { BATCHES = 500, ROOM = 2048 + SEAL_HEADROOM };

static size_t make_inner(uint8_t *inner, size_t length, const char *source, const char *destination)
{
    fixture_ipv4(inner, source, destination);
    put_u16(inner + 2, (uint16_t)length);
    return length;
}

static double down(struct fixture *fixture, size_t length, unsigned batches)
{
    static uint8_t room[BATCH_PACKETS][ROOM];
    double spent = 0;
    for (unsigned i = 0; i < batches; i++) {
        struct batch batch = {.count = BATCH_PACKETS};
        for (unsigned p = 0; p < BATCH_PACKETS; p++) {
            make_inner(room[p] + SEAL_HEADROOM, length, "10.20.1.1", "10.100.0.2");
            batch.packets[p] = (struct packet){.bytes = room[p] + SEAL_HEADROOM, .length = (uint32_t)length};
        }
        double start = bench_now_ns();
        tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
        spent += bench_now_ns() - start;
        CHECK_EQUAL(batch.count, BATCH_PACKETS);
    }
    return spent / batches / BATCH_PACKETS;
}

static double up(struct fixture *fixture, size_t length, unsigned batches)
{
    static uint8_t room[BATCH_PACKETS][ROOM], inner[ROOM];
    static uint32_t packet_id;
    double spent = 0;
    make_inner(inner, length, "10.100.0.2", "10.20.1.1");
    for (unsigned i = 0; i < batches; i++) {
        struct batch batch, one;
        for (unsigned p = 0; p < BATCH_PACKETS; p++) {
            fixture_datagram(&one, room[p], fixture_client_seal(fixture, room[p], ++packet_id, inner, length));
            batch.packets[p] = one.packets[0];
        }
        batch.count = BATCH_PACKETS;
        double start = bench_now_ns();
        link_to_tun(&fixture->forwarder, fixture->listener, &batch);
        spent += bench_now_ns() - start;
        CHECK_EQUAL(batch.count, BATCH_PACKETS);
    }
    return spent / batches / BATCH_PACKETS;
}

int main(int argc, char **argv)
{
    (void)argv;
    static const size_t lengths[] = {64, 512, 1400};
    unsigned batches = argc > 1 ? 10 : BATCHES;
    struct fixture *fixture = fixture_new();
    for (unsigned i = 0; i < 3; i++) {
        double ups[BENCH_RUNS], downs[BENCH_RUNS];
        for (unsigned run = 0; run < BENCH_RUNS; run++) {
            ups[run] = up(fixture, lengths[i], batches);
            downs[run] = down(fixture, lengths[i], batches);
        }
        bench_tell("link to TUN", lengths[i], bench_median(ups, BENCH_RUNS));
        bench_tell("TUN to link", lengths[i], bench_median(downs, BENCH_RUNS));
    }
    fixture_free(fixture);
    return 0;
}
