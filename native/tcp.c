#include "tcp.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "forward.h"
#include "peer.h"

enum { CHUNK_BYTES = 16 << 10, WRITE_VECTORS = 16, UNREAD_PIECES = 64 };

/* A piece of the send queue. Frames do not straddle chunks. */
struct chunk {
    struct chunk *next;
    size_t start, end;
    uint8_t bytes[CHUNK_BYTES];
};

struct tcp_connection {
    /* Constant. */
    int fd;
    int epoll_fd;
    uint64_t tag;
    struct peer *peer;
    struct events *events;

    /* The peer's worker only. */
    uint8_t *received; /* what the control side had read already, until it is taken in */
    size_t received_at, received_end;
    size_t partial_length;
    uint8_t partial[FRAME_PREFIX + LINK_PACKET_MAX]; /* the frame that is not complete yet */

    /* Under the lock, which is taken before the event queue's. */
    pthread_mutex_t lock;
    struct chunk *first;
    struct chunk *last;
    size_t queued;
    bool waiting_writable;
    atomic_bool closed; /* written under the lock */
    char detail[96];    /* constant once closed */
};

struct tcp_connection *tcp_new(int fd, struct peer *peer, struct events *events, int epoll_fd, uint64_t tag,
                               const uint8_t *received, size_t received_length)
{
    struct tcp_connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return NULL;
    if (received_length > 0) {
        connection->received = malloc(received_length);
        if (connection->received == NULL) {
            free(connection);
            return NULL;
        }
        memcpy(connection->received, received, received_length);
        connection->received_end = received_length;
    }
    connection->fd = fd;
    connection->peer = peer;
    connection->events = events;
    connection->epoll_fd = epoll_fd;
    connection->tag = tag;
    connection->waiting_writable = true; /* see tcp_start */
    pthread_mutex_init(&connection->lock, NULL);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connection;
}

static bool watch(struct tcp_connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = connection->tag};
    return epoll_ctl(connection->epoll_fd, operation, connection->fd, &event) == 0;
}

