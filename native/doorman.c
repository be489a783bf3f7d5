#include "doorman.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "dataplane_internal.h"
#include "door_socket.h"

enum {
    LISTENERS_PER_WAIT = 16,
    /* Where many come, what comes together with the first packet of a flight is looked at, and handed on, with it. Who
     * comes alone does not wait for it: a login is some ten wake-ups. */
    GATHER_MS = 8,
    PROMPT_WAKE_UPS_PER_S = 40,
    FLOOD_STRANGERS = 16, /* in one wake-up */
    /* Pressed: for so long more has come than could be looked at, and the kernel drops whose packets it likes. Then no
     * source has more than its share of the costly looking, 11 us a packet instead of 0.3, until that has helped for a
     * while. */
    PRESSED_AFTER_MS = 20,
    PRESSED_FOR_MS = 1000,
    PRESSED_PER_SOURCE = 30000, /* a second */
};

static const uint64_t STOP_TAG = UINT64_MAX;

const char *const DOOR_TOTAL_WORDS[DOOR_TOTAL_COUNT] = {
#define X(name, word) word,
    DOOR_TOTALS(X)
#undef X
};

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

static uint32_t limit(const struct doorman *doorman, enum limit which)
{
    return atomic_load_explicit(&doorman->limits[which], memory_order_relaxed);
}

static void count(struct doorman *doorman, enum control_drop drop) { counter_add(&doorman->drops[drop], 1); }
static void count_all(struct doorman *doorman, enum door_total total, uint64_t by)
{
    counter_add(&doorman->totals[total], by);
}

/* -- one batch ---------------------------------------------------------------------------------------------------- */

static void count_result(struct doorman *doorman, enum door_result result, enum door_total queued)
{
    switch (result) {
    case DOOR_QUEUED: count_all(doorman, queued, 1); break;
    case DOOR_RATE_LIMITED: count(doorman, CONTROL_RATE_LIMITED); break;
    case DOOR_FULL: count(doorman, CONTROL_QUEUE_FULL); break;
    case DOOR_UNKNOWN:
    case DOOR_OCCUPIED:
    case DOOR_BUSY: break;
    }
}

/* Without the session id if it is too short for one. */
static struct door_packet door_packet(const struct door_listener *listener, const struct datagram *datagram)
{
    struct door_packet packet = {
        .key = {.source = datagram->source, .listener = listener->id},
        .local = datagram->local,
        .bytes = datagram->bytes,
        .length = datagram->length,
    };
    if (datagram->length >= CONTROL_HEADER)
        memcpy(packet.key.session_id, datagram->bytes + 1, SESSION_ID_SIZE);
    return packet;
}

static bool is_data(const struct datagram *datagram)
{
    unsigned opcode = wire_opcode(datagram->bytes[0]);
    return opcode == P_DATA_V1 || opcode == P_DATA_V2;
}

static bool is_stranger(enum door_result result)
{
    return result == DOOR_UNKNOWN || result == DOOR_OCCUPIED || result == DOOR_BUSY;
}

/* Queues what belongs to known sessions and marks the rest; how many those are. */
static unsigned sort_known(struct doorman *doorman, const struct door_listener *listener, unsigned received)
{
    unsigned strangers = 0;
    pthread_mutex_lock(&doorman->queue.lock);
    for (unsigned i = 0; i < received; i++) {
        const struct datagram *datagram = door_datagram(doorman->socket, i);
        enum door_result result = DOOR_UNKNOWN;
        if (datagram->length > 0 && !datagram->truncated) {
            struct door_packet packet = door_packet(listener, datagram);
            if (is_data(datagram)) {
                result = door_push_data_locked(&doorman->queue, &packet, doorman->now_ms);
                doorman->carried_data |= result == DOOR_QUEUED;
            } else if (datagram->length >= CONTROL_HEADER)
                result = door_push_known_locked(&doorman->queue, &packet, doorman->now_ms);
        }
        count_result(doorman, result, DOOR_TOTAL_KNOWN_PACKETS);
        doorman->results[i] = result;
        strangers += is_stranger(result);
    }
    pthread_mutex_unlock(&doorman->queue.lock);
    return strangers;
}

static bool may_answer(struct doorman *doorman, const struct datagram *datagram)
{
    uint64_t prefix = door_prefix_hash(&doorman->queue, &datagram->source.ip);
    return prefix_take(&doorman->resets_of_prefix, prefix, limit(doorman, LIMIT_RESETS_PER_SOURCE),
                       doorman->now_ms) &&
           bucket_take(&doorman->resets, limit(doorman, LIMIT_RESETS), doorman->now_ms);
}

