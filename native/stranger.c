#include "stranger.h"

enum { LAST_FIRST_ID = 1 }; /* higher ids belong to a session that is gone */

static int64_t slot_at(const struct stranger_rules *rules, const struct moment *now)
{
    return (int64_t)(now->monotonic_s / rules->slot_s);
}

static enum wish judge_reset(const struct stranger_rules *rules, const struct opened *opened, enum control_drop *drop)
{
    if (opened->body.packet_id != 0 || opened->body.ack_count > 0) {
        *drop = CONTROL_LATE_PACKET;
        return WISH_NOTHING;
    }
    if (opened->header.opcode != P_CONTROL_HARD_RESET_CLIENT_V3 || opened->early_negotiation)
        return WISH_ANSWER;
    *drop = CONTROL_STATE_NEEDED;
    return protection_allows_stateful(rules->protection) ? WISH_BEGIN_UNPROVEN : WISH_NOTHING;
}

static enum control_drop judge_echo(const struct stranger_rules *rules, const struct moment *now,
                                    const struct socket_address *source, const struct opened *opened)
{
    const struct control_body *body = &opened->body;
    if (opened->header.key_id != 0)
        return CONTROL_BAD_KEY_ID;
    if (body->ack_count == 0)
        return CONTROL_NO_ACK;
    if (body->highest_ack > LAST_FIRST_ID || body->packet_id > LAST_FIRST_ID)
        return CONTROL_LATE_PACKET;
    if (!reset_cookie_verify(rules->cookie, source, opened->header.session_id, slot_at(rules, now),
                             body->remote_session_id))
        return CONTROL_BAD_COOKIE;
    return CONTROL_GOOD;
}

enum wish stranger_judge(const struct stranger_rules *rules, const struct moment *now, const uint8_t *packet,
                         size_t length, const struct socket_address *source, struct opened *opened,
                         enum control_drop *drop)
{
    *drop = control_parse_header(&opened->header, packet, length);
    if (*drop != CONTROL_GOOD)
        return WISH_NOTHING;
    switch (opened->header.opcode) {
    case P_CONTROL_HARD_RESET_CLIENT_V2:
    case P_CONTROL_HARD_RESET_CLIENT_V3:
        *drop = protection_open(rules->protection, packet, length, opened);
        return *drop == CONTROL_GOOD ? judge_reset(rules, opened, drop) : WISH_NOTHING;
    case P_CONTROL_V1:
    case P_CONTROL_WKC_V1:
    case P_ACK_V1:
        *drop = protection_open(rules->protection, packet, length, opened);
        if (*drop == CONTROL_GOOD)
            *drop = judge_echo(rules, now, source, opened);
        return *drop == CONTROL_GOOD ? WISH_BEGIN : WISH_NOTHING;
    default: *drop = CONTROL_BAD_OPCODE; return WISH_NOTHING;
    }
}

size_t stranger_answer(const struct stranger_rules *rules, const struct moment *now, size_t request_length,
                       const struct socket_address *source, const struct opened *opened,
                       uint8_t reply[static REPLY_MAX])
{
    /* Type 1 (flags), 2 bytes, bit 0: bring your key again with your next packet (section 5.3). */
    static const uint8_t resend_key[] = {0, 1, 0, 2, 0, 1};
    uint8_t header[CONTROL_HEADER] = {P_CONTROL_HARD_RESET_SERVER_V2 << 3};
    uint8_t body[1 + 4 + SESSION_ID_SIZE + 4 + sizeof resend_key] = {1}; /* acknowledges packet 0 and is number 0 */
    if (!reset_cookie_make(rules->cookie, source, opened->header.session_id, slot_at(rules, now), header + 1))
        return 0;
    memcpy(body + 5, opened->header.session_id, SESSION_ID_SIZE);
    size_t body_length = sizeof body - sizeof resend_key;
    if (opened->early_negotiation) {
        memcpy(body + body_length, resend_key, sizeof resend_key);
        body_length = sizeof body;
    }
    size_t length = protection_seal(rules->protection, opened, header, body, body_length, now->wall_s, reply);
    return length <= request_length + REPLY_GROWTH ? length : 0;
}