bool tcp_start(struct tcp_connection *connection)
{
    /* Asking for EPOLLOUT wakes the worker at once: `received` may hold whole frames. */
    return watch(connection, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void drop_queue_locked(struct tcp_connection *connection)
{
    while (connection->first != NULL) {
        struct chunk *next = connection->first->next;
        free(connection->first);
        connection->first = next;
    }
    connection->last = NULL;
    connection->queued = 0;
}

static void close_locked(struct tcp_connection *connection, const char *detail)
{
    if (connection->closed)
        return;
    connection->closed = true;
    strncpy(connection->detail, detail, sizeof connection->detail - 1);
    drop_queue_locked(connection);
    epoll_ctl(connection->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    shutdown(connection->fd, SHUT_RDWR);
    atomic_fetch_or(&connection->peer->reports_due, REPORT_TCP_CLOSED);
    report_due(connection->peer, connection->events);
}

void tcp_close(struct tcp_connection *connection, const char *detail)
{
    pthread_mutex_lock(&connection->lock);
    close_locked(connection, detail);
    pthread_mutex_unlock(&connection->lock);
}

bool tcp_is_closed(const struct tcp_connection *connection) { return atomic_load(&connection->closed); }

const char *tcp_close_detail(const struct tcp_connection *connection) { return connection->detail; }

/* -- sending ------------------------------------------------------------------------------------------------------ */

static void consume_locked(struct tcp_connection *connection, size_t written)
{
    connection->queued -= written;
    while (written > 0) {
        struct chunk *chunk = connection->first;
        size_t part = chunk->end - chunk->start;
        if (written < part) {
            chunk->start += written;
            return;
        }
        written -= part;
        connection->first = chunk->next;
        if (connection->first == NULL)
            connection->last = NULL;
        free(chunk);
    }
}

static void flush_locked(struct tcp_connection *connection, struct counters *counters)
{
    while (connection->queued > 0) {
        struct iovec vectors[WRITE_VECTORS];
        struct msghdr message = {.msg_iov = vectors};
        for (struct chunk *chunk = connection->first; chunk != NULL && message.msg_iovlen < WRITE_VECTORS;
             chunk = chunk->next)
            vectors[message.msg_iovlen++] = (struct iovec){chunk->bytes + chunk->start, chunk->end - chunk->start};
        ssize_t written = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (counters != NULL)
            count_total(counters, TOTAL_SEND_CALLS, 1);
        if (written >= 0) {
            consume_locked(connection, (size_t)written);
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            close_locked(connection, strerror(errno));
            return;
        }
    }
    bool wait = connection->queued > 0;
    if (wait != connection->waiting_writable) {
        connection->waiting_writable = wait;
        watch(connection, EPOLL_CTL_MOD, wait ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

/* False when the queue would grow beyond `limit`, or memory is short. */
static bool append_locked(struct tcp_connection *connection, const uint8_t *packet, size_t length, size_t limit)
{
    size_t frame = FRAME_PREFIX + length;
    if (connection->queued + frame > limit)
        return false;
    struct chunk *chunk = connection->last;
    if (chunk == NULL || sizeof chunk->bytes - chunk->end < frame) {
        chunk = malloc(sizeof *chunk);
        if (chunk == NULL)
            return false;
        chunk->next = NULL;
        chunk->start = chunk->end = 0;
        if (connection->last == NULL)
            connection->first = chunk;
        else
            connection->last->next = chunk;
        connection->last = chunk;
    }
    put_u16(chunk->bytes + chunk->end, (uint16_t)length);
    memcpy(chunk->bytes + chunk->end + FRAME_PREFIX, packet, length);
    chunk->end += frame;
    connection->queued += frame;
    return true;
}

void tcp_send_data(struct tcp_connection *connection, const struct packet *packets, unsigned count,
                   struct counters *counters)
{
    pthread_mutex_lock(&connection->lock);
    for (unsigned i = 0; i < count; i++) {
        if (connection->closed)
            count_drop(counters, DROP_NOT_READY); /* since they were sealed */
        else if (append_locked(connection, packets[i].bytes, packets[i].length, TCP_DATA_QUEUE_MAX))
            count_total(counters, TOTAL_LINK_PACKETS_OUT, 1);
        else
            count_drop(counters, DROP_TCP_QUEUE_FULL);
    }
    if (!connection->closed)
        flush_locked(connection, counters);
    pthread_mutex_unlock(&connection->lock);
}

void tcp_send_control(struct tcp_connection *connection, const uint8_t *packet, size_t length,
                      struct counters *counters)
{
    pthread_mutex_lock(&connection->lock);
    if (!connection->closed) {
        if (append_locked(connection, packet, length, TCP_CONTROL_QUEUE_MAX)) {
            count_total(counters, TOTAL_LINK_PACKETS_OUT, 1);
            flush_locked(connection, counters);
        } else {
            count_drop(counters, DROP_TCP_QUEUE_FULL);
            close_locked(connection, "the send queue is full");
        }
    }
    pthread_mutex_unlock(&connection->lock);
}

void tcp_writable(struct tcp_connection *connection, struct counters *counters)
{
    pthread_mutex_lock(&connection->lock);
    if (!connection->closed)
        flush_locked(connection, counters);
    pthread_mutex_unlock(&connection->lock);
}

void tcp_finish(struct tcp_connection *connection)
{
    pthread_mutex_lock(&connection->lock);
    if (!connection->closed)
        flush_locked(connection, NULL);
    if (!connection->closed) {
        connection->closed = true;
        drop_queue_locked(connection);
        epoll_ctl(connection->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    }
    pthread_mutex_unlock(&connection->lock);
}

void tcp_abandon(struct tcp_connection *connection)
{
    drop_queue_locked(connection);
    pthread_mutex_destroy(&connection->lock);
    free(connection->received);
    free(connection);
}

void tcp_free(struct tcp_connection *connection)
{
    if (connection == NULL)
        return;
    /* Closing with bytes unread would reset the connection, and the client would lose what was said last. */
    shutdown(connection->fd, SHUT_WR);
    uint8_t unread[4096];
    for (unsigned i = 0; i < UNREAD_PIECES && recv(connection->fd, unread, sizeof unread, MSG_DONTWAIT) > 0; i++) {
    }
    close(connection->fd);
    tcp_abandon(connection);
}

/* -- receiving, by the peer's worker ------------------------------------------------------------------------------ */

/* The next piece of what the control side had read. */
static size_t take_received(struct tcp_connection *connection, uint8_t *into, size_t room)
{
    size_t left = connection->received_end - connection->received_at;
    size_t length = left < room ? left : room;
    if (length > 0)
        memcpy(into, connection->received + connection->received_at, length);
    connection->received_at += length;
    if (connection->received_at == connection->received_end) {
        free(connection->received);
        connection->received = NULL;
    }
    return length;
}

bool tcp_receive(struct tcp_connection *connection, struct tcp_scratch *scratch, struct counters *counters)
{
    memcpy(scratch->bytes, connection->partial, connection->partial_length);
    scratch->start = 0;
    scratch->end = connection->partial_length;
    uint8_t *into = scratch->bytes + scratch->end;
    size_t room = sizeof scratch->bytes - scratch->end;
    if (connection->received != NULL) {
        scratch->end += take_received(connection, into, room);
        return true;
    }
    ssize_t length = recv(connection->fd, into, room, MSG_DONTWAIT);
    if (length > 0) {
        count_total(counters, TOTAL_RECEIVE_CALLS, 1);
        scratch->end += (size_t)length;
        return true;
    }
    if (length == 0)
        tcp_close(connection, "end of file");
    else if (errno != EAGAIN && errno != EINTR)
        tcp_close(connection, strerror(errno));
    return false;
}

bool tcp_has_received(const struct tcp_connection *connection) { return connection->received != NULL; }

bool tcp_take_frames(struct tcp_connection *connection, struct tcp_scratch *scratch, struct batch *batch, bool *more,
                     struct counters *counters)
{
    struct cursor cursor = cursor_over(scratch->bytes + scratch->start, scratch->end - scratch->start);
    bool good = true;
    batch->count = 0;
    *more = false;
    connection->partial_length = 0;
    for (;;) {
        struct cursor frame = cursor;
        uint16_t length;
        const uint8_t *bytes;
        if (!take_u16(&frame, &length))
            break;
        if (length == 0 || length > LINK_PACKET_MAX) {
            good = false;
            break;
        }
        if (batch->count == BATCH_PACKETS) {
            *more = true;
            break;
        }
        if (!take_bytes(&frame, length, &bytes))
            break;
        uint8_t *writable = scratch->bytes + (bytes - scratch->bytes); /* opened in place */
        batch->packets[batch->count++] = (struct packet){.bytes = writable, .length = length};
        cursor = frame;
    }
    scratch->start = scratch->end - cursor_left(&cursor);
    if (good && !*more) {
        connection->partial_length = cursor_left(&cursor);
        memcpy(connection->partial, cursor.at, connection->partial_length);
    }
    /* How many came in one piece says nothing of who sends them: after a pause it is what the pause has gathered. */
    count_total(counters, TOTAL_RECEIVE_MESSAGES, batch->count);
    count_total(counters, TOTAL_LINK_PACKETS_IN, batch->count);
    return good;
}
