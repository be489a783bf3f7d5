#include "dataplane_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool fail(struct failure *failure, enum failure_kind kind, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    failure->kind = kind;
    failure->error = 0;
    return false;
}

bool fail_system(struct failure *failure, int error, const char *what)
{
    fail(failure, FAILURE_SYSTEM, "%s", what);
    failure->error = error;
    return false;
}

bool fail_memory(struct failure *failure) { return fail(failure, FAILURE_MEMORY, "out of memory"); }

bool control_enter(struct dataplane *plane, struct failure *failure)
{
    pthread_mutex_lock(&plane->control_lock);
    if (!plane->closed)
        return true;
    pthread_mutex_unlock(&plane->control_lock);
    return fail(failure, FAILURE_INVALID, "the data plane is closed");
}

bool control_leave(struct dataplane *plane, bool result)
{
    pthread_mutex_unlock(&plane->control_lock);
    return result;
}

void wait_quiescent_locked(struct dataplane *plane) { workers_wait_quiescent(plane->workers, plane->worker_count); }

/* -- start and stop ----------------------------------------------------------------------------------------------- */

static void stop_workers(struct dataplane *plane, unsigned running)
{
    for (unsigned i = 0; i < running; i++)
        worker_stop(plane->workers[i]);
}

struct dataplane_options dataplane_options_default(void)
{
    return (struct dataplane_options){
        .limits = key_limits_default(), .pause_us = PACER_PAUSE_US, .link_offload = true};
}

