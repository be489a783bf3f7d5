/* The control channel: what each compare keeps out, and the edges of its windows. tests/wire/test_channel.py holds all of it to
 * the plain Python. */
#include <math.h>

#include "check.h"
#include "control_channel.h"

static const uint8_t SERVER[SESSION_ID_SIZE] = "server-1", CLIENT[SESSION_ID_SIZE] = "client-1";
static const uint8_t OTHER[SESSION_ID_SIZE] = "somebody";
static uint8_t key2[KEY2_SIZE], turned[KEY2_SIZE];
static struct control_keys plain, auth, auth_client, crypt, crypt_client;

/* A client's packet: header, acknowledgements, id, payload. */
struct said {
    unsigned opcode, key_id, ack_count;
    uint32_t acks[ACKS_MAX], packet_id;
    const uint8_t *from, *acknowledged;
    const char *payload;
};

static size_t body_of(const struct said *said, uint8_t *body)
{
    uint8_t *at = body;
    *at++ = (uint8_t)said->ack_count;
    for (unsigned i = 0; i < said->ack_count; i++, at += 4)
        put_u32(at, said->acks[i]);
    if (said->ack_count > 0) {
        memcpy(at, said->acknowledged == NULL ? SERVER : said->acknowledged, SESSION_ID_SIZE);
        at += SESSION_ID_SIZE;
    }
    if (said->opcode != P_ACK_V1) {
        put_u32(at, said->packet_id);
        at += 4;
        size_t length = said->payload == NULL ? 0 : strlen(said->payload);
        memcpy(at, said->payload == NULL ? "" : said->payload, length);
        at += length;
    }
    return (size_t)(at - body);
}

static size_t seal(struct control_keys *keys, const struct said *said, uint32_t id, uint32_t time, uint8_t *packet)
{
    uint8_t header[CONTROL_HEADER], body[CHANNEL_BODY_MAX], replay_id[REPLAY_ID_SIZE];
    header[0] = (uint8_t)(said->opcode << 3 | said->key_id);
    memcpy(header + 1, said->from == NULL ? CLIENT : said->from, SESSION_ID_SIZE);
    put_u32(replay_id, id);
    put_u32(replay_id + 4, time);
    size_t length = control_keys_seal(keys, header, replay_id, body, body_of(said, body), packet);
    CHECK(length > 0);
    return length;
}

static struct control_channel channel_with(struct control_keys *keys)
{
    struct control_channel channel;
    control_channel_init(&channel, SERVER, CLIENT, keys, false, 1, 1000);
    CHECK(control_channel_open_key(&channel, 0, 100, 0, 2));
    CHECK(!control_channel_open_key(&channel, 0, 100, 0, 2));
    return channel;
}

static struct channel_received received;
static size_t in_order; /* bytes of the last packet, whose memory is gone */
static uint8_t scratch[CONTROL_DATAGRAM_MAX];

static enum channel_result hear(struct control_channel *channel, struct control_keys *client, struct said said,
                                uint32_t id, uint32_t time, double now)
{
    uint8_t packet[CHANNEL_PACKET_MAX];
    size_t length = seal(client, &said, id, time, packet);
    uint8_t *tight = malloc(length);
    CHECK(tight != NULL);
    memcpy(tight, packet, length);
    enum channel_result result = control_channel_receive(channel, tight, length, now, scratch, &received);
    in_order = cursor_left(&received.in_order);
    free(tight);
    return result;
}

static enum control_drop refused(struct control_channel *channel, struct control_keys *client, struct said said,
                                 uint32_t id, uint32_t time, double now)
{
    CHECK_EQUAL(hear(channel, client, said, id, time, now), CHANNEL_DROPPED);
    return received.drop;
}

static struct said control(uint32_t packet_id, const char *payload)
{
    return (struct said){.opcode = P_CONTROL_V1, .packet_id = packet_id, .payload = payload};
}

static unsigned send_all(struct control_channel *channel, double now, uint32_t *ids)
{
    struct reliable *layer = channel->layers[0];
    struct reliable_packet packet;
    uint8_t wire[CHANNEL_PACKET_MAX];
    unsigned position = 0, count = 0;
    reliable_begin_sending(layer, now);
    while (reliable_next(layer, now, &position, &packet)) {
        CHECK(control_channel_wrap_packet(channel, 0, &packet, wire) > CONTROL_HEADER);
        if (packet.has_id)
            ids[count++] = packet.packet_id;
    }
    return count;
}

