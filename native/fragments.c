#include "fragments.h"

#include <stdlib.h>

#include "checksum.h"
#include "icmp.h"

enum {
    EXTENSION_UNIT = 8,
    V6_MORE = 1,
    V4_MORE = 0x2000,
    KEY_SIZE = IPV6_ADDRESSES_SIZE + 4 + 2, /* addresses, identification, protocol, version */
};

struct fragment {
    struct fragment *next;
    uint32_t offset, end; /* of what it carries, in its packet */
    uint32_t length;      /* header and all */
    uint8_t bytes[];
};

/* Fragments that belong together, sorted, without overlaps. */
struct datagram {
    struct datagram *next;
    uint8_t key[KEY_SIZE];
    uint64_t since_ms;
    uint32_t total; /* what all of them carry; 0 = the last one is not there yet */
    uint32_t carried, cost;
    unsigned count;
    unsigned after; /* once it is whole: packets of its batch */
    struct fragment *first, *last;
};

/* Of all peers. Each worker adds what its own cost, whoever frees a peer takes it off; relaxed, since nothing is found by it. */
static _Atomic int64_t cost_of_all;

/* What a fragment says of itself. */
struct place {
    uint8_t key[KEY_SIZE];
    uint32_t offset, end;
    bool more;
};

/* -- headers ------------------------------------------------------------------------------------------------------ */

bool skip_extension(const uint8_t *packet, uint32_t length, uint8_t *header, uint32_t *at)
{
    if (length - *at < EXTENSION_UNIT)
        return false;
    const uint8_t *here = packet + *at;
    uint32_t size = *header == HEADER_FRAGMENT         ? EXTENSION_UNIT
                    : *header == HEADER_AUTHENTICATION ? (here[1] + 2u) * 4
                                                       : (here[1] + 1u) * EXTENSION_UNIT;
    if (length - *at < size)
        return false;
    *header = here[0];
    *at += size;
    return true;
}

/* What the kernel wants to see behind the extension headers before it lets a first fragment wait. */
static uint32_t least_of(uint8_t header)
{
    switch (header) {
    case HEADER_NONE: return 0;
    case PROTOCOL_TCP: return TCP_HEADER;
    case PROTOCOL_UDP: return UDP_HEADER;
    case PROTOCOL_ICMPV6: return ICMP_HEADER;
    default: return 1;
    }
}

/* Of a first fragment, which has to hold all headers (RFC 7112), and of those no second one that takes packets apart. */
static bool headers_are_whole(const uint8_t *packet, uint32_t length, uint8_t header, uint32_t at)
{
    while (is_extension_header(header))
        if (header == HEADER_FRAGMENT || !skip_extension(packet, length, &header, &at))
            return false;
    return length - at >= least_of(header);
}

/* A part that is not the last has a length in units of eight; no packet is longer than its length field can say. */
static enum drop_reason judge(const struct place *place, uint32_t header)
{
    if (place->end == place->offset || place->end + header > UINT16_MAX ||
        (place->more && (place->end - place->offset) % EXTENSION_UNIT != 0))
        return DROP_BAD_FRAGMENT;
    return PACKET_WAITS;
}

static enum drop_reason locate_v4(struct place *place, const uint8_t *packet, uint32_t length)
{
    uint32_t header = (packet[0] & 15u) * 4;
    unsigned field = get_u16(packet + IPV4_FRAGMENT_FIELD);
    if (checksum_add(0, packet, header) != 0xFFFF)
        return DROP_BAD_FRAGMENT;
    memcpy(place->key, packet + IPV4_ADDRESSES, IPV4_ADDRESSES_SIZE);
    memcpy(place->key + IPV6_ADDRESSES_SIZE, packet + IPV4_ID, 2);
    place->key[KEY_SIZE - 2] = packet[IPV4_PROTOCOL];
    place->key[KEY_SIZE - 1] = 4;
    place->offset = (field & IPV4_OFFSET) * 8;
    place->end = place->offset + length - header;
    place->more = field & V4_MORE;
    return judge(place, header);
}

