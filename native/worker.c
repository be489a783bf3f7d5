#include "worker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "sparse.h"

enum {
    SOURCES_PER_WAIT = 64,
    SCAN_INTERVAL_MS = 1000,
    PATH_LOOKS_PER_S = 500, /* of one worker, each at most two packets: also when everybody comes at once */
    TURN_NS = 100000,       /* the kernel's shortest */
    SCAN_SLICE = 256,       /* peers looked at between two batches, so that a scan delays nobody */
    SENT_TO_PEER = 3,       /* most packets for one that is looked at: two questions and a keepalive */
};

bool worker_init(struct worker *worker, unsigned index, const struct forwarder *shared, struct id_table *endpoints,
                 struct id_table *listeners, unsigned pause_us)
{
    memset(worker, 0, sizeof *worker);
    worker->index = index;
    worker->forwarder = *shared;
    worker->forwarder.worker = index;
    worker->forwarder.counters = &worker->counters;
    worker->forwarder.aside = &worker->aside;
    worker->endpoints = endpoints;
    worker->listeners = listeners;
    worker->stop_fd = -1;
    if (!inbox_open(&worker->inbox))
        return false;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->epoll_fd < 0) {
        inbox_close(&worker->inbox);
        return false;
    }
    worker->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    blind_open(&worker->blind, index, shared->peers);
    worker->receiver = link_receiver_new();
    worker->coalescer = coalescer_new();
    worker->pacer = (struct pacer){.longest_ns = pause_us * UINT64_C(1000)};
    if (worker->stop_fd < 0 || worker->receiver == NULL || worker->coalescer == NULL ||
        !worker_watch(worker, worker->stop_fd, source_tag(SOURCE_STOP, 0)) ||
        !worker_watch(worker, worker->inbox.read_fd, source_tag(SOURCE_INBOX, 0))) {
        worker_destroy(worker);
        return false;
    }
    return true;
}

void worker_destroy(struct worker *worker)
{
    link_receiver_free(worker->receiver);
    coalescer_free(worker->coalescer);
    blind_close(&worker->blind);
    if (worker->stop_fd >= 0)
        close(worker->stop_fd);
    close(worker->epoll_fd);
    inbox_close(&worker->inbox);
}

bool worker_watch(struct worker *worker, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void worker_unwatch(struct worker *worker, int fd) { epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, fd, NULL); }

static void section_begin(struct worker *worker) { atomic_fetch_add(&worker->sections, 1); }
static void section_end(struct worker *worker) { atomic_fetch_add(&worker->sections, 1); }

void workers_wait_quiescent(struct worker *const *workers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t seen = atomic_load(&workers[i]->sections);
        while (seen % 2 == 1 && atomic_load(&workers[i]->sections) == seen)
            sched_yield();
    }
}

/* Sends sealed packets: runs to one TCP connection together, everything else over UDP. */
static void deliver(struct worker *worker, const struct batch *batch)
{
    bool udp = false;
    for (unsigned i = 0; i < batch->count;) {
        struct tcp_connection *connection = batch->packets[i].connection;
        unsigned run = 1;
        while (i + run < batch->count && batch->packets[i + run].connection == connection)
            run++;
        if (connection != NULL)
            tcp_send_data(connection, &batch->packets[i], run, &worker->counters);
        else
            udp = true;
        i += run;
    }
    if (udp)
        link_send(batch, worker->index, &worker->counters);
}

static void flush_runs(struct worker *worker, const struct endpoint *endpoint)
{
    pacer_count(&worker->pacer, PACER_UP, coalescer_joinable(worker->coalescer));
    pacer_count(&worker->pacer, PACER_ACKNOWLEDGEMENTS, coalescer_acknowledgements(worker->coalescer));
    tun_write_runs(endpoint->tun_fds[worker->index], worker->coalescer, &worker->counters);
}

