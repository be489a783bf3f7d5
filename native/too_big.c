#include "too_big.h"

#include <arpa/inet.h>

#include "checksum.h"
#include "icmp.h"
#include "transport.h"

enum {
    ICMP_UNREACHABLE = 3,
    ICMP_FRAGMENTATION_NEEDED = 4,
    ICMP_QUOTE_MAX = 576 - IPV4_HEADER - ICMP_HEADER, /* RFC 1812 4.3.2.3 */
    ICMPV6_PACKET_TOO_BIG = 2,
    ICMPV6_QUOTE_MAX = IPV6_SMALLEST_MTU - IPV6_HEADER - ICMP_HEADER,
    TTL = 64,
    MORE_FRAGMENTS = 0x2000,
    FRAGMENT_HEADER = 44,
};

enum too_big too_big_verdict(const uint8_t *packet, uint32_t length)
{
    if (packet[0] >> 4 == 6)
        return length <= IPV6_SMALLEST_MTU ? TOO_BIG_SENT_ALL : TOO_BIG_REFUSED;
    unsigned field = get_u16(packet + IPV4_FRAGMENT_FIELD);
    if ((field & IPV4_DF) ||
        (field & IPV4_OFFSET) * 8 + length > UINT16_MAX) /* the second is nobody's honest packet */
        return TOO_BIG_REFUSED;
    return (packet[0] & 15) * 4 == IPV4_HEADER ? TOO_BIG_CUT : TOO_BIG_SENT_ALL;
}

/* 0.0.0.0/8, the loopback, multicast and above. */
static bool one_host_v4(const uint8_t *address) { return address[0] != 0 && address[0] != 127 && address[0] < 224; }

/* Neither multicast, nor unspecified, nor the loopback. */
static bool one_host_v6(const uint8_t *address)
{
    static const uint8_t zeros[15];
    return address[0] != 0xFF && (memcmp(address, zeros, 15) != 0 || address[15] > 1);
}

static uint32_t answer_v4(uint8_t *into, const uint8_t *packet, uint32_t length, uint32_t mtu)
{
    uint32_t header = (packet[0] & 15u) * 4;
    const uint8_t *source = packet + IPV4_ADDRESSES, *destination = source + 4;
    if ((get_u16(packet + IPV4_FRAGMENT_FIELD) & IPV4_OFFSET) != 0 || !one_host_v4(source) ||
        !one_host_v4(destination))
        return 0;
    if (packet[IPV4_PROTOCOL] == PROTOCOL_ICMP && (length == header || icmp_error(packet[header])))
        return 0;
    uint32_t quote = length < ICMP_QUOTE_MAX ? length : ICMP_QUOTE_MAX;
    uint32_t total = IPV4_HEADER + ICMP_HEADER + quote;
    memset(into, 0, IPV4_HEADER + ICMP_HEADER);
    into[0] = 0x45;
    put_u16(into + IPV4_LENGTH, (uint16_t)total);
    into[IPV4_TTL] = TTL;
    into[IPV4_PROTOCOL] = PROTOCOL_ICMP;
    memcpy(into + IPV4_ADDRESSES, destination, 4);
    memcpy(into + IPV4_ADDRESSES + 4, source, 4);
    checksum_set_field(into + IPV4_CHECKSUM, (uint16_t)~checksum_add(0, into, IPV4_HEADER));
    uint8_t *icmp = into + IPV4_HEADER;
    icmp[0] = ICMP_UNREACHABLE;
    icmp[1] = ICMP_FRAGMENTATION_NEEDED;
    put_u16(icmp + 6, (uint16_t)mtu);
    memcpy(icmp + ICMP_HEADER, packet, quote);
    checksum_set_field(icmp + 2, (uint16_t)~checksum_add(0, icmp, ICMP_HEADER + quote));
    return total;
}

static uint32_t answer_v6(uint8_t *into, const uint8_t *packet, uint32_t length, uint32_t mtu)
{
    const uint8_t *source = packet + IPV6_ADDRESSES, *destination = source + 16;
    if (!one_host_v6(source) || !one_host_v6(destination))
        return 0;
    uint8_t next = packet[IPV6_NEXT_HEADER];
    const uint8_t *behind = packet + IPV6_HEADER;
    uint32_t left = length - IPV6_HEADER;
    if (next == FRAGMENT_HEADER && (left < 8 || (get_u16(behind + 2) & 0xFFF8) != 0))
        return 0;
    if (next == PROTOCOL_ICMPV6 && (left == 0 || behind[0] < ICMPV6_FIRST_QUERY))
        return 0;
    uint32_t quote = length < ICMPV6_QUOTE_MAX ? length : ICMPV6_QUOTE_MAX;
    uint32_t size = ICMP_HEADER + quote;
    memset(into, 0, IPV6_HEADER + ICMP_HEADER);
    into[0] = 0x60;
    put_u16(into + IPV6_LENGTH, (uint16_t)size);
    into[IPV6_NEXT_HEADER] = PROTOCOL_ICMPV6;
    into[IPV6_HOP_LIMIT] = TTL;
    memcpy(into + IPV6_ADDRESSES, destination, 16);
    memcpy(into + IPV6_ADDRESSES + 16, source, 16);
    uint8_t *icmp = into + IPV6_HEADER;
    icmp[0] = ICMPV6_PACKET_TOO_BIG;
    put_u32(icmp + 4, mtu);
    memcpy(icmp + ICMP_HEADER, packet, quote);
    uint16_t pseudo = checksum_add(htons(PROTOCOL_ICMPV6), into + IPV6_ADDRESSES, IPV6_ADDRESSES_SIZE);
    pseudo = checksum_fold((uint64_t)pseudo + htons((uint16_t)size));
    checksum_set_field(icmp + 2, (uint16_t)~checksum_add(pseudo, icmp, size));
    return IPV6_HEADER + size;
}

uint32_t too_big_answer(uint8_t *into, const uint8_t *packet, uint32_t length, uint32_t mtu)
{
    return packet[0] >> 4 == 4 ? answer_v4(into, packet, length, mtu) : answer_v6(into, packet, length, mtu);
}

static void finish_fragment(uint8_t *packet, uint32_t length, unsigned field)
{
    put_u16(packet + IPV4_LENGTH, (uint16_t)length);
    put_u16(packet + IPV4_FRAGMENT_FIELD, (uint16_t)field);
    memset(packet + IPV4_CHECKSUM, 0, 2);
    checksum_set_field(packet + IPV4_CHECKSUM, (uint16_t)~checksum_add(0, packet, IPV4_HEADER));
}

uint32_t too_big_cut(uint8_t *packet, uint32_t *length, uint32_t mtu, uint8_t *rest)
{
    uint32_t payload = (mtu - IPV4_HEADER) & ~7u; /* offsets count in eights */
    uint32_t left = *length - IPV4_HEADER - payload;
    unsigned field = get_u16(packet + IPV4_FRAGMENT_FIELD);
    memcpy(rest, packet, IPV4_HEADER);
    memcpy(rest + IPV4_HEADER, packet + IPV4_HEADER + payload, left);
    finish_fragment(rest, IPV4_HEADER + left, field + payload / 8);
    *length = IPV4_HEADER + payload;
    finish_fragment(packet, *length, field | MORE_FRAGMENTS);
    return IPV4_HEADER + left;
}
