/* Ordered, acknowledged control packets of one key id (openvpn-wire.md section 4). cvpnd/wire/reliable.py is the specification:
 * windows, timers and the order of acknowledgements are explained there.
 *
 * One owner, one thread at a time. Bounded: RECEIVE_WINDOW payloads that came early; of what waits to be sent the owner
 * looks at `backlog_bytes` and ends who acknowledges nothing. Ids wrap round at 2^32. */
#ifndef CVPND_RELIABLE_H
#define CVPND_RELIABLE_H

#include "control_packet.h"

enum {
    SEND_WINDOW = 6,
    RECEIVE_WINDOW = 12,
    ACKS_SENT = 4,
    ACKS_QUEUED_MAX = RECEIVE_WINDOW,
    HIGHER_ACKS_FOR_RETRANSMIT = 3,
};

struct reliable_piece; /* a payload on the heap */

struct in_flight {
    struct reliable_piece *piece; /* owned */
    uint32_t packet_id;
    unsigned higher_acks; /* acknowledgements of later packets since this one was last sent */
    double due, timeout_s;
};

struct reliable {
    uint32_t expected, next_id;
    size_t payload_limit;
    double first_timeout_s;
    bool retransmits; /* false: packets are due again only by reliable_restart */
    unsigned duplicates;
    unsigned flying, acks_waiting, acks_recent;
    struct in_flight in_flight[SEND_WINDOW]; /* in the order of their ids */
    uint32_t acks[ACKS_QUEUED_MAX];          /* to be sent */
    uint32_t recent[ACKS_SENT];              /* sent lately, newest first */
    struct reliable_piece *backlog, **backlog_end;
    size_t backlog_bytes;
    struct reliable_piece *early[RECEIVE_WINDOW]; /* [(early_first + n) % RECEIVE_WINDOW] is id `expected` + n */
    unsigned early_first, early_count;
    struct reliable_piece *ready, **ready_end; /* in order now, behind what came early */
    size_t ready_bytes;
};

/* One packet to be sent. The payload is the layer's, until the next call. */
struct reliable_packet {
    uint8_t opcode;
    bool has_id; /* false: a bare acknowledgement */
    uint32_t packet_id;
    struct cursor payload;
    unsigned ack_count;
    uint32_t acks[ACKS_SENT];
};

void reliable_init(struct reliable *layer, size_t payload_limit, uint32_t first_id, double first_timeout_s);
void reliable_destroy(struct reliable *layer);

/* CONTROL_GOOD, and what is in order now: `in_order`, which lies in the packet, or else `ready_bytes` of it wait for
 * reliable_take. Or CONTROL_BEYOND_WINDOW, where its acknowledgements have counted all the same. The session that they name
 * has been looked at. *failed*: memory is short, and the packet counts as lost. */
enum control_drop reliable_receive(struct reliable *layer, uint8_t opcode, const struct control_body *body,
                                   struct cursor *in_order, bool *failed);
/* Moves those bytes to where there is room for `ready_bytes`. */
void reliable_take(struct reliable *layer, uint8_t *into);

/* Send this reliably, behind everything before. False: memory is short. */
bool reliable_queue(struct reliable *layer, uint8_t opcode, const uint8_t *payload, size_t length);

/* Before a round of reliable_next: the window moves on. */
void reliable_begin_sending(struct reliable *layer, double now);
/* Packets that are due, then bare acknowledgements; false when there is none left. `position` begins at 0. */
bool reliable_next(struct reliable *layer, double now, unsigned *position, struct reliable_packet *packet);

/* When the earliest packet in flight is due; false: none is. */
bool reliable_next_timeout(const struct reliable *layer, double *due);
void reliable_restart(struct reliable *layer, double now);
void reliable_stop_sending(struct reliable *layer);

static inline bool reliable_all_acknowledged(const struct reliable *layer)
{
    return layer->flying == 0 && layer->backlog == NULL;
}
static inline bool reliable_heard(const struct reliable *layer)
{
    return layer->expected != 0 || layer->early_count > 0;
}

#endif
