#include "forward.h"

#include "data_packet.h"
#include "icmp.h"
#include "inner.h"
#include "mss.h"
#include "tcp.h"
#include "too_big.h"

enum {
    FLOAT_EVENT_INTERVAL_MS = 200,
    CONTROL_PACKETS_PER_S = 250, /* of one peer; a busy handshake has some 50 in all */
    TOO_BIG_INTERVAL_MS = 10,    /* between two answers about one peer, so that none uses up another's */
};

bool report(struct forwarder *forwarder, const struct event *event, const void *payload, size_t length)
{
    if (events_push(forwarder->events, event, payload, length))
        return true;
    count_drop(forwarder->counters, DROP_EVENTS_FULL);
    return false;
}

/* Hands a control packet of this peer up, whose worker this is. */
static enum drop_reason hand_up(struct forwarder *forwarder, struct peer *peer, const struct event *event,
                                const struct packet *packet)
{
    if (!bucket_take(&peer->control, CONTROL_PACKETS_PER_S, (uint32_t)forwarder->now_ms))
        return DROP_CONTROL_LIMIT;
    if (!events_push_control(forwarder->events, &peer->share, event, packet->bytes, packet->length))
        return DROP_EVENTS_FULL;
    return PACKET_ABSORBED;
}

static void report_one_due(struct peer *peer, struct events *events, unsigned bit, enum event_kind kind,
                           const char *detail)
{
    /* Whoever clears the bit pushes, so that two threads do not report the same thing. */
    if (!(atomic_fetch_and(&peer->reports_due, ~bit) & bit))
        return;
    struct event event = {.kind = kind, .peer_id = peer->id};
    if (!events_push(events, &event, detail, detail == NULL ? 0 : strlen(detail)))
        atomic_fetch_or(&peer->reports_due, bit);
}

void report_due(struct peer *peer, struct events *events)
{
    if (atomic_load(&peer->reports_due) == 0)
        return;
    report_one_due(peer, events, REPORT_TIMEOUT, EVENT_PEER_TIMEOUT, NULL);
    report_one_due(peer, events, REPORT_EXIT, EVENT_PEER_EXIT, NULL);
    struct tcp_connection *connection = atomic_load(&peer->connection);
    if (connection != NULL)
        report_one_due(peer, events, REPORT_TCP_CLOSED, EVENT_TCP_CLOSED, tcp_close_detail(connection));
}

void report_rekey(struct forwarder *forwarder, struct peer *peer, struct key_slot *slot)
{
    if (slot->rekey_reported)
        return;
    struct event event = {.kind = EVENT_REKEY_NEEDED, .peer_id = peer->id, .key_id = slot->key_id};
    slot->rekey_reported = report(forwarder, &event, NULL, 0);
}

/* The peer proves that it has the newer key by using it; a late packet of the old key must not switch back. */
static void follow_newer_key(struct forwarder *forwarder, struct peer *peer, struct key_slot *slot)
{
    struct key_slot *sending = atomic_load(&peer->sending);
    if (sending == slot) {
        if (!atomic_load(&peer->sending_unproven) || !atomic_exchange(&peer->sending_unproven, false))
            return;
    } else if (sending != NULL && sending->generation > slot->generation) {
        return;
    } else if (!atomic_compare_exchange_strong(&peer->sending, &sending, slot)) {
        return; /* somebody else chose at this moment; the next packet asks again */
    }
    struct event event = {.kind = EVENT_KEY_USED, .peer_id = peer->id, .key_id = slot->key_id};
    report(forwarder, &event, NULL, 0);
}

/* Whether a packet that is this peer's by the way it came may be its data. Without a peer id also from who knows them: a
 * client that took up none sends none (openvpn-wire.md 2.3). A key id in it decides the rest. */
static bool is_data_of(const struct peer *peer, unsigned opcode)
{
    return opcode == P_DATA_V1 || (opcode == P_DATA_V2 && !peer->data_v1);
}

/* Steps 2 to 4 for a data packet of this peer: afterwards the packet is its authentic payload. */
static enum drop_reason open_data(struct forwarder *forwarder, struct peer *peer, struct packet *packet)
{
    const struct key_limits *limits = forwarder->limits;
    if (packet->length <= (wire_opcode(packet->bytes[0]) == P_DATA_V1 ? DATA_V1_OVERHEAD : DATA_OVERHEAD))
        return DROP_TRUNCATED;
    struct key_slot *slot = atomic_load(&peer->keys[wire_key_id(packet->bytes[0])]);
    if (slot == NULL)
        return DROP_NO_KEY;
    if (slot->failures > limits->failures)
        return DROP_AUTH_FAILED;

