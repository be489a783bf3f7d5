#include "dataplane_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"

/* -- peers -------------------------------------------------------------------------------------------------------- */

static struct peer *find_peer(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    struct peer *peer = id_table_get(&plane->peers, id);
    if (peer == NULL)
        fail(failure, FAILURE_MISSING, "no peer %u", id);
    return peer;
}

void peer_destroy(struct peer *peer)
{
    tcp_free(atomic_load(&peer->connection));
    peer_free(peer);
}

static bool check_leases(struct endpoint *endpoint, const struct peer_settings *settings, struct failure *failure)
{
    if (settings->address_count == 0 || settings->address_count > LEASES_MAX)
        return fail(failure, FAILURE_INVALID, "%u addresses are not in 1..%d", settings->address_count, LEASES_MAX);
    for (unsigned i = 0; i < settings->address_count; i++) {
        if (address_table_find(&endpoint->addresses, &settings->addresses[i]) != NULL)
            return fail(failure, FAILURE_INVALID, "address %u of the peer is leased to another one", i);
        for (unsigned j = 0; j < i; j++)
            if (ip_equal(&settings->addresses[i], &settings->addresses[j]))
                return fail(failure, FAILURE_INVALID, "address %u of the peer is there twice", i);
    }
    return true;
}

static bool add_peer_locked(struct dataplane *plane, uint32_t id, const struct peer_settings *settings,
                            struct failure *failure)
{
    if (id > MAX_PEER_ID)
        return fail(failure, FAILURE_INVALID, "peer id %u is greater than %d", id, MAX_PEER_ID);
    if (settings->remote_id > MAX_PEER_ID)
        return fail(failure, FAILURE_INVALID, "remote peer id %u is greater than %d", settings->remote_id,
                    MAX_PEER_ID);
    if ((settings->path.outer_mtu != 0 && settings->path.outer_mtu < PATH_OUTER_MIN) ||
        settings->path.outer_mtu > PACKET_MAX ||
        (settings->path.tunnel_mtu != 0 && settings->path.tunnel_mtu < PATH_TUNNEL_MIN) ||
        settings->path.header > PATH_HEADER_MAX)
        return fail(failure, FAILURE_INVALID, "a path of %u, a tunnel of %u or a header of %u bytes",
                    settings->path.outer_mtu, settings->path.tunnel_mtu, settings->path.header);
    if (settings->framing >= FRAMINGS)
        return fail(failure, FAILURE_INVALID, "no framing %d", (int)settings->framing);
    if (id_table_get(&plane->peers, id) != NULL)
        return fail(failure, FAILURE_INVALID, "peer %u exists already", id);
    struct endpoint *endpoint = id_table_get(&plane->endpoints, settings->endpoint);
    if (endpoint == NULL)
        return fail(failure, FAILURE_MISSING, "no endpoint %u", settings->endpoint);
    if (!check_leases(endpoint, settings, failure))
        return false;

    struct address_slots *retired;
    if (!address_table_reserve(&endpoint->addresses, settings->address_count, &retired))
        return fail_memory(failure);
    if (retired != NULL) {
        wait_quiescent_locked(plane);
        free(retired);
    }
    struct peer *peer = peer_new(id, id % plane->worker_count, settings->address_count, clock_now_ms());
    struct groups *groups = groups_new(settings->groups, settings->groups_length);
    if (peer == NULL || groups == NULL)
        goto fail;
    peer->endpoint = endpoint;
    peer->ping_interval_ms = (uint64_t)settings->ping_interval_s * 1000;
    peer->timeout_ms = (uint64_t)settings->timeout_s * 1000;
    struct path_settings path = settings->path;
    path.spread_ms = (uint16_t)((uint64_t)id * 7919 % 60 * 1000); /* at most 59,000 */
    path_init(&peer->path, &path);
    peer->remote_id = settings->remote_id;
    peer->data_v1 = settings->data_v1;
    peer->framing = settings->framing;
    for (unsigned i = 0; i < settings->address_count; i++)
        peer->leases[i].address = settings->addresses[i];
    atomic_store(&peer->groups, groups);
    if (!id_table_put(&plane->peers, id, peer))
        goto fail;
    for (unsigned i = 0; i < settings->address_count; i++)
        address_table_put(&endpoint->addresses, &peer->leases[i]);
    endpoint->peers++;
    return true;
fail:
    free(groups);
    free(peer);
    return fail_memory(failure);
}

