#include "sparse.h"

#include <string.h>

#include "inner.h"
#include "transport.h"
#include "wire.h"

enum { PROTOCOL_ICMPV6 = 58 };

/* Flows by a bit for each of 64 hashes: two that share one cost a packet its place in front, and no more. */
struct flows {
    uint64_t ports;  /* of those that show their ports */
    uint64_t pairs;  /* all, without their ports */
    uint64_t hidden; /* those that do not show them, likewise: fragments, protocols without any */
    bool unknown_v6; /* there is one of which not even the protocol is known: behind extension headers */
};

struct flow {
    uint64_t pair;  /* a bit: addresses and protocol */
    uint64_t ports; /* a bit: the same and ports; 0 = not shown */
    bool v6, unknown;
};

static uint64_t mixed(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ hash >> 29;
}

static uint64_t bit_of(uint64_t hash) { return UINT64_C(1) << (hash & 63); }

static struct flow flow_of(const struct packet *packet)
{
    const uint8_t *bytes = packet->bytes;
    struct flow flow = {.v6 = bytes[0] >> 4 == 6};
    if (packet->length < (flow.v6 ? IPV6_HEADER : IPV4_HEADER))
        return (struct flow){.v6 = true, .unknown = true};
    uint8_t protocol = flow.v6 ? bytes[IPV6_NEXT_HEADER] : bytes[IPV4_PROTOCOL];
    bool has_ports = protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
    flow.unknown = flow.v6 && !has_ports && protocol != PROTOCOL_ICMPV6;
    const uint8_t *addresses = bytes + (flow.v6 ? IPV6_ADDRESSES : IPV4_ADDRESSES);
    uint64_t hash = protocol;
    for (unsigned i = 0; i < (flow.v6 ? IPV6_ADDRESSES_SIZE : IPV4_ADDRESSES_SIZE); i += 8)
        hash = mixed(hash, get_u64(addresses + i));
    flow.pair = bit_of(hash);
    uint32_t transport = flow.v6 ? IPV6_HEADER : (bytes[0] & 15u) * 4;
    bool fragment = !flow.v6 && (get_u16(bytes + IPV4_FRAGMENT_FIELD) & IPV4_FRAGMENT) != 0;
    if (has_ports && !fragment && packet->length >= transport + PORTS_SIZE)
        flow.ports = bit_of(mixed(hash, get_u32(bytes + transport)));
    return flow;
}

static bool must_follow(const struct flows *before, const struct flow *flow)
{
    if (flow->v6 && (flow->unknown || before->unknown_v6))
        return true;
    return flow->ports == 0 ? (before->pairs & flow->pair) != 0
                            : (before->ports & flow->ports) != 0 || (before->hidden & flow->pair) != 0;
}

static void add_flow(struct flows *flows, const struct flow *flow)
{
    flows->pairs |= flow->pair;
    flows->ports |= flow->ports;
    if (flow->ports == 0)
        flows->hidden |= flow->pair;
    flows->unknown_v6 |= flow->unknown;
}

static bool is_alone(const struct batch *batch, unsigned at)
{
    return !batch->packets[at].follows && (at + 1 == batch->count || !batch->packets[at + 1].follows);
}

void sparse_first(struct batch *batch)
{
    unsigned kept = 0;
    while (kept < batch->count && is_alone(batch, kept))
        kept++;
    unsigned last = batch->count;
    while (last > kept && !is_alone(batch, last - 1))
        last--;
    if (last == kept)
        return; /* nobody came alone behind a super-packet */

    struct batch others; /* only as much of it as there are is touched */
    struct flows before = {0};
    others.count = 0;
    for (unsigned i = kept; i < batch->count; i++) {
        struct packet *packet = &batch->packets[i];
        if (!packet->follows) {
            struct flow flow = flow_of(packet);
            if (is_alone(batch, i) && !must_follow(&before, &flow)) {
                batch->packets[kept++] = *packet;
                continue;
            }
            add_flow(&before, &flow);
        }
        others.packets[others.count++] = *packet;
    }
    memcpy(&batch->packets[kept], others.packets, others.count * sizeof others.packets[0]);
}
