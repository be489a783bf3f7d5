#include "control_channel.h"

#include <openssl/crypto.h>
#include <stdlib.h>

void control_channel_init(struct control_channel *channel, const uint8_t local_id[static SESSION_ID_SIZE],
                          const uint8_t remote_id[static SESSION_ID_SIZE], struct control_keys *keys, bool brings_key,
                          uint32_t first_id, uint32_t wall_s)
{
    *channel = (struct control_channel){0};
    memcpy(channel->local_id, local_id, SESSION_ID_SIZE);
    memcpy(channel->remote_id, remote_id, SESSION_ID_SIZE);
    channel->first = (struct channel_wrap){.keys = keys, .brings_key = brings_key, .id = first_id, .time = wall_s};
}

void control_channel_destroy(struct control_channel *channel)
{
    while (channel->layer_count > 0)
        control_channel_close_key(channel, channel->order[0]);
    free(channel->first.seen);
    channel->first.seen = NULL;
    if (channel->later == NULL)
        return;
    free(channel->later->seen);
    OPENSSL_cleanse(channel->later->key2, KEY2_SIZE);
    free(channel->later->key2);
    free(channel->later);
    channel->later = NULL;
}

/* -- key ids ------------------------------------------------------------------------------------------------------ */

bool control_channel_open_key(struct control_channel *channel, unsigned key_id, size_t payload_limit,
                              uint32_t first_id, double first_timeout_s)
{
    struct reliable *layer = channel->layers[key_id] == NULL ? malloc(sizeof *layer) : NULL;
    if (layer == NULL)
        return false;
    reliable_init(layer, payload_limit, first_id, first_timeout_s);
    channel->layers[key_id] = layer;
    memmove(channel->order + 1, channel->order, channel->layer_count++);
    channel->order[0] = (uint8_t)key_id;
    return true;
}

void control_channel_close_key(struct control_channel *channel, unsigned key_id)
{
    struct reliable *layer = channel->layers[key_id];
    if (layer == NULL)
        return;
    channel->layers[key_id] = NULL;
    unsigned at = 0;
    while (channel->order[at] != key_id)
        at++;
    channel->layer_count--;
    memmove(channel->order + at, channel->order + at + 1, channel->layer_count - at);
    reliable_destroy(layer);
    free(layer);
}

bool control_channel_go_dynamic(struct control_channel *channel, const uint8_t key2[static KEY2_SIZE],
                                uint32_t wall_s)
{
    struct channel_wrap *wrap = malloc(sizeof *wrap);
    uint8_t *own = malloc(KEY2_SIZE);
    if (wrap == NULL || own == NULL) {
        free(wrap);
        free(own);
        return false;
    }
    memcpy(own, key2, KEY2_SIZE);
    *wrap = (struct channel_wrap){.key2 = own, .id = 1, .time = wall_s};
    channel->later = wrap;
    return true;
}

struct channel_wrap *control_channel_wrap(struct control_channel *channel, unsigned key_id)
{
    bool later = channel->later != NULL && (key_id != 0 || channel->zero_uses_later);
    return later ? channel->later : &channel->first;
}

/* `made`: the caller's, to be destroyed in any case. NULL: memory is short. */
static struct control_keys *keys_of(const struct channel_wrap *wrap, struct control_keys *made)
{
    *made = (struct control_keys){0};
    if (wrap->key2 == NULL)
        return wrap->keys;
    return control_keys_init(made, WRAP_TLS_CRYPT, NULL) && control_keys_set(made, wrap->key2, -1) ? made : NULL;
}

size_t control_channel_overhead(struct control_channel *channel, unsigned key_id)
{
    static const struct control_keys later = {.kind = WRAP_TLS_CRYPT};
    const struct channel_wrap *wrap = control_channel_wrap(channel, key_id);
    return control_keys_overhead(wrap->key2 == NULL ? wrap->keys : &later);
}

/* -- receiving ---------------------------------------------------------------------------------------------------- */

