/* A plain model of segmentation: builds packets, cuts super-packets, and judges what a coalescer made of a list of
 * packets. Written apart from split.c and coalesce.c, byte by byte: for the unit tests and the fuzzers. */
#ifndef CVPND_MODEL_H
#define CVPND_MODEL_H

#include "offload.h"

enum { MODEL_PACKETS = 1024 };

/* Owns its bytes; each packet lies on the heap with no byte to spare. */
struct packet_list {
    unsigned count;
    uint32_t lengths[MODEL_PACKETS];
    uint8_t *bytes[MODEL_PACKETS];
};

void list_add(struct packet_list *list, const uint8_t *bytes, uint32_t length);
void list_clear(struct packet_list *list);

/* What a test says of a packet; the rest is zero or usual. */
struct shape {
    bool v6, udp, bad_ip_sum, bad_sum, no_sum;
    uint8_t flags; /* 0 = ACK */
    uint8_t tos, ttl;
    uint16_t id, fragment; /* IPv4's flags and offset field */
    uint16_t port;         /* added to the source port */
    uint8_t host;          /* added to the source address */
    uint32_t seq, ack;
    uint16_t window, urgent;
    uint8_t ip_options, tcp_options; /* bytes, multiples of four */
    uint8_t option_value;            /* of the TCP options' bytes */
    uint32_t timestamp;              /* 0 = none; else the options are as long as it needs */
    uint32_t sack[8]; /* edges of blocks, pairs of left and right, behind it; 0 as a right one ends them */
    uint8_t reserved; /* bits beside the data offset */
    uint8_t protocol; /* 0 = TCP or UDP */
    uint32_t flow_label;
    uint8_t extension; /* bytes of a destination options header, a multiple of eight */
    uint32_t payload;  /* bytes, which differ with `fill` */
    uint8_t fill;
};

/* At most 65535 bytes; how many. */
uint32_t make_packet(uint8_t *into, const struct shape *shape);

/* The sum over pseudo header and segment that a right checksum makes 0xFFFF; `transport` is where the segment starts. */
uint16_t model_sum(const uint8_t *packet, uint32_t length, uint32_t transport, uint8_t protocol);

/* Cuts a super-packet; its headers have to be right. */
void model_split(const struct virtio_header *header, const uint8_t *packet, uint32_t length,
                 struct packet_list *segments);

/* Coalesces the list, cuts every run with model_split and with split.c, and checks that each flow's packets come back
 * in order, unchanged, but for acknowledgements that the flow's next packet stands for. How many runs. `together` at most go into one batch. */
unsigned check_round_trip(const struct packet_list *packets, enum tun_offload offload, unsigned together);

#endif
