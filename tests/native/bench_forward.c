/* What the two journeys cost in the core, without system calls: meson test --benchmark. Median of nine runs. */
#include <time.h>

#include "check.h"
#include "fixture.h"

enum { BATCHES = 2000, RUNS = 9, ROOM = 2048 + SEAL_HEADROOM };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static size_t make_inner(uint8_t *inner, size_t length, const char *source, const char *destination)
{
    fixture_ipv4(inner, source, destination);
    put_u16(inner + 2, (uint16_t)length);
    return length;
}

static double down(struct fixture *fixture, size_t length)
{
    static uint8_t room[BATCH_PACKETS][ROOM];
    double spent = 0;
    for (unsigned i = 0; i < BATCHES; i++) {
        struct batch batch = {.count = BATCH_PACKETS};
        for (unsigned p = 0; p < BATCH_PACKETS; p++) {
            make_inner(room[p] + SEAL_HEADROOM, length, "10.20.1.1", "10.100.0.2");
            batch.packets[p] = (struct packet){.bytes = room[p] + SEAL_HEADROOM, .length = (uint32_t)length};
        }
        double start = now_ns();
        tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
        spent += now_ns() - start;
        CHECK_EQUAL(batch.count, BATCH_PACKETS);
    }
    return spent / BATCHES / BATCH_PACKETS;
}

static double up(struct fixture *fixture, size_t length)
{
    static uint8_t room[BATCH_PACKETS][ROOM], inner[ROOM];
    static uint32_t packet_id;
    double spent = 0;
    make_inner(inner, length, "10.100.0.2", "10.20.1.1");
    for (unsigned i = 0; i < BATCHES; i++) {
        struct batch batch, one;
        for (unsigned p = 0; p < BATCH_PACKETS; p++) {
            fixture_datagram(&one, room[p], fixture_client_seal(fixture, room[p], ++packet_id, inner, length));
            batch.packets[p] = one.packets[0];
        }
        batch.count = BATCH_PACKETS;
        double start = now_ns();
        link_to_tun(&fixture->forwarder, fixture->listener, &batch);
        spent += now_ns() - start;
        CHECK_EQUAL(batch.count, BATCH_PACKETS);
    }
    return spent / BATCHES / BATCH_PACKETS;
}

int main(void)
{
    static const size_t lengths[] = {64, 512, 1400};
    struct fixture *fixture = fixture_new();
    printf("%s, ns a packet\n", aead_backend()->describe());
    for (unsigned i = 0; i < 3; i++) {
        double ups[RUNS], downs[RUNS];
        for (unsigned run = 0; run < RUNS; run++) {
            ups[run] = up(fixture, lengths[i]);
            downs[run] = down(fixture, lengths[i]);
        }
        qsort(ups, RUNS, sizeof ups[0], by_value);
        qsort(downs, RUNS, sizeof downs[0], by_value);
        printf("%5zu bytes: link to TUN %.0f, TUN to link %.0f\n", lengths[i], ups[RUNS / 2], downs[RUNS / 2]);
    }
    fixture_free(fixture);
    return 0;
}