struct dataplane *dataplane_new(unsigned workers, const struct dataplane_options *options, struct failure *failure)
{
    if (workers < 1 || workers > WORKERS_MAX) {
        fail(failure, FAILURE_INVALID, "workers: %u is not in 1..%d", workers, WORKERS_MAX);
        return NULL;
    }
    const struct aead_backend *backend = aead_backend_of(options->crypto);
    if (backend == NULL) {
        fail(failure, FAILURE_INVALID, "packet crypto: ipsec-mb is not in this build, or not for this CPU");
        return NULL;
    }
    size_t size = sizeof(struct dataplane) + workers * sizeof(struct worker *);
    struct dataplane *plane = aligned_alloc(64, (size + 63) / 64 * 64);
    if (plane == NULL) {
        fail_memory(failure);
        return NULL;
    }
    memset(plane, 0, size);
    plane->worker_count = workers;
    plane->limits = options->limits;
    plane->link_offload = options->link_offload;
    plane->backend = backend;
    pthread_mutex_init(&plane->control_lock, NULL);
    unsigned running = 0;
    if (!events_init(&plane->events)) {
        fail_system(failure, errno, "eventfd");
        goto fail_events;
    }
    const struct forwarder shared = {
        .peers = &plane->peers, .events = &plane->events, .limits = &plane->limits, .last_peer = NO_PEER_ID};
    for (; running < workers; running++) {
        struct worker *worker = aligned_alloc(64, (sizeof *worker + 63) / 64 * 64);
        if (worker == NULL) {
            fail_memory(failure);
            goto fail_workers;
        }
        if (!worker_init(worker, running, &shared, &plane->endpoints, &plane->listeners, options->pause_us)) {
            fail_system(failure, errno, "starting a worker");
            free(worker);
            goto fail_workers;
        }
        if (!worker_start(worker)) {
            fail_system(failure, errno, "starting a worker");
            worker_destroy(worker);
            free(worker);
            goto fail_workers;
        }
        plane->workers[running] = worker;
    }
    return plane;
fail_workers:
    stop_workers(plane, running);
    while (running-- > 0) {
        worker_destroy(plane->workers[running]);
        free(plane->workers[running]);
    }
    events_destroy(&plane->events);
fail_events:
    pthread_mutex_destroy(&plane->control_lock);
    free(plane);
    return NULL;
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

/* Nobody can see the endpoint any more. */
static void endpoint_destroy(struct endpoint *endpoint, unsigned workers)
{
    close_all(endpoint->tun_fds, workers);
    address_table_clear(&endpoint->addresses);
    rules_free(atomic_load(&endpoint->rules));
    free(endpoint);
}

static void listener_destroy(struct listener *listener, unsigned workers)
{
    close_all(listener->udp_fds, workers);
    free(listener);
}

void dataplane_close(struct dataplane *plane)
{
    pthread_mutex_lock(&plane->control_lock);
    if (plane->closed) {
        pthread_mutex_unlock(&plane->control_lock);
        return;
    }
    plane->closed = true;
    stop_workers(plane, plane->worker_count);
    struct peer *peer;
    for (uint32_t id = 0; (peer = id_table_next(&plane->peers, &id)) != NULL; id++) {
        struct tcp_connection *connection = atomic_load(&peer->connection);
        if (connection != NULL)
            tcp_finish(connection);
        peer_destroy(peer);
    }
    struct listener *listener;
    for (uint32_t id = 0; (listener = id_table_next(&plane->listeners, &id)) != NULL; id++)
        listener_destroy(listener, plane->worker_count);
    struct endpoint *endpoint;
    for (uint32_t id = 0; (endpoint = id_table_next(&plane->endpoints, &id)) != NULL; id++)
        endpoint_destroy(endpoint, plane->worker_count);
    id_table_clear(&plane->peers);
    id_table_clear(&plane->listeners);
    id_table_clear(&plane->endpoints);
    for (unsigned i = 0; i < plane->worker_count; i++)
        worker_destroy(plane->workers[i]);
    events_destroy(&plane->events);
    pthread_mutex_unlock(&plane->control_lock);
}

void dataplane_free(struct dataplane *plane)
{
    if (plane == NULL)
        return;
    dataplane_close(plane);
    for (unsigned i = 0; i < plane->worker_count; i++)
        free(plane->workers[i]);
    pthread_mutex_destroy(&plane->control_lock);
    free(plane);
}

unsigned dataplane_workers(const struct dataplane *plane) { return plane->worker_count; }

const char *dataplane_crypto_backend(const struct dataplane *plane) { return plane->backend->describe(); }

/* -- endpoints ---------------------------------------------------------------------------------------------------- */

static bool watch_all(struct dataplane *plane, const int *fds, enum source source, uint32_t id)
{
    for (unsigned i = 0; i < plane->worker_count; i++) {
        if (worker_watch(plane->workers[i], fds[i], source_tag(source, id)))
            continue;
        int error = errno;
        while (i-- > 0)
            worker_unwatch(plane->workers[i], fds[i]);
        errno = error;
        return false;
    }
    return true;
}

static void unwatch_all(struct dataplane *plane, const int *fds)
{
    for (unsigned i = 0; i < plane->worker_count; i++)
        worker_unwatch(plane->workers[i], fds[i]);
}

static bool set_nonblocking(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int flags = fcntl(fds[i], F_GETFL);
        if (flags < 0 || fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0)
            return false;
    }
    return true;
}

static bool check_new(struct dataplane *plane, struct id_table *table, const char *what, uint32_t id, size_t count,
                      struct failure *failure)
{
    if (id > ID_TABLE_MAX)
        return fail(failure, FAILURE_INVALID, "%s %u is greater than %d", what, id, ID_TABLE_MAX);
    if (id_table_get(table, id) != NULL)
        return fail(failure, FAILURE_INVALID, "%s %u exists already", what, id);
    if (count != plane->worker_count)
        return fail(failure, FAILURE_INVALID, "%s %u: %zu descriptors for %u workers", what, id, count,
                    plane->worker_count);
    return true;
}

