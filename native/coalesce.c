/* One run is one flow's packets that a splitter would make of the first one's headers and all their payloads. A flow
 * has at most one run that still grows; a packet that cannot join ends it, and comes behind it. So a flow's packets
 * stay in order, while flows may pass each other. An acknowledgement that carries nothing is a run that grows by being
 * replaced: a later one says all that it did. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "acknowledgement.h"
#include "checksum.h"
#include "inner.h"
#include "offload.h"
#include "transport.h"

enum {
    RUNS_MAX = 512,
    PIECES_MAX = 2048,
    BUCKETS = 256,
    NOBODY = 0xFFFF,
    UDP_RUN_PACKETS = 64, /* what every kernel with UDP segmentation splits */
    HEARD_BITS = 10,
};

/* A packet's payload; of a run's first packet, the whole packet. */
struct piece {
    uint8_t *bytes;
    uint32_t length;
    uint16_t next;
};

struct run {
    uint8_t *packet; /* its first */
    uint32_t length; /* as one packet */
    uint32_t segment;
    uint32_t next_sequence;
    uint16_t transport;
    uint16_t headers; /* 0 = no transport that we know */
    uint16_t packets;
    uint16_t superseded; /* acknowledgements that this one stands for */
    uint16_t repeats;    /* of an acknowledgement: how many before it had its number */
    uint16_t next_id;
    uint16_t first_piece, last_piece;
    uint16_t next_in_bucket;
    bool v6, tcp;
    bool acknowledges;           /* and carries nothing: grows by making place for a later one */
    struct acknowledgement said; /* then */
    bool grows;
    bool push;
};

/* What a flow has acknowledged last, also in batches before. Flows that share a place forget of each other. */
struct heard {
    uint32_t flow; /* its hash */
    uint32_t acknowledgement;
    uint16_t repeats;
};

struct coalescer {
    unsigned runs_used, pieces_used;
    unsigned growing;
    unsigned joinable;
    unsigned acknowledgements, superseded;
    uint16_t buckets[BUCKETS];
    struct run runs[RUNS_MAX];
    struct piece pieces[PIECES_MAX];
    struct heard heard[1 << HEARD_BITS];
};

struct coalescer *coalescer_new(void)
{
    struct coalescer *coalescer = calloc(1, sizeof *coalescer);
    if (coalescer != NULL)
        coalescer_reset(coalescer);
    return coalescer;
}

void coalescer_free(struct coalescer *coalescer) { free(coalescer); }

void coalescer_reset(struct coalescer *coalescer)
{
    coalescer->runs_used = coalescer->pieces_used = coalescer->growing = coalescer->joinable = 0;
    coalescer->acknowledgements = coalescer->superseded = 0;
    memset(coalescer->buckets, 0xFF, sizeof coalescer->buckets);
}

unsigned coalescer_runs(const struct coalescer *coalescer) { return coalescer->runs_used; }

unsigned coalescer_joinable(const struct coalescer *coalescer) { return coalescer->joinable; }

unsigned coalescer_acknowledgements(const struct coalescer *coalescer) { return coalescer->acknowledgements; }

unsigned coalescer_superseded(const struct coalescer *coalescer) { return coalescer->superseded; }

/* -- one packet --------------------------------------------------------------------------------------------------- */

struct view {
    uint8_t *packet;
    uint32_t length;
    uint32_t transport;
    uint32_t headers;
    uint32_t hash;    /* of its flow */
    uint16_t repeats; /* as of a run */
    struct acknowledgement said;
    bool v6, tcp;
    bool joins;        /* may be part of a super-packet */
    bool acknowledges; /* and does nothing else; if neither, it is only known which flow it is of */
};

static uint32_t payload_length(const struct view *view) { return view->length - view->headers; }

