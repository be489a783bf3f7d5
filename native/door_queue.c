#include "door_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { SLOTS_FIRST = 1024 };

static const unsigned LINE_MAX[DOOR_CLASSES] = {
    [DOOR_ESTABLISHED] = 2048,
    [DOOR_HANDSHAKE] = 2048,
    [DOOR_STRANGER] = 1024,
    [DOOR_DATA] = 1024,
};

bool door_queue_init(struct door_queue *queue)
{
    memset(queue, 0, sizeof *queue);
    for (unsigned i = 0; i < DOOR_CLASSES; i++)
        queue->lines[i].last = &queue->lines[i].first;
    queue->slots = calloc(SLOTS_FIRST, sizeof *queue->slots);
    queue->slot_count = SLOTS_FIRST;
    queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->slots == NULL || queue->fd < 0 || !hash_key_init(&queue->hash_key)) {
        if (queue->fd >= 0)
            close(queue->fd);
        free(queue->slots);
        return false;
    }
    pthread_mutex_init(&queue->lock, NULL);
    return true;
}

void door_queue_destroy(struct door_queue *queue)
{
    for (unsigned i = 0; i < DOOR_CLASSES; i++)
        while (queue->lines[i].first != NULL) {
            struct door_item *item = queue->lines[i].first;
            queue->lines[i].first = item->next;
            free(item);
        }
    for (size_t i = 0; i < queue->slot_count; i++)
        while (queue->slots[i] != NULL) {
            struct door_session *session = queue->slots[i];
            queue->slots[i] = session->next;
            free(session);
        }
    free(queue->slots);
    close(queue->fd);
    pthread_mutex_destroy(&queue->lock);
}

uint64_t door_prefix_hash(const struct door_queue *queue, const struct ip_address *source)
{
    return hash_words(&queue->hash_key, source_prefix(source), 0);
}

/* -- sessions ----------------------------------------------------------------------------------------------------- */

static bool same_place(const struct door_key *a, const struct door_key *b)
{
    return a->listener == b->listener && socket_address_equal(&a->source, &b->source);
}

static bool key_equal(const struct door_key *a, const struct door_key *b)
{
    return memcmp(a->session_id, b->session_id, SESSION_ID_SIZE) == 0 && same_place(a, b);
}

/* By listener and source alone, so that all sessions at one address hang together. */
static size_t slot_of(const struct door_queue *queue, const struct door_key *key)
{
    uint64_t address[2];
    memcpy(address, key->source.ip.bytes, sizeof address);
    uint64_t port = (uint64_t)key->listener << 32 | (uint64_t)key->source.scope_id << 16 | key->source.port;
    uint64_t hash = hash_words(&queue->hash_key, port, hash_words(&queue->hash_key, address[0], address[1]));
    return (size_t)hash & (queue->slot_count - 1);
}

/* Where the session hangs, or the end of its chain. */
static struct door_session **find_locked(struct door_queue *queue, const struct door_key *key)
{
    struct door_session **at = &queue->slots[slot_of(queue, key)];
    while (*at != NULL && !key_equal(&(*at)->key, key))
        at = &(*at)->next;
    return at;
}

static struct door_session *established_at_locked(struct door_queue *queue, const struct door_key *key)
{
    struct door_session *session = queue->slots[slot_of(queue, key)];
    while (session != NULL && (session->standing != DOOR_ESTABLISHED || !same_place(&session->key, key)))
        session = session->next;
    return session;
}

/* For a packet that is of no session itself. */
static enum door_result whose_place_locked(struct door_queue *queue, const struct door_key *key, uint32_t now_ms)
{
    enum door_result place = DOOR_UNKNOWN;
    for (struct door_session *session = queue->slots[slot_of(queue, key)]; session != NULL; session = session->next) {
        if (!same_place(&session->key, key))
            continue;
        if (session->standing == DOOR_ESTABLISHED)
            return DOOR_OCCUPIED;
        if (session->proven && now_ms - session->heard_ms < DOOR_BUSY_MS)
            place = DOOR_BUSY;
    }
    return place;
}