static bool add_endpoint_locked(struct dataplane *plane, uint32_t id, const int *tun_fds, size_t count,
                                enum tun_offload offload, struct failure *failure)
{
    if (!check_new(plane, &plane->endpoints, "endpoint", id, count, failure))
        return false;
    if (offload >= TUN_OFFLOADS)
        return fail(failure, FAILURE_INVALID, "endpoint %u: offload %u is unknown", id, (unsigned)offload);
    if (!set_nonblocking(tun_fds, count))
        return fail_system(failure, errno, "TUN queue");
    struct endpoint *endpoint = calloc(1, sizeof *endpoint + count * sizeof endpoint->tun_fds[0]);
    if (endpoint == NULL)
        return fail_memory(failure);
    endpoint->id = id;
    endpoint->offload = offload;
    memcpy(endpoint->tun_fds, tun_fds, count * sizeof *tun_fds);
    struct rules *nothing = rules_build(NULL, 0);
    atomic_store(&endpoint->rules, nothing);
    if (nothing == NULL || !address_table_init(&endpoint->addresses) ||
        !id_table_put(&plane->endpoints, id, endpoint)) {
        fail_memory(failure);
        goto fail;
    }
    if (!watch_all(plane, tun_fds, SOURCE_TUN, id)) {
        fail_system(failure, errno, "TUN queue");
        id_table_take(&plane->endpoints, id);
        wait_quiescent_locked(plane);
        goto fail;
    }
    return true;
fail:
    rules_free(nothing);
    address_table_clear(&endpoint->addresses);
    free(endpoint);
    return false;
}

bool dataplane_add_endpoint(struct dataplane *plane, uint32_t id, const int *tun_fds, size_t count,
                            enum tun_offload offload, struct failure *failure)
{
    bool done = control_enter(plane, failure) &&
                control_leave(plane, add_endpoint_locked(plane, id, tun_fds, count, offload, failure));
    if (!done)
        close_all(tun_fds, count);
    return done;
}

static bool remove_endpoint_locked(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    struct endpoint *endpoint = id_table_get(&plane->endpoints, id);
    if (endpoint == NULL)
        return fail(failure, FAILURE_MISSING, "no endpoint %u", id);
    if (endpoint->peers > 0 || endpoint->listeners > 0)
        return fail(failure, FAILURE_INVALID, "endpoint %u still has %u peers and %u listeners", id, endpoint->peers,
                    endpoint->listeners);
    id_table_take(&plane->endpoints, id);
    unwatch_all(plane, endpoint->tun_fds);
    wait_quiescent_locked(plane);
    endpoint_destroy(endpoint, plane->worker_count);
    return true;
}

bool dataplane_remove_endpoint(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, remove_endpoint_locked(plane, id, failure));
}

static bool set_rules_locked(struct dataplane *plane, uint32_t id, const struct rule *rules, uint32_t count,
                             struct failure *failure)
{
    struct endpoint *endpoint = id_table_get(&plane->endpoints, id);
    if (endpoint == NULL)
        return fail(failure, FAILURE_MISSING, "no endpoint %u", id);
    struct rules *built = rules_build(rules, count);
    if (built == NULL)
        return fail_memory(failure);
    struct rules *old = atomic_exchange(&endpoint->rules, built);
    wait_quiescent_locked(plane);
    rules_free(old);
    return true;
}

bool dataplane_set_rules(struct dataplane *plane, uint32_t endpoint, const struct rule *rules, uint32_t count,
                         struct failure *failure)
{
    return control_enter(plane, failure) &&
           control_leave(plane, set_rules_locked(plane, endpoint, rules, count, failure));
}

/* -- listeners ---------------------------------------------------------------------------------------------------- */

