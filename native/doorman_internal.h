/* What the doorman's thread (doorman_thread.c) and the verbs (doorman.c) share. */
#ifndef CVPND_DOORMAN_INTERNAL_H
#define CVPND_DOORMAN_INTERNAL_H

#include <pthread.h>
#include <stdalign.h>

#include "dataplane_internal.h"
#include "door_socket.h"
#include "doorman.h"

static const uint64_t STOP_TAG = UINT64_MAX;

struct door_listener {
    uint32_t id;
    int fd;
    unsigned slot_s;
    atomic_bool accepting;
    _Atomic(struct protection *) protection; /* published; never NULL */
};

struct doorman {
    int epoll_fd;
    int stop_fd; /* an eventfd */
    pthread_t thread;
    pthread_mutex_t control_lock;
    bool closed;                /* under the control lock */
    struct id_table listeners;  /* written under the control lock, read by the thread */
    struct door_queue queue;    /* its own lock */
    _Atomic uint32_t limits[5]; /* struct door_limits, read one by one */

    alignas(64) _Atomic uint64_t sections; /* odd inside a section; written by the thread only */
    _Atomic uint64_t drops[CONTROL_DROP_COUNT];
    _Atomic uint64_t totals[DOOR_TOTAL_COUNT];

    /* The thread's own. */
    struct reset_cookie cookie;
    struct door_socket *socket;
    struct moment now;
    uint32_t now_ms;
    struct bucket resets, sessions, unproven_sessions;
    struct prefix_rates resets_of_prefix, sessions_of_prefix, pressed_of_prefix;
    uint32_t drained_ms, pressed_ms;      /* when all had been looked at; when it was last pressed */
    bool pressed, full_batch;             /* the latter and the next: of this wake-up */
    bool carried_data;                    /* of a client without a peer id, to which all waiting adds */
    struct bucket wake_ups;               /* before which it could wait */
    enum door_result results[DOOR_BATCH]; /* of the look-ups of this batch */
    uint8_t replies[DOOR_BATCH][REPLY_MAX];
};

enum limit { LIMIT_RESETS, LIMIT_RESETS_PER_SOURCE, LIMIT_SESSIONS, LIMIT_SESSIONS_PER_SOURCE, LIMIT_UNPROVEN };

/* The thread. */
void *doorman_run(void *doorman);

#endif