static bool may_begin(struct doorman *doorman, const struct datagram *datagram, bool proven)
{
    uint64_t prefix = door_prefix_hash(&doorman->queue, &datagram->source.ip);
    if (!proven)
        return bucket_take(&doorman->unproven_sessions, limit(doorman, LIMIT_UNPROVEN), doorman->now_ms);
    return prefix_take(&doorman->sessions_of_prefix, prefix, limit(doorman, LIMIT_SESSIONS_PER_SOURCE),
                       doorman->now_ms) &&
           bucket_take(&doorman->sessions, limit(doorman, LIMIT_SESSIONS), doorman->now_ms);
}

/* See door_push_reset_locked. */
static void hand_up_reset(struct doorman *doorman, const struct door_listener *listener,
                          const struct datagram *datagram)
{
    struct door_packet packet = door_packet(listener, datagram);
    pthread_mutex_lock(&doorman->queue.lock);
    enum door_result result = door_push_reset_locked(&doorman->queue, &packet, doorman->now_ms);
    pthread_mutex_unlock(&doorman->queue.lock);
    count_result(doorman, result, DOOR_TOTAL_FIRST_PACKETS);
}

static void answer(struct doorman *doorman, const struct door_listener *listener, const struct stranger_rules *rules,
                   unsigned index, const struct opened *opened)
{
    const struct datagram *datagram = door_datagram(doorman->socket, index);
    if (doorman->results[index] == DOOR_OCCUPIED) {
        hand_up_reset(doorman, listener, datagram);
        return;
    }
    if (doorman->results[index] == DOOR_BUSY) { /* a client takes any answer for its server's, and starts over */
        count(doorman, CONTROL_LIVE_CLIENT);
        return;
    }
    if (!may_answer(doorman, datagram)) {
        count(doorman, CONTROL_RATE_LIMITED);
        return;
    }
    uint8_t *reply = doorman->replies[index];
    size_t length = stranger_answer(rules, &doorman->now, datagram->length, &datagram->source, opened, reply);
    if (length > 0)
        door_reply(doorman->socket, index, reply, length);
    else
        count(doorman, CONTROL_TRUNCATED); /* shorter than what it would get */
}

/* Whether a session begins. */
static bool let_in(struct doorman *doorman, const struct door_listener *listener, const struct datagram *datagram,
                   bool proven)
{
    struct door_packet packet = door_packet(listener, datagram);
    packet.proven = proven;
    if (!may_begin(doorman, datagram, proven)) {
        count(doorman, CONTROL_RATE_LIMITED);
        return false;
    }
    pthread_mutex_lock(&doorman->queue.lock);
    enum door_result result = door_push_first_locked(&doorman->queue, &packet, doorman->now_ms);
    pthread_mutex_unlock(&doorman->queue.lock);
    count_result(doorman, result, DOOR_TOTAL_FIRST_PACKETS);
    return true;
}

/* A long ClientHello comes in two packets: the second of a session that the first one began in this very batch. */
static bool became_known(struct doorman *doorman, const struct door_listener *listener, unsigned index)
{
    const struct datagram *datagram = door_datagram(doorman->socket, index);
    if (datagram->truncated || datagram->length < CONTROL_HEADER || is_data(datagram))
        return false;
    struct door_packet packet = door_packet(listener, datagram);
    pthread_mutex_lock(&doorman->queue.lock);
    enum door_result result = door_push_known_locked(&doorman->queue, &packet, doorman->now_ms);
    pthread_mutex_unlock(&doorman->queue.lock);
    count_result(doorman, result, DOOR_TOTAL_KNOWN_PACKETS);
    doorman->results[index] = result;
    return !is_stranger(result);
}

/* A client's own key is looked at before anything else is known; other packets cost a third. */
static bool is_costly(const struct datagram *datagram)
{
    return datagram->length > 0 && control_brings_key(wire_opcode(datagram->bytes[0]));
}