static bool add_listener_locked(struct dataplane *plane, uint32_t id, uint32_t endpoint_id, const int *udp_fds,
                                size_t count, struct failure *failure)
{
    struct endpoint *endpoint = id_table_get(&plane->endpoints, endpoint_id);
    if (endpoint == NULL)
        return fail(failure, FAILURE_MISSING, "no endpoint %u", endpoint_id);
    if (!check_new(plane, &plane->listeners, "listener", id, count, failure))
        return false;
    struct sockaddr_storage bound = {0};
    socklen_t bound_length = sizeof bound;
    if (getsockname(udp_fds[0], (struct sockaddr *)&bound, &bound_length) < 0)
        return fail_system(failure, errno, "UDP socket");
    if (bound.ss_family != AF_INET && bound.ss_family != AF_INET6)
        return fail(failure, FAILURE_INVALID, "listener %u: neither an IPv4 nor an IPv6 socket", id);
    struct listener *listener = calloc(1, sizeof *listener + count * sizeof listener->udp_fds[0]);
    if (listener == NULL)
        return fail_memory(failure);
    listener->id = id;
    listener->endpoint = endpoint;
    listener->family = bound.ss_family;
    listener->segmented = plane->link_offload;
    memcpy(listener->udp_fds, udp_fds, count * sizeof *udp_fds);
    for (size_t i = 0; i < count; i++)
        link_prepare(udp_fds[i], plane->link_offload);
    if (!id_table_put(&plane->listeners, id, listener)) {
        free(listener);
        return fail_memory(failure);
    }
    if (!watch_all(plane, udp_fds, SOURCE_LINK, id)) {
        fail_system(failure, errno, "UDP socket");
        id_table_take(&plane->listeners, id);
        wait_quiescent_locked(plane);
        free(listener);
        return false;
    }
    endpoint->listeners++;
    return true;
}

bool dataplane_add_listener(struct dataplane *plane, uint32_t id, uint32_t endpoint, const int *udp_fds, size_t count,
                            struct failure *failure)
{
    bool done = control_enter(plane, failure) &&
                control_leave(plane, add_listener_locked(plane, id, endpoint, udp_fds, count, failure));
    if (!done)
        close_all(udp_fds, count);
    return done;
}

/* Peers that are reached through the listener lose their remote: until set_remote they are `not_ready`. */
static bool remove_listener_locked(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    struct listener *listener = id_table_take(&plane->listeners, id);
    if (listener == NULL)
        return fail(failure, FAILURE_MISSING, "no listener %u", id);
    unwatch_all(plane, listener->udp_fds);
    /* No worker reads a remote's listener without having loaded the remote: it has to stay until they are through,
     * so what is taken out is kept on a list meanwhile. */
    struct remote *taken = NULL;
    struct peer *peer;
    for (uint32_t peer_id = 0; (peer = id_table_next(&plane->peers, &peer_id)) != NULL; peer_id++) {
        struct remote *remote = atomic_load(&peer->remote);
        if (remote == NULL || remote->listener != listener)
            continue;
        atomic_store(&peer->remote, NULL);
        remote->next_retired = taken;
        taken = remote;
    }
    wait_quiescent_locked(plane);
    while (taken != NULL) {
        struct remote *next = taken->next_retired;
        free(taken);
        taken = next;
    }
    listener->endpoint->listeners--;
    listener_destroy(listener, plane->worker_count);
    return true;
}

bool dataplane_remove_listener(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, remove_listener_locked(plane, id, failure));
}

/* -- what happened ------------------------------------------------------------------------------------------------ */

bool dataplane_event_fd(struct dataplane *plane, int *fd, struct failure *failure)
{
    if (!control_enter(plane, failure))
        return false;
    *fd = plane->events.fd;
    return control_leave(plane, true);
}

struct event *dataplane_take_events(struct dataplane *plane)
{
    struct failure ignored;
    struct event *events = NULL;
    if (control_enter(plane, &ignored)) {
        events = events_take(&plane->events);
        control_leave(plane, true);
    }
    return events;
}

static uint64_t relaxed(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void dataplane_drops(struct dataplane *plane, uint64_t drops[static DROP_REASON_COUNT])
{
    for (unsigned i = 0; i < DROP_REASON_COUNT; i++) {
        drops[i] = relaxed(&plane->counters.drops[i]);
        for (unsigned w = 0; w < plane->worker_count; w++)
            drops[i] += relaxed(&plane->workers[w]->counters.drops[i]);
    }
}

void dataplane_totals(struct dataplane *plane, uint64_t totals[static TOTAL_COUNT])
{
    for (unsigned i = 0; i < TOTAL_COUNT; i++) {
        totals[i] = relaxed(&plane->counters.totals[i]);
        for (unsigned w = 0; w < plane->worker_count; w++)
            totals[i] += relaxed(&plane->workers[w]->counters.totals[i]);
    }
}