/* Of an authentic packet. What cannot be remembered is not taken. */
static bool is_new(struct channel_wrap *wrap, const uint8_t *replay_id, double now)
{
    if (wrap->seen == NULL)
        wrap->seen = calloc(1, sizeof *wrap->seen);
    return wrap->seen != NULL && control_replay_accept(wrap->seen, get_u32(replay_id), get_u32(replay_id + 4), now);
}

/* Only a packet that is authentic moves the window. */
static enum control_drop unwrap(struct channel_wrap *wrap, const uint8_t *packet, size_t length, double now,
                                uint8_t *scratch, struct control_header *header, struct control_body *body)
{
    enum control_drop drop = control_parse_header(header, packet, length);
    if (drop != CONTROL_GOOD)
        return drop;
    if (control_brings_key(header->opcode)) {
        if (!wrap->brings_key)
            return CONTROL_BAD_OPCODE;
        drop = control_split_client_key(packet, length, &length); /* a session's key never changes: not looked at */
        if (drop != CONTROL_GOOD)
            return drop;
    }
    struct cursor rest;
    const uint8_t *replay_id;
    struct control_keys made, *keys = keys_of(wrap, &made);
    drop = keys == NULL ? CONTROL_NOT_AUTHENTIC : control_keys_open(keys, packet, length, scratch, &rest, &replay_id);
    control_keys_destroy(&made);
    if (drop != CONTROL_GOOD)
        return drop;
    drop = control_parse_body(body, header->opcode, rest);
    if (drop != CONTROL_GOOD)
        return drop;
    if (replay_id != NULL && !is_new(wrap, replay_id, now))
        return CONTROL_REPLAYED;
    return CONTROL_GOOD;
}

static enum channel_result dropped(struct channel_received *received, enum control_drop drop)
{
    received->drop = drop;
    return CHANNEL_DROPPED;
}

/* Either wrapping will do for the first key once there are two: OpenVPN 3 goes over to the later one for all keys. */
static enum control_drop unwrap_either(struct control_channel *channel, const uint8_t *packet, size_t length,
                                       double now, uint8_t *scratch, struct control_header *header,
                                       struct control_body *body)
{
    struct channel_wrap *wrap = control_channel_wrap(channel, wire_key_id(packet[0]));
    if (channel->later != NULL && wrap != channel->later) {
        enum control_drop drop = unwrap(channel->later, packet, length, now, scratch, header, body);
        channel->zero_uses_later = drop == CONTROL_GOOD;
        if (drop == CONTROL_GOOD || drop == CONTROL_REPLAYED)
            return drop;
    }
    return unwrap(wrap, packet, length, now, scratch, header, body);
}

static enum channel_result receive_in(struct control_channel *channel, struct reliable *layer, uint8_t opcode,
                                      const struct control_body *body, struct channel_received *received)
{
    if (body->ack_count > 0 && memcmp(body->remote_session_id, channel->local_id, SESSION_ID_SIZE) != 0)
        return dropped(received, CONTROL_FOREIGN_ACK);
    bool failed;
    enum control_drop drop = reliable_receive(layer, opcode, body, &received->in_order, &failed);
    if (failed)
        return CHANNEL_FAILED;
    if (drop != CONTROL_GOOD)
        return dropped(received, drop);
    received->layer = layer;
    return CHANNEL_TAKEN;
}

