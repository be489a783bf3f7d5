/* Addresses in one form for both families: an IPv4 address is its IPv4-mapped IPv6 address. */
#ifndef CVPND_ADDRESS_H
#define CVPND_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

struct ip_address {
    uint8_t bytes[16];
};

/* Where a datagram came from or goes to; port in host order. */
struct socket_address {
    struct ip_address ip;
    uint32_t scope_id;
    uint16_t port;
};

static const uint8_t IPV4_MAPPED_PREFIX[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

static inline struct ip_address ip_from_v4(const uint8_t bytes[static 4])
{
    struct ip_address ip;
    memcpy(ip.bytes, IPV4_MAPPED_PREFIX, 12);
    memcpy(ip.bytes + 12, bytes, 4);
    return ip;
}
static inline struct ip_address ip_from_v6(const uint8_t bytes[static 16])
{
    struct ip_address ip;
    memcpy(ip.bytes, bytes, 16);
    return ip;
}
static inline bool ip_is_v4(const struct ip_address *ip) { return memcmp(ip->bytes, IPV4_MAPPED_PREFIX, 12) == 0; }
/* As they are in a header of that family. */
static inline const uint8_t *ip_bytes(const struct ip_address *ip, bool v6) { return ip->bytes + (v6 ? 0 : 12); }
static inline bool ip_is_link_local(const struct ip_address *ip)
{
    return ip->bytes[0] == 0xFE && (ip->bytes[1] & 0xC0) == 0x80;
}
static inline bool ip_is_unset(const struct ip_address *ip)
{
    static const uint8_t zero[16];
    return memcmp(ip->bytes, zero, 16) == 0;
}
static inline bool ip_equal(const struct ip_address *a, const struct ip_address *b)
{
    return memcmp(a->bytes, b->bytes, 16) == 0;
}
static inline bool socket_address_equal(const struct socket_address *a, const struct socket_address *b)
{
    return a->port == b->port && a->scope_id == b->scope_id && ip_equal(&a->ip, &b->ip);
}

/* False for a family other than IPv4 and IPv6. */
static inline bool socket_address_from(struct socket_address *address, const struct sockaddr_storage *from)
{
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        address->ip = ip_from_v4((const uint8_t *)&in->sin_addr);
        address->port = ntohs(in->sin_port);
        address->scope_id = 0;
        return true;
    }
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
        address->ip = ip_from_v6(in6->sin6_addr.s6_addr);
        address->port = ntohs(in6->sin6_port);
        address->scope_id = in6->sin6_scope_id;
        return true;
    }
    return false;
}

#endif