/* Writes the batch, or adds it to the runs that flush_runs writes; its bytes have to stay until then. */
static void write_tun(struct worker *worker, const struct endpoint *endpoint, const struct batch *batch)
{
    int fd = endpoint->tun_fds[worker->index];
    if (endpoint->offload == TUN_PLAIN) {
        pacer_count(&worker->pacer, PACER_UP, batch->count);
        tun_write(fd, batch, &worker->counters);
        return;
    }
    for (unsigned i = 0; i < batch->count; i++) {
        const struct packet *packet = &batch->packets[i];
        if (coalesce(worker->coalescer, endpoint->offload, packet->bytes, packet->length))
            continue;
        flush_runs(worker, endpoint);
        coalesce(worker->coalescer, endpoint->offload, packet->bytes, packet->length);
    }
}

/* What has come from clients of this endpoint, in its order. */
static void write_received(struct worker *worker, const struct endpoint *endpoint)
{
    struct batch *batch = &worker->batch, part;
    unsigned written = 0;
    for (const struct datagram *rest = worker->forwarder.whole; rest != NULL;) {
        struct batch fragments;
        unsigned before = datagram_take(&rest, &fragments);
        for (part.count = 0; written < before; written++)
            part.packets[part.count++] = batch->packets[written];
        write_tun(worker, endpoint, &part);
        write_tun(worker, endpoint, &fragments);
    }
    if (written > 0) {
        batch->count -= written;
        memmove(batch->packets, batch->packets + written, batch->count * sizeof batch->packets[0]);
    }
    write_tun(worker, endpoint, batch);
    if (worker->forwarder.whole != NULL) {
        flush_runs(worker, endpoint);
        datagrams_free(&worker->forwarder.whole);
    }
}

static void seal_and_deliver(struct worker *worker, struct endpoint *endpoint)
{
    pacer_count(&worker->pacer, PACER_DOWN, worker->batch.count);
    sparse_first(&worker->batch);
    tun_to_link(&worker->forwarder, endpoint, &worker->batch);
    deliver(worker, &worker->batch);
    worker->batch.count = 0;
    if (worker->aside.used == 0)
        return;
    deliver(worker, &worker->aside.pieces);
    write_tun(worker, endpoint, &worker->aside.answers);
    flush_runs(worker, endpoint);
    aside_reset(&worker->aside);
}

/* Super-packets are split into batches; a batch that is full goes out before the next segment is cut off. */
static enum io_result serve_supers(struct worker *worker, struct endpoint *endpoint, int fd)
{
    struct batch *batch = &worker->batch;
    enum io_result result = IO_MORE;
    size_t used = 0, bytes = 0;
    batch->count = 0;
    for (unsigned reads = 0; reads < TUN_READS && bytes < TUN_READ_BYTES; reads++) {
        struct split split;
        result = tun_read_super(fd, &worker->super_buffer, &split, &worker->counters);
        if (result == IO_SKIPPED)
            continue;
        if (result != IO_MORE)
            break;
        bytes += split.length;
        while (!split_done(&split)) {
            if (batch->count == BATCH_PACKETS) {
                seal_and_deliver(worker, endpoint);
                used = 0;
            }
            tun_take_segments(&split, worker->tun_buffer, &used, batch, &worker->counters);
        }
    }
    seal_and_deliver(worker, endpoint);
    return result;
}

static void serve_tun(struct worker *worker, uint32_t id)
{
    struct endpoint *endpoint = id_table_get(worker->endpoints, id);
    if (endpoint == NULL)
        return;
    int fd = endpoint->tun_fds[worker->index];
    enum io_result result;
    if (endpoint->offload == TUN_PLAIN) {
        result = tun_read(fd, worker->tun_buffer, &worker->batch, &worker->counters);
        seal_and_deliver(worker, endpoint);
    } else {
        result = serve_supers(worker, endpoint, fd);
    }
    if (result == IO_BROKEN)
        worker_unwatch(worker, fd);
}

