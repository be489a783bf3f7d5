#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "doorman_internal.h"

const char *const DOOR_TOTAL_WORDS[DOOR_TOTAL_COUNT] = {
#define X(name, word) word,
    DOOR_TOTALS(X)
#undef X
};

/* Signals belong to the main thread. */
static bool start(struct doorman *doorman)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&doorman->thread, NULL, doorman_run, doorman);
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