/* False when there are no ports to be seen: fragments, options and extension headers, other protocols. */
static bool find_flow(struct view *view)
{
    const uint8_t *packet = view->packet;
    view->v6 = packet[0] >> 4 == 6;
    if (!view->v6 && (packet[0] != 0x45 || (get_u16(packet + IPV4_FRAGMENT_FIELD) & (uint16_t)~IPV4_DF) != 0))
        return false;
    uint8_t protocol = view->v6 ? packet[IPV6_NEXT_HEADER] : packet[IPV4_PROTOCOL];
    view->transport = view->v6 ? IPV6_HEADER : IPV4_HEADER;
    view->tcp = protocol == PROTOCOL_TCP;
    uint32_t shortest = view->tcp ? TCP_HEADER : UDP_HEADER;
    return (view->tcp || protocol == PROTOCOL_UDP) && view->length >= view->transport + shortest;
}

/* Both checksums are right, and what a splitter would write: one's complement has two zeros. */
static bool checksums_good(const struct view *view)
{
    const uint8_t *packet = view->packet, *transport = packet + view->transport;
    if (!view->v6 &&
        (checksum_add(0, packet, IPV4_HEADER) != 0xFFFF || checksum_field(packet + IPV4_CHECKSUM) == 0xFFFF))
        return false;
    uint16_t field = checksum_field(transport + (view->tcp ? TCP_CHECKSUM : UDP_CHECKSUM));
    if (field == (view->tcp ? 0xFFFF : 0))
        return false;
    uint32_t size = view->length - view->transport;
    uint64_t pseudo = (uint64_t)htons(view->tcp ? PROTOCOL_TCP : PROTOCOL_UDP) + htons((uint16_t)size);
    const uint8_t *addresses = packet + (view->v6 ? IPV6_ADDRESSES : IPV4_ADDRESSES);
    uint16_t sum =
        checksum_add(checksum_fold(pseudo), addresses, view->v6 ? IPV6_ADDRESSES_SIZE : IPV4_ADDRESSES_SIZE);
    return checksum_add(sum, transport, size) == 0xFFFF;
}

static bool plain_tcp(const uint8_t *transport, uint8_t more_flags)
{
    return (transport[TCP_DATA_OFFSET] & 15) == 0 && (transport[TCP_FLAGS] & ~more_flags) == TCP_FLAG_ACK;
}

static bool may_join(struct view *view, enum tun_offload offload)
{
    const uint8_t *transport = view->packet + view->transport;
    if (!view->tcp) {
        view->headers = view->transport + UDP_HEADER;
        return offload == TUN_TCP_UDP && get_u16(transport + UDP_LENGTH) == view->length - view->transport &&
               payload_length(view) > 0 && checksums_good(view);
    }
    uint32_t size = (uint32_t)(transport[TCP_DATA_OFFSET] >> 4) * 4;
    view->headers = view->transport + size;
    return plain_tcp(transport, TCP_FLAG_PSH) && size >= TCP_HEADER && view->headers < view->length &&
           checksums_good(view);
}

/* Without payload. To be called when may_join has found the headers. */
static bool only_acknowledges(struct view *view)
{
    const uint8_t *transport = view->packet + view->transport;
    return view->tcp && view->headers == view->length && plain_tcp(transport, 0) &&
           acknowledgement_read(&view->said, transport, view->headers - view->transport) && checksums_good(view);
}

/* -- runs --------------------------------------------------------------------------------------------------------- */

static bool same_addresses(const struct run *run, const struct view *view)
{
    if (run->v6 != view->v6)
        return false;
    return view->v6 ? memcmp(run->packet + IPV6_ADDRESSES, view->packet + IPV6_ADDRESSES, IPV6_ADDRESSES_SIZE) == 0
                    : memcmp(run->packet + IPV4_ADDRESSES, view->packet + IPV4_ADDRESSES, IPV4_ADDRESSES_SIZE) == 0;
}

static bool same_flow(const struct run *run, const struct view *view)
{
    return run->tcp == view->tcp && same_addresses(run, view) &&
           memcmp(run->packet + run->transport, view->packet + view->transport, PORTS_SIZE) == 0;
}

