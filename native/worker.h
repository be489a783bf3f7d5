/* A worker: one thread that waits for its TUN queues, UDP sockets and TCP connections and forwards what comes.
 *
 * Quiescence. A worker touches published structures only inside a section, which it begins before it looks anything
 * up for one ready descriptor (or one slice of its peers) and ends when that batch is done. Between sections, and
 * while it waits in epoll, it holds no pointer to any of them; epoll gives it ids, not pointers. So the control
 * side removes in two steps: unpublish, wait until every worker has been outside a section since
 * (workers_wait_quiescent), then wipe and free. Beginning a section and publishing a pointer are sequentially
 * consistent: either the worker sees the pointer gone, or the control side sees the section. */
#ifndef CVPND_WORKER_H
#define CVPND_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "batch.h"
#include "blind.h"
#include "counters.h"
#include "forward.h"
#include "inbox.h"
#include "offload.h"
#include "pacer.h"
#include "rate.h"
#include "tcp.h"
#include "tun.h"

struct worker {
    /* Constant while the thread runs. */
    unsigned index;
    int epoll_fd;
    int stop_fd; /* an eventfd */
    struct inbox inbox;
    struct id_table *endpoints;
    struct id_table *listeners;
    pthread_t thread;

    alignas(64) _Atomic uint64_t sections; /* odd inside a section; written by the thread only */
    struct counters counters;

    /* The thread's own. */
    struct forwarder forwarder;
    struct aside aside;
    struct bucket path_looks;
    struct blind blind;
    struct batch batch;
    uint64_t next_scan_ms;
    bool scanning;
    uint32_t scan_at; /* peer id to go on with */
    struct link_receiver *receiver;
    struct coalescer *coalescer; /* empty between sections */
    struct tcp_scratch tcp_scratch;
    struct pacer pacer;
    struct super_buffer super_buffer;
    uint8_t tun_buffer[TUN_BUFFER];
};

/* What the number of an epoll event says: who is ready, never where it lives. */
enum source { SOURCE_STOP, SOURCE_TUN, SOURCE_LINK, SOURCE_TCP, SOURCE_INBOX };
static inline uint64_t source_tag(enum source source, uint32_t id) { return (uint64_t)source << 32 | id; }

/* Everything but the thread. False: errno. `shared` holds what all workers' forwarders have in common. */
bool worker_init(struct worker *worker, unsigned index, const struct forwarder *shared, struct id_table *endpoints,
                 struct id_table *listeners, unsigned pause_us);
bool worker_start(struct worker *worker); /* errno */
void worker_stop(struct worker *worker);  /* and wait for its end */
void worker_destroy(struct worker *worker);

bool worker_watch(struct worker *worker, int fd, uint64_t tag); /* errno */
void worker_unwatch(struct worker *worker, int fd);

/* Returns when each worker has been outside a section since the call. At most the time of one batch. */
void workers_wait_quiescent(struct worker *const *workers, unsigned count);

#endif