enum channel_result control_channel_receive(struct control_channel *channel, const uint8_t *packet, size_t length,
                                            double now, uint8_t scratch[static CONTROL_DATAGRAM_MAX],
                                            struct channel_received *received)
{
    struct control_header header;
    struct control_body body;
    *received = (struct channel_received){0};
    channel->reset.waits = false;
    /* The session id is in clear, and looked at first: no other client's packet, authentic under a key that they share,
     * may move this session's replay window. */
    if (length < CONTROL_HEADER || memcmp(packet + 1, channel->remote_id, SESSION_ID_SIZE) != 0) {
        enum control_drop drop = control_parse_header(&header, packet, length);
        return dropped(received, drop == CONTROL_GOOD ? CONTROL_UNROUTABLE : drop);
    }
    enum control_drop drop = unwrap_either(channel, packet, length, now, scratch, &header, &body);
    if (drop != CONTROL_GOOD)
        return dropped(received, drop);
    if (header.opcode == P_CONTROL_HARD_RESET_SERVER_V2)
        return dropped(received, CONTROL_BAD_OPCODE);
    if (header.opcode == P_CONTROL_SOFT_RESET_V1 || control_is_client_reset(header.opcode)) {
        if (body.packet_id != 0)
            return dropped(received, CONTROL_LATE_PACKET);
        channel->reset.waits = true;
        channel->reset.opcode = header.opcode;
        channel->reset.key_id = header.key_id;
        channel->reset.body = body;
        if (body.ack_count > 0)
            memcpy(channel->reset.remote_id, body.remote_session_id, SESSION_ID_SIZE);
        channel->reset.body.remote_session_id = channel->reset.remote_id;
        channel->reset.body.payload = (struct cursor){0}; /* nobody reads a reset's */
        return CHANNEL_RESET;
    }
    struct reliable *layer = channel->layers[header.key_id];
    if (layer == NULL)
        return dropped(received, CONTROL_UNKNOWN_KEY_ID);
    return receive_in(channel, layer, header.opcode, &body, received);
}

enum channel_result control_channel_take_reset(struct control_channel *channel, struct channel_received *received)
{
    *received = (struct channel_received){0};
    struct reliable *layer = channel->reset.waits ? channel->layers[channel->reset.key_id] : NULL;
    channel->reset.waits = false;
    if (layer == NULL)
        return dropped(received, CONTROL_UNKNOWN_KEY_ID);
    return receive_in(channel, layer, channel->reset.opcode, &channel->reset.body, received);
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

static size_t put_body(const struct control_channel *channel, const struct reliable_packet *packet, uint8_t *body)
{
    uint8_t *at = body;
    *at++ = (uint8_t)packet->ack_count;
    for (unsigned i = 0; i < packet->ack_count; i++, at += 4)
        put_u32(at, packet->acks[i]);
    if (packet->ack_count > 0) {
        memcpy(at, channel->remote_id, SESSION_ID_SIZE);
        at += SESSION_ID_SIZE;
    }
    if (packet->has_id) {
        put_u32(at, packet->packet_id);
        at += 4;
        size_t length = cursor_left(&packet->payload);
        if (length > 0)
            memcpy(at, packet->payload.at, length);
        at += length;
    }
    return (size_t)(at - body);
}

/* A pair of id and time is never used twice. */
static void put_replay_id(struct channel_wrap *wrap, uint8_t replay_id[static REPLAY_ID_SIZE])
{
    if (wrap->id == 0) {
        wrap->id = 1;
        wrap->time++;
    }
    put_u32(replay_id, wrap->id++);
    put_u32(replay_id + 4, wrap->time);
}

size_t control_channel_wrap_packet(struct control_channel *channel, unsigned key_id,
                                   const struct reliable_packet *packet, uint8_t wire[static CHANNEL_PACKET_MAX])
{
    uint8_t header[CONTROL_HEADER], replay_id[REPLAY_ID_SIZE], body[CHANNEL_BODY_MAX];
    struct channel_wrap *wrap = control_channel_wrap(channel, key_id);
    header[0] = (uint8_t)(packet->opcode << 3 | key_id);
    memcpy(header + 1, channel->local_id, SESSION_ID_SIZE);
    put_replay_id(wrap, replay_id);
    size_t body_length = put_body(channel, packet, body);
    struct control_keys made, *keys = keys_of(wrap, &made);
    size_t length = keys == NULL ? 0 : control_keys_seal(keys, header, replay_id, body, body_length, wire);
    control_keys_destroy(&made);
    return length;
}
