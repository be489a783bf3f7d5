/* Fragments that clients send wait here until their packet is whole, and go on together. Else connection tracking would
 * let them wait in the kernel's one queue (net.ipv4.ipfrag_high_thresh, 4 MB for everybody and half a minute), where one
 * client's first fragments leave no room for anybody's last ones. What is whole here has to be whole for the kernel too, at
 * once, or the rest of it would wait there all the same. So nothing goes on that overlaps (RFC 5722), nor what the kernel
 * drops or passes before it looks for the rest: an IPv4 header with a wrong checksum, a first fragment that ends within its
 * headers, one behind hop-by-hop options, or one in another. Hop-by-hop options are what routers may drop a packet for anyhow
 * (RFC 9673): what hosts send with them, router alerts of MLD and RSVP, is short.
 *
 * The rest of a packet comes within moments or, where the tunnel has lost some of it, never: of too much that is
 * unfinished, the oldest is given up. While all peers together have much, each may have an eighth: twenty thousand who all
 * try take less than 800 MB, and packets of up to 28 kB still become whole. */
#ifndef CVPND_FRAGMENTS_H
#define CVPND_FRAGMENTS_H

#include "batch.h"
#include "counters.h"
#include "inner.h"
#include "transport.h"

enum {
    UNFINISHED_PACKETS = 32,      /* of one peer … */
    UNFINISHED_BYTES = 256 << 10, /* … with what each fragment costs beside its own bytes … */
    UNFINISHED_BYTES_CROWDED = UNFINISHED_BYTES / 8,
    UNFINISHED_BYTES_OF_ALL = 128 << 20, /* … while all have more than this */
    UNFINISHED_MS = 30000, /* as the kernel has it; RFC 1122 3.3.2 wants more, but ids come again sooner */
    FRAGMENT_COST = 64,    /* what malloc and the lists take */
    FRAGMENTS_OF_PACKET = BATCH_PACKETS, /* 65,535 bytes over a link of 576 are 119 */
};

enum { V6_OFFSET = 0xFFF8 }; /* in bytes, as it stands in the field */

/* Of IPv6, those that the kernel goes over in search of the one that makes a fragment. */
enum {
    HEADER_HOP_BY_HOP = 0,
    HEADER_ROUTING = 43,
    HEADER_FRAGMENT = 44,
    HEADER_AUTHENTICATION = 51,
    HEADER_NONE = 59,
    HEADER_DESTINATION_OPTIONS = 60,
};

static inline bool is_extension_header(uint8_t header)
{
    return header == HEADER_HOP_BY_HOP || header == HEADER_ROUTING || header == HEADER_FRAGMENT ||
           header == HEADER_AUTHENTICATION || header == HEADER_DESTINATION_OPTIONS;
}

/* Goes on from the extension header that lies at `at` to the one behind; false when the packet ends before. */
bool skip_extension(const uint8_t *packet, uint32_t length, uint8_t *header, uint32_t *at);

struct datagram;

/* What is not whole yet, of one peer. Its worker only, and whoever frees the peer. */
struct unfinished {
    struct datagram *oldest;
    unsigned count;
    uint32_t cost;
};

/* Whether a well-formed IP packet has to be looked at: one branch for what is none. */
static inline bool may_be_fragment(const uint8_t *packet)
{
    if (packet[0] >> 4 == 4)
        return (get_u16(packet + IPV4_FRAGMENT_FIELD) & IPV4_FRAGMENT) != 0;
    return is_extension_header(packet[IPV6_NEXT_HEADER]);
}

/* Of what may be one. Keeps a copy of a fragment: PACKET_WAITS, or PACKET_COMPLETES when none of its packet is missing
 * any more, which is then the last in `whole`. PACKET_PASSES for what is no fragment. */
enum drop_reason fragments_hold(struct unfinished *unfinished, const uint8_t *packet, uint32_t length,
                                uint64_t now_ms, struct counters *counters, struct datagram **whole);

/* Gives up what has waited for too long. */
void fragments_expire(struct unfinished *unfinished, uint64_t now_ms, struct counters *counters);

/* All of them, which nobody waits for any more. */
void fragments_clear(struct unfinished *unfinished);

/* Of a list of whole packets: after how many of its batch the last one comes. */
void datagrams_place(struct datagram *list, unsigned after);

/* Takes the first one's fragments, in their order; how many of the batch go before it. The bytes stay until the list is freed. */
unsigned datagram_take(const struct datagram **list, struct batch *fragments);

void datagrams_free(struct datagram **list);

#endif
