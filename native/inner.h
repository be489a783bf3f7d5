/* The IP header inside the tunnel, as far as forwarding needs it. */
#ifndef CVPND_INNER_H
#define CVPND_INNER_H

#include "address.h"
#include "wire.h"

enum { IPV4_HEADER = 20, IPV6_HEADER = 40 };

struct inner {
    bool v6;
    uint32_t length; /* by the header; what follows in the packet is padding */
    struct ip_address source;
    struct ip_address destination;
};

/* False unless the bytes start with a complete, well-formed IPv4 or IPv6 packet. */
static inline bool inner_parse(struct inner *inner, const uint8_t *bytes, size_t length)
{
    if (length < IPV4_HEADER)
        return false;
    if (bytes[0] >> 4 == 4) {
        size_t header = (size_t)(bytes[0] & 15) * 4;
        inner->v6 = false;
        inner->length = get_u16(bytes + 2);
        inner->source = ip_from_v4(bytes + 12);
        inner->destination = ip_from_v4(bytes + 16);
        return header >= IPV4_HEADER && header <= inner->length && inner->length <= length;
    }
    if (bytes[0] >> 4 == 6 && length >= IPV6_HEADER) {
        inner->v6 = true;
        inner->length = IPV6_HEADER + (uint32_t)get_u16(bytes + 4);
        inner->source = ip_from_v6(bytes + 8);
        inner->destination = ip_from_v6(bytes + 24);
        return inner->length <= length;
    }
    return false;
}

#endif