static uint32_t hash_of(const struct view *view)
{
    /* What tells clients' flows apart: the ends of both addresses, and the ports. */
    const uint8_t *addresses = view->packet + (view->v6 ? IPV6_ADDRESSES : IPV4_ADDRESSES);
    size_t each = view->v6 ? IPV6_ADDRESSES_SIZE / 2 : IPV4_ADDRESSES_SIZE / 2;
    uint32_t hash = get_u32(addresses + each - 4) * 0x9E3779B1u;
    hash = (hash ^ get_u32(addresses + 2 * each - 4)) * 0x85EBCA6Bu;
    return (hash ^ get_u32(view->packet + view->transport)) * 0xC2B2AE35u;
}

static void stop_growing(struct coalescer *coalescer, struct run *run)
{
    coalescer->growing -= run->grows;
    run->grows = false;
}

static struct run *growing_run(struct coalescer *coalescer, const struct view *view, unsigned bucket)
{
    for (uint16_t at = coalescer->buckets[bucket]; at != NOBODY; at = coalescer->runs[at].next_in_bucket)
        if (coalescer->runs[at].grows && same_flow(&coalescer->runs[at], view))
            return &coalescer->runs[at];
    return NULL;
}

/* What every packet of a run has in common but for the fields that count up. */
static bool same_headers(const struct run *run, const struct view *view)
{
    const uint8_t *a = run->packet, *b = view->packet;
    if (run->headers != view->headers)
        return false;
    if (view->v6) {
        if (memcmp(a, b, IPV6_LENGTH) != 0 || a[IPV6_HOP_LIMIT] != b[IPV6_HOP_LIMIT])
            return false; /* traffic class and flow label */
    } else {
        uint16_t fragment = get_u16(b + IPV4_FRAGMENT_FIELD);
        if (a[IPV4_TOS] != b[IPV4_TOS] || a[IPV4_TTL] != b[IPV4_TTL] || get_u16(a + IPV4_FRAGMENT_FIELD) != fragment)
            return false;
        if (!(fragment & IPV4_DF) && get_u16(b + IPV4_ID) != run->next_id)
            return false;
    }
    if (!view->tcp)
        return true;
    a += run->transport, b += view->transport;
    /* PSH is no difference here: what carried it has ended its run. */
    return memcmp(a + TCP_ACKNOWLEDGEMENT, b + TCP_ACKNOWLEDGEMENT, 4) == 0 &&
           memcmp(a + TCP_WINDOW, b + TCP_WINDOW, 2) == 0 &&
           memcmp(a + TCP_URGENT, b + TCP_URGENT, view->headers - view->transport - TCP_URGENT) == 0;
}

static bool continues(const struct run *run, const struct view *view)
{
    uint32_t payload = payload_length(view);
    return payload <= run->segment && run->length + payload <= SUPER_MAX &&
           run->packets < (view->tcp ? RUN_PACKETS : UDP_RUN_PACKETS) &&
           (!view->tcp || get_u32(view->packet + view->transport + TCP_SEQUENCE) == run->next_sequence) &&
           same_headers(run, view);
}

/* -- acknowledgements ---------------------------------------------------------------------------------------------- */

/* Notes what the packet acknowledges; how many before it had the same number. */
static uint16_t hear(struct coalescer *coalescer, const struct run *run, const struct view *view)
{
    struct heard *heard = &coalescer->heard[view->hash >> (32 - HEARD_BITS)];
    uint32_t acknowledgement = get_u32(view->packet + view->transport + TCP_ACKNOWLEDGEMENT);
    uint16_t before = heard->repeats;
    bool again = heard->flow == view->hash && heard->acknowledgement == acknowledgement;
    if (run != NULL && run->acknowledges) { /* it is of this batch, and sure */
        before = run->repeats;
        again = get_u32(run->packet + run->transport + TCP_ACKNOWLEDGEMENT) == acknowledgement;
    }
    uint16_t repeats = !again ? 0 : before < UINT16_MAX ? before + 1 : before;
    *heard = (struct heard){view->hash, acknowledgement, repeats};
    return repeats;
}