    enum drop_reason reason = data_packet_open(slot, limits, packet);
    if (reason == DROP_AUTH_FAILED && ++slot->failures > limits->failures_rekey)
        report_rekey(forwarder, peer, slot);
    if (reason != PACKET_PASSES)
        return reason;
    atomic_store_explicit(&peer->last_authentic_ms, forwarder->now_ms, memory_order_relaxed);
    if (data_packet_open_limit_near(slot, limits))
        report_rekey(forwarder, peer, slot);
    follow_newer_key(forwarder, peer, slot);
    return PACKET_PASSES;
}

/* Nothing moves here: the control side decides, and answers with a new remote. */
static void notice_float(struct forwarder *forwarder, struct peer *peer, const struct listener *listener,
                         const struct packet *packet)
{
    const struct remote *remote = atomic_load(&peer->remote);
    if (remote != NULL && remote->listener == listener && socket_address_equal(&remote->address, &packet->source))
        return;
    if (peer->last_float_ms != 0 && forwarder->now_ms - peer->last_float_ms < FLOAT_EVENT_INTERVAL_MS) {
        count_drop(forwarder->counters, DROP_FLOAT_REFUSED);
        return;
    }
    struct event event = {
        .kind = EVENT_FLOAT_SEEN,
        .peer_id = peer->id,
        .listener = listener->id,
        .source = packet->source,
        .local = packet->local,
    };
    if (report(forwarder, &event, NULL, 0))
        peer->last_float_ms = forwarder->now_ms;
}

static void clamp(const struct peer *peer, const struct packet *packet)
{
    mss_clamp(packet->bytes, packet->length, atomic_load_explicit(&peer->path.mss_v4, memory_order_relaxed),
              atomic_load_explicit(&peer->path.mss_v6, memory_order_relaxed));
}

/* Section 11.7: true for payloads that are no tunnel packets. */
static bool absorb_notice(struct forwarder *forwarder, struct peer *peer, const struct packet *packet)
{
    if (packet->length == KEEPALIVE_SIZE && memcmp(packet->bytes, KEEPALIVE, KEEPALIVE_SIZE) == 0)
        return true;
    if (packet->length <= OCC_MAGIC_SIZE || memcmp(packet->bytes, OCC_MAGIC, OCC_MAGIC_SIZE) != 0)
        return false;
    if (packet->bytes[OCC_MAGIC_SIZE] == OCC_EXIT && !peer->exit_reported) {
        peer->exit_reported = true; /* clients say it several times */
        atomic_fetch_or(&peer->reports_due, REPORT_EXIT);
        report_due(peer, forwarder->events);
    }
    if (packet->bytes[OCC_MAGIC_SIZE] == OCC_MTU_LOAD)
        path_answered(&peer->path, packet->length, forwarder->now_ms);
    return true;
}

/* Whether a rule in force lets the peer exchange packets with this address. */
static bool rules_let(const struct peer *peer, bool v6, const uint8_t *address)
{
    const struct rules *rules = atomic_load(&peer->endpoint->rules);
    const struct groups *groups = atomic_load(&peer->groups);
    return v6 ? rules_allow_v6(rules, groups, address) : rules_allow_v4(rules, groups, address);
}

/* An ICMP error about a packet that did not go to this peer. A host believes it whoever tells, and the kernel's connection
 * tracking lets it through as part of the connection that it quotes: one client could cut or end those of others. */
static bool speaks_for_others(const struct peer *peer, const struct inner *inner, const uint8_t *packet)
{
    struct ip_address about;
    return icmp_error_about(inner, packet, &about) && !peer_has_lease(peer, &about);
}

/* Steps 5 to 8 for an authentic payload. */
static enum drop_reason admit_payload(struct forwarder *forwarder, struct peer *peer, struct packet *packet)
{
    enum drop_reason framed = framing_strip(peer->framing, &packet->bytes, &packet->length);
    if (framed != PACKET_PASSES)
        return framed;
    if (absorb_notice(forwarder, peer, packet))
        return PACKET_ABSORBED;
    struct inner inner;
    if (!inner_parse(&inner, packet->bytes, packet->length))
        return DROP_NOT_IP;
    /* An IPv6 packet with an IPv4-mapped source would look like the IPv4 lease. */
    if ((inner.v6 && ip_is_v4(&inner.source)) || !peer_has_lease(peer, &inner.source) ||
        speaks_for_others(peer, &inner, packet->bytes))
        return DROP_BAD_SOURCE;
    if (!rules_let(peer, inner.v6, ip_bytes(&inner.destination, inner.v6))) {
        counter_add(&peer->packets_denied, 1);
        return DROP_DENIED;
    }
    packet->length = inner.length;
    clamp(peer, packet);
    counter_add(&peer->packets_in, 1);
    counter_add(&peer->bytes_in, packet->length);
    if (may_be_fragment(packet->bytes))
        return fragments_hold(&peer->unfinished, packet->bytes, packet->length, forwarder->now_ms,
                              forwarder->counters, &forwarder->whole);
    return PACKET_PASSES;
}