static void only_its_own_client_is_heard(void)
{
    struct control_channel channel = channel_with(&plain);
    struct said said = control(0, "x");
    said.from = OTHER;
    CHECK_EQUAL(refused(&channel, &plain, said, 1, 1, 0), CONTROL_UNROUTABLE);
    said = control(0, "x");
    said.ack_count = 1;
    said.acknowledged = OTHER;
    CHECK_EQUAL(refused(&channel, &plain, said, 1, 1, 0), CONTROL_FOREIGN_ACK);
    said = control(0, "x");
    said.key_id = 3;
    CHECK_EQUAL(refused(&channel, &plain, said, 1, 1, 0), CONTROL_UNKNOWN_KEY_ID);
    said = (struct said){.opcode = P_CONTROL_HARD_RESET_SERVER_V2};
    CHECK_EQUAL(refused(&channel, &plain, said, 1, 1, 0), CONTROL_BAD_OPCODE);
    uint8_t packet[CHANNEL_PACKET_MAX] = {0};
    said = (struct said){.opcode = P_CONTROL_WKC_V1, .packet_id = 1};
    size_t length = seal(&plain, &said, 1, 1, packet);
    memset(packet + length, 0, CLIENT_KEY_SHORTEST);
    put_u16(packet + length + CLIENT_KEY_SHORTEST - 2, CLIENT_KEY_SHORTEST);
    CHECK_EQUAL(control_channel_receive(&channel, packet, length + CLIENT_KEY_SHORTEST, 0, scratch, &received),
                CHANNEL_DROPPED);
    CHECK_EQUAL(received.drop, CONTROL_BAD_OPCODE); /* a client key, where there is none */
    CHECK_EQUAL(hear(&channel, &plain, control(0, "x"), 1, 1, 0), CHANNEL_TAKEN);
    control_channel_destroy(&channel);
}

static void nothing_is_taken_that_is_not_authentic(void)
{
    struct {
        struct control_keys *server, *client;
    } sides[] = {{&auth, &auth_client}, {&crypt, &crypt_client}};
    for (size_t i = 0; i < 2; i++) {
        struct control_channel channel = channel_with(sides[i].server);
        struct said said = control(0, "hello");
        uint8_t packet[CHANNEL_PACKET_MAX];
        size_t length = seal(sides[i].client, &said, 1, 1, packet);
        for (size_t at = CONTROL_HEADER; at < length; at++) {
            packet[at] ^= 1;
            CHECK_EQUAL(control_channel_receive(&channel, packet, length, 0, scratch, &received), CHANNEL_DROPPED);
            CHECK_EQUAL(received.drop, CONTROL_NOT_AUTHENTIC);
            packet[at] ^= 1;
        }
        for (size_t cut = 0; cut < length; cut++)
            CHECK_EQUAL(control_channel_receive(&channel, packet, cut, 0, scratch, &received), CHANNEL_DROPPED);
        CHECK_EQUAL(control_channel_receive(&channel, packet, length, 0, scratch, &received), CHANNEL_TAKEN);
        CHECK_EQUAL(cursor_left(&received.in_order), 5);
        CHECK(memcmp(received.in_order.at, "hello", 5) == 0);
        CHECK_EQUAL(control_channel_receive(&channel, packet, length, 0, scratch, &received), CHANNEL_DROPPED);
        CHECK_EQUAL(received.drop, CONTROL_REPLAYED);
        control_channel_destroy(&channel);
    }
}

static void replays_are_refused(void)
{
    struct control_replay window = {0};
    CHECK(!control_replay_accept(&window, 0, 5, 0));
    CHECK(control_replay_accept(&window, 1, 5, 0) && !control_replay_accept(&window, 1, 5, 0));
    CHECK(control_replay_accept(&window, 100, 5, 0) && control_replay_accept(&window, 37, 5, 0));
    CHECK(!control_replay_accept(&window, 36, 5, 0)); /* 64 behind */
    CHECK(!control_replay_accept(&window, 37, 5, 0));
    CHECK(control_replay_accept(&window, 99, 5, 15) && !control_replay_accept(&window, 98, 5, 15.1));
    CHECK(control_replay_accept(&window, 1, 6, 16)); /* a new run of the sender */
    CHECK(!control_replay_accept(&window, 101, 5, 16));
    CHECK(control_replay_accept(&window, UINT32_MAX, 6, 16));
}

