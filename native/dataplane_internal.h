/* Shared by dataplane.c (start, endpoints, listeners) and dataplane_peers.c (peers, keys). */
#ifndef CVPND_DATAPLANE_INTERNAL_H
#define CVPND_DATAPLANE_INTERNAL_H

#include <pthread.h>

#include "dataplane.h"
#include "id_table.h"
#include "worker.h"

struct dataplane {
    /* Constant. */
    unsigned worker_count;
    struct key_limits limits;
    bool link_offload;
    const struct aead_backend *backend;

    /* Written under the control lock, read by workers. */
    struct id_table endpoints;
    struct id_table listeners;
    struct id_table peers;

    struct events events; /* its own lock */

    pthread_mutex_t control_lock;
    bool closed;              /* under the control lock */
    struct counters counters; /* the control side's own drops, under the control lock */
    struct worker *workers[];
};

/* Fills in the failure; returns false for the caller to return. */
__attribute__((format(printf, 3, 4))) bool fail(struct failure *failure, enum failure_kind kind, const char *format,
                                                ...);
bool fail_system(struct failure *failure, int error, const char *what);
bool fail_memory(struct failure *failure);

/* Takes the control lock; false, without the lock, when the plane is closed. */
bool control_enter(struct dataplane *plane, struct failure *failure);
/* Releases it and hands `result` on. */
bool control_leave(struct dataplane *plane, bool result);

/* What was unpublished before this call may be freed after it. */
void wait_quiescent_locked(struct dataplane *plane);

/* Frees the peer with its connection, keys and all. Nobody can see it any more. */
void peer_destroy(struct peer *peer);

#endif
