/* What the workers tell the control side: a bounded queue, its own lock, and an eventfd that is readable while
 * something waits. The lock is a leaf: nobody takes another one while holding it. */
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

struct events {
    int fd;
    pthread_mutex_t lock;
    struct event *first;
    struct event **last;
    size_t count;
    size_t bytes;
};

bool events_init(struct events *events); /* errno says why not */
void events_destroy(struct events *events);

/* Copies `event` and the payload. False when the queue is full or memory is short. */
bool events_push(struct events *events, const struct event *event, const void *payload, size_t length);

/* All that wait, oldest first; the caller frees each. */
struct event *events_take(struct events *events);

/* Forgets what waits about a removed peer, whose id the next peer may get. */
void events_forget_peer(struct events *events, uint32_t peer_id);

#endif
