#include "mss.h"

#include <stdbool.h>

#include "checksum.h"
#include "transport.h"
#include "wire.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_MSS_LENGTH = 4 };

/* The option may start at an odd offset; the checksum then sees its bytes in the other order. */
static uint16_t as_summed(uint16_t value, bool odd) { return odd ? (uint16_t)(value << 8 | value >> 8) : value; }

static void clamp_segment(uint8_t *tcp, size_t length, uint16_t bound)
{
    if (length < TCP_HEADER || !(tcp[TCP_FLAGS] & TCP_FLAG_SYN))
        return;
    size_t header = (size_t)(tcp[TCP_DATA_OFFSET] >> 4) * 4;
    if (header < TCP_HEADER || header > length)
        return;
    size_t at = TCP_HEADER;
    while (at < header) {
        uint8_t kind = tcp[at];
        if (kind == OPTION_END)
            return;
        if (kind == OPTION_NOP) {
            at++;
            continue;
        }
        if (header - at < 2)
            return;
        size_t size = tcp[at + 1];
        if (size < 2 || size > header - at)
            return;
        if (kind == OPTION_MSS && size == OPTION_MSS_LENGTH) {
            uint16_t mss = get_u16(tcp + at + 2);
            if (mss > bound) {
                bool odd = at % 2 != 0;
                uint16_t sum = get_u16(tcp + TCP_CHECKSUM);
                put_u16(tcp + TCP_CHECKSUM, checksum_replace(sum, as_summed(mss, odd), as_summed(bound, odd)));
                put_u16(tcp + at + 2, bound);
            }
            return;
        }
        at += size;
    }
}

void mss_clamp(uint8_t *packet, size_t length, uint16_t bound_v4, uint16_t bound_v6)
{
    if (packet[0] >> 4 == 4) {
        size_t header = (size_t)(packet[0] & 15) * 4;
        if (bound_v4 == 0 || packet[9] != PROTOCOL_TCP || (get_u16(packet + 6) & IPV4_FRAGMENT) != 0)
            return;
        clamp_segment(packet + header, length - header, bound_v4);
    } else {
        /* Extension headers in front of a SYN do not occur in practice; such a segment is left alone. */
        if (bound_v6 == 0 || packet[6] != PROTOCOL_TCP)
            return;
        clamp_segment(packet + 40, length - 40, bound_v6);
    }
}