bool dataplane_add_peer(struct dataplane *plane, uint32_t id, const struct peer_settings *settings,
                        struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, add_peer_locked(plane, id, settings, failure));
}

static bool remove_peer_locked(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    id_table_take(&plane->peers, id);
    for (unsigned i = 0; i < peer->lease_count; i++)
        address_table_take(&peer->endpoint->addresses, &peer->leases[i]);
    peer->endpoint->peers--;
    struct tcp_connection *connection = atomic_load(&peer->connection);
    if (connection != NULL)
        tcp_finish(connection);
    wait_quiescent_locked(plane);
    events_forget_peer(&plane->events, id);
    peer_destroy(peer);
    return true;
}

bool dataplane_remove_peer(struct dataplane *plane, uint32_t id, struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, remove_peer_locked(plane, id, failure));
}

/* -- where to ----------------------------------------------------------------------------------------------------- */

static void write_sockaddr(struct remote *remote, int family, const struct socket_address *address)
{
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&remote->sockaddr;
        in->sin_family = AF_INET;
        in->sin_port = htons(address->port);
        memcpy(&in->sin_addr, address->ip.bytes + 12, 4);
        remote->sockaddr_length = sizeof *in;
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&remote->sockaddr;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(address->port);
        in6->sin6_scope_id = address->scope_id;
        memcpy(&in6->sin6_addr, address->ip.bytes, 16);
        remote->sockaddr_length = sizeof *in6;
    }
}

/* The control message that asks for a source address. An IPv6 socket takes IPv4 in mapped form here too. */
static void write_source(struct remote *remote, int family, const struct ip_address *local)
{
    struct cmsghdr *control = (struct cmsghdr *)remote->control;
    if (family == AF_INET) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, local->bytes + 12, 4);
        *control = (struct cmsghdr){CMSG_LEN(sizeof info), IPPROTO_IP, IP_PKTINFO};
        memcpy(CMSG_DATA(control), &info, sizeof info);
        remote->control_length = CMSG_SPACE(sizeof info);
    } else {
        struct in6_pktinfo info = {0};
        memcpy(&info.ipi6_addr, local->bytes, 16);
        if (ip_is_link_local(local))
            info.ipi6_ifindex = remote->address.scope_id;
        *control = (struct cmsghdr){CMSG_LEN(sizeof info), IPPROTO_IPV6, IPV6_PKTINFO};
        memcpy(CMSG_DATA(control), &info, sizeof info);
        remote->control_length = CMSG_SPACE(sizeof info);
    }
}

static bool set_remote_locked(struct dataplane *plane, uint32_t id, uint32_t listener_id,
                              const struct socket_address *address, const struct ip_address *local,
                              struct failure *failure)
{
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    struct listener *listener = id_table_get(&plane->listeners, listener_id);
    if (listener == NULL)
        return fail(failure, FAILURE_MISSING, "no listener %u", listener_id);
    if (listener->endpoint != peer->endpoint)
        return fail(failure, FAILURE_INVALID, "listener %u is not one of peer %u's endpoint", listener_id, id);
    if (atomic_load(&peer->connection) != NULL)
        return fail(failure, FAILURE_INVALID, "peer %u is on TCP", id);
    if (listener->family == AF_INET && (!ip_is_v4(&address->ip) || (local != NULL && !ip_is_v4(local))))
        return fail(failure, FAILURE_INVALID, "listener %u cannot send to IPv6", listener_id);
    struct remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL)
        return fail_memory(failure);
    remote->listener = listener;
    remote->address = *address;
    write_sockaddr(remote, listener->family, address);
    if (local != NULL)
        write_source(remote, listener->family, local);
    struct remote *old = atomic_exchange(&peer->remote, remote);
    atomic_store(&peer->path.moved, true);
    wait_quiescent_locked(plane);
    free(old);
    return true;
}