static void grow_locked(struct door_queue *queue)
{
    size_t old_count = queue->slot_count;
    struct door_session **old = queue->slots, **slots = calloc(old_count * 2, sizeof *slots);
    if (slots == NULL)
        return; /* longer chains */
    queue->slots = slots;
    queue->slot_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++)
        while (old[i] != NULL) {
            struct door_session *session = old[i];
            old[i] = session->next;
            struct door_session **into = &slots[slot_of(queue, &session->key)];
            session->next = *into;
            *into = session;
        }
    free(old);
}

static struct door_session *know_locked(struct door_queue *queue, const struct door_key *key,
                                        enum door_class standing)
{
    struct door_session **at = find_locked(queue, key);
    if (*at == NULL) {
        struct door_session *session = calloc(1, sizeof *session);
        if (session == NULL)
            return NULL;
        session->key = *key;
        session->packets.tokens = DOOR_SESSION_PACKETS_PER_S;
        session->resets.tokens = DOOR_RESETS_PER_S;
        session->data.tokens = DOOR_DATA_PACKETS_PER_S;
        *at = session;
        if (++queue->session_count > queue->slot_count) {
            grow_locked(queue);
            at = find_locked(queue, key);
        }
    }
    (*at)->standing = standing;
    return *at;
}

static void remove_locked(struct door_queue *queue, struct door_session **at)
{
    struct door_session *session = *at;
    *at = session->next;
    free(session);
    queue->session_count--;
}

bool door_know(struct door_queue *queue, const struct door_key *key, enum door_class standing)
{
    pthread_mutex_lock(&queue->lock);
    bool known = know_locked(queue, key, standing) != NULL;
    pthread_mutex_unlock(&queue->lock);
    return known;
}

void door_forget(struct door_queue *queue, const struct door_key *key)
{
    pthread_mutex_lock(&queue->lock);
    struct door_session **at = find_locked(queue, key);
    if (*at != NULL)
        remove_locked(queue, at);
    pthread_mutex_unlock(&queue->lock);
}

void door_forget_listener(struct door_queue *queue, uint32_t listener)
{
    pthread_mutex_lock(&queue->lock);
    for (size_t i = 0; i < queue->slot_count; i++)
        for (struct door_session **at = &queue->slots[i]; *at != NULL;)
            if ((*at)->key.listener == listener)
                remove_locked(queue, at);
            else
                at = &(*at)->next;
    pthread_mutex_unlock(&queue->lock);
}

/* -- packets ------------------------------------------------------------------------------------------------------ */

/* How much of a class waits from the source's prefix; NULL where that is not counted. */
static uint16_t *prefix_waiting(struct door_queue *queue, const struct door_key *key, enum door_class standing)
{
    size_t index = door_prefix_hash(queue, &key->source.ip) % DOOR_PREFIX_COUNTS;
    switch (standing) {
    case DOOR_STRANGER: return &queue->prefix_waiting[index];
    case DOOR_HANDSHAKE: return &queue->prefix_handshakes[index];
    default: return NULL;
    }
}

/* The descriptor follows the queue: written when it fills, read when it empties, both under the lock. */
static void signal_locked(struct door_queue *queue, bool waiting)
{
    uint64_t count = 1;
    if (waiting)
        while (write(queue->fd, &count, sizeof count) < 0 && errno == EINTR) {
        }
    else
        while (read(queue->fd, &count, sizeof count) < 0 && errno == EINTR) {
        }
}

static enum door_result enqueue_locked(struct door_queue *queue, const struct door_packet *packet,
                                       enum door_class standing)
{
    struct door_line *line = &queue->lines[standing];
    uint16_t *of_prefix = prefix_waiting(queue, &packet->key, standing);
    if (of_prefix != NULL && *of_prefix >= (standing == DOOR_STRANGER ? DOOR_PREFIX_WAITING : DOOR_PREFIX_HANDSHAKES))
        return DOOR_RATE_LIMITED;
    if (line->count >= LINE_MAX[standing])
        return DOOR_FULL;
    struct door_item *item = malloc(sizeof *item + packet->length);
    if (item == NULL)
        return DOOR_FULL;
    *item = (struct door_item){
        .key = packet->key,
        .local = packet->local,
        .standing = standing,
        .proven = packet->proven,
        .length = packet->length,
    };
    memcpy(item->packet, packet->bytes, packet->length);
    *line->last = item;
    line->last = &item->next;
    line->count++;
    if (of_prefix != NULL)
        ++*of_prefix;
    if (queue->waiting++ == 0)
        signal_locked(queue, true);
    return DOOR_QUEUED;
}

