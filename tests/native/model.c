#include "model.h"

#include "check.h"
#include "inner.h"

void list_add(struct packet_list *list, const uint8_t *bytes, uint32_t length)
{
    CHECK(list->count < MODEL_PACKETS);
    uint8_t *copy = malloc(length);
    CHECK(copy != NULL);
    memcpy(copy, bytes, length);
    list->bytes[list->count] = copy;
    list->lengths[list->count++] = length;
}

void list_clear(struct packet_list *list)
{
    for (unsigned i = 0; i < list->count; i++)
        free(list->bytes[i]);
    list->count = 0;
}

/* -- sums and packets --------------------------------------------------------------------------------------------- */

static uint32_t plain_sum(const uint8_t *bytes, uint32_t length)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length; i++)
        sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    return sum;
}

static uint16_t folded(uint32_t sum)
{
    while (sum > 0xFFFF)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t model_sum(const uint8_t *packet, uint32_t length, uint32_t transport, uint8_t protocol)
{
    bool v6 = packet[0] >> 4 == 6;
    uint32_t sum = protocol + (length - transport) + plain_sum(packet + (v6 ? 8 : 12), v6 ? 32 : 8);
    return folded(sum + plain_sum(packet + transport, length - transport));
}

static void set_ip_sum(uint8_t *packet)
{
    put_u16(packet + 10, 0);
    put_u16(packet + 10, (uint16_t)~folded(plain_sum(packet, (packet[0] & 15u) * 4)));
}

static void set_sum(uint8_t *packet, uint32_t length, uint32_t transport, bool udp)
{
    uint8_t *field = packet + transport + (udp ? 6 : 16);
    put_u16(field, 0);
    uint16_t sum = (uint16_t)~model_sum(packet, length, transport, udp ? 17 : 6);
    put_u16(field, udp && sum == 0 ? 0xFFFF : sum);
}

static uint32_t make_ip(uint8_t *into, const struct shape *shape, uint32_t body)
{
    uint8_t protocol = shape->protocol != 0 ? shape->protocol : shape->udp ? 17 : 6;
    uint8_t ttl = shape->ttl != 0 ? shape->ttl : 64;
    if (shape->v6) {
        put_u32(into, 6u << 28 | (uint32_t)shape->tos << 20 | shape->flow_label);
        put_u16(into + 4, (uint16_t)(shape->extension + body));
        into[6] = shape->extension > 0 ? 60 : protocol;
        into[7] = ttl;
        memset(into + 8, 0xfd, 32);
        into[23] = (uint8_t)(2 + shape->host);
        if (shape->extension > 0) {
            memset(into + 40, 0, shape->extension);
            into[40] = protocol;
            into[41] = (uint8_t)(shape->extension / 8 - 1);
            into[42] = 1; /* PadN over the rest */
            into[43] = (uint8_t)(shape->extension - 4);
        }
        return 40u + shape->extension;
    }
    uint32_t header = 20u + shape->ip_options;
    memset(into, 1, header); /* options: no operation */
    into[0] = (uint8_t)(0x40 | header / 4);
    into[1] = shape->tos;
    put_u16(into + 2, (uint16_t)(header + body));
    put_u16(into + 4, shape->id);
    put_u16(into + 6, shape->fragment);
    into[8] = ttl;
    into[9] = protocol;
    put_u32(into + 12, 0x0A640002u + shape->host);
    put_u32(into + 16, 0x0A140101u);
    set_ip_sum(into);
    return header;
}

uint32_t make_packet(uint8_t *into, const struct shape *shape)
{
    uint32_t blocks = 0, stamp = shape->timestamp != 0 ? 12 : 0;
    while (blocks < 4 && shape->sack[2 * blocks + 1] != 0)
        blocks++;
    uint32_t options = stamp + (blocks > 0 ? 4 + 8 * blocks : 0);
    if (options == 0)
        options = shape->tcp_options;
    uint32_t header = shape->udp ? 8 : 20u + options;
    uint32_t transport = make_ip(into, shape, header + shape->payload);
    uint32_t length = transport + header + shape->payload;
    uint8_t *at = into + transport;
    CHECK(length <= SUPER_MAX);
    memset(at, 0, header);
    put_u16(at, (uint16_t)(4000 + shape->port));
    put_u16(at + 2, 443);
    if (shape->udp) {
        put_u16(at + 4, (uint16_t)(8 + shape->payload));
    } else {
        put_u32(at + 4, shape->seq);
        put_u32(at + 8, shape->ack);
        at[12] = (uint8_t)(header / 4 << 4 | shape->reserved);
        at[13] = shape->flags != 0 ? shape->flags : 0x10;
        put_u16(at + 14, shape->window);
        put_u16(at + 18, shape->urgent);
        memset(at + 20, 1 + shape->option_value, options);
        if (shape->timestamp != 0) {
            put_u32(at + 20, 0x0101080A);
            put_u32(at + 24, shape->timestamp);
            put_u32(at + 28, 0);
        }
        if (blocks > 0)
            put_u32(at + 20 + stamp, 0x01010500 + 2 + 8 * blocks);
        for (uint32_t i = 0; i < 2 * blocks; i++)
            put_u32(at + 24 + stamp + 4 * i, shape->sack[i]);
    }
    for (uint32_t i = 0; i < shape->payload; i++)
        at[header + i] = (uint8_t)(shape->fill + i * 7);
    set_sum(into, length, transport, shape->udp);
    uint8_t *field = at + (shape->udp ? 6 : 16);
    if (shape->no_sum)
        put_u16(field, 0);
    if (shape->bad_sum)
        put_u16(field, (uint16_t)(get_u16(field) ^ 0x0101));
    if (shape->bad_ip_sum)
        put_u16(into + 10, (uint16_t)(get_u16(into + 10) ^ 0x0101));
    return length;
}

/* -- cutting ------------------------------------------------------------------------------------------------------ */

void model_split(const struct virtio_header *header, const uint8_t *packet, uint32_t length,
                 struct packet_list *segments)
{
    if (header->gso_type == 0) {
        list_add(segments, packet, length);
        return;
    }
    static uint8_t segment[SUPER_MAX];
    bool udp = header->gso_type == 5, v6 = packet[0] >> 4 == 6;
    uint32_t transport = header->csum_start;
    uint32_t headers = transport + (udp ? 8u : (packet[transport + 12] >> 4) * 4u);
    CHECK(headers < length && header->gso_size > 0);
    unsigned index = 0;
    for (uint32_t at = headers; at < length; at += header->gso_size, index++) {
        bool last = length - at <= header->gso_size;
        uint32_t payload = last ? length - at : header->gso_size;
        memcpy(segment, packet, headers);
        memcpy(segment + headers, packet + at, payload);
        if (v6) {
            put_u16(segment + 4, (uint16_t)(headers + payload - 40));
        } else {
            put_u16(segment + 2, (uint16_t)(headers + payload));
            put_u16(segment + 4, (uint16_t)(get_u16(packet + 4) + index));
            set_ip_sum(segment);
        }
        if (udp) {
            put_u16(segment + transport + 4, (uint16_t)(8 + payload));
        } else {
            put_u32(segment + transport + 4, get_u32(packet + transport + 4) + (at - headers));
            if (!last)
                segment[transport + 13] &= 0xF6; /* FIN, PSH */
            if (index > 0)
                segment[transport + 13] &= 0x7F; /* CWR */
        }
        set_sum(segment, headers + payload, transport, udp);
        list_add(segments, segment, headers + payload);
    }
}

/* -- judging ------------------------------------------------------------------------------------------------------ */

/* The identification of a packet that must not be fragmented means nothing, and is free to change. */
static void forget_id(uint8_t *packet)
{
    uint32_t header = (packet[0] & 15u) * 4;
    if (packet[0] >> 4 != 4 || get_u16(packet + 6) != 0x4000 || folded(plain_sum(packet, header)) != 0xFFFF)
        return;
    put_u16(packet + 4, 0);
    set_ip_sum(packet);
}

static bool same_packet(const struct packet_list *a, unsigned i, const struct packet_list *b, unsigned j)
{
    static uint8_t left[SUPER_MAX], right[SUPER_MAX];
    if (a->lengths[i] != b->lengths[j])
        return false;
    memcpy(left, a->bytes[i], a->lengths[i]);
    memcpy(right, b->bytes[j], b->lengths[j]);
    forget_id(left);
    forget_id(right);
    return memcmp(left, right, a->lengths[i]) == 0;
}

/* Where the ports are; 0 when they do not show. */
static uint32_t ports_at(const uint8_t *packet, uint32_t length)
{
    if (packet[0] >> 4 == 6)
        return (packet[6] == 6 && length >= 60) || (packet[6] == 17 && length >= 48) ? 40 : 0;
    bool whole = packet[0] == 0x45 && (get_u16(packet + 6) & 0xBFFF) == 0;
    return whole && ((packet[9] == 6 && length >= 40) || (packet[9] == 17 && length >= 28)) ? 20 : 0;
}

static bool order_matters(const struct packet_list *list, unsigned i, unsigned j)
{
    const uint8_t *a = list->bytes[i], *b = list->bytes[j];
    if (a[0] >> 4 != b[0] >> 4)
        return false;
    bool v6 = a[0] >> 4 == 6;
    if (memcmp(a + (v6 ? 8 : 12), b + (v6 ? 8 : 12), v6 ? 32 : 8) != 0)
        return false;
    uint32_t ports_a = ports_at(a, list->lengths[i]), ports_b = ports_at(b, list->lengths[j]);
    if (ports_a == 0 || ports_b == 0)
        return true;
    return a[v6 ? 6 : 9] == b[v6 ? 6 : 9] && memcmp(a + ports_a, b + ports_b, 4) == 0;
}

/* An acknowledgement and nothing else, with right sums; all that matters of it. */
struct bare {
    uint32_t seq, ack;
    uint16_t window;
    bool stamped;
    uint32_t stamp;
    unsigned blocks;
    uint32_t edges[8];
};

static bool bare_acknowledgement(const uint8_t *packet, uint32_t length, struct bare *bare)
{
    bool v6 = packet[0] >> 4 == 6;
    uint32_t at = ports_at(packet, length);
    if (at == 0 || packet[v6 ? 6 : 9] != 6 || (!v6 && folded(plain_sum(packet, 20)) != 0xFFFF))
        return false;
    const uint8_t *tcp = packet + at;
    if (model_sum(packet, length, at, 6) != 0xFFFF || tcp[13] != 0x10 || (tcp[12] & 15) != 0 ||
        length != at + (tcp[12] >> 4) * 4u)
        return false;
    *bare = (struct bare){.seq = get_u32(tcp + 4), .ack = get_u32(tcp + 8), .window = get_u16(tcp + 14)};
    const uint8_t *option = tcp + 20, *end = packet + length;
    if (end - option >= 12 && get_u32(option) == 0x0101080A) {
        bare->stamped = true;
        bare->stamp = get_u32(option + 4);
        option += 12;
    }
    if (end - option >= 12 && get_u32(option) == 0x01010500u + (uint32_t)(end - option) - 2 &&
        (end - option) % 8 == 4) {
        for (option += 4; option < end; option += 8, bare->blocks++) {
            bare->edges[2 * bare->blocks] = get_u32(option);
            bare->edges[2 * bare->blocks + 1] = get_u32(option + 4);
        }
    }
    return option == end;
}

static bool before_or_at(uint32_t one, uint32_t other) { return other - one < 0x80000000u || one == other; }

static bool in_block(const struct bare *bare, unsigned i, const uint32_t *edges)
{
    return before_or_at(bare->edges[2 * i], edges[0]) && before_or_at(edges[1], bare->edges[2 * i + 1]);
}

static bool in_any_block(const struct bare *bare, unsigned from, const uint32_t *edges)
{
    for (unsigned i = from; i < bare->blocks; i++)
        if (in_block(bare, i, edges))
            return true;
    return false;
}

/* How many packets of the flow have acknowledged the same: all of them, and those right before it. */
static void count_repeats(const struct packet_list *list, unsigned i, uint32_t ack, unsigned *all, unsigned *direct)
{
    bool chain = true;
    struct bare bare;
    *all = *direct = 0;
    for (unsigned j = i; j-- > 0;) {
        if (!order_matters(list, j, i))
            continue;
        uint32_t at = ports_at(list->bytes[j], list->lengths[j]);
        *all += at != 0 && get_u32(list->bytes[j] + at + 8) == ack;
        chain = chain && bare_acknowledgement(list->bytes[j], list->lengths[j], &bare) && bare.ack == ack;
        *direct += chain;
    }
}

/* Whether nobody misses `i` when `j` comes, the flow's next packet. */
static bool stands_for(const struct packet_list *list, unsigned i, unsigned j)
{
    struct bare a, b;
    const uint8_t *x = list->bytes[i], *y = list->bytes[j];
    if (!bare_acknowledgement(x, list->lengths[i], &a) || !bare_acknowledgement(y, list->lengths[j], &b))
        return false;
    bool v6 = x[0] >> 4 == 6;
    if (v6 ? get_u32(x) != get_u32(y) || x[7] != y[7] : x[1] != y[1] || x[8] != y[8])
        return false;
    if (a.seq != b.seq || a.stamped != b.stamped || (a.stamped && !before_or_at(a.stamp, b.stamp)))
        return false;
    for (unsigned k = 0; k < a.blocks; k++) {
        const uint32_t *edges = a.edges + 2 * k;
        if (before_or_at(edges[0], a.ack)) /* of duplicates */
            return false;
        if (!before_or_at(edges[1], b.ack) && !in_any_block(&b, 0, edges))
            return false;
    }
    if (a.blocks > 0 && in_any_block(&a, 1, a.edges))
        return false;
    unsigned all, direct;
    count_repeats(list, i, a.ack, &all, &direct);
    if (direct > 0 && (all <= 3 || a.blocks == 0))
        return false;
    if (a.ack == b.ack)
        return all > 3 && a.window == b.window && b.blocks > 0 && !in_any_block(&a, 0, b.edges);
    return before_or_at(a.ack, b.ack);
}

static bool next_stands_for(const struct packet_list *list, unsigned i)
{
    for (unsigned j = i + 1; j < list->count; j++)
        if (order_matters(list, i, j))
            return stands_for(list, i, j);
    return false;
}

/* Each that came is the earliest not yet seen; what it overtook of its flow will not come, and has not to. */
static void check_delivered(const struct packet_list *sent, const struct packet_list *came, unsigned superseded)
{
    static bool seen[MODEL_PACKETS];
    memset(seen, 0, sizeof seen);
    CHECK_EQUAL(came->count + superseded, sent->count);
    for (unsigned i = 0; i < came->count; i++) {
        unsigned at = 0;
        while (at < sent->count && (seen[at] || !same_packet(sent, at, came, i)))
            at++;
        CHECK(at < sent->count);
        for (unsigned before = 0; before < at; before++)
            if (!seen[before] && order_matters(sent, before, at)) {
                CHECK(next_stands_for(sent, before));
                CHECK(superseded-- > 0);
                seen[before] = true;
            }
        seen[at] = true;
    }
    CHECK_EQUAL(superseded, 0);
}

static void gather(const struct run_vectors *run, uint8_t *into, uint32_t *length)
{
    *length = 0;
    for (unsigned i = 1; i < run->count; i++) {
        CHECK(run->vectors[i].iov_len <= SUPER_MAX - *length);
        memcpy(into + *length, run->vectors[i].iov_base, run->vectors[i].iov_len);
        *length += (uint32_t)run->vectors[i].iov_len;
    }
}

static void check_split(const struct virtio_header *header, uint8_t *packet, uint32_t length,
                        const struct packet_list *segments, unsigned from)
{
    static uint8_t segment[PACKET_MAX];
    struct split split;
    CHECK(split_begin(&split, header, packet, length));
    for (unsigned i = from; i < segments->count; i++) {
        CHECK(!split_done(&split));
        CHECK_EQUAL(split_next(&split, segment), segments->lengths[i]);
        CHECK(memcmp(segment, segments->bytes[i], segments->lengths[i]) == 0);
    }
    CHECK(split_done(&split));
}

static unsigned write_all(struct coalescer *coalescer, struct packet_list *came, unsigned *superseded)
{
    static struct run_vectors run;
    static uint8_t packet[SUPER_MAX];
    unsigned runs = coalescer_runs(coalescer);
    *superseded += coalescer_superseded(coalescer);
    for (unsigned i = 0; i < runs; i++) {
        uint32_t length;
        coalescer_take(coalescer, i, &run);
        CHECK(run.vectors[0].iov_base == &run.header && run.vectors[0].iov_len == VIRTIO_HEADER);
        gather(&run, packet, &length);
        unsigned before = came->count;
        model_split(&run.header, packet, length, came);
        CHECK_EQUAL(came->count - before, run.packets);
        check_split(&run.header, packet, length, came, before);
    }
    coalescer_reset(coalescer);
    return runs;
}

unsigned check_round_trip(const struct packet_list *packets, enum tun_offload offload, unsigned together)
{
    static struct packet_list copies, came;
    struct coalescer *coalescer = coalescer_new();
    CHECK(coalescer != NULL);
    unsigned runs = 0, superseded = 0;
    for (unsigned i = 0; i < packets->count; i++) {
        list_add(&copies, packets->bytes[i], packets->lengths[i]); /* headers are changed in place */
        if (i > 0 && i % together == 0)
            runs += write_all(coalescer, &came, &superseded);
        if (coalesce(coalescer, offload, copies.bytes[i], copies.lengths[i]))
            continue;
        runs += write_all(coalescer, &came, &superseded);
        CHECK(coalesce(coalescer, offload, copies.bytes[i], copies.lengths[i]));
    }
    runs += write_all(coalescer, &came, &superseded);
    coalescer_free(coalescer);
    check_delivered(packets, &came, superseded);
    list_clear(&copies);
    list_clear(&came);
    return runs;
}