bool dataplane_set_remote(struct dataplane *plane, uint32_t id, uint32_t listener,
                          const struct socket_address *address, const struct ip_address *local,
                          struct failure *failure)
{
    return control_enter(plane, failure) &&
           control_leave(plane, set_remote_locked(plane, id, listener, address, local, failure));
}

static bool attach_tcp_locked(struct dataplane *plane, uint32_t id, int fd, const uint8_t *received, size_t length,
                              struct failure *failure)
{
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    if (atomic_load(&peer->connection) != NULL)
        return fail(failure, FAILURE_INVALID, "peer %u has a connection already", id);
    if (atomic_load(&peer->remote) != NULL)
        return fail(failure, FAILURE_INVALID, "peer %u is on UDP", id);
    struct worker *worker = plane->workers[peer->worker];
    struct tcp_connection *connection =
        tcp_new(fd, peer, &plane->events, worker->epoll_fd, source_tag(SOURCE_TCP, id), received, length);
    if (connection == NULL)
        return fail_memory(failure);
    atomic_store(&peer->connection, connection);
    if (tcp_start(connection))
        return true;
    fail_system(failure, errno, "TCP connection");
    atomic_store(&peer->connection, NULL);
    wait_quiescent_locked(plane);
    tcp_abandon(connection);
    return false;
}

bool dataplane_attach_tcp(struct dataplane *plane, uint32_t id, int fd, const uint8_t *received, size_t length,
                          struct failure *failure)
{
    bool done = control_enter(plane, failure) &&
                control_leave(plane, attach_tcp_locked(plane, id, fd, received, length, failure));
    if (!done)
        close(fd);
    return done;
}

static bool send_control_locked(struct dataplane *plane, uint32_t id, const uint8_t *packet, size_t length,
                                struct failure *failure)
{
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    struct tcp_connection *connection = atomic_load(&peer->connection);
    if (connection == NULL)
        return fail(failure, FAILURE_INVALID, "peer %u has no TCP connection", id);
    if (length < 1 || length > LINK_PACKET_MAX)
        return fail(failure, FAILURE_INVALID, "a control packet of %zu bytes", length);
    tcp_send_control(connection, packet, length, &plane->counters);
    return true;
}

bool dataplane_send_control(struct dataplane *plane, uint32_t id, const uint8_t *packet, size_t length,
                            struct failure *failure)
{
    return control_enter(plane, failure) &&
           control_leave(plane, send_control_locked(plane, id, packet, length, failure));
}

static bool inject_locked(struct dataplane *plane, uint32_t id, const uint8_t *packet, size_t length,
                          struct failure *failure)
{
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    if (atomic_load(&peer->connection) != NULL)
        return fail(failure, FAILURE_INVALID, "peer %u is on TCP", id);
    if (length < 1 || length > LINK_PACKET_MAX)
        return fail(failure, FAILURE_INVALID, "a data packet of %zu bytes", length);
    if (!inbox_put(&plane->workers[peer->worker]->inbox, id, packet, length))
        count_drop(&plane->counters, DROP_INBOX_FULL);
    return true;
}

bool dataplane_inject(struct dataplane *plane, uint32_t id, const uint8_t *packet, size_t length,
                      struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, inject_locked(plane, id, packet, length, failure));
}

static bool set_groups_locked(struct dataplane *plane, uint32_t id, const uint8_t *bytes, size_t length,
                              struct failure *failure)
{
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    struct groups *groups = groups_new(bytes, length);
    if (groups == NULL)
        return fail_memory(failure);
    struct groups *old = atomic_exchange(&peer->groups, groups);
    wait_quiescent_locked(plane);
    free(old);
    return true;
}

bool dataplane_set_groups(struct dataplane *plane, uint32_t id, const uint8_t *groups, size_t length,
                          struct failure *failure)
{
    return control_enter(plane, failure) &&
           control_leave(plane, set_groups_locked(plane, id, groups, length, failure));
}

/* -- keys --------------------------------------------------------------------------------------------------------- */

/* Frees a key whose place in `keys` has been given away already. First, no worker may still hold it with the intent
 * to make it the sending key; then, if it was that, none may still seal with it. The newest key there is takes over
 * (section 11.6). */