static void serve_link(struct worker *worker, uint32_t id)
{
    struct listener *listener = id_table_get(worker->listeners, id);
    if (listener == NULL)
        return;
    int fd = listener->udp_fds[worker->index];
    if (link_receive(worker->receiver, fd, &worker->counters) == IO_BROKEN)
        worker_unwatch(worker, fd);
    while (link_take(worker->receiver, &worker->batch, &worker->counters)) {
        unsigned ended = link_to_tun(&worker->forwarder, listener, &worker->batch);
        pacer_count(&worker->pacer, PACER_UP, ended); /* a flood, when they are many: the fewer wake-ups the better */
        write_received(worker, listener->endpoint);
    }
    flush_runs(worker, listener->endpoint);
}

/* The peer may have gone, or have been replaced under its id, since the packet was put in. */
static void serve_inbox(struct worker *worker)
{
    uint32_t peer_id;
    for (unsigned i = 0; i < BATCH_PACKETS; i++) {
        size_t length = inbox_take(&worker->inbox, &peer_id, worker->tun_buffer);
        if (length == 0)
            return;
        count_total(&worker->counters, TOTAL_LINK_PACKETS_IN, 1);
        struct peer *peer = id_table_get(worker->forwarder.peers, peer_id);
        if (peer == NULL || atomic_load(&peer->connection) != NULL) {
            count_drop(&worker->counters, DROP_UNKNOWN_PEER);
            continue;
        }
        worker->batch.count = 1;
        worker->batch.packets[0] = (struct packet){.bytes = worker->tun_buffer, .length = (uint32_t)length};
        injected_to_tun(&worker->forwarder, peer, &worker->batch);
        write_received(worker, peer->endpoint);
        flush_runs(worker, peer->endpoint);
    }
}

static void receive_tcp(struct worker *worker, struct peer *peer, struct tcp_connection *connection)
{
    struct tcp_scratch *scratch = &worker->tcp_scratch;
    if (!tcp_receive(connection, scratch, &worker->counters))
        return;
    bool more = true, framed = true, authentic = true;
    while (more && framed && authentic) {
        framed = tcp_take_frames(connection, scratch, &worker->batch, &more, &worker->counters);
        authentic = tcp_to_tun(&worker->forwarder, peer, &worker->batch);
        write_received(worker, peer->endpoint);
    }
    flush_runs(worker, peer->endpoint);
    if (!framed || !authentic)
        tcp_close(connection, framed ? "a packet does not authenticate" : "a frame of impossible length");
}

static void serve_tcp(struct worker *worker, uint32_t peer_id, uint32_t events)
{
    struct peer *peer = id_table_get(worker->forwarder.peers, peer_id);
    struct tcp_connection *connection = peer == NULL ? NULL : atomic_load(&peer->connection);
    if (connection == NULL)
        return;
    if (events & EPOLLOUT)
        tcp_writable(connection, &worker->counters);
    do
        receive_tcp(worker, peer, connection);
    while (tcp_has_received(connection) && !tcp_is_closed(connection));
}

/* -- once a second ------------------------------------------------------------------------------------------------ */

/* Where the next packet of a scan's batch has its bytes, with room around them. */
static uint8_t *scan_room(struct worker *worker, const struct batch *batch)
{
    return worker->tun_buffer + batch->count * (size_t)(SEAL_HEADROOM + PACKET_MAX + SEAL_TAILROOM) + SEAL_HEADROOM;
}

/* False when it cannot be sealed. */
static bool append_sealed(struct worker *worker, struct peer *peer, uint8_t *bytes, uint32_t length,
                          enum passage passage, struct batch *batch)
{
    struct packet packet = {.bytes = bytes, .length = length, .passage = passage};
    if (seal_for_peer(&worker->forwarder, peer, &packet) != PACKET_PASSES)
        return false;
    batch->packets[batch->count++] = packet;
    return true;
}

