/* The doorman: one thread that reads the control sockets of all UDP listeners, so that a stranger's packet costs
 * microseconds of C and no Python. Per datagram:
 *
 *   1. of a known session                          -> queue, to the control side (door_queue.h); data without a
 *                                                     peer's number too, from the address of an established session
 *   2. an authentic reset, within the limits       -> one reply with a cookie, nothing kept; from the address of an
 *                                                     established session -> queue
 *   3. a first packet that echoes its cookie       -> queue, if new sessions are within the limits
 *   4. anything else, and resets from the address
 *      of a handshake under way                    -> dropped and counted by name (control_packet.h)
 *
 * The control side says who is known (door_know, door_forget) and decides again on its own about what comes in by 3.
 *
 * Locks: the control lock serialises the verbs below, the queue's lock is a leaf; the thread takes only that. Like a
 * worker it touches listeners inside sections only: what is taken out is unpublished, waited for, and freed. */
#ifndef CVPND_DOORMAN_H
#define CVPND_DOORMAN_H

#include "dataplane.h"
#include "door_queue.h"
#include "stranger.h"

/* Each in a second; of one source prefix means an IPv4 address or an IPv6 /64. */
struct door_limits {
    uint32_t resets;
    uint32_t resets_per_source;
    uint32_t sessions;
    uint32_t sessions_per_source;
    uint32_t unproven_sessions;
};

#define DOOR_TOTALS(X)                                                                                               \
    X(KNOWN_PACKETS, "known_packets")                                                                                \
    X(ANSWERED_RESETS, "answered_resets")                                                                            \
    X(FIRST_PACKETS, "first_packets")                                                                                \
    X(STRANGER_PACKETS, "stranger_packets")

enum door_total {
#define X(name, word) DOOR_TOTAL_##name,
    DOOR_TOTALS(X)
#undef X
        DOOR_TOTAL_COUNT,
};

extern const char *const DOOR_TOTAL_WORDS[DOOR_TOTAL_COUNT];

struct doorman;

/* Starts the thread. NULL with `failure` filled in. */
struct doorman *doorman_new(const uint8_t *cookie_secret, size_t length, const struct door_limits *limits,
                            struct failure *failure);
/* Stops the thread and closes every descriptor. Idempotent; every verb fails afterwards. */
void doorman_close(struct doorman *doorman);
void doorman_free(struct doorman *doorman); /* closes first */

/* `fd`: a bound, non-blocking UDP socket with packet info switched on; the doorman's from here on, also on failure. So
 * is `protection`. */
bool doorman_add_listener(struct doorman *doorman, uint32_t id, int fd, unsigned slot_s,
                          struct protection *protection, struct failure *failure);
/* Replaces what it accepts from strangers. */
bool doorman_set_protection(struct doorman *doorman, uint32_t id, struct protection *protection,
                            struct failure *failure);
/* Strangers get nowhere any more; known sessions do. */
bool doorman_stop_accepting(struct doorman *doorman, uint32_t id, struct failure *failure);
/* Forgets its sessions too. What waits in the queue stays there. */
bool doorman_remove_listener(struct doorman *doorman, uint32_t id, struct failure *failure);

bool doorman_set_limits(struct doorman *doorman, const struct door_limits *limits, struct failure *failure);

/* For door_know, door_forget and door_fetch; lives as long as the doorman. */
struct door_queue *doorman_queue(struct doorman *doorman);

void doorman_drops(struct doorman *doorman, uint64_t drops[static CONTROL_DROP_COUNT]);
void doorman_totals(struct doorman *doorman, uint64_t totals[static DOOR_TOTAL_COUNT]);

#endif
