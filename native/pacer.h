/* Pauses under load. Clients send single datagrams, and a worker woken by each of them finds little to coalesce, so
 * above PACER_BUSY packets a millisecond it lets some gather first, and above fewer the acknowledgements of downloads.
 * Below, nothing waits: the idle round trip stays what it is (DATAPLANE.md, "What mattered", 2). The worker's own; no lock. */
#ifndef CVPND_PACER_H
#define CVPND_PACER_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PACER_PAUSE_US = 600,
    PACER_PAUSE_MAX_US = 10000,
    PACER_BUSY = 13,    /* packets a millisecond, one way */
    PACER_GATHERED = 8, /* packets a message, with which they come together already: who sends them is only held up */
    PACER_BATCH = 32,   /* packets, one way */
    PACER_ACKNOWLEDGEMENTS_BUSY = 5, /* of a download of some 110 Mbit/s */
    PACER_ACKNOWLEDGEMENTS_PART = 6, /* of the longest pause, 100 us by default */
};

/* Each is judged apart. A download's bare acknowledgements go up too, but one that waits is for its sender a longer path,
 * and what they let go at once may overrun the client: they wait for each other a sixth as long, and decide only where nothing
 * else makes the worker pause. */
enum pacer_way { PACER_UP, PACER_DOWN, PACER_ACKNOWLEDGEMENTS, PACER_WAYS };

struct pacer {
    uint64_t longest_ns; /* constant; 0 = never */
    uint64_t pause_ns;   /* what fills a batch at the rate there was */
    uint64_t woken_ns;   /* when the last batches began */
    uint64_t window_ns;
    uint64_t packets[PACER_WAYS];  /* since then: those that others could be put together with */
    uint64_t messages[PACER_WAYS]; /* until then */
    bool busy;
};

/* For the calling thread: pauses end when they should. */
void pacer_start(const struct pacer *pacer);

static inline void pacer_count(struct pacer *pacer, enum pacer_way way, unsigned packets)
{
    pacer->packets[way] += packets;
}

/* The rule, for a wake-up at `now_ns`: how long to wait, 0 = not at all and never more than `longest_ns`. */
uint64_t pacer_pause(struct pacer *pacer, uint64_t now_ns, const uint64_t messages[static PACER_WAYS]);

/* The batches begin: the next pause is counted from here. */
static inline void pacer_resume(struct pacer *pacer, uint64_t now_ns) { pacer->woken_ns = now_ns; }

/* After each wake-up, before anything is read: under load, waits until a pause after the last wake-up. True if so.
 * `messages`: datagrams and frames, and super-packets, read so far, which hold what was counted. */
bool pacer_wait(struct pacer *pacer, const uint64_t messages[static PACER_WAYS]);

#endif