/* When nothing was sent for the peer's interval. */
static void ping_if_idle(struct worker *worker, struct peer *peer, struct batch *batch)
{
    uint64_t idle =
        clock_since(worker->forwarder.now_ms, atomic_load_explicit(&peer->last_sent_ms, memory_order_relaxed));
    if (peer->ping_interval_ms == 0 || idle < peer->ping_interval_ms)
        return;
    uint8_t *bytes = scan_room(worker, batch);
    memcpy(bytes, KEEPALIVE, KEEPALIVE_SIZE);
    append_sealed(worker, peer, bytes, KEEPALIVE_SIZE, PASSAGE_USUAL, batch);
}

/* OCC asks the client for a load as long as `load`; padded to `length`. */
static void ask_for_load(struct worker *worker, struct peer *peer, uint16_t length, uint16_t load,
                         enum passage passage, struct batch *batch)
{
    uint8_t *bytes = scan_room(worker, batch);
    memset(bytes, 0, length);
    memcpy(bytes, OCC_MAGIC, OCC_MAGIC_SIZE);
    bytes[OCC_MAGIC_SIZE] = OCC_MTU_LOAD_REQUEST;
    put_u16(bytes + OCC_MAGIC_SIZE + 1, load);
    if (append_sealed(worker, peer, bytes, length, passage, batch))
        count_total(&worker->counters, TOTAL_PATH_PROBES, 1);
}

static void look_after_path(struct worker *worker, struct peer *peer, struct batch *batch)
{
    uint64_t now = worker->forwarder.now_ms;
    struct remote *remote = atomic_load(&peer->remote);
    if (remote == NULL || atomic_load(&peer->sending) == NULL || !path_due(&peer->path, now))
        return;
    if (!bucket_take(&worker->path_looks, PATH_LOOKS_PER_S, (uint32_t)now))
        return;
    uint16_t outer = ip_is_v4(&remote->address.ip) ? UDP_OVER_IPV4 : UDP_OVER_IPV6;
    struct path_wish wish = path_look(&peer->path, outer, now);
    if (wish.request != 0)
        ask_for_load(worker, peer, wish.request, wish.request_load, PASSAGE_WHOLE, batch);
    if (wish.small_load != 0)
        ask_for_load(worker, peer, OCC_MTU_LOAD_REQUEST_SIZE, wish.small_load, PASSAGE_USUAL, batch);
    if (wish.blind != 0)
        blind_send(&worker->blind, peer, remote, wish.blind + peer->path.settings.header, &worker->counters);
}

static void look_after_peer(struct worker *worker, struct peer *peer, struct batch *batch)
{
    struct forwarder *forwarder = &worker->forwarder;
    if (peer_is_silent(peer, forwarder->now_ms) && !peer->timeout_reported) {
        peer->timeout_reported = true;
        atomic_fetch_or(&peer->reports_due, REPORT_TIMEOUT);
    }
    report_due(peer, forwarder->events);
    for (unsigned i = 0; i < KEY_IDS; i++) {
        struct key_slot *slot = atomic_load(&peer->keys[i]);
        if (slot == NULL)
            continue;
        if (slot->epoch != NULL && epoch_sending(slot->epoch) >= forwarder->limits->epoch.rekey)
            report_rekey(forwarder, peer, slot);
        /* Summed here and not for each packet: a second is nothing against these limits. */
        uint64_t most = slot->replay.highest + slot->blocks_opened;
        if (most < key_slot_sealed(slot))
            most = key_slot_sealed(slot);
        bool blocks = slot->counts_blocks && most > forwarder->limits->blocks_rekey;
        if (blocks || atomic_load_explicit(&slot->rekey_due, memory_order_relaxed))
            report_rekey(forwarder, peer, slot);
    }
    fragments_expire(&peer->unfinished, forwarder->now_ms, &worker->counters);
    look_after_path(worker, peer, batch);
    ping_if_idle(worker, peer, batch);
}

static void scan_slice(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    batch->count = 0;
    for (unsigned i = 0; i < SCAN_SLICE && batch->count + SENT_TO_PEER <= BATCH_PACKETS; i++) {
        struct peer *peer = id_table_next(worker->forwarder.peers, &worker->scan_at);
        if (peer == NULL) {
            worker->scanning = false;
            break;
        }
        worker->scan_at++;
        if (peer->worker == worker->index)
            look_after_peer(worker, peer, batch);
    }
    deliver(worker, batch);
}

