/* Packets of clients, authentic but otherwise anything: each a length of two bytes and as many bytes. Checksums are
 * made right where the length's highest bit says so, since a fuzzer does not find right ones. */
#include "check.h"
#include "inner.h"
#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_checksums_right(uint8_t *packet, uint32_t length)
{
    bool v6 = packet[0] >> 4 == 6;
    uint32_t header = v6 ? 40u : (packet[0] & 15u) * 4;
    uint8_t protocol = packet[v6 ? 6 : 9];
    if (!v6) {
        uint32_t sum = 0;
        put_u16(packet + 10, 0);
        for (uint32_t i = 0; i < header; i += 2)
            sum += get_u16(packet + i);
        sum = (sum & 0xFFFF) + (sum >> 16);
        put_u16(packet + 10, (uint16_t) ~((sum & 0xFFFF) + (sum >> 16)));
    }
    uint32_t at = header + (protocol == 17 ? 6 : 16);
    if ((protocol != 17 && protocol != 6) || length < at + 2)
        return;
    put_u16(packet + at, 0);
    put_u16(packet + at, (uint16_t)~model_sum(packet, length, header, protocol));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct packet_list packets;
    while (size >= 2 && packets.count < 64) {
        uint32_t length = get_u16(data) & 0x7FF;
        bool right = data[0] & 0x80;
        data += 2, size -= 2;
        if (length > size)
            length = (uint32_t)size;
        struct inner inner;
        if (inner_parse(&inner, data, length)) {
            list_add(&packets, data, inner.length);
            if (right)
                make_checksums_right(packets.bytes[packets.count - 1], inner.length);
        }
        data += length, size -= length;
    }
    check_round_trip(&packets, TUN_TCP_UDP, 40);
    list_clear(&packets);
    return 0;
}
