/* Super-packets: many packets of one flow that pass the kernel as one, behind a virtio header (TUN with IFF_VNET_HDR).
 *
 * Split: what the kernel hands out becomes the packets it stands for. Coalesce: packets that a splitter would make of
 * one super-packet become that one. Both are pure: bytes in, bytes out, no descriptor. For every list of packets,
 * splitting what coalescing made of it gives each flow's packets back, in order, byte for byte; only the
 * identification of IPv4 packets that must not be fragmented may differ, which then means nothing (RFC 6864), and
 * of bare TCP acknowledgements that follow each other up to SUPERSEDED_MAX are left out before one that says all they do
 * (acknowledgement.h). */
#ifndef CVPND_OFFLOAD_H
#define CVPND_OFFLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "batch.h"

/* What the queues of a TUN speak; the numbers of TunOffload in cvpnd/dataplane/api.py. */
enum tun_offload {
    TUN_PLAIN,   /* bare IP packets */
    TUN_TCP,     /* a virtio header before each, TCP super-packets both ways */
    TUN_TCP_UDP, /* and UDP ones */
    TUN_OFFLOADS,
};

/* struct virtio_net_hdr, in the machine's byte order; not from linux/virtio_net.h, which may be older than the kernel. */
struct virtio_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length; /* a hint, not looked at */
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
};

enum {
    VIRTIO_HEADER = 10,
    VIRTIO_NEEDS_CSUM = 1,
    VIRTIO_GSO_NONE = 0,
    VIRTIO_GSO_TCPV4 = 1,
    VIRTIO_GSO_TCPV6 = 4,
    VIRTIO_GSO_UDP_L4 = 5,
    VIRTIO_GSO_ECN = 0x80, /* a bit beside the type: CWR belongs to the first segment only */
    SUPER_MAX = 65535,     /* longest IP packet there is; IPv6 ones of ours are no longer either */
};

/* -- splitting ---------------------------------------------------------------------------------------------------- */

/* A super-packet being split; points into the caller's bytes. */
struct split {
    const uint8_t *packet;
    uint32_t length;
    uint32_t at;        /* offset of the payload that comes next */
    uint32_t headers;   /* IP and transport; 0 = not a super-packet, handed out as it is */
    uint32_t transport; /* offset of the transport header */
    uint32_t segment;   /* payload bytes of each but the last */
    uint16_t index;     /* of the next segment */
    bool v6, tcp;
    uint16_t ip_sum;        /* IPv4: the header without length, identification and checksum */
    uint16_t transport_sum; /* the pseudo header without length, and the header without what changes */
};

/* False when header and packet do not fit together, or a segment would be longer than PACKET_MAX. Of a single packet
 * the checksum is completed in place. */
bool split_begin(struct split *split, const struct virtio_header *header, uint8_t *packet, uint32_t length);

static inline bool split_done(const struct split *split) { return split->at >= split->length; }

/* Writes the next segment, at most PACKET_MAX bytes; its length. Not to be called when done. */
uint32_t split_next(struct split *split, uint8_t *into);

/* -- coalescing --------------------------------------------------------------------------------------------------- */

/* Packets that wait to be written, in runs. Bounded: when it is full the caller writes everything and starts again. */
struct coalescer;

/* Virtio header, headers and first payload, then a payload each. */
enum { RUN_PACKETS = 128, RUN_VECTORS = RUN_PACKETS + 1, SUPERSEDED_MAX = 7 };

struct run_vectors {
    struct virtio_header header;
    unsigned packets;
    unsigned count;
    struct iovec vectors[RUN_VECTORS];
};

/* NULL when memory is short. `offload` is not TUN_PLAIN. */
struct coalescer *coalescer_new(void);
void coalescer_free(struct coalescer *coalescer);

/* Takes one well-formed IP packet (see inner_parse) whose bytes stay until it is written, and may be changed then.
 * False when there is no room. */
bool coalesce(struct coalescer *coalescer, enum tun_offload offload, uint8_t *packet, uint32_t length);

unsigned coalescer_runs(const struct coalescer *coalescer);

/* How many of the packets taken are bare TCP acknowledgements. */
unsigned coalescer_acknowledgements(const struct coalescer *coalescer);

/* How many of those a later one has made superfluous: they are not written. */
unsigned coalescer_superseded(const struct coalescer *coalescer);

/* How many of the packets taken may be part of a super-packet, whatever else there is. */
unsigned coalescer_joinable(const struct coalescer *coalescer);

/* What writes run `index`, in the order in which they are to be written. Once for each run. */
void coalescer_take(struct coalescer *coalescer, unsigned index, struct run_vectors *vectors);

/* Forgets everything. */
void coalescer_reset(struct coalescer *coalescer);

#endif