static void scan_when_due(struct worker *worker)
{
    uint64_t now = worker->forwarder.now_ms;
    if (!worker->scanning && now >= worker->next_scan_ms) {
        worker->scanning = true;
        worker->scan_at = 0;
        worker->next_scan_ms = now + SCAN_INTERVAL_MS;
    }
    if (!worker->scanning)
        return;
    section_begin(worker);
    if (worker->scan_at == 0)
        blind_hear(&worker->blind);
    scan_slice(worker);
    section_end(worker);
}

/* -- the thread --------------------------------------------------------------------------------------------------- */

static int milliseconds_to_wait(const struct worker *worker)
{
    if (worker->scanning)
        return 0;
    uint64_t now = clock_now_ms();
    return now >= worker->next_scan_ms ? 0 : (int)(worker->next_scan_ms - now);
}

static void serve(struct worker *worker, const struct epoll_event *event)
{
    uint32_t id = (uint32_t)event->data.u64;
    section_begin(worker);
    switch ((enum source)(event->data.u64 >> 32)) {
    case SOURCE_TUN: serve_tun(worker, id); break;
    case SOURCE_LINK: serve_link(worker, id); break;
    case SOURCE_TCP: serve_tcp(worker, id, event->events); break;
    case SOURCE_INBOX: serve_inbox(worker); break;
    case SOURCE_STOP: break;
    }
    section_end(worker);
}

static bool pause_if_busy(struct worker *worker)
{
    const _Atomic uint64_t *totals = worker->counters.totals;
    const uint64_t received = atomic_load_explicit(&totals[TOTAL_RECEIVE_MESSAGES], memory_order_relaxed);
    const uint64_t messages[PACER_WAYS] = {
        [PACER_UP] = received,
        [PACER_ACKNOWLEDGEMENTS] = received,
        [PACER_DOWN] = atomic_load_explicit(&totals[TOTAL_TUN_READ_CALLS], memory_order_relaxed),
    };
    return pacer_wait(&worker->pacer, messages);
}

/* Asks for the shortest turns there are: who wakes up for a short one may interrupt who computes in a long one (Linux
 * 6.12), instead of waiting up to 4 ms for its end. Elsewhere, or forbidden, it changes nothing. */
static void ask_for_short_turns(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } wish = {.size = sizeof wish, .nice = getpriority(PRIO_PROCESS, 0), .runtime_ns = TURN_NS};
    if (sched_getscheduler(0) != SCHED_OTHER)
        return; /* somebody has chosen */
    syscall(SYS_sched_setattr, 0, &wish, 0);
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    struct epoll_event ready[SOURCES_PER_WAIT];
    ask_for_short_turns();
    pacer_start(&worker->pacer);
    for (;;) {
        int count = epoll_wait(worker->epoll_fd, ready, SOURCES_PER_WAIT, milliseconds_to_wait(worker));
        worker->forwarder.now_ms = clock_now_ms();
        if (count > 0) {
            count_total(&worker->counters, TOTAL_WAKEUPS, 1);
            if (pause_if_busy(worker))
                count_total(&worker->counters, TOTAL_PAUSES, 1);
        }
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u64 == source_tag(SOURCE_STOP, 0))
                return NULL;
            serve(worker, &ready[i]);
        }
        scan_when_due(worker);
    }
}

bool worker_start(struct worker *worker)
{
    /* Signals belong to the main thread: the worker inherits a mask that blocks them all. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&worker->thread, NULL, run, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        errno = error;
        return false;
    }
    char name[16];
    snprintf(name, sizeof name, "cvpnd-w%u", worker->index);
    pthread_setname_np(worker->thread, name);
    return true;
}

void worker_stop(struct worker *worker)
{
    uint64_t one = 1;
    while (write(worker->stop_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    pthread_join(worker->thread, NULL);
}