static enum door_result push_locked(struct door_queue *queue, struct door_session *session,
                                    const struct door_packet *packet, uint32_t now_ms)
{
    enum door_class standing = session->standing;
    bool crowded = queue->lines[standing].count >= LINE_MAX[standing] / 2;
    if (session->waiting >= (crowded ? DOOR_SESSION_WAITING_CROWDED : DOOR_SESSION_WAITING) ||
        !bucket_take(&session->packets, DOOR_SESSION_PACKETS_PER_S, now_ms))
        return DOOR_RATE_LIMITED;
    session->heard_ms = now_ms;
    enum door_result result = enqueue_locked(queue, packet, standing);
    session->waiting += result == DOOR_QUEUED;
    return result;
}

enum door_result door_push_known_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms)
{
    struct door_session *session = *find_locked(queue, &packet->key);
    if (session != NULL)
        return push_locked(queue, session, packet, now_ms);
    return whose_place_locked(queue, &packet->key, now_ms);
}

enum door_result door_push_data_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms)
{
    struct door_session *session = established_at_locked(queue, &packet->key);
    if (session == NULL)
        return DOOR_UNKNOWN;
    if (!bucket_take(&session->data, DOOR_DATA_PACKETS_PER_S, now_ms))
        return DOOR_RATE_LIMITED;
    return enqueue_locked(queue, packet, DOOR_DATA);
}

enum door_result door_push_reset_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms)
{
    struct door_session *session = established_at_locked(queue, &packet->key);
    if (session == NULL || !bucket_take(&session->resets, DOOR_RESETS_PER_S, now_ms))
        return DOOR_RATE_LIMITED;
    return enqueue_locked(queue, packet, DOOR_STRANGER);
}

enum door_result door_push_first_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms)
{
    struct door_session **at = find_locked(queue, &packet->key);
    bool known = *at != NULL;
    struct door_session *session = known ? *at : know_locked(queue, &packet->key, DOOR_STRANGER);
    if (session == NULL)
        return DOOR_FULL;
    session->proven |= packet->proven;
    enum door_result result = push_locked(queue, session, packet, now_ms);
    if (result != DOOR_QUEUED && !known)
        remove_locked(queue, find_locked(queue, &packet->key));
    return result;
}

static struct door_item *take_locked(struct door_queue *queue, struct door_line *line)
{
    struct door_item *item = line->first;
    line->first = item->next;
    if (line->first == NULL)
        line->last = &line->first;
    line->count--;
    queue->waiting--;
    struct door_session *session = item->standing == DOOR_DATA ? NULL : *find_locked(queue, &item->key);
    if (session != NULL && session->waiting > 0) /* it may have been forgotten and known again since */
        session->waiting--;
    uint16_t *of_prefix = prefix_waiting(queue, &item->key, item->standing);
    if (of_prefix != NULL)
        --*of_prefix;
    item->next = NULL;
    return item;
}

struct door_item *door_fetch(struct door_queue *queue, const unsigned most[static DOOR_CLASSES])
{
    struct door_item *fetched = NULL, **last = &fetched;
    pthread_mutex_lock(&queue->lock);
    bool waited = queue->waiting > 0;
    for (unsigned i = 0; i < DOOR_CLASSES; i++)
        for (unsigned n = 0; n < most[i] && queue->lines[i].first != NULL; n++) {
            *last = take_locked(queue, &queue->lines[i]);
            last = &(*last)->next;
        }
    if (waited && queue->waiting == 0)
        signal_locked(queue, false);
    pthread_mutex_unlock(&queue->lock);
    return fetched;
}