/* Whether a session begins. */
static bool serve_stranger(struct doorman *doorman, const struct door_listener *listener,
                           const struct stranger_rules *rules, unsigned index)
{
    const struct datagram *datagram = door_datagram(doorman->socket, index);
    if (datagram->truncated) {
        count(doorman, CONTROL_TOO_LONG);
        return false;
    }
    if (doorman->pressed && is_costly(datagram) &&
        !prefix_take(&doorman->pressed_of_prefix, door_prefix_hash(&doorman->queue, &datagram->source.ip),
                     PRESSED_PER_SOURCE, doorman->now_ms)) {
        count(doorman, CONTROL_RATE_LIMITED);
        return false;
    }
    struct opened opened;
    enum control_drop drop;
    switch (
        stranger_judge(rules, &doorman->now, datagram->bytes, datagram->length, &datagram->source, &opened, &drop)) {
    case WISH_NOTHING: count(doorman, drop); break;
    case WISH_ANSWER: answer(doorman, listener, rules, index, &opened); break;
    case WISH_BEGIN: return let_in(doorman, listener, datagram, true);
    case WISH_BEGIN_UNPROVEN:
        if (doorman->results[index] != DOOR_BUSY)
            return let_in(doorman, listener, datagram, false);
        count(doorman, CONTROL_LIVE_CLIENT);
        break;
    }
    return false;
}

/* How many strangers there were. */
static unsigned serve(struct doorman *doorman, uint32_t id)
{
    struct door_listener *listener = id_table_get(&doorman->listeners, id);
    if (listener == NULL)
        return 0;
    int received = door_receive(doorman->socket, listener->fd);
    if (received < 0) {
        epoll_ctl(doorman->epoll_fd, EPOLL_CTL_DEL, listener->fd, NULL);
        return 0;
    }
    doorman->full_batch |= received == DOOR_BATCH;
    unsigned strangers = sort_known(doorman, listener, (unsigned)received);
    if (strangers == 0)
        return 0;
    count_all(doorman, DOOR_TOTAL_STRANGER_PACKETS, strangers);
    bool accepting = atomic_load(&listener->accepting);
    const struct stranger_rules rules = {&doorman->cookie, atomic_load(&listener->protection), listener->slot_s};
    bool begun = false;
    for (unsigned i = 0; i < (unsigned)received; i++) {
        if (!is_stranger(doorman->results[i]))
            continue;
        if (begun && became_known(doorman, listener, i))
            continue;
        if (accepting)
            begun |= serve_stranger(doorman, listener, &rules, i);
        else
            count(doorman, CONTROL_CLOSED);
    }
    count_all(doorman, DOOR_TOTAL_ANSWERED_RESETS, door_send(doorman->socket, listener->fd));
    return strangers;
}

/* -- the thread --------------------------------------------------------------------------------------------------- */

static void look_at_clock(struct doorman *doorman)
{
    uint64_t now_ms = clock_now_ms();
    doorman->now_ms = (uint32_t)now_ms;
    doorman->now = (struct moment){.monotonic_s = now_ms / 1000, .wall_s = (uint32_t)time(NULL)};
}

static void look_at_pressure(struct doorman *doorman)
{
    uint32_t now_ms = doorman->now_ms;
    if (!doorman->full_batch)
        doorman->drained_ms = now_ms;
    else if (now_ms - doorman->drained_ms >= PRESSED_AFTER_MS)
        doorman->pressed = true, doorman->pressed_ms = now_ms;
    if (now_ms - doorman->pressed_ms >= PRESSED_FOR_MS)
        doorman->pressed = false;
    doorman->full_batch = false;
}

/* For a while it has been woken up more often than PROMPT_WAKE_UPS_PER_S. Those wake-ups that were waited for count too:
 * what is few enough with waiting may come without. */
static bool is_busy(struct doorman *doorman)
{
    bucket_take(&doorman->wake_ups, PROMPT_WAKE_UPS_PER_S, doorman->now_ms);
    return doorman->wake_ups.tokens < PROMPT_WAKE_UPS_PER_S / 2;
}

/* Until more has come together: a wake-up for each packet, here and behind, costs several times as much as the packet. */
static void gather(const struct doorman *doorman)
{
    poll(&(struct pollfd){.fd = doorman->stop_fd, .events = POLLIN}, 1, GATHER_MS);
}

static void *run(void *argument)
{
    struct doorman *doorman = argument;
    struct epoll_event ready[LISTENERS_PER_WAIT];
    bool can_wait = true;
    for (;;) {
        int ready_count = epoll_wait(doorman->epoll_fd, ready, LISTENERS_PER_WAIT, -1);
        unsigned strangers = 0;
        look_at_clock(doorman);
        if (can_wait && is_busy(doorman)) {
            gather(doorman);
            look_at_clock(doorman);
        }
        for (int i = 0; i < ready_count; i++) {
            if (ready[i].data.u64 == STOP_TAG)
                return NULL;
            atomic_fetch_add(&doorman->sections, 1);
            strangers += serve(doorman, (uint32_t)ready[i].data.u64);
            atomic_fetch_add(&doorman->sections, 1);
        }
        /* A full batch means that more wait already. */
        can_wait = !doorman->full_batch && (!doorman->carried_data || strangers >= FLOOD_STRANGERS);
        doorman->carried_data = false;
        look_at_pressure(doorman);
    }
}