/* A control packet comes here only if the kernel has glued it behind data of the same client, which is what counts: else
 * strangers could fill the queue, who belong to the doorman. */
static enum drop_reason receive_stray(struct forwarder *forwarder, const struct listener *listener,
                                      const struct packet *packet)
{
    struct peer *peer = id_table_get(forwarder->peers, forwarder->last_peer);
    const struct remote *remote = peer == NULL ? NULL : atomic_load(&peer->remote);
    if (remote == NULL || remote->listener != listener || !socket_address_equal(&remote->address, &packet->source))
        return DROP_STRAY_CONTROL;
    struct event event = {
        .kind = EVENT_STRAY_CONTROL,
        .listener = listener->id,
        .source = packet->source,
        .local = packet->local,
    };
    return hand_up(forwarder, peer, &event, packet);
}

static enum drop_reason receive_datagram(struct forwarder *forwarder, const struct listener *listener,
                                         struct packet *packet)
{
    if (packet->length == 0)
        return DROP_TRUNCATED;
    unsigned opcode = wire_opcode(packet->bytes[0]);
    if (wire_is_client_control(opcode))
        return receive_stray(forwarder, listener, packet);
    if (opcode != P_DATA_V2)
        return DROP_BAD_OPCODE;
    if (packet->length <= DATA_OVERHEAD)
        return DROP_TRUNCATED;
    struct peer *peer = id_table_get(forwarder->peers, get_u32(packet->bytes) & NO_PEER_ID);
    if (peer == NULL || peer->endpoint != listener->endpoint || peer->worker != forwarder->worker || peer->data_v1 ||
        atomic_load(&peer->connection) != NULL)
        return DROP_UNKNOWN_PEER;
    enum drop_reason reason = open_data(forwarder, peer, packet);
    if (reason != PACKET_PASSES)
        return reason;
    forwarder->last_peer = peer->id;
    notice_float(forwarder, peer, listener, packet);
    return admit_payload(forwarder, peer, packet);
}

/* Keeps a packet that passes at the front of the batch, counts one that is dropped, and says whether it ends here. */
static bool settle(struct forwarder *forwarder, struct batch *batch, unsigned *kept, unsigned at,
                   enum drop_reason reason)
{
    if (reason == PACKET_PASSES)
        batch->packets[(*kept)++] = batch->packets[at];
    else if (reason == PACKET_COMPLETES)
        datagrams_place(forwarder->whole, *kept);
    else if (reason < DROP_REASON_COUNT)
        count_drop(forwarder->counters, reason);
    return reason < DROP_REASON_COUNT || reason == PACKET_ABSORBED;
}

unsigned link_to_tun(struct forwarder *forwarder, const struct listener *listener, struct batch *batch)
{
    unsigned kept = 0, ended = 0;
    for (unsigned i = 0; i < batch->count; i++)
        ended += settle(forwarder, batch, &kept, i, receive_datagram(forwarder, listener, &batch->packets[i]));
    batch->count = kept;
    return ended;
}

static enum drop_reason receive_frame(struct forwarder *forwarder, struct peer *peer, struct packet *packet)
{
    unsigned opcode = wire_opcode(packet->bytes[0]); /* a frame has at least one byte */
    if (wire_is_client_control(opcode)) {
        const struct event event = {.kind = EVENT_TCP_CONTROL, .peer_id = peer->id};
        return hand_up(forwarder, peer, &event, packet);
    }
    if (!is_data_of(peer, opcode))
        return DROP_BAD_OPCODE;
    enum drop_reason reason = open_data(forwarder, peer, packet);
    return reason == PACKET_PASSES ? admit_payload(forwarder, peer, packet) : reason;
}