static void order_and_window(void)
{
    struct control_channel channel = channel_with(&plain);
    struct reliable *layer = channel.layers[0];
    uint8_t taken[RECEIVE_WINDOW];
    uint32_t ids[SEND_WINDOW];
    CHECK_EQUAL(refused(&channel, &plain, control(RECEIVE_WINDOW, "x"), 1, 1, 0), CONTROL_BEYOND_WINDOW);
    for (uint32_t id = RECEIVE_WINDOW - 1; id > 0; id--) {
        char payload[] = {(char)('a' + id), 0};
        CHECK_EQUAL(hear(&channel, &plain, control(id, payload), 1, 1, 0), CHANNEL_TAKEN);
        CHECK(layer->ready == NULL && in_order == 0);
        CHECK_EQUAL(hear(&channel, &plain, control(id, "twice"), 1, 1, 0), CHANNEL_TAKEN);
    }
    CHECK_EQUAL(layer->duplicates, RECEIVE_WINDOW - 1);
    CHECK_EQUAL(hear(&channel, &plain, control(0, "a"), 1, 1, 0), CHANNEL_TAKEN);
    CHECK_EQUAL(layer->ready_bytes, RECEIVE_WINDOW);
    reliable_take(layer, taken);
    CHECK(memcmp(taken, "abcdefghijkl", RECEIVE_WINDOW) == 0);
    CHECK_EQUAL(layer->expected, RECEIVE_WINDOW);
    CHECK_EQUAL(hear(&channel, &plain, control(3, "again"), 1, 1, 0),
                CHANNEL_TAKEN); /* acknowledged, not delivered */
    CHECK_EQUAL(layer->expected, RECEIVE_WINDOW);
    CHECK(layer->ready == NULL && layer->early_count == 0);
    CHECK_EQUAL(layer->duplicates, RECEIVE_WINDOW);
    CHECK_EQUAL(send_all(&channel, 0, ids), 0); /* acknowledgements alone */
    CHECK_EQUAL(layer->acks_waiting, 0);
    CHECK_EQUAL(hear(&channel, &plain, control(RECEIVE_WINDOW, "straight"), 1, 1, 0), CHANNEL_TAKEN);
    CHECK_EQUAL(in_order, 8);
    control_channel_destroy(&channel);
}

static void sending_window_and_repeats(void)
{
    struct control_channel channel = channel_with(&plain);
    struct reliable *layer = channel.layers[0];
    uint32_t ids[SEND_WINDOW];
    for (unsigned i = 0; i < SEND_WINDOW + 2; i++)
        CHECK(reliable_queue(layer, P_CONTROL_V1, (const uint8_t *)"payload", 7));
    CHECK_EQUAL(layer->backlog_bytes, 7 * (SEND_WINDOW + 2));
    CHECK_EQUAL(send_all(&channel, 0, ids), SEND_WINDOW);
    CHECK_EQUAL(layer->backlog_bytes, 14);
    struct said acks = {.opcode = P_ACK_V1, .ack_count = 3, .acks = {1, 2, 2}};
    CHECK_EQUAL(hear(&channel, &plain, acks, 1, 1, 0), CHANNEL_TAKEN);
    CHECK_EQUAL(send_all(&channel, 0, ids), 0); /* the lowest one holds the window */
    acks = (struct said){.opcode = P_ACK_V1, .ack_count = 1, .acks = {3}};
    CHECK_EQUAL(hear(&channel, &plain, acks, 1, 1, 0), CHANNEL_TAKEN);
    CHECK_EQUAL(send_all(&channel, 0, ids), 1); /* three later ones came */
    CHECK_EQUAL(ids[0], 0);
    acks.acks[0] = 0;
    CHECK_EQUAL(hear(&channel, &plain, acks, 1, 1, 0), CHANNEL_TAKEN);
    CHECK_EQUAL(send_all(&channel, 0, ids), 2);
    double due;
    CHECK(reliable_next_timeout(layer, &due) && due == 2);
    CHECK_EQUAL(send_all(&channel, 1.9, ids), 0);
    CHECK_EQUAL(send_all(&channel, 2, ids), 4);
    CHECK(reliable_next_timeout(layer, &due) && due == 6);
    layer->retransmits = false;
    CHECK_EQUAL(send_all(&channel, 6, ids), 4);
    CHECK(reliable_next_timeout(layer, &due) && isinf(due));
    reliable_restart(layer, 7);
    CHECK_EQUAL(send_all(&channel, 7, ids), 4);
    reliable_stop_sending(layer);
    CHECK(reliable_all_acknowledged(layer) && !reliable_next_timeout(layer, &due));
    control_channel_destroy(&channel);
}