/* Signals belong to the main thread. */
static bool start(struct doorman *doorman)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&doorman->thread, NULL, run, doorman);
    bool started = errno == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_setname_np(doorman->thread, "cvpnd-door");
    return started;
}

/* What was unpublished before this call may be freed after it. */
static void wait_quiescent(struct doorman *doorman)
{
    uint64_t seen = atomic_load(&doorman->sections);
    while (seen % 2 == 1 && atomic_load(&doorman->sections) == seen)
        sched_yield();
}

/* -- life --------------------------------------------------------------------------------------------------------- */

static void put_limits(struct doorman *doorman, const struct door_limits *limits)
{
    atomic_store(&doorman->limits[LIMIT_RESETS], limits->resets);
    atomic_store(&doorman->limits[LIMIT_RESETS_PER_SOURCE], limits->resets_per_source);
    atomic_store(&doorman->limits[LIMIT_SESSIONS], limits->sessions);
    atomic_store(&doorman->limits[LIMIT_SESSIONS_PER_SOURCE], limits->sessions_per_source);
    atomic_store(&doorman->limits[LIMIT_UNPROVEN], limits->unproven_sessions);
}

struct doorman *doorman_new(const uint8_t *cookie_secret, size_t length, const struct door_limits *limits,
                            struct failure *failure)
{
    if (length < COOKIE_SECRET_SHORTEST) {
        fail(failure, FAILURE_INVALID, "a cookie secret has %d bytes or more", COOKIE_SECRET_SHORTEST);
        return NULL;
    }
    struct doorman *doorman = aligned_alloc(64, (sizeof *doorman + 63) / 64 * 64);
    if (doorman == NULL) {
        fail_memory(failure);
        return NULL;
    }
    memset(doorman, 0, sizeof *doorman);
    put_limits(doorman, limits);
    doorman->wake_ups.tokens = PROMPT_WAKE_UPS_PER_S;
    pthread_mutex_init(&doorman->control_lock, NULL);
    struct epoll_event stop = {.events = EPOLLIN, .data.u64 = STOP_TAG};
    doorman->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    doorman->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    doorman->socket = door_socket_new();
    bool keyed = reset_cookie_init(&doorman->cookie, cookie_secret, length);
    bool queue = door_queue_init(&doorman->queue);
    if (keyed && queue && doorman->socket != NULL && doorman->stop_fd >= 0 && doorman->epoll_fd >= 0 &&
        epoll_ctl(doorman->epoll_fd, EPOLL_CTL_ADD, doorman->stop_fd, &stop) == 0 && start(doorman))
        return doorman;
    fail_system(failure, errno, "starting the doorman");
    if (queue)
        door_queue_destroy(&doorman->queue);
    reset_cookie_destroy(&doorman->cookie);
    door_socket_free(doorman->socket);
    if (doorman->stop_fd >= 0)
        close(doorman->stop_fd);
    if (doorman->epoll_fd >= 0)
        close(doorman->epoll_fd);
    pthread_mutex_destroy(&doorman->control_lock);
    free(doorman);
    return NULL;
}

/* Nobody can see the listener any more. */
static void listener_destroy(struct door_listener *listener)
{
    close(listener->fd);
    protection_free(atomic_load(&listener->protection));
    free(listener);
}

void doorman_close(struct doorman *doorman)
{
    pthread_mutex_lock(&doorman->control_lock);
    if (!doorman->closed) {
        doorman->closed = true;
        uint64_t one = 1;
        while (write(doorman->stop_fd, &one, sizeof one) < 0 && errno == EINTR) {
        }
        pthread_join(doorman->thread, NULL);
        struct door_listener *listener;
        for (uint32_t id = 0; (listener = id_table_next(&doorman->listeners, &id)) != NULL; id++)
            listener_destroy(listener);
        id_table_clear(&doorman->listeners);
        reset_cookie_destroy(&doorman->cookie);
        door_socket_free(doorman->socket);
        close(doorman->stop_fd);
        close(doorman->epoll_fd);
    }
    pthread_mutex_unlock(&doorman->control_lock);
}

void doorman_free(struct doorman *doorman)
{
    if (doorman == NULL)
        return;
    doorman_close(doorman);
    door_queue_destroy(&doorman->queue);
    pthread_mutex_destroy(&doorman->control_lock);
    free(doorman);
}