static bool same_way(const struct run *run, const struct view *view)
{
    const uint8_t *a = run->packet, *b = view->packet;
    return view->v6 ? memcmp(a, b, IPV6_LENGTH) == 0 && a[IPV6_HOP_LIMIT] == b[IPV6_HOP_LIMIT]
                    : a[IPV4_TOS] == b[IPV4_TOS] && a[IPV4_TTL] == b[IPV4_TTL];
}

static bool supersedes(const struct run *run, const struct view *view)
{
    return run->superseded < SUPERSEDED_MAX && same_way(run, view) &&
           acknowledgement_says_all(&view->said, &run->said, run->repeats);
}

static uint16_t new_piece(struct coalescer *coalescer, uint8_t *bytes, uint32_t length)
{
    coalescer->pieces[coalescer->pieces_used] = (struct piece){bytes, length, NOBODY};
    return (uint16_t)coalescer->pieces_used++;
}

/* After the run has got this packet. */
static void count_up(struct coalescer *coalescer, struct run *run, const struct view *view)
{
    uint32_t payload = payload_length(view);
    const uint8_t *transport = view->packet + view->transport;
    run->packets++;
    run->next_id++;
    run->next_sequence += payload;
    run->push = view->tcp && transport[TCP_FLAGS] & TCP_FLAG_PSH;
    if (run->push || payload < run->segment)
        stop_growing(coalescer, run);
}

static void join(struct coalescer *coalescer, struct run *run, const struct view *view)
{
    uint16_t piece = new_piece(coalescer, view->packet + view->headers, payload_length(view));
    coalescer->pieces[run->last_piece].next = piece;
    run->last_piece = piece;
    run->length += payload_length(view);
    count_up(coalescer, run, view);
}

static void supersede(struct coalescer *coalescer, struct run *run, const struct view *view)
{
    coalescer->pieces[run->first_piece] = (struct piece){view->packet, view->length, NOBODY};
    run->packet = view->packet;
    run->length = view->length;
    run->headers = (uint16_t)view->headers;
    run->repeats = view->repeats;
    run->said = view->said;
    run->superseded++;
    coalescer->superseded++;
}

static void start(struct coalescer *coalescer, const struct view *view, unsigned bucket)
{
    uint16_t piece = new_piece(coalescer, view->packet, view->length);
    uint16_t index = (uint16_t)coalescer->runs_used++;
    struct run *run = &coalescer->runs[index];
    *run = (struct run){
        .packet = view->packet,
        .length = view->length,
        .packets = 1,
        .first_piece = piece,
        .last_piece = piece,
    };
    if (!view->joins && !view->acknowledges)
        return;
    run->acknowledges = view->acknowledges;
    run->repeats = view->repeats;
    run->said = view->said;
    run->transport = (uint16_t)view->transport;
    run->headers = (uint16_t)view->headers;
    run->v6 = view->v6;
    run->tcp = view->tcp;
    run->segment = payload_length(view);
    run->packets = 0;
    run->next_id = view->v6 ? 0 : get_u16(view->packet + IPV4_ID);
    run->next_sequence = view->tcp ? get_u32(view->packet + view->transport + TCP_SEQUENCE) : 0;
    run->grows = true;
    run->next_in_bucket = coalescer->buckets[bucket];
    coalescer->buckets[bucket] = index;
    coalescer->growing++;
    count_up(coalescer, run, view);
}

/* Before a packet that does not show its ports: it may be part of any flow between its addresses. */
static void stop_all_between(struct coalescer *coalescer, const struct view *view)
{
    for (unsigned i = 0; i < coalescer->runs_used && coalescer->growing > 0; i++)
        if (coalescer->runs[i].grows && same_addresses(&coalescer->runs[i], view))
            stop_growing(coalescer, &coalescer->runs[i]);
}

