#include "data_packet.h"

static uint64_t blocks_of(size_t length) { return (length + 15) / 16; }

static void make_nonce(uint8_t nonce[static NONCE_SIZE], const uint8_t *packet_id,
                       const uint8_t implicit_iv[static IMPLICIT_IV_SIZE])
{
    memcpy(nonce, packet_id, PACKET_ID_SIZE);
    memcpy(nonce + PACKET_ID_SIZE, implicit_iv, IMPLICIT_IV_SIZE);
}

static uint32_t header_size(bool v1) { return v1 ? DATA_V1_HEADER : DATA_HEADER; }

/* Of an authentic packet; false when it was seen before. */
static bool accept_id(struct key_slot *slot, uint32_t packet_id)
{
    slot->last_opened = packet_id;
    return replay_accept(&slot->replay, packet_id);
}

static enum drop_reason open_epoch(struct key_slot *slot, const struct key_limits *limits, struct packet *packet)
{
    if (wire_opcode(packet->bytes[0]) != P_DATA_V2)
        return DROP_BAD_OPCODE; /* the format has no other form */
    if (packet->length <= EPOCH_OVERHEAD)
        return DROP_TRUNCATED;
    enum drop_reason reason = epoch_open(slot->epoch, &limits->epoch, packet->bytes, packet->length);
    if (reason != PACKET_PASSES)
        return reason;
    packet->bytes += EPOCH_AD;
    packet->length -= EPOCH_OVERHEAD;
    return PACKET_PASSES;
}

static enum drop_reason open_cbc(struct key_slot *slot, struct packet *packet)
{
    uint32_t header = header_size(wire_opcode(packet->bytes[0]) == P_DATA_V1);
    if (packet->length <= header)
        return DROP_TRUNCATED;
    uint8_t *text = packet->bytes + header;
    uint32_t length = packet->length - header;
    enum drop_reason reason = cbc_open(slot->cbc, &text, &length);
    if (reason != PACKET_PASSES)
        return reason;
    if (length <= PACKET_ID_SIZE)
        return DROP_NOT_IP;
    if (!accept_id(slot, get_u32(text)))
        return DROP_REPLAYED;
    packet->bytes = text + PACKET_ID_SIZE;
    packet->length = length - PACKET_ID_SIZE;
    return PACKET_PASSES;
}

enum drop_reason data_packet_open(struct key_slot *slot, const struct key_limits *limits, struct packet *packet)
{
    if (slot->epoch != NULL)
        return open_epoch(slot, limits, packet);
    if (slot->cbc != NULL)
        return open_cbc(slot, packet);
    bool v1 = wire_opcode(packet->bytes[0]) == P_DATA_V1;
    uint32_t overhead = header_size(v1) + PACKET_ID_SIZE + TAG_SIZE;
    if (packet->length <= overhead)
        return DROP_TRUNCATED;
    const uint8_t *id = packet->bytes + header_size(v1), *tag = id + PACKET_ID_SIZE;
    const uint8_t *ad = v1 ? id : packet->bytes;
    uint8_t nonce[NONCE_SIZE], *text = packet->bytes + overhead;
    make_nonce(nonce, id, slot->open_iv);
    if (!slot->backend->open(slot->open, nonce, ad, (size_t)(tag - ad), text, packet->length - overhead, tag))
        return DROP_AUTH_FAILED;
    slot->blocks_opened += blocks_of(packet->length);
    if (!accept_id(slot, get_u32(id)))
        return DROP_REPLAYED;
    packet->bytes = text;
    packet->length -= overhead;
    return PACKET_PASSES;
}

bool data_packet_open_limit_near(const struct key_slot *slot, const struct key_limits *limits)
{
    return slot->epoch == NULL && slot->last_opened >= limits->packet_ids_rekey;
}