void injected_to_tun(struct forwarder *forwarder, struct peer *peer, struct batch *batch)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < batch->count; i++) {
        struct packet *packet = &batch->packets[i];
        enum drop_reason reason = DROP_BAD_OPCODE;
        if (is_data_of(peer, wire_opcode(packet->bytes[0])))
            reason = open_data(forwarder, peer, packet);
        if (reason == PACKET_PASSES)
            reason = admit_payload(forwarder, peer, packet);
        settle(forwarder, batch, &kept, i, reason);
    }
    batch->count = kept;
}

bool tcp_to_tun(struct forwarder *forwarder, struct peer *peer, struct batch *batch)
{
    bool good = true;
    unsigned kept = 0;
    for (unsigned i = 0; i < batch->count && good; i++) {
        enum drop_reason reason = receive_frame(forwarder, peer, &batch->packets[i]);
        good = reason != DROP_AUTH_FAILED;
        settle(forwarder, batch, &kept, i, reason);
    }
    batch->count = kept;
    return good;
}

/* The key that follows one which is used up: the peer has not used it yet, but with the old one nothing arrives at
 * all. NULL when there is none. */
static struct key_slot *move_to_successor(struct peer *peer, struct key_slot *exhausted)
{
    struct key_slot *newest = peer_newest_key(peer);
    if (newest == NULL || newest->generation <= exhausted->generation)
        return NULL;
    if (atomic_compare_exchange_strong(&peer->sending, &exhausted, newest))
        atomic_store(&peer->sending_unproven, true);
    return newest;
}

enum drop_reason seal_for_peer(struct forwarder *forwarder, struct peer *peer, struct packet *packet)
{
    packet->remote = atomic_load(&peer->remote);
    packet->connection = atomic_load(&peer->connection);
    struct key_slot *slot = atomic_load(&peer->sending);
    bool reachable = packet->connection != NULL ? !tcp_is_closed(packet->connection) : packet->remote != NULL;
    if (slot == NULL || !reachable)
        return DROP_NOT_READY;
    framing_add(peer->framing, &packet->bytes, &packet->length);
    enum drop_reason reason = data_packet_seal(slot, forwarder->worker, forwarder->limits, peer, packet);
    if (reason == DROP_KEY_EXHAUSTED && (slot = move_to_successor(peer, slot)) != NULL)
        reason = data_packet_seal(slot, forwarder->worker, forwarder->limits, peer, packet);
    if (reason != PACKET_PASSES)
        return reason;
    packet->peer_id = peer->id;
    /* Read first: the line is shared by all workers and the time rarely changes. */
    if (atomic_load_explicit(&peer->last_sent_ms, memory_order_relaxed) != forwarder->now_ms)
        atomic_store_explicit(&peer->last_sent_ms, forwarder->now_ms, memory_order_relaxed);
    return PACKET_PASSES;
}

/* Where the packets of one super-packet go, found for the first of them, and what of it is still to be counted. */
struct way {
    enum drop_reason reason;
    struct peer *peer;
    uint64_t packets, bytes;
};

static void count_way(struct way *way)
{
    if (way->packets == 0)
        return;
    atomic_fetch_add_explicit(&way->peer->packets_out, way->packets, memory_order_relaxed);
    atomic_fetch_add_explicit(&way->peer->bytes_out, way->bytes, memory_order_relaxed);
    way->packets = way->bytes = 0;
}

static enum drop_reason find_way(struct endpoint *endpoint, struct packet *packet, struct peer **peer)
{
    struct inner inner;
    if (!inner_parse(&inner, packet->bytes, packet->length))
        return DROP_NOT_IP;
    if (inner.v6 && ip_is_v4(&inner.destination))
        return DROP_NO_ROUTE;
    const struct lease *lease = address_table_find(&endpoint->addresses, &inner.destination);
    if (lease == NULL)
        return DROP_NO_ROUTE;
    const uint8_t *quoted = icmp_quoted_destination(&inner, packet->bytes);
    if (!rules_let(lease->peer, inner.v6, quoted != NULL ? quoted : ip_bytes(&inner.source, inner.v6)))
        return DROP_DENIED_SOURCE;
    *peer = lease->peer;
    packet->length = inner.length;
    clamp(lease->peer, packet);
    return PACKET_PASSES;
}

static enum drop_reason send_counted(struct forwarder *forwarder, struct way *way, struct packet *packet)
{
    uint32_t length = packet->length;
    bool proven = length <= atomic_load_explicit(&way->peer->path.proven, memory_order_relaxed);
    packet->passage = proven ? PASSAGE_USUAL : PASSAGE_UNPROVEN;
    enum drop_reason reason = seal_for_peer(forwarder, way->peer, packet);
    if (reason == PACKET_PASSES) {
        way->packets++;
        way->bytes += length;
    }
    return reason;
}

