/* The replay window: which packet ids a key still accepts (openvpn-wire.md 11.5), as a ring of bits after RFC 6479.
 *
 * Asked only for authentic packets, and only by the worker that receives the peer. Moving forward clears whole
 * words, so the window is at least REPLAY_WINDOW ids wide. Upstream's time rule (15 s) is left out: it only
 * narrows what a wide window already answers exactly. */
#ifndef CVPND_REPLAY_H
#define CVPND_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

enum { REPLAY_WORDS = 32, REPLAY_BITS = REPLAY_WORDS * 64, REPLAY_WINDOW = REPLAY_BITS - 64 };

struct replay_window {
    uint64_t highest; /* 0 = nothing yet; ids start at 1 */
    uint64_t seen[REPLAY_WORDS];
};

/* True, and remembered, when `id` is new and not behind the window. */
bool replay_accept(struct replay_window *window, uint64_t id);

#endif
