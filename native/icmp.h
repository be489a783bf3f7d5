/* ICMP errors, which a router between may send about a packet: its own address is in no rule, so they stand and fall with
 * the packet that they quote. */
#ifndef CVPND_ICMP_H
#define CVPND_ICMP_H

#include "inner.h"

enum {
    PROTOCOL_ICMP = 1,
    PROTOCOL_ICMPV6 = 58,
    ICMP_HEADER = 8,
    ICMPV6_FIRST_QUERY = 128, /* types below are errors (RFC 4443 2.1) */
};

/* RFC 792: destination unreachable, source quench, redirect, time exceeded, parameter problem. */
static inline bool icmp_error(uint8_t type) { return (type >= 3 && type <= 5) || type == 11 || type == 12; }

/* Those of a router on the way or of the receiver: RFC 792's unreachable, time exceeded, parameter problem; RFC 4443's. Not
 * redirects, which are the next router's and none comes this way, and not source quench, which nobody sends (RFC 6633). */
static inline bool icmp_error_of_the_way(uint8_t type, bool v6)
{
    return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

/* Where the packet went that such an error to its sender is about; NULL when this is none. As long as the address of its
 * family, and in `packet`, which `inner` was parsed from. */
const uint8_t *icmp_quoted_destination(const struct inner *inner, const uint8_t *packet);

/* Whether this is an error of any kind, whole or its first fragment, also behind extension headers. Then `about` is
 * where the packet went that it quotes, whoever had sent that; unset when it does not tell, as a fragment may. */
bool icmp_error_about(const struct inner *inner, const uint8_t *packet, struct ip_address *about);

#endif
