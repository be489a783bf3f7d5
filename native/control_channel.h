/* A session's control channel between datagrams and TLS bytes: unwrap, replay window, order, acknowledgements, repeats, wrap.
 * cvpnd/wire/channel.py is the specification, and the place of the texts; what a reset means is decided there, in
 * Python, as is all that concerns TLS.
 *
 * One owner, one thread at a time. It owns the layers of its key ids and the keys of dynamic tls-crypt, which are wiped
 * with it; the other control keys belong to the caller and outlive it. */
#ifndef CVPND_CONTROL_CHANNEL_H
#define CVPND_CONTROL_CHANNEL_H

#include "control_keys.h"
#include "control_replay.h"
#include "reliable.h"

enum {
    CHANNEL_KEY_IDS = 8,
    CHANNEL_BODY_MAX = 1 + 4 * ACKS_SENT + SESSION_ID_SIZE + 4 + CONTROL_PAYLOAD_MAX,
    CHANNEL_PACKET_MAX = CONTROL_HEADER + WRAP_OVERHEAD_MAX + CHANNEL_BODY_MAX,
};

/* One wrapping with its counters. */
struct channel_wrap {
    struct control_keys *keys;   /* the caller's; or else */
    uint8_t *key2;               /* of tls-crypt, owned: contexts, 3 kB and 5 us, are made for each packet */
    bool brings_key;             /* a client's own, shown again with some packets (tls-crypt-v2) */
    uint32_t id, time;           /* of our next packet; an id of 0 begins a new time */
    struct control_replay *seen; /* owned; NULL until a packet counts */
};

struct control_channel {
    uint8_t local_id[SESSION_ID_SIZE], remote_id[SESSION_ID_SIZE];
    struct channel_wrap first;
    struct channel_wrap *later; /* of all keys but the first (dynamic tls-crypt), owned; NULL: the same */
    bool zero_uses_later;
    struct reliable *layers[CHANNEL_KEY_IDS];
    uint8_t order[CHANNEL_KEY_IDS]; /* key ids of the layers, newest first */
    unsigned layer_count;
    struct { /* the reset that waits for a decision */
        bool waits;
        uint8_t opcode, key_id;
        struct control_body body; /* without what it pointed to */
        uint8_t remote_id[SESSION_ID_SIZE];
    } reset;
};

enum channel_result { CHANNEL_TAKEN, CHANNEL_RESET, CHANNEL_DROPPED, CHANNEL_FAILED /* memory is short */ };

struct channel_received {
    enum control_drop drop; /* CHANNEL_DROPPED */
    struct reliable *layer; /* CHANNEL_TAKEN: whose `ready_bytes` are due if nothing is in order */
    struct cursor in_order; /* which lies in the packet or in the caller's scratch */
};

/* `first_id`: of our first packet. */
void control_channel_init(struct control_channel *channel, const uint8_t local_id[static SESSION_ID_SIZE],
                          const uint8_t remote_id[static SESSION_ID_SIZE], struct control_keys *keys, bool brings_key,
                          uint32_t first_id, uint32_t wall_s);
void control_channel_destroy(struct control_channel *channel);

/* False: there is one, or memory is short. */
bool control_channel_open_key(struct control_channel *channel, unsigned key_id, size_t payload_limit,
                              uint32_t first_id, double first_timeout_s);
void control_channel_close_key(struct control_channel *channel, unsigned key_id);

/* Packets of all keys but the first are wrapped in tls-crypt under this key from now on. Once; false: memory is short. */
bool control_channel_go_dynamic(struct control_channel *channel, const uint8_t key2[static KEY2_SIZE],
                                uint32_t wall_s);
struct channel_wrap *control_channel_wrap(struct control_channel *channel, unsigned key_id);
size_t control_channel_overhead(struct control_channel *channel, unsigned key_id);

enum channel_result control_channel_receive(struct control_channel *channel, const uint8_t *packet, size_t length,
                                            double now, uint8_t scratch[static CONTROL_DATAGRAM_MAX],
                                            struct channel_received *received);
/* The rest of what followed from CHANNEL_RESET, once: there is a layer for its key id. */
enum channel_result control_channel_take_reset(struct control_channel *channel, struct channel_received *received);

/* The length of `wire`, 0 if the library fails. */
size_t control_channel_wrap_packet(struct control_channel *channel, unsigned key_id,
                                   const struct reliable_packet *packet, uint8_t wire[static CHANNEL_PACKET_MAX]);

#endif