static void retire_key_locked(struct dataplane *plane, struct peer *peer, struct key_slot *old)
{
    wait_quiescent_locked(plane);
    struct key_slot *expected = old;
    if (atomic_compare_exchange_strong(&peer->sending, &expected, peer_newest_key(peer)))
        wait_quiescent_locked(plane);
    key_slot_free(old);
}

static bool install_key_locked(struct dataplane *plane, uint32_t id, uint8_t key_id,
                               const struct peer_key_material *material, struct failure *failure)
{
    if (key_id >= KEY_IDS)
        return fail(failure, FAILURE_INVALID, "key id %u is greater than 7", key_id);
    struct peer *peer = find_peer(plane, id, failure);
    if (peer == NULL)
        return false;
    if (material->epoch && peer->data_v1)
        return fail(failure, FAILURE_INVALID, "the epoch format needs peer ids, and peer %u has none", id);
    struct key_slot *slot = key_slot_new(plane->backend, key_id, plane->worker_count, &plane->limits, material);
    if (slot == NULL)
        return fail_memory(failure);
    slot->generation = ++peer->generations;
    struct key_slot *old = atomic_exchange(&peer->keys[key_id], slot);
    if (old != NULL)
        retire_key_locked(plane, peer, old);
    struct key_slot *none = NULL;
    atomic_compare_exchange_strong(&peer->sending, &none, slot);
    return true;
}

bool dataplane_install_key(struct dataplane *plane, uint32_t id, uint8_t key_id,
                           const struct peer_key_material *material, struct failure *failure)
{
    return control_enter(plane, failure) &&
           control_leave(plane, install_key_locked(plane, id, key_id, material, failure));
}

static bool find_key(struct dataplane *plane, uint32_t id, uint8_t key_id, struct peer **peer, struct key_slot **slot,
                     struct failure *failure)
{
    *peer = find_peer(plane, id, failure);
    if (*peer == NULL)
        return false;
    *slot = key_id < KEY_IDS ? atomic_load(&(*peer)->keys[key_id]) : NULL;
    return *slot != NULL || fail(failure, FAILURE_MISSING, "peer %u has no key %u", id, key_id);
}

static bool use_key_locked(struct dataplane *plane, uint32_t id, uint8_t key_id, struct failure *failure)
{
    struct peer *peer;
    struct key_slot *slot;
    if (!find_key(plane, id, key_id, &peer, &slot, failure))
        return false;
    atomic_store(&peer->sending, slot);
    return true;
}

bool dataplane_use_key(struct dataplane *plane, uint32_t id, uint8_t key_id, struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, use_key_locked(plane, id, key_id, failure));
}

static bool remove_key_locked(struct dataplane *plane, uint32_t id, uint8_t key_id, struct failure *failure)
{
    struct peer *peer;
    struct key_slot *slot;
    if (!find_key(plane, id, key_id, &peer, &slot, failure))
        return false;
    atomic_store(&peer->keys[key_id], NULL);
    retire_key_locked(plane, peer, slot);
    return true;
}

bool dataplane_remove_key(struct dataplane *plane, uint32_t id, uint8_t key_id, struct failure *failure)
{
    return control_enter(plane, failure) && control_leave(plane, remove_key_locked(plane, id, key_id, failure));
}

bool dataplane_peer_statistics(struct dataplane *plane, uint32_t id, struct peer_statistics *statistics,
                               struct failure *failure)
{
    if (!control_enter(plane, failure))
        return false;
    struct peer *peer = find_peer(plane, id, failure);
    if (peer != NULL) {
        uint64_t now = clock_now_ms();
        uint64_t last = atomic_load_explicit(&peer->last_authentic_ms, memory_order_relaxed);
        *statistics = (struct peer_statistics){
            .bytes_in = atomic_load_explicit(&peer->bytes_in, memory_order_relaxed),
            .packets_in = atomic_load_explicit(&peer->packets_in, memory_order_relaxed),
            .packets_denied = atomic_load_explicit(&peer->packets_denied, memory_order_relaxed),
            .bytes_out = atomic_load_explicit(&peer->bytes_out, memory_order_relaxed),
            .packets_out = atomic_load_explicit(&peer->packets_out, memory_order_relaxed),
            .idle_ms = clock_since(now, last),
        };
    }
    return control_leave(plane, peer != NULL);
}
