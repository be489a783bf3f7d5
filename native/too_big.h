/* Inner packets that are longer than what fits a peer: what becomes of them, and what their sender is told
 * (RFC 1191, 8201, 4443 3.2). Pure: bytes in, bytes out. Packets are well-formed (see inner_parse). */
#ifndef CVPND_TOO_BIG_H
#define CVPND_TOO_BIG_H

#include <stdint.h>

enum {
    IPV6_SMALLEST_MTU = 1280,
    TOO_BIG_ANSWER_MAX = IPV6_SMALLEST_MTU,
};

enum too_big {
    TOO_BIG_REFUSED,  /* dropped, and its sender is told */
    TOO_BIG_CUT,      /* IPv4 that may be fragmented */
    TOO_BIG_SENT_ALL, /* as it is: the packet around it is fragmented */
};

/* IPv6 senders need not go below 1280, so up to there it is our turn. IPv4 options are too rare for code of their own. */
enum too_big too_big_verdict(const uint8_t *packet, uint32_t length);

/* The ICMP error for the sender, with the MTU it should keep to; its length. 0 when there must be none: about ICMP
 * errors, fragments but the first, and to or about addresses that are no single host's. `into` has room for
 * TOO_BIG_ANSWER_MAX. It comes from the packet's destination: the kernel drops what a device brings in from one of the
 * host's own addresses, and the client's way ends behind us anyhow. */
uint32_t too_big_answer(uint8_t *into, const uint8_t *packet, uint32_t length, uint32_t mtu);

/* Shortens a packet of TOO_BIG_CUT to its first fragment of at most `mtu` bytes (`*length`) and makes `rest` what
 * remains, a packet of its own, which may have to be cut again; its length. `rest` has room for `*length` bytes. */
uint32_t too_big_cut(uint8_t *packet, uint32_t *length, uint32_t mtu, uint8_t *rest);

#endif
