/* The two journeys of a packet, one batch at a time. No descriptor, no clock: what a packet may do is decided here,
 * how it comes and goes is in link.h, tcp.h and tun.h.
 *
 * Client to target network (link_to_tun, tcp_to_tun):
 *   1. The kernel has already sorted control from data; a stray control packet becomes an event for the listener.
 *      P_DATA_V1, which has no peer id, comes through the control side (injected_to_tun).
 *   2. The peer id leads to the peer (`unknown_peer`), the key id to a key slot (`no_key`).
 *   3. The packet is opened in place (`auth_failed`); only then is its id held against the replay window (`replayed`).
 *   4. It is authentic now: the peer is alive, its key may become the sending key, a new address becomes an event.
 *   5. Compression framing is taken off (`compressed`). Keepalives and notices end here. The rest must be IP (`not_ip`)
 *      from one of the peer's leases, and an ICMP error about a packet to one of them (`bad_source`).
 *   6. The most specific authorization rule for the destination must meet the peer's groups (`denied`).
 *   7. A TCP SYN's MSS is lowered.
 *   8. A fragment waits until its packet is whole (`bad_fragment`, `incomplete`, fragments.h). The caller writes what is
 *      left to the TUN, and what is in `whole`.
 * Target network to client (tun_to_link):
 *   1. The inner header is checked (`not_ip`), the destination leads to a peer (`no_route`), and the most specific rule
 *      for the source must meet its groups (`denied_source`): what began while there was a rule ends with it. An ICMP
 *      error, which may come from any router between, is judged by where the packet went that it quotes.
 *      For segments of one super-packet, which are well-formed and no SYN, only the first is asked.
 *   2. What is longer than fits the peer is cut, or dropped (`too_big`) and its sender told (too_big.h).
 *   3. The peer's way out and sending key are taken (`not_ready`), and a packet id: where that runs out, of
 *      the key installed after it (`key_exhausted`).
 *   4. MSS as above; sealed in place, using the headroom; the caller sends what is left.
 * Any worker may seal for any peer, so ids are taken atomically; a flow stays on one TUN queue and keeps its order.
 * Only worker `peer->worker` opens, so the replay window and the open context need no lock.
 *
 * To be called inside a section (worker.h): what the tables lead to stays valid until it ends. */
#ifndef CVPND_FORWARD_H
#define CVPND_FORWARD_H

#include "batch.h"
#include "counters.h"
#include "endpoint.h"
#include "events.h"
#include "id_table.h"
#include "peer.h"

/* What comes of packets that are too big, beside their batch; its worker empties it behind each. Bounded: what finds no
 * room is dropped, or not told. */
struct aside {
    struct batch pieces;  /* sealed: for the link */
    struct batch answers; /* for the endpoint's TUN */
    size_t used;
    uint8_t bytes[128 << 10];
};

static inline void aside_reset(struct aside *aside) { aside->pieces.count = aside->answers.count = aside->used = 0; }

/* What a worker needs to forward. */
struct forwarder {
    unsigned worker;
    struct id_table *peers;
    struct events *events;
    struct counters *counters; /* this worker's */
    const struct key_limits *limits;
    struct aside *aside; /* this worker's */
    struct datagram
        *whole; /* packets that came in fragments, for the endpoint's TUN; its worker empties it behind each batch */
    uint64_t now_ms;    /* set anew for each batch */
    uint32_t last_peer; /* whose authentic datagram came last; NO_PEER_ID at first */
};

/* Datagrams of one listener in; inner packets, to be written to its endpoint's TUN, out. How many ended here, dropped or as
 * keepalives and notices. */
unsigned link_to_tun(struct forwarder *forwarder, const struct listener *listener, struct batch *batch);

/* Frames of one TCP connection, whose peer this is. False when the connection has to be closed: a stream whose
 * packets do not authenticate is not OpenVPN any more. What came before is in the batch all the same. */
bool tcp_to_tun(struct forwarder *forwarder, struct peer *peer, struct batch *batch);

/* Packets of this peer, whose worker this is, that the control side has found it by their source address for. */
void injected_to_tun(struct forwarder *forwarder, struct peer *peer, struct batch *batch);

/* Inner packets with headroom in; sealed packets out, each with its remote or connection. */
void tun_to_link(struct forwarder *forwarder, struct endpoint *endpoint, struct batch *batch);

/* Seals one packet that has headroom and sets where it goes. */
enum drop_reason seal_for_peer(struct forwarder *forwarder, struct peer *peer, struct packet *packet);

/* Pushes an event and counts it when the ring is full. */
bool report(struct forwarder *forwarder, const struct event *event, const void *payload, size_t length);

/* Pushes the terminal events that are due; those that find no room stay due. */
void report_due(struct peer *peer, struct events *events);

/* Tells once that a key is near one of its limits. The peer's worker only. */
void report_rekey(struct forwarder *forwarder, struct peer *peer, struct key_slot *slot);

#endif