static void resets_wait_for_a_decision(void)
{
    struct control_channel channel = channel_with(&plain);
    struct said reset = {.opcode = P_CONTROL_SOFT_RESET_V1, .key_id = 1};
    CHECK_EQUAL(hear(&channel, &plain, reset, 1, 1, 0), CHANNEL_RESET);
    CHECK_EQUAL(control_channel_take_reset(&channel, &received), CHANNEL_DROPPED); /* no such key was opened */
    CHECK(control_channel_open_key(&channel, 1, 100, 0, 2));
    CHECK_EQUAL(control_channel_take_reset(&channel, &received), CHANNEL_DROPPED); /* once */
    CHECK_EQUAL(hear(&channel, &plain, reset, 1, 1, 0), CHANNEL_RESET);
    CHECK_EQUAL(control_channel_take_reset(&channel, &received), CHANNEL_TAKEN);
    CHECK_EQUAL(channel.layers[1]->expected, 1);
    CHECK_EQUAL(control_channel_take_reset(&channel, &received), CHANNEL_DROPPED);
    CHECK_EQUAL(channel.order[0], 1);
    reset.packet_id = 1;
    CHECK_EQUAL(refused(&channel, &plain, reset, 1, 1, 0), CONTROL_LATE_PACKET);
    control_channel_close_key(&channel, 0);
    control_channel_close_key(&channel, 0);
    CHECK_EQUAL(channel.layer_count, 1);
    CHECK_EQUAL(refused(&channel, &plain, control(0, "x"), 1, 1, 0), CONTROL_UNKNOWN_KEY_ID);
    control_channel_destroy(&channel);
}

static void later_keys_have_a_wrapping_of_their_own(void)
{
    struct control_channel channel = channel_with(&plain);
    CHECK(control_channel_open_key(&channel, 1, 100, 0, 2));
    CHECK(control_channel_go_dynamic(&channel, key2, 1000));
    struct said later = control(0, "x");
    later.key_id = 1;
    CHECK_EQUAL(refused(&channel, &plain, later, 1, 1, 0), CONTROL_NOT_AUTHENTIC);
    CHECK_EQUAL(hear(&channel, &plain, control(0, "x"), 1, 1, 0), CHANNEL_TAKEN);
    CHECK(control_channel_wrap(&channel, 0) == &channel.first);
    CHECK_EQUAL(hear(&channel, &crypt_client, later, 1, 1, 0), CHANNEL_TAKEN);
    CHECK_EQUAL(hear(&channel, &crypt_client, control(1, "y"), 2, 1, 0), CHANNEL_TAKEN); /* as OpenVPN 3 does */
    CHECK(control_channel_wrap(&channel, 0) == channel.later);
    CHECK_EQUAL(refused(&channel, &crypt_client, control(2, "y"), 2, 1, 0), CONTROL_REPLAYED);
    CHECK_EQUAL(refused(&channel, &plain, control(2, "z"), 3, 1, 0), CONTROL_NOT_AUTHENTIC);
    control_channel_destroy(&channel);
}

int main(void)
{
    for (unsigned i = 0; i < KEY2_SIZE; i++)
        turned[(i + KEY2_HALF) % KEY2_SIZE] = key2[i] = (uint8_t)(i * 31 + 1);
    CHECK(control_keys_init(&plain, WRAP_PLAIN, NULL));
    CHECK(control_keys_init(&auth, WRAP_TLS_AUTH, "SHA256") && control_keys_set(&auth, key2, 0));
    CHECK(control_keys_init(&auth_client, WRAP_TLS_AUTH, "SHA256") && control_keys_set(&auth_client, key2, 1));
    CHECK(control_keys_init(&crypt, WRAP_TLS_CRYPT, NULL) && control_keys_set(&crypt, key2, -1));
    CHECK(control_keys_init(&crypt_client, WRAP_TLS_CRYPT, NULL) && control_keys_set(&crypt_client, turned, -1));
    RUN(only_its_own_client_is_heard);
    RUN(nothing_is_taken_that_is_not_authentic);
    RUN(replays_are_refused);
    RUN(order_and_window);
    RUN(sending_window_and_repeats);
    RUN(resets_wait_for_a_decision);
    RUN(later_keys_have_a_wrapping_of_their_own);
    struct control_keys *all[] = {&plain, &auth, &auth_client, &crypt, &crypt_client};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        control_keys_destroy(all[i]);
    return 0;
}
