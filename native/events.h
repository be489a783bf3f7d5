/* What the workers tell the control side: a bounded queue, its own lock, and an eventfd that is readable while
 * something waits. The lock is a leaf: nobody takes another one while holding it.
 *
 * How much of it is the clients' own doing (control packets) is bounded in all, so that there is room for what the plane
 * itself has to tell, and for each peer, so that none of them takes the others' room. */
#ifndef CVPND_EVENTS_H
#define CVPND_EVENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

enum {
    EVENTS_MAX = 4096,
    EVENT_BYTES_MAX = 4 << 20, /* payload of all waiting events */
    EVENTS_OF_CLIENTS = EVENTS_MAX / 4 * 3,
    EVENT_BYTES_OF_CLIENTS = EVENT_BYTES_MAX / 4 * 3,
    EVENTS_OF_PEER = 64,        /* a client sends at most 12 control packets without an answer */
    EVENTS_OF_PEER_CROWDED = 8, /* while half of what is for clients is taken */
};

enum event_kind {
    EVENT_STRAY_CONTROL,
    EVENT_TCP_CONTROL,
    EVENT_TCP_CLOSED,
    EVENT_FLOAT_SEEN,
    EVENT_PEER_TIMEOUT,
    EVENT_PEER_EXIT,
    EVENT_KEY_USED,
    EVENT_REKEY_NEEDED,
};

/* Fields that a kind does not need are zero. */
struct event {
    struct event *next;
    enum event_kind kind;
    uint32_t peer_id;
    uint32_t listener;
    uint32_t key_id;
    struct socket_address source;
    struct ip_address local;
    size_t length;
    uint8_t bytes[]; /* the packet, or TcpClosed's detail */
};

/* What one peer has waiting of its own doing. Under the queue's lock. */
struct event_share {
    uint64_t round; /* in which `waiting` was counted; everything older has been taken */
    unsigned waiting;
};

struct events {
    int fd;
    pthread_mutex_t lock;
    struct event *first;
    struct event **last;
    size_t count;
    size_t bytes;
    uint64_t round; /* rises whenever everything is taken */
};

bool events_init(struct events *events); /* errno says why not */
void events_destroy(struct events *events);

/* Copies `event` and the payload. False when the queue is full or memory is short. */
bool events_push(struct events *events, const struct event *event, const void *payload, size_t length);

/* The same for a control packet of the peer whose share that is. False also when it has no more room for its own. */
bool events_push_control(struct events *events, struct event_share *share, const struct event *event,
                         const void *payload, size_t length);

/* All that wait, oldest first; the caller frees each. */
struct event *events_take(struct events *events);

/* Forgets what waits about a removed peer, whose id the next peer may get. */
void events_forget_peer(struct events *events, uint32_t peer_id);

#endif
