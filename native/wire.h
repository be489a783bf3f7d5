/* The data channel on the wire (openvpn-wire.md sections 2 and 11) and the cursor that reads it.
 *
 * Lengths are always compared with what is left: `end - at < n` cannot wrap, `at + n > end` can. */
#ifndef CVPND_WIRE_H
#define CVPND_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum opcode {
    P_CONTROL_SOFT_RESET_V1 = 3,
    P_CONTROL_V1 = 4,
    P_ACK_V1 = 5,
    P_DATA_V1 = 6,
    P_CONTROL_HARD_RESET_CLIENT_V2 = 7,
    P_CONTROL_HARD_RESET_SERVER_V2 = 8,
    P_DATA_V2 = 9,
    P_CONTROL_HARD_RESET_CLIENT_V3 = 10,
    P_CONTROL_WKC_V1 = 11,
};

enum {
    DATA_HEADER = 4,    /* opcode, key id, peer id */
    DATA_V1_HEADER = 1, /* opcode, key id */
    PACKET_ID_SIZE = 4,
    EPOCH_ID_SIZE = 8,                      /* epoch and counter: one number that only rises */
    DATA_AD = DATA_HEADER + PACKET_ID_SIZE, /* what the tag covers besides the ciphertext */
    EPOCH_AD = DATA_HEADER + EPOCH_ID_SIZE,
    TAG_SIZE = 16,
    DATA_OVERHEAD = DATA_AD + TAG_SIZE, /* P_DATA_V2 with an AEAD cipher (section 12) */
    DATA_V1_OVERHEAD = DATA_V1_HEADER + PACKET_ID_SIZE + TAG_SIZE,
    EPOCH_OVERHEAD = EPOCH_AD + TAG_SIZE, /* the tag behind the ciphertext */
    CBC_BLOCK = 16,                       /* and IV */
    HMAC_MAX = 64,
    CBC_HEAD_MAX = DATA_HEADER + HMAC_MAX + CBC_BLOCK + PACKET_ID_SIZE,
    CBC_OVERHEAD_MAX = CBC_HEAD_MAX + CBC_BLOCK, /* with padding */
    IMPLICIT_IV_SIZE = 8,
    NONCE_SIZE = 12,  /* packet id, implicit IV */
    FRAME_PREFIX = 2, /* TCP: length of what follows */
    KEY_IDS = 8,
    NO_PEER_ID = 0xFFFFFF,
    MAX_PEER_ID = NO_PEER_ID - 1,
    PACKET_MAX = 2048,        /* longest inner packet; tun-mtu is 1500 as a rule */
    FRAMING_MAX = 2,          /* bytes of compression framing in front of it (section 11.8) */
    SEAL_HEADROOM = 96,       /* enough before an inner packet for any format, framing included … */
    SEAL_TAILROOM = TAG_SIZE, /* … and behind it */
    LINK_PACKET_MAX = PACKET_MAX + FRAMING_MAX + CBC_OVERHEAD_MAX,
    KEEPALIVE_SIZE = 16,
    OCC_MAGIC_SIZE = 16,
    OCC_MTU_LOAD_REQUEST = 2, /* "send me a load of u16 bytes" */
    OCC_MTU_LOAD = 3,
    OCC_EXIT = 6,
    OCC_MTU_LOAD_REQUEST_SIZE = OCC_MAGIC_SIZE + 3,
};

_Static_assert(SEAL_HEADROOM >= FRAMING_MAX + CBC_HEAD_MAX && SEAL_TAILROOM >= CBC_BLOCK, "CBC takes most");

/* Section 11.7: what travels inside the data channel and is no IP packet. */
extern const uint8_t KEEPALIVE[KEEPALIVE_SIZE];
extern const uint8_t OCC_MAGIC[OCC_MAGIC_SIZE];

static inline unsigned wire_opcode(uint8_t first) { return first >> 3; }
static inline unsigned wire_key_id(uint8_t first) { return first & 7; }

/* The control opcodes a client may send: these go up to the listener, others are dropped. */
static inline bool wire_is_client_control(unsigned opcode)
{
    switch (opcode) {
    case P_CONTROL_SOFT_RESET_V1:
    case P_CONTROL_V1:
    case P_ACK_V1:
    case P_CONTROL_HARD_RESET_CLIENT_V2:
    case P_CONTROL_HARD_RESET_CLIENT_V3:
    case P_CONTROL_WKC_V1: return true;
    default: return false;
    }
}

static inline uint16_t get_u16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static inline uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}
static inline uint64_t get_u64(const uint8_t *at) { return (uint64_t)get_u32(at) << 32 | get_u32(at + 4); }
static inline void put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
static inline void put_u32(uint8_t *at, uint32_t value)
{
    put_u16(at, (uint16_t)(value >> 16));
    put_u16(at + 2, (uint16_t)value);
}
static inline void put_u64(uint8_t *at, uint64_t value)
{
    put_u32(at, (uint32_t)(value >> 32));
    put_u32(at + 4, (uint32_t)value);
}

/* What is left of a packet. A failed take leaves the cursor where it was. */
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct cursor cursor_over(const uint8_t *bytes, size_t length)
{
    return (struct cursor){bytes, bytes + length};
}
static inline size_t cursor_left(const struct cursor *cursor) { return (size_t)(cursor->end - cursor->at); }

static inline bool take_bytes(struct cursor *cursor, size_t length, const uint8_t **bytes)
{
    if (cursor_left(cursor) < length)
        return false;
    *bytes = cursor->at;
    cursor->at += length;
    return true;
}
static inline bool take_u8(struct cursor *cursor, uint8_t *value)
{
    const uint8_t *bytes;
    if (!take_bytes(cursor, 1, &bytes))
        return false;
    *value = bytes[0];
    return true;
}
static inline bool take_u16(struct cursor *cursor, uint16_t *value)
{
    const uint8_t *bytes;
    if (!take_bytes(cursor, 2, &bytes))
        return false;
    *value = get_u16(bytes);
    return true;
}
static inline bool take_u32(struct cursor *cursor, uint32_t *value)
{
    const uint8_t *bytes;
    if (!take_bytes(cursor, 4, &bytes))
        return false;
    *value = get_u32(bytes);
    return true;
}

#endif
