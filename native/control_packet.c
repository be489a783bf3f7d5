#include "control_packet.h"

const char *const CONTROL_DROP_WORDS[CONTROL_DROP_COUNT] = {
#define X(name, word) word,
    CONTROL_DROPS(X)
#undef X
};

enum control_drop control_parse_header(struct control_header *header, const uint8_t *packet, size_t length)
{
    static const uint8_t none[SESSION_ID_SIZE];
    struct cursor cursor = cursor_over(packet, length);
    const uint8_t *bytes;
    if (!take_bytes(&cursor, CONTROL_HEADER, &bytes))
        return CONTROL_TRUNCATED;
    header->opcode = (uint8_t)wire_opcode(bytes[0]);
    header->key_id = (uint8_t)wire_key_id(bytes[0]);
    header->session_id = bytes + 1;
    bool from_server = header->opcode == P_CONTROL_HARD_RESET_SERVER_V2;
    if (!from_server && !wire_is_client_control(header->opcode))
        return CONTROL_BAD_OPCODE;
    if (memcmp(header->session_id, none, SESSION_ID_SIZE) == 0)
        return CONTROL_BAD_SESSION_ID;
    if ((from_server || control_is_client_reset(header->opcode)) && header->key_id != 0)
        return CONTROL_BAD_KEY_ID;
    return CONTROL_GOOD;
}

enum control_drop control_parse_body(struct control_body *body, uint8_t opcode, struct cursor rest)
{
    uint8_t count;
    *body = (struct control_body){0};
    if (!take_u8(&rest, &count))
        return CONTROL_TRUNCATED;
    if (count > ACKS_MAX)
        return CONTROL_TOO_MANY_ACKS;
    body->ack_count = count;
    for (unsigned i = 0; i < count; i++) {
        if (!take_u32(&rest, &body->acks[i]))
            return CONTROL_TRUNCATED;
        if (body->acks[i] > body->highest_ack)
            body->highest_ack = body->acks[i];
    }
    if (count > 0 && !take_bytes(&rest, SESSION_ID_SIZE, &body->remote_session_id))
        return CONTROL_TRUNCATED;
    if (opcode == P_ACK_V1)
        return CONTROL_GOOD; /* whatever follows is ignored */
    if (!take_u32(&rest, &body->packet_id))
        return CONTROL_TRUNCATED;
    body->payload = rest;
    return cursor_left(&rest) > CONTROL_PAYLOAD_MAX ? CONTROL_TOO_LONG : CONTROL_GOOD;
}

enum control_drop control_split_client_key(const uint8_t *packet, size_t length, size_t *inner_length)
{
    if (length < CONTROL_HEADER + CLIENT_KEY_SHORTEST)
        return CONTROL_TRUNCATED;
    size_t wrapped = get_u16(packet + length - 2);
    if (wrapped < CLIENT_KEY_SHORTEST || wrapped > CLIENT_KEY_LONGEST || wrapped > length - CONTROL_HEADER)
        return CONTROL_BAD_CLIENT_KEY;
    *inner_length = length - wrapped;
    return CONTROL_GOOD;
}
