#include "icmp.h"

#include "fragments.h"
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

static bool error_v4(const struct inner *inner, const uint8_t *packet, uint32_t *at)
{
    *at = (packet[0] & 15u) * 4;
    return packet[IPV4_PROTOCOL] == PROTOCOL_ICMP && (get_u16(packet + IPV4_FRAGMENT_FIELD) & IPV4_OFFSET) == 0 &&
           *at < inner->length && icmp_error(packet[*at]);
}

static bool error_v6(const struct inner *inner, const uint8_t *packet, uint32_t *at)
{
    uint8_t header = packet[IPV6_NEXT_HEADER];
    *at = IPV6_HEADER;
    while (is_extension_header(header)) {
        uint32_t start = *at;
        bool fragment = header == HEADER_FRAGMENT;
        if (!skip_extension(packet, inner->length, &header, at) ||
            (fragment && (get_u16(packet + start + 2) & V6_OFFSET) != 0))
            return false;
    }
    return header == PROTOCOL_ICMPV6 && *at < inner->length && packet[*at] < ICMPV6_FIRST_QUERY;
}

bool icmp_error_about(const struct inner *inner, const uint8_t *packet, struct ip_address *about)
{
    uint32_t at, header = inner->v6 ? IPV6_HEADER : IPV4_HEADER;
    if (!(inner->v6 ? error_v6 : error_v4)(inner, packet, &at))
        return false;
    *about = (struct ip_address){0};
    const uint8_t *quoted = packet + at + ICMP_HEADER;
    if (inner->length - at < ICMP_HEADER + header || quoted[0] >> 4 != packet[0] >> 4)
        return true;
    struct ip_address to = inner->v6 ? ip_from_v6(quoted + 24) : ip_from_v4(quoted + 16);
    if (!inner->v6 || !ip_is_v4(&to)) /* else it would look like an IPv4 lease */
        *about = to;
    return true;
}
