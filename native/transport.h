/* Where things are in the headers that are split, coalesced and looked at for the MSS (RFC 791, 8200, 9293, 768). */
#ifndef CVPND_TRANSPORT_H
#define CVPND_TRANSPORT_H

enum {
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    IPV4_TOS = 1,
    IPV4_LENGTH = 2,
    IPV4_ID = 4,
    IPV4_FRAGMENT_FIELD = 6,
    IPV4_DF = 0x4000,
    IPV4_FRAGMENT = 0x3FFF, /* more fragments, or an offset */
    IPV4_OFFSET = 0x1FFF,
    IPV4_TTL = 8,
    IPV4_PROTOCOL = 9,
    IPV4_CHECKSUM = 10,
    IPV4_ADDRESSES = 12,
    IPV4_ADDRESSES_SIZE = 8,
    IPV6_LENGTH = 4,
    IPV6_NEXT_HEADER = 6,
    IPV6_HOP_LIMIT = 7,
    IPV6_ADDRESSES = 8,
    IPV6_ADDRESSES_SIZE = 32,
    PORTS_SIZE = 4,
    TCP_HEADER = 20,
    TCP_SEQUENCE = 4,
    TCP_ACKNOWLEDGEMENT = 8,
    TCP_DATA_OFFSET = 12,
    TCP_FLAGS = 13,
    TCP_WINDOW = 14,
    TCP_CHECKSUM = 16,
    TCP_URGENT = 18,
    TCP_FLAG_FIN = 0x01,
    TCP_FLAG_SYN = 0x02,
    TCP_FLAG_PSH = 0x08,
    TCP_FLAG_ACK = 0x10,
    TCP_FLAG_CWR = 0x80,
    UDP_HEADER = 8,
    UDP_LENGTH = 4,
    UDP_CHECKSUM = 6,
};

#endif
