#include "events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool events_init(struct events *events)
{
    memset(events, 0, sizeof *events);
    events->last = &events->first;
    events->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (events->fd < 0)
        return false;
    pthread_mutex_init(&events->lock, NULL);
    return true;
}

static void free_all(struct event *event)
{
    while (event != NULL) {
        struct event *next = event->next;
        free(event);
        event = next;
    }
}

void events_destroy(struct events *events)
{
    free_all(events->first);
    pthread_mutex_destroy(&events->lock);
    close(events->fd);
}

/* The descriptor follows the queue: written when it fills, read when it empties, both under the lock. */
static void signal_waiting_locked(struct events *events)
{
    uint64_t one = 1;
    while (write(events->fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void signal_empty_locked(struct events *events)
{
    uint64_t count;
    while (read(events->fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

static bool has_room_locked(const struct events *events, size_t length)
{
    return events->count < EVENTS_MAX && length <= EVENT_BYTES_MAX - events->bytes;
}

/* Counts it too. */
static bool has_share_locked(const struct events *events, struct event_share *share, size_t length)
{
    if (share->round != events->round)
        *share = (struct event_share){.round = events->round};
    unsigned most = events->count < EVENTS_OF_CLIENTS / 2 ? EVENTS_OF_PEER : EVENTS_OF_PEER_CROWDED;
    if (events->count >= EVENTS_OF_CLIENTS || events->bytes + length > EVENT_BYTES_OF_CLIENTS ||
        share->waiting >= most)
        return false;
    share->waiting++;
    return true;
}

/* `share` NULL: the plane tells it, not a client. */
static bool push(struct events *events, struct event_share *share, const struct event *event, const void *payload,
                 size_t length)
{
    struct event *copy = malloc(sizeof *copy + length);
    if (copy == NULL)
        return false;
    *copy = *event;
    copy->next = NULL;
    copy->length = length;
    if (length > 0)
        memcpy(copy->bytes, payload, length);
    pthread_mutex_lock(&events->lock);
    bool room = has_room_locked(events, length) && (share == NULL || has_share_locked(events, share, length));
    if (room) {
        *events->last = copy;
        events->last = &copy->next;
        events->bytes += length;
        if (events->count++ == 0)
            signal_waiting_locked(events);
    }
    pthread_mutex_unlock(&events->lock);
    if (!room)
        free(copy);
    return room;
}

bool events_push(struct events *events, const struct event *event, const void *payload, size_t length)
{
    return push(events, NULL, event, payload, length);
}

bool events_push_control(struct events *events, struct event_share *share, const struct event *event,
                         const void *payload, size_t length)
{
    return push(events, share, event, payload, length);
}

struct event *events_take(struct events *events)
{
    pthread_mutex_lock(&events->lock);
    struct event *first = events->first;
    if (first != NULL)
        signal_empty_locked(events);
    events->first = NULL;
    events->last = &events->first;
    events->count = events->bytes = 0;
    events->round++;
    pthread_mutex_unlock(&events->lock);
    return first;
}

static bool concerns_peer(const struct event *event, uint32_t peer_id)
{
    return event->kind != EVENT_STRAY_CONTROL && event->peer_id == peer_id;
}

void events_forget_peer(struct events *events, uint32_t peer_id)
{
    struct event *forgotten = NULL;
    pthread_mutex_lock(&events->lock);
    bool waiting = events->count > 0;
    struct event **at = &events->first;
    while (*at != NULL) {
        struct event *event = *at;
        if (!concerns_peer(event, peer_id)) {
            at = &event->next;
            continue;
        }
        *at = event->next;
        events->count--;
        events->bytes -= event->length;
        event->next = forgotten;
        forgotten = event;
    }
    events->last = at;
    if (waiting && events->count == 0)
        signal_empty_locked(events);
    pthread_mutex_unlock(&events->lock);
    free_all(forgotten);
}
