#include "icmp.h"

#include "transport.h"

const uint8_t *icmp_quoted_destination(const struct inner *inner, const uint8_t *packet)
{
    uint32_t header = inner->v6 ? IPV6_HEADER : (packet[0] & 15u) * 4;
    uint32_t quoted_header = inner->v6 ? IPV6_HEADER : IPV4_HEADER;
    if (packet[inner->v6 ? IPV6_NEXT_HEADER : IPV4_PROTOCOL] != (inner->v6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP) ||
        inner->length < header + ICMP_HEADER + quoted_header)
        return NULL;
    if (!inner->v6 && (get_u16(packet + IPV4_FRAGMENT_FIELD) & IPV4_OFFSET) != 0)
        return NULL;
    uint8_t type = packet[header];
    const uint8_t *quoted = packet + header + ICMP_HEADER;
    if (!icmp_error_of_the_way(type, inner->v6))
        return NULL;
    size_t at = inner->v6 ? IPV6_ADDRESSES : IPV4_ADDRESSES, size = inner->v6 ? 16 : 4;
    const uint8_t *to = packet + at + size;
    if (quoted[0] >> 4 != packet[0] >> 4 || memcmp(quoted + at, to, size) != 0)
        return NULL;
    return quoted + at + size;
}
