/* What the replay window costs a packet: in order, in the order of a path that mixes them, and for one that is replayed. */
#include "bench.h"
#include "check.h"
#include "replay.h"

enum { IDS = 1 << 16, MIXED = 64 };

static uint64_t ids[IDS];

static double measure(bool again)
{
    double runs[BENCH_RUNS];
    for (unsigned run = 0; run < BENCH_RUNS; run++) {
        struct replay_window window = {0};
        unsigned accepted = 0;
        if (again)
            CHECK(replay_accept(&window, IDS));
        double start = bench_now_ns();
        for (unsigned i = 0; i < IDS; i++)
            accepted += replay_accept(&window, again ? IDS : ids[i]);
        runs[run] = (bench_now_ns() - start) / IDS;
        CHECK_EQUAL(accepted, again ? 0 : IDS);
    }
    return bench_median(runs, BENCH_RUNS);
}

int main(void)
{
    uint64_t state = 4;
    for (unsigned i = 0; i < IDS; i++)
        ids[i] = i + 1;
    bench_tell("replay window, in order", 0, measure(false));
    for (unsigned first = 0; first < IDS; first += MIXED)
        for (unsigned i = MIXED - 1; i > 0; i--) {
            unsigned other = (unsigned)(bench_random(&state) % (i + 1));
            uint64_t id = ids[first + i];
            ids[first + i] = ids[first + other];
            ids[first + other] = id;
        }
    bench_tell("replay window, mixed", 0, measure(false));
    bench_tell("replay window, replayed", 0, measure(true));
    return 0;
}
