/* Many handshakes at once. Between two packets the control side goes to sleep and loses the caches to others. So while
 * CROWD_PACKETS_PER_S come for it, the doorman lets some gather before it looks again: a handshake of five round trips
 * takes up to 20 ms longer, and less of the processor (bench/README.md). Below that rate nothing waits, nor beside data
 * that comes this way. The doorman's own; no lock. */
#ifndef CVPND_CROWD_H
#define CVPND_CROWD_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CROWD_PACKETS_PER_S = 400, /* some forty handshakes */
    CROWD_WINDOW_MS = 100,
    CROWD_PAUSE_MS = 4,
};

struct crowd {
    uint32_t window_ms;
    uint32_t packets; /* since then, handed to the control side */
    bool data;        /* some of them were data */
    bool gathers;
};

/* After each wake-up. Judges the rate of a window when it is over. */
static inline bool crowd_gathers(struct crowd *crowd, uint32_t now_ms)
{
    uint32_t elapsed = now_ms - crowd->window_ms;
    if (elapsed >= CROWD_WINDOW_MS) {
        bool many = (uint64_t)crowd->packets * 1000 >= (uint64_t)CROWD_PACKETS_PER_S * elapsed;
        *crowd = (struct crowd){.window_ms = now_ms, .gathers = many && !crowd->data};
    }
    return crowd->gathers && !crowd->data;
}

#endif
