/* A session's control channel: the first byte chooses the wrapping, each step after it is a packet as it is, one that is wrapped
 * with the right key first (so that what lies behind the MAC is reached too), or something that our side does. Packets
 * lie on the heap with no byte to spare. */
#include "check.h"
#include "control_channel.h"

enum { KINDS = 4, STEPS = 200, KEYS = 4 };

static const uint8_t SERVER[SESSION_ID_SIZE] = "server-1", CLIENT[SESSION_ID_SIZE] = "client-1";
static uint8_t key2[KEY2_SIZE], turned[KEY2_SIZE];
static struct control_keys server[KINDS], client[KINDS];
static bool ready;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void set_up(void)
{
    static const enum wrapping kinds[KINDS] = {WRAP_PLAIN, WRAP_TLS_AUTH, WRAP_TLS_CRYPT, WRAP_TLS_CRYPT};
    for (unsigned i = 0; i < KEY2_SIZE; i++)
        turned[(i + KEY2_HALF) % KEY2_SIZE] = key2[i] = (uint8_t)(i * 31 + 1);
    for (unsigned i = 0; i < KINDS; i++) {
        CHECK(control_keys_init(&server[i], kinds[i], "SHA1") && control_keys_set(&server[i], key2, 0));
        bool crypt = kinds[i] == WRAP_TLS_CRYPT;
        CHECK(control_keys_init(&client[i], kinds[i], "SHA1") &&
              control_keys_set(&client[i], crypt ? turned : key2, 1));
    }
    ready = true;
}

static void take(const struct channel_received *received)
{
    struct reliable *layer = received->layer;
    CHECK(layer->early_count < RECEIVE_WINDOW && layer->acks_waiting <= ACKS_QUEUED_MAX);
    if (layer->ready == NULL)
        return;
    CHECK(cursor_left(&received->in_order) == 0 && layer->ready_bytes <= RECEIVE_WINDOW * CONTROL_PAYLOAD_MAX);
    uint8_t *into = malloc(layer->ready_bytes + 1);
    CHECK(into != NULL);
    reliable_take(layer, into);
    free(into);
}

static void hear(struct control_channel *channel, const uint8_t *packet, size_t length, double now)
{
    uint8_t *tight = malloc(length), scratch[CONTROL_DATAGRAM_MAX];
    CHECK(tight != NULL || length == 0);
    if (length > 0)
        memcpy(tight, packet, length);
    struct channel_received received;
    enum channel_result result = control_channel_receive(channel, tight, length, now, scratch, &received);
    if (result == CHANNEL_TAKEN) {
        static volatile uint8_t sink; /* a sanitizer looks at every byte that is read */
        for (const uint8_t *at = received.in_order.at; at != received.in_order.end; at++)
            sink = *at;
        take(&received);
    } else if (result == CHANNEL_DROPPED) {
        CHECK(received.drop < CONTROL_DROP_COUNT);
    }
    free(tight);
    if (result == CHANNEL_RESET && control_channel_take_reset(channel, &received) == CHANNEL_TAKEN)
        take(&received);
}

static void hear_wrapped(struct control_channel *channel, struct control_keys *keys, struct cursor *input, double now)
{
    const uint8_t *bytes, *replay_id;
    uint8_t length, first, header[CONTROL_HEADER], packet[CONTROL_DATAGRAM_MAX];
    if (!take_u8(input, &first) || !take_bytes(input, REPLAY_ID_SIZE, &replay_id) || !take_u8(input, &length) ||
        !take_bytes(input, length, &bytes))
        return;
    header[0] = first;
    memcpy(header + 1, CLIENT, SESSION_ID_SIZE);
    hear(channel, packet, control_keys_seal(keys, header, replay_id, bytes, length, packet), now);
}

static void send_all(struct control_channel *channel, double now)
{
    for (unsigned i = 0; i < channel->layer_count; i++) {
        struct reliable *layer = channel->layers[channel->order[i]];
        struct reliable_packet packet;
        uint8_t wire[CHANNEL_PACKET_MAX];
        unsigned position = 0, count = 0;
        double due;
        reliable_begin_sending(layer, now);
        while (reliable_next(layer, now, &position, &packet)) {
            size_t length = control_channel_wrap_packet(channel, channel->order[i], &packet, wire);
            CHECK(length > CONTROL_HEADER && length <= sizeof wire && count++ < SEND_WINDOW + ACKS_QUEUED_MAX);
        }
        CHECK(layer->acks_waiting == 0 && reliable_next_timeout(layer, &due) == (layer->flying > 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ready)
        set_up();
    struct cursor input = cursor_over(data, size);
    uint8_t kind, step, length;
    if (!take_u8(&input, &kind))
        return 0;
    kind %= KINDS;
    struct control_channel channel;
    control_channel_init(&channel, SERVER, CLIENT, &server[kind], kind == KINDS - 1, 0xFFFFFFF0, 1000);
    CHECK(control_channel_open_key(&channel, 0, 100, 0, 2));
    double now = 0;
    for (unsigned i = 0; i < STEPS && take_u8(&input, &step); i++) {
        unsigned key_id = step >> 4 & (KEYS - 1);
        struct reliable *layer = channel.layers[key_id];
        const uint8_t *bytes;
        switch (step & 15) {
        case 0:
            if (take_u8(&input, &length) && take_bytes(&input, length, &bytes))
                hear(&channel, bytes, length, now);
            break;
        case 1: now += step >> 4; break;
        case 2: send_all(&channel, now); break;
        case 3: control_channel_open_key(&channel, key_id, 1 + key_id * 500, 0xFFFFFFFE + key_id, 2); break;
        case 4: control_channel_close_key(&channel, key_id); break;
        case 5: CHECK(layer == NULL || reliable_queue(layer, P_CONTROL_V1, key2, step)); break;
        case 6:
            if (layer != NULL)
                reliable_restart(layer, now);
            break;
        case 7:
            if (layer != NULL)
                reliable_stop_sending(layer);
            break;
        case 8: CHECK(channel.later != NULL || control_channel_go_dynamic(&channel, key2, 1000)); break;
        case 9: hear_wrapped(&channel, &client[2], &input, now); break; /* the one of later keys */
        default: hear_wrapped(&channel, &client[kind], &input, now); break;
        }
    }
    control_channel_destroy(&channel);
    return 0;
}