static enum drop_reason locate_v6(struct place *place, const uint8_t *packet, uint32_t length)
{
    uint8_t header = packet[IPV6_NEXT_HEADER];
    uint32_t at = IPV6_HEADER;
    bool atomic = false;
    while (is_extension_header(header)) {
        uint32_t start = at;
        bool fragment = header == HEADER_FRAGMENT;
        if (fragment && atomic)
            return DROP_BAD_FRAGMENT; /* the kernel goes by the first one alone */
        if (!skip_extension(packet, length, &header, &at))
            return fragment ? DROP_BAD_FRAGMENT : PACKET_PASSES; /* the kernel makes nothing of the latter */
        if (!fragment)
            continue;
        if (at == length)
            return DROP_BAD_FRAGMENT; /* the kernel would keep an empty queue for it */
        unsigned field = get_u16(packet + start + 2);
        atomic = (field & (V6_OFFSET | V6_MORE)) == 0; /* RFC 6946: all of the packet is in this one */
        if (atomic)
            continue;
        if (packet[IPV6_NEXT_HEADER] == HEADER_HOP_BY_HOP)
            return DROP_BAD_FRAGMENT; /* for its options, the kernel may drop one of several */
        memcpy(place->key, packet + IPV6_ADDRESSES, IPV6_ADDRESSES_SIZE);
        memcpy(place->key + IPV6_ADDRESSES_SIZE, packet + start + 4, 4);
        place->key[KEY_SIZE - 1] = 6;
        place->offset = field & V6_OFFSET;
        place->end = place->offset + length - at;
        place->more = field & V6_MORE;
        if (place->offset == 0 && !headers_are_whole(packet, length, header, at))
            return DROP_BAD_FRAGMENT;
        return judge(place, start - IPV6_HEADER);
    }
    return PACKET_PASSES;
}

/* PACKET_WAITS: it has a place. */
static enum drop_reason locate(struct place *place, const uint8_t *packet, uint32_t length)
{
    memset(place, 0, sizeof *place);
    return packet[0] >> 4 == 4 ? locate_v4(place, packet, length) : locate_v6(place, packet, length);
}

/* -- one packet --------------------------------------------------------------------------------------------------- */

static void datagram_free(struct datagram *datagram)
{
    for (struct fragment *next, *fragment = datagram->first; fragment != NULL; fragment = next) {
        next = fragment->next;
        free(fragment);
    }
    free(datagram);
}

/* Where it goes between the others; NULL when it contradicts them. */
static struct fragment **gap_for(struct datagram *datagram, const struct place *place)
{
    uint32_t known = datagram->last == NULL ? 0 : datagram->last->end;
    if (datagram->total != 0 ? place->end > datagram->total || (!place->more && place->end != datagram->total)
                             : !place->more && place->end < known)
        return NULL;
    if (datagram->last != NULL && place->offset >= known)
        return &datagram->last->next;
    struct fragment **at = &datagram->first;
    while (*at != NULL && (*at)->end <= place->offset)
        at = &(*at)->next;
    return *at != NULL && (*at)->offset < place->end ? NULL : at;
}

static bool insert(struct datagram *datagram, struct fragment **at, const struct place *place, const uint8_t *packet,
                   uint32_t length)
{
    struct fragment *fragment = malloc(sizeof *fragment + length);
    if (fragment == NULL)
        return false;
    *fragment = (struct fragment){.next = *at, .offset = place->offset, .end = place->end, .length = length};
    memcpy(fragment->bytes, packet, length);
    *at = fragment;
    if (fragment->next == NULL)
        datagram->last = fragment;
    if (!place->more)
        datagram->total = place->end;
    datagram->carried += place->end - place->offset;
    datagram->cost += length + FRAGMENT_COST;
    datagram->count++;
    return true;
}

/* -- all of a peer ------------------------------------------------------------------------------------------------ */

static uint32_t most_of_peer(void)
{
    return atomic_load_explicit(&cost_of_all, memory_order_relaxed) > UNFINISHED_BYTES_OF_ALL
               ? UNFINISHED_BYTES_CROWDED
               : UNFINISHED_BYTES;
}

static void charge(struct unfinished *unfinished, int64_t cost)
{
    unfinished->cost = (uint32_t)(unfinished->cost + cost);
    atomic_fetch_add_explicit(&cost_of_all, cost, memory_order_relaxed);
}

