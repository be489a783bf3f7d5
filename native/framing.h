/* Compression framing (openvpn-wire.md 11.8): what clients put before or around a payload that they may compress.
 * Nothing is ever compressed here, and what arrives compressed is not decompressed (VORACLE). */
#ifndef CVPND_FRAMING_H
#define CVPND_FRAMING_H

#include <stdbool.h>
#include <stdint.h>

#include "counters.h"

enum framing {
    FRAMING_NONE,
    FRAMING_STUB_V2,  /* a payload that starts with 0x50, which no IP packet does, is an algorithm's */
    FRAMING_COMP_LZO, /* a byte in front of each payload */
    FRAMINGS,
};

enum {
    STUB_V2_MARK = 0x50,
    STUB_V2_UNCOMPRESSED = 0x00,
    STUB_V2_UNCOMPRESSED_2X = 0x0A, /* what OpenVPN 2.x writes */
    UNCOMPRESSED = 0xFA,
    UNCOMPRESSED_SWAPPED = 0xFB, /* the payload's first byte is at its end instead */
    COMPRESSED_LZO = 0x66,
    COMPRESSED_LZ4 = 0x69,
};

/* Takes the framing off an authentic payload of at least one byte, which may leave none. */
static inline enum drop_reason framing_strip(enum framing framing, uint8_t **bytes, uint32_t *length)
{
    if (framing == FRAMING_NONE)
        return PACKET_PASSES;
    uint8_t first = (*bytes)[0];
    if (framing == FRAMING_STUB_V2) {
        if (first != STUB_V2_MARK)
            return PACKET_PASSES;
        if (*length < 2)
            return DROP_NOT_IP;
        uint8_t algorithm = (*bytes)[1];
        if (algorithm != STUB_V2_UNCOMPRESSED && algorithm != STUB_V2_UNCOMPRESSED_2X)
            return DROP_COMPRESSED;
        *bytes += 2;
        *length -= 2;
        return PACKET_PASSES;
    }
    switch (first) {
    case UNCOMPRESSED: ++*bytes; break;
    case UNCOMPRESSED_SWAPPED: (*bytes)[0] = (*bytes)[*length - 1]; break;
    case COMPRESSED_LZO:
    case COMPRESSED_LZ4: return DROP_COMPRESSED;
    default: return DROP_NOT_IP;
    }
    --*length;
    return PACKET_PASSES;
}

/* Puts it on; one byte of headroom may be used. IP packets and our own notices need nothing under FRAMING_STUB_V2. */
static inline void framing_add(enum framing framing, uint8_t **bytes, uint32_t *length)
{
    if (framing != FRAMING_COMP_LZO)
        return;
    *--*bytes = UNCOMPRESSED;
    ++*length;
}

#endif
