#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#include "clock.h"
#include "doorman_internal.h"

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

void *doorman_run(void *argument)
{
    struct doorman *doorman = argument;
    struct epoll_event ready[LISTENERS_PER_WAIT];
    bool can_wait = true;
    doorman->wake_ups.tokens = PROMPT_WAKE_UPS_PER_S;
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
