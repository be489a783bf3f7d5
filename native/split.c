#include <arpa/inet.h>

#include "checksum.h"
#include "inner.h"
#include "offload.h"
#include "transport.h"

/* Of the pseudo header (RFC 9293 3.1, RFC 8200 8.1) without the length. */
static uint16_t pseudo_sum(const uint8_t *packet, bool v6, uint8_t protocol)
{
    const uint8_t *addresses = packet + (v6 ? IPV6_ADDRESSES : IPV4_ADDRESSES);
    return checksum_add(htons(protocol), addresses, v6 ? IPV6_ADDRESSES_SIZE : IPV4_ADDRESSES_SIZE);
}

/* The kernel left the checksum of a single packet to the device: its field holds the pseudo header's sum. */
static bool complete_checksum(const struct virtio_header *header, uint8_t *packet, uint32_t length)
{
    uint32_t start = header->csum_start;
    uint32_t ip_header = packet[0] >> 4 == 6 ? IPV6_HEADER : (packet[0] & 15u) * 4;
    if (start < ip_header || start >= length || length - start < (uint32_t)header->csum_offset + 2)
        return false;
    uint16_t sum = (uint16_t)~checksum_add(0, packet + start, length - start);
    /* Zero would mean "none" to UDP, and is the same number to everybody else. */
    checksum_set_field(packet + start + header->csum_offset, sum == 0 ? 0xFFFF : sum);
    return true;
}

/* Where the transport header of a super-packet is; 0 when it is not what the virtio header says. */
static uint32_t find_transport(const struct virtio_header *header, const uint8_t *packet, bool v6, uint8_t protocol)
{
    if (!v6) {
        bool whole = (get_u16(packet + IPV4_FRAGMENT_FIELD) & IPV4_FRAGMENT) == 0;
        return whole && packet[IPV4_PROTOCOL] == protocol ? (uint32_t)(packet[0] & 15) * 4 : 0;
    }
    /* Behind extension headers, which every segment gets too, only the kernel's word says where. */
    if (header->csum_start == IPV6_HEADER && packet[IPV6_NEXT_HEADER] != protocol)
        return 0;
    return header->csum_start >= IPV6_HEADER ? header->csum_start : 0;
}

static void sum_headers(struct split *split)
{
    uint8_t copy[60];
    const uint8_t *transport = split->packet + split->transport;
    if (!split->v6) {
        memcpy(copy, split->packet, split->transport);
        memset(copy + IPV4_LENGTH, 0, 4); /* and the identification */
        memset(copy + IPV4_CHECKSUM, 0, 2);
        split->ip_sum = checksum_add(0, copy, split->transport);
    }
    uint16_t sum = pseudo_sum(split->packet, split->v6, split->tcp ? PROTOCOL_TCP : PROTOCOL_UDP);
    if (!split->tcp) {
        split->transport_sum = checksum_add(sum, transport, PORTS_SIZE);
        return;
    }
    size_t size = split->headers - split->transport;
    memcpy(copy, transport, size);
    memset(copy + TCP_SEQUENCE, 0, 4);
    memset(copy + TCP_DATA_OFFSET, 0, 2); /* and the flags */
    memset(copy + TCP_CHECKSUM, 0, 2);
    split->transport_sum = checksum_add(sum, copy, size);
}

bool split_begin(struct split *split, const struct virtio_header *header, uint8_t *packet, uint32_t length)
{
    struct inner inner;
    if (!inner_parse(&inner, packet, length))
        return false;
    *split = (struct split){.packet = packet, .length = inner.length, .v6 = inner.v6};
    unsigned type = header->gso_type & ~(unsigned)VIRTIO_GSO_ECN;
    if (type == VIRTIO_GSO_NONE) {
        bool complete = !(header->flags & VIRTIO_NEEDS_CSUM) || complete_checksum(header, packet, inner.length);
        return complete && inner.length <= PACKET_MAX;
    }
    split->tcp = type != VIRTIO_GSO_UDP_L4;
    if (!(header->flags & VIRTIO_NEEDS_CSUM) ||
        (split->tcp && type != (inner.v6 ? VIRTIO_GSO_TCPV6 : VIRTIO_GSO_TCPV4)))
        return false;
    split->transport = find_transport(header, packet, inner.v6, split->tcp ? PROTOCOL_TCP : PROTOCOL_UDP);
    uint32_t shortest = split->tcp ? TCP_HEADER : UDP_HEADER;
    if (split->transport == 0 || inner.length < split->transport + shortest)
        return false;
    uint32_t size = split->tcp ? (uint32_t)(packet[split->transport + TCP_DATA_OFFSET] >> 4) * 4 : UDP_HEADER;
    split->headers = split->transport + size;
    split->segment = header->gso_size;
    split->at = split->headers;
    if (size < shortest || split->headers >= inner.length || split->segment == 0 ||
        split->headers + split->segment > PACKET_MAX)
        return false;
    sum_headers(split);
    return true;
}

static void finish_ip(const struct split *split, uint8_t *into, uint32_t length)
{
    if (split->v6) {
        put_u16(into + IPV6_LENGTH, (uint16_t)(length - IPV6_HEADER));
        return;
    }
    put_u16(into + IPV4_LENGTH, (uint16_t)length);
    put_u16(into + IPV4_ID, (uint16_t)(get_u16(split->packet + IPV4_ID) + split->index));
    checksum_set_field(into + IPV4_CHECKSUM, (uint16_t)~checksum_add(split->ip_sum, into + IPV4_LENGTH, 4));
}

/* FIN and PSH belong to the end of what was sent, CWR to its beginning (RFC 3168 6.1.2). */
static uint16_t finish_tcp(const struct split *split, uint8_t *tcp, bool last)
{
    put_u32(tcp + TCP_SEQUENCE, get_u32(tcp + TCP_SEQUENCE) + split->index * split->segment);
    if (!last)
        tcp[TCP_FLAGS] &= (uint8_t) ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
    if (split->index > 0)
        tcp[TCP_FLAGS] &= (uint8_t)~TCP_FLAG_CWR;
    return checksum_add(checksum_add(split->transport_sum, tcp + TCP_SEQUENCE, 4), tcp + TCP_DATA_OFFSET, 2);
}

uint32_t split_next(struct split *split, uint8_t *into)
{
    if (split->headers == 0) {
        memcpy(into, split->packet, split->length);
        split->at = split->length;
        return split->length;
    }
    uint32_t left = split->length - split->at;
    uint32_t payload = left < split->segment ? left : split->segment;
    uint32_t length = split->headers + payload;
    memcpy(into, split->packet, split->headers);
    memcpy(into + split->headers, split->packet + split->at, payload);
    finish_ip(split, into, length);

    uint8_t *transport = into + split->transport;
    uint16_t size = (uint16_t)(length - split->transport);
    uint16_t sum = split->transport_sum;
    if (split->tcp) {
        sum = finish_tcp(split, transport, payload == left);
    } else {
        put_u16(transport + UDP_LENGTH, size);
        sum = checksum_fold((uint64_t)sum + htons(size)); /* it counts here and in the pseudo header */
    }
    sum = (uint16_t)~checksum_add(checksum_fold((uint64_t)sum + htons(size)), into + split->headers, payload);
    if (!split->tcp && sum == 0)
        sum = 0xFFFF;
    checksum_set_field(transport + (split->tcp ? TCP_CHECKSUM : UDP_CHECKSUM), sum);
    split->at += payload;
    split->index++;
    return length;
}