/* -- verbs -------------------------------------------------------------------------------------------------------- */

static bool enter(struct doorman *doorman, struct failure *failure)
{
    pthread_mutex_lock(&doorman->control_lock);
    if (!doorman->closed)
        return true;
    pthread_mutex_unlock(&doorman->control_lock);
    return fail(failure, FAILURE_INVALID, "the doorman is gone");
}

static bool leave(struct doorman *doorman, bool result)
{
    pthread_mutex_unlock(&doorman->control_lock);
    return result;
}

static bool add_listener_locked(struct doorman *doorman, uint32_t id, int fd, unsigned slot_s,
                                struct protection *protection, struct failure *failure)
{
    if (id > ID_TABLE_MAX || id_table_get(&doorman->listeners, id) != NULL)
        return fail(failure, FAILURE_INVALID, "listener %u is out of range or taken", id);
    if (slot_s == 0)
        return fail(failure, FAILURE_INVALID, "a cookie needs time");
    struct door_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return fail_memory(failure);
    listener->id = id;
    listener->fd = fd;
    listener->slot_s = slot_s;
    atomic_store(&listener->accepting, true);
    atomic_store(&listener->protection, protection);
    if (!id_table_put(&doorman->listeners, id, listener)) {
        free(listener);
        return fail_memory(failure);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = id};
    if (epoll_ctl(doorman->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return true;
    fail_system(failure, errno, "UDP socket");
    id_table_take(&doorman->listeners, id);
    wait_quiescent(doorman);
    free(listener);
    return false;
}

bool doorman_add_listener(struct doorman *doorman, uint32_t id, int fd, unsigned slot_s,
                          struct protection *protection, struct failure *failure)
{
    bool done =
        enter(doorman, failure) && leave(doorman, add_listener_locked(doorman, id, fd, slot_s, protection, failure));
    if (!done) {
        close(fd);
        protection_free(protection);
    }
    return done;
}

static struct door_listener *find_listener(struct doorman *doorman, uint32_t id, struct failure *failure)
{
    struct door_listener *listener = id_table_get(&doorman->listeners, id);
    if (listener == NULL)
        fail(failure, FAILURE_MISSING, "no listener %u", id);
    return listener;
}

bool doorman_set_protection(struct doorman *doorman, uint32_t id, struct protection *protection,
                            struct failure *failure)
{
    if (!enter(doorman, failure)) {
        protection_free(protection);
        return false;
    }
    struct door_listener *listener = find_listener(doorman, id, failure);
    if (listener != NULL) {
        protection = atomic_exchange(&listener->protection, protection);
        wait_quiescent(doorman);
    }
    protection_free(protection);
    return leave(doorman, listener != NULL);
}

bool doorman_stop_accepting(struct doorman *doorman, uint32_t id, struct failure *failure)
{
    if (!enter(doorman, failure))
        return false;
    struct door_listener *listener = find_listener(doorman, id, failure);
    if (listener != NULL)
        atomic_store(&listener->accepting, false);
    return leave(doorman, listener != NULL);
}

bool doorman_remove_listener(struct doorman *doorman, uint32_t id, struct failure *failure)
{
    if (!enter(doorman, failure))
        return false;
    struct door_listener *listener = find_listener(doorman, id, failure);
    if (listener == NULL)
        return leave(doorman, false);
    id_table_take(&doorman->listeners, id);
    epoll_ctl(doorman->epoll_fd, EPOLL_CTL_DEL, listener->fd, NULL);
    wait_quiescent(doorman);
    listener_destroy(listener);
    door_forget_listener(&doorman->queue, id);
    return leave(doorman, true);
}

bool doorman_set_limits(struct doorman *doorman, const struct door_limits *limits, struct failure *failure)
{
    if (!enter(doorman, failure))
        return false;
    put_limits(doorman, limits);
    return leave(doorman, true);
}

struct door_queue *doorman_queue(struct doorman *doorman) { return &doorman->queue; }

void doorman_drops(struct doorman *doorman, uint64_t drops[static CONTROL_DROP_COUNT])
{
    for (unsigned i = 0; i < CONTROL_DROP_COUNT; i++)
        drops[i] = atomic_load_explicit(&doorman->drops[i], memory_order_relaxed);
}

void doorman_totals(struct doorman *doorman, uint64_t totals[static DOOR_TOTAL_COUNT])
{
    for (unsigned i = 0; i < DOOR_TOTAL_COUNT; i++)
        totals[i] = atomic_load_explicit(&doorman->totals[i], memory_order_relaxed);
}