static enum drop_reason seal_epoch(struct key_slot *slot, unsigned worker, const struct key_limits *limits,
                                   const struct peer *peer, struct packet *packet)
{
    uint8_t *header = packet->bytes - EPOCH_AD;
    put_u32(header, (uint32_t)P_DATA_V2 << 27 | (uint32_t)slot->key_id << 24 | peer->remote_id);
    enum drop_reason reason = epoch_seal(slot->epoch, worker, &limits->epoch, header, packet->length);
    if (epoch_sending(slot->epoch) >= limits->epoch.rekey)
        atomic_store_explicit(&slot->rekey_due, true, memory_order_relaxed);
    if (reason != PACKET_PASSES)
        return reason;
    packet->bytes = header;
    packet->length += EPOCH_OVERHEAD;
    return PACKET_PASSES;
}

/* The next packet id, or 0 when there is none left. */
static uint32_t take_packet_id(struct key_slot *slot, const struct key_limits *limits)
{
    uint64_t id = atomic_fetch_add_explicit(&slot->last_packet_id, 1, memory_order_relaxed) + 1;
    if (id >= limits->packet_ids_rekey)
        atomic_store_explicit(&slot->rekey_due, true, memory_order_relaxed);
    return id < limits->packet_ids ? (uint32_t)id : 0;
}

/* Writes the header that ends before `at`; where it begins. */
static uint8_t *put_header(const struct key_slot *slot, const struct peer *peer, uint8_t *at)
{
    at -= header_size(peer->data_v1);
    if (peer->data_v1)
        at[0] = (uint8_t)(P_DATA_V1 << 3 | slot->key_id);
    else
        put_u32(at, (uint32_t)P_DATA_V2 << 27 | (uint32_t)slot->key_id << 24 | peer->remote_id);
    return at;
}

static enum drop_reason seal_cbc(struct key_slot *slot, unsigned worker, const struct key_limits *limits,
                                 const struct peer *peer, struct packet *packet)
{
    uint32_t packet_id = take_packet_id(slot, limits);
    if (packet_id == 0)
        return DROP_KEY_EXHAUSTED;
    uint8_t *sealed = packet->bytes - PACKET_ID_SIZE;
    uint32_t length = packet->length + PACKET_ID_SIZE;
    put_u32(sealed, packet_id);
    if (!cbc_seal(slot->cbc, worker, &sealed, &length))
        return DROP_NOT_READY;
    packet->bytes = put_header(slot, peer, sealed);
    packet->length = length + header_size(peer->data_v1);
    return PACKET_PASSES;
}

enum drop_reason data_packet_seal(struct key_slot *slot, unsigned worker, const struct key_limits *limits,
                                  const struct peer *peer, struct packet *packet)
{
    if (slot->epoch != NULL)
        return seal_epoch(slot, worker, limits, peer, packet);
    if (slot->cbc != NULL)
        return seal_cbc(slot, worker, limits, peer, packet);
    struct seal_state *seal = &slot->seal[worker];
    if (seal->context == NULL)
        seal->context = slot->backend->context_new(slot->cipher, AEAD_SEAL, slot->seal_key);
    if (seal->context == NULL)
        return DROP_NOT_READY;

    uint32_t packet_id = take_packet_id(slot, limits);
    if (packet_id == 0)
        return DROP_KEY_EXHAUSTED;
    uint8_t *tag = packet->bytes - TAG_SIZE, *id = tag - PACKET_ID_SIZE, *header = put_header(slot, peer, id);
    put_u32(id, packet_id);
    const uint8_t *ad = peer->data_v1 ? id : header;
    uint8_t nonce[NONCE_SIZE];
    make_nonce(nonce, id, slot->seal_iv);
    if (!slot->backend->seal(seal->context, nonce, ad, (size_t)(tag - ad), packet->bytes, packet->length, tag))
        return DROP_NOT_READY;
    packet->length += (uint32_t)(packet->bytes - header);
    packet->bytes = header;
    counter_add(&seal->blocks, blocks_of(packet->length));
    return PACKET_PASSES;
}