static struct datagram *take_out(struct unfinished *unfinished, struct datagram **at)
{
    struct datagram *datagram = *at;
    *at = datagram->next;
    datagram->next = NULL;
    unfinished->count--;
    charge(unfinished, -(int64_t)datagram->cost);
    return datagram;
}

static void give_up(struct unfinished *unfinished, struct datagram **at, struct counters *counters)
{
    struct datagram *datagram = take_out(unfinished, at);
    counter_add(&counters->drops[DROP_INCOMPLETE], datagram->count);
    datagram_free(datagram);
}

static struct datagram **find(struct unfinished *unfinished, const uint8_t *key)
{
    struct datagram **at = &unfinished->oldest;
    while (*at != NULL && memcmp((*at)->key, key, KEY_SIZE) != 0)
        at = &(*at)->next;
    return at;
}

static struct datagram **begin(struct unfinished *unfinished, const uint8_t *key, uint64_t now_ms)
{
    struct datagram **at = &unfinished->oldest;
    while (*at != NULL)
        at = &(*at)->next;
    struct datagram *datagram = calloc(1, sizeof *datagram);
    if (datagram == NULL)
        return NULL;
    memcpy(datagram->key, key, KEY_SIZE);
    datagram->since_ms = now_ms;
    *at = datagram;
    unfinished->count++;
    return at;
}

static bool is_old(const struct datagram *datagram, uint64_t now_ms)
{
    return now_ms - datagram->since_ms >= UNFINISHED_MS;
}

enum drop_reason fragments_hold(struct unfinished *unfinished, const uint8_t *packet, uint32_t length,
                                uint64_t now_ms, struct counters *counters, struct datagram **whole)
{
    struct place place;
    enum drop_reason reason = locate(&place, packet, length);
    if (reason != PACKET_WAITS)
        return reason;

    struct datagram **at = find(unfinished, place.key);
    struct fragment **gap = NULL;
    if (*at != NULL) {
        gap = gap_for(*at, &place);
        if (gap == NULL || (*at)->count == FRAGMENTS_OF_PACKET || is_old(*at, now_ms)) {
            give_up(unfinished, at, counters); /* its id has come round again, and this is of the next packet */
            gap = NULL;
        }
    }
    if (gap == NULL) {
        if ((at = begin(unfinished, place.key, now_ms)) == NULL)
            return DROP_INCOMPLETE;
        gap = &(*at)->first;
    }
    struct datagram *datagram = *at;
    uint32_t before = datagram->cost, most = most_of_peer();
    if (!insert(datagram, gap, &place, packet, length))
        return DROP_INCOMPLETE;
    charge(unfinished, datagram->cost - before);
    if (datagram->carried == datagram->total) {
        take_out(unfinished, at);
        while (*whole != NULL)
            whole = &(*whole)->next;
        *whole = datagram;
        return PACKET_COMPLETES;
    }
    while (unfinished->count > UNFINISHED_PACKETS || unfinished->cost > most)
        give_up(unfinished, &unfinished->oldest, counters);
    return PACKET_WAITS;
}

void fragments_expire(struct unfinished *unfinished, uint64_t now_ms, struct counters *counters)
{
    while (unfinished->oldest != NULL && is_old(unfinished->oldest, now_ms))
        give_up(unfinished, &unfinished->oldest, counters);
}

void fragments_clear(struct unfinished *unfinished)
{
    charge(unfinished, -(int64_t)unfinished->cost);
    datagrams_free(&unfinished->oldest);
    *unfinished = (struct unfinished){0};
}

void datagrams_place(struct datagram *list, unsigned after)
{
    while (list->next != NULL)
        list = list->next;
    list->after = after;
}

unsigned datagram_take(const struct datagram **list, struct batch *fragments)
{
    const struct datagram *datagram = *list;
    fragments->count = 0;
    for (struct fragment *fragment = datagram->first; fragment != NULL; fragment = fragment->next)
        fragments->packets[fragments->count++] =
            (struct packet){.bytes = fragment->bytes, .length = fragment->length};
    *list = datagram->next;
    return datagram->after;
}

void datagrams_free(struct datagram **list)
{
    for (struct datagram *next, *datagram = *list; datagram != NULL; datagram = next) {
        next = datagram->next;
        datagram_free(datagram);
    }
    *list = NULL;
}