bool coalesce(struct coalescer *coalescer, enum tun_offload offload, uint8_t *packet, uint32_t length)
{
    if (coalescer->runs_used == RUNS_MAX || coalescer->pieces_used == PIECES_MAX)
        return false;
    struct view view = {.packet = packet, .length = length};
    if (!find_flow(&view)) {
        stop_all_between(coalescer, &view);
        start(coalescer, &view, 0);
        return true;
    }
    view.joins = may_join(&view, offload);
    view.acknowledges = !view.joins && only_acknowledges(&view);
    coalescer->joinable += view.joins;
    coalescer->acknowledgements += view.acknowledges;
    view.hash = hash_of(&view);
    unsigned bucket = view.hash >> 24;
    struct run *run = growing_run(coalescer, &view, bucket);
    if (view.acknowledges)
        view.repeats = hear(coalescer, run, &view);
    if (run != NULL && view.joins && continues(run, &view)) {
        join(coalescer, run, &view);
        return true;
    }
    if (run != NULL && run->acknowledges && view.acknowledges && supersedes(run, &view)) {
        supersede(coalescer, run, &view);
        return true;
    }
    if (view.joins && view.tcp)
        hear(coalescer, run, &view);
    if (run != NULL)
        stop_growing(coalescer, run);
    start(coalescer, &view, bucket);
    return true;
}

/* -- writing ------------------------------------------------------------------------------------------------------ */

/* Turns the first packet's headers into those of the whole, whose transport checksum is left to the kernel. */
static void become_super(const struct run *run, struct virtio_header *header)
{
    uint8_t *packet = run->packet, *transport = packet + run->transport;
    uint32_t size = run->length - run->transport;
    if (run->v6) {
        put_u16(packet + IPV6_LENGTH, (uint16_t)(run->length - IPV6_HEADER));
    } else {
        put_u16(packet + IPV4_LENGTH, (uint16_t)run->length);
        checksum_set_field(packet + IPV4_CHECKSUM, 0);
        checksum_set_field(packet + IPV4_CHECKSUM, (uint16_t)~checksum_add(0, packet, IPV4_HEADER));
    }
    if (!run->tcp)
        put_u16(transport + UDP_LENGTH, (uint16_t)size);
    else if (run->push)
        transport[TCP_FLAGS] |= TCP_FLAG_PSH;
    uint64_t pseudo = (uint64_t)htons(run->tcp ? PROTOCOL_TCP : PROTOCOL_UDP) + htons((uint16_t)size);
    const uint8_t *addresses = packet + (run->v6 ? IPV6_ADDRESSES : IPV4_ADDRESSES);
    uint16_t sum =
        checksum_add(checksum_fold(pseudo), addresses, run->v6 ? IPV6_ADDRESSES_SIZE : IPV4_ADDRESSES_SIZE);
    uint16_t offset = run->tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    checksum_set_field(transport + offset, sum);
    *header = (struct virtio_header){
        .flags = VIRTIO_NEEDS_CSUM,
        .gso_type = !run->tcp ? VIRTIO_GSO_UDP_L4
                    : run->v6 ? VIRTIO_GSO_TCPV6
                              : VIRTIO_GSO_TCPV4,
        .header_length = run->headers,
        .gso_size = (uint16_t)run->segment,
        .csum_start = run->transport,
        .csum_offset = offset,
    };
}

void coalescer_take(struct coalescer *coalescer, unsigned index, struct run_vectors *vectors)
{
    const struct run *run = &coalescer->runs[index];
    vectors->header = (struct virtio_header){0};
    vectors->packets = run->packets;
    if (run->packets > 1)
        become_super(run, &vectors->header);
    vectors->vectors[0] = (struct iovec){&vectors->header, VIRTIO_HEADER};
    vectors->count = 1;
    for (uint16_t at = run->first_piece; at != NOBODY; at = coalescer->pieces[at].next)
        vectors->vectors[vectors->count++] =
            (struct iovec){coalescer->pieces[at].bytes, coalescer->pieces[at].length};
}