/* -- too big ------------------------------------------------------------------------------------------------------ */

/* With room around it for sealing; NULL when there is none. */
static uint8_t *aside_room(struct aside *aside, const struct batch *batch, uint32_t length)
{
    size_t size = SEAL_HEADROOM + length + SEAL_TAILROOM;
    if (batch->count == BATCH_PACKETS || sizeof aside->bytes - aside->used < size)
        return NULL;
    aside->used += size;
    return aside->bytes + aside->used - SEAL_TAILROOM - length;
}

static void tell_sender(struct forwarder *forwarder, struct peer *peer, const struct packet *packet, uint32_t fits)
{
    struct aside *aside = forwarder->aside;
    uint64_t told = atomic_load_explicit(&peer->told_too_big_ms, memory_order_relaxed);
    if (told != 0 && forwarder->now_ms - told < TOO_BIG_INTERVAL_MS)
        return;
    uint8_t *into = aside_room(aside, &aside->answers, TOO_BIG_ANSWER_MAX);
    if (into == NULL)
        return;
    bool v6 = packet->bytes[0] >> 4 == 6;
    uint32_t mtu = v6 && fits < IPV6_SMALLEST_MTU ? IPV6_SMALLEST_MTU : fits;
    uint32_t length = too_big_answer(into, packet->bytes, packet->length, mtu);
    if (length == 0)
        return;
    atomic_store_explicit(&peer->told_too_big_ms, forwarder->now_ms, memory_order_relaxed);
    aside->answers.packets[aside->answers.count++] = (struct packet){.bytes = into, .length = length};
    count_total(forwarder->counters, TOTAL_TOO_BIG_TOLD, 1);
}

/* The first piece stays where the packet was; the others go aside, in order and sealed after it. */
static enum drop_reason send_pieces(struct forwarder *forwarder, struct way *way, struct packet *packet,
                                    uint32_t fits)
{
    struct aside *aside = forwarder->aside;
    unsigned kept = aside->pieces.count;
    unsigned end = kept;
    for (struct packet *last = packet; last->length > fits;) {
        uint8_t *bytes = aside_room(aside, &aside->pieces, last->length);
        if (bytes == NULL) {
            aside->pieces.count = kept;
            return DROP_TOO_BIG;
        }
        struct packet *rest = &aside->pieces.packets[aside->pieces.count++];
        *rest = (struct packet){.bytes = bytes};
        rest->length = too_big_cut(last->bytes, &last->length, fits, bytes);
        last = rest;
        end++;
    }
    count_total(forwarder->counters, TOTAL_PACKETS_CUT, 1);
    enum drop_reason reason = send_counted(forwarder, way, packet);
    for (unsigned i = kept; i < end; i++)
        settle(forwarder, &aside->pieces, &kept, i, send_counted(forwarder, way, &aside->pieces.packets[i]));
    aside->pieces.count = kept;
    return reason;
}

static enum drop_reason send_too_big(struct forwarder *forwarder, struct way *way, struct packet *packet,
                                     uint32_t fits)
{
    switch (too_big_verdict(packet->bytes, packet->length)) {
    case TOO_BIG_SENT_ALL: return send_counted(forwarder, way, packet);
    case TOO_BIG_CUT: return send_pieces(forwarder, way, packet, fits);
    case TOO_BIG_REFUSED: break;
    }
    tell_sender(forwarder, way->peer, packet, fits);
    return DROP_TOO_BIG;
}

static enum drop_reason send_inner(struct forwarder *forwarder, struct endpoint *endpoint, struct way *way,
                                   struct packet *packet)
{
    if (!packet->follows) {
        count_way(way);
        way->reason = find_way(endpoint, packet, &way->peer);
    }
    if (way->reason != PACKET_PASSES)
        return way->reason;
    path_use(&way->peer->path, packet->length);
    uint32_t fits = atomic_load_explicit(&way->peer->path.fits, memory_order_relaxed);
    return packet->length <= fits ? send_counted(forwarder, way, packet) : send_too_big(forwarder, way, packet, fits);
}

void tun_to_link(struct forwarder *forwarder, struct endpoint *endpoint, struct batch *batch)
{
    unsigned kept = 0;
    struct way way = {.reason = DROP_NO_ROUTE};
    for (unsigned i = 0; i < batch->count; i++)
        settle(forwarder, batch, &kept, i, send_inner(forwarder, endpoint, &way, &batch->packets[i]));
    count_way(&way);
    batch->count = kept;
}
