#include "reliable.h"

#include <math.h>
#include <stdlib.h>

static const double MAX_TIMEOUT_S = 60;

struct reliable_piece {
    struct reliable_piece *next;
    size_t length;
    uint8_t opcode;
    uint8_t bytes[];
};

static struct reliable_piece *new_piece(uint8_t opcode, const uint8_t *bytes, size_t length)
{
    struct reliable_piece *piece = malloc(sizeof *piece + length);
    if (piece != NULL) {
        *piece = (struct reliable_piece){.length = length, .opcode = opcode};
        if (length > 0)
            memcpy(piece->bytes, bytes, length);
    }
    return piece;
}

static void free_chain(struct reliable_piece *piece)
{
    while (piece != NULL) {
        struct reliable_piece *next = piece->next;
        free(piece);
        piece = next;
    }
}

void reliable_init(struct reliable *layer, size_t payload_limit, uint32_t first_id, double first_timeout_s)
{
    *layer = (struct reliable){
        .expected = first_id,
        .next_id = first_id,
        .payload_limit = payload_limit,
        .first_timeout_s = first_timeout_s,
        .retransmits = true,
    };
    layer->backlog_end = &layer->backlog;
    layer->ready_end = &layer->ready;
}

void reliable_destroy(struct reliable *layer)
{
    reliable_stop_sending(layer);
    for (unsigned i = 0; i < RECEIVE_WINDOW; i++)
        free(layer->early[i]);
    free_chain(layer->ready);
}

/* -- receiving ---------------------------------------------------------------------------------------------------- */

/* Repeated and invented ids find nothing and change nothing. */
static void forget(struct reliable *layer, uint32_t acknowledged)
{
    for (unsigned i = 0; i < layer->flying; i++) {
        if (layer->in_flight[i].packet_id != acknowledged)
            continue;
        free(layer->in_flight[i].piece);
        for (unsigned earlier = 0; earlier < i; earlier++)
            layer->in_flight[earlier].higher_acks++;
        layer->flying--;
        memmove(&layer->in_flight[i], &layer->in_flight[i + 1], (layer->flying - i) * sizeof layer->in_flight[0]);
        return;
    }
}

static void queue_ack(struct reliable *layer, uint32_t packet_id)
{
    for (unsigned i = 0; i < layer->acks_waiting; i++)
        if (layer->acks[i] == packet_id)
            return;
    if (layer->acks_waiting < ACKS_QUEUED_MAX)
        layer->acks[layer->acks_waiting++] = packet_id;
}

static struct reliable_piece **early_at(struct reliable *layer, unsigned ahead)
{
    return &layer->early[(layer->early_first + ahead) % RECEIVE_WINDOW];
}

static void move_ready(struct reliable *layer)
{
    struct reliable_piece **slot;
    while (*(slot = early_at(layer, 0)) != NULL) {
        layer->ready_bytes += (*slot)->length;
        *layer->ready_end = *slot;
        layer->ready_end = &(*slot)->next;
        *slot = NULL;
        layer->early_count--;
        layer->early_first = (layer->early_first + 1) % RECEIVE_WINDOW;
        layer->expected++;
    }
}

enum control_drop reliable_receive(struct reliable *layer, uint8_t opcode, const struct control_body *body,
                                   struct cursor *in_order, bool *failed)
{
    *in_order = (struct cursor){0};
    *failed = false;
    for (unsigned i = 0; i < body->ack_count; i++)
        forget(layer, body->acks[i]);
    if (opcode == P_ACK_V1)
        return CONTROL_GOOD;
    uint32_t ahead = body->packet_id - layer->expected;
    bool before = ahead > INT32_MAX;
    if (!before && ahead >= RECEIVE_WINDOW)
        return CONTROL_BEYOND_WINDOW; /* neither taken nor acknowledged */
    bool duplicate = before || *early_at(layer, ahead) != NULL;
    struct cursor payload = {0};
    if (opcode == P_CONTROL_V1 || opcode == P_CONTROL_WKC_V1)
        payload = body->payload;
    if (!duplicate && (ahead > 0 || layer->early_count > 0 || layer->ready != NULL)) {
        struct reliable_piece *piece = new_piece(opcode, payload.at, cursor_left(&payload));
        *failed = piece == NULL;
        if (*failed)
            return CONTROL_GOOD;
        *early_at(layer, ahead) = piece;
        layer->early_count++;
        move_ready(layer);
    } else if (!duplicate) {
        *in_order = payload;
        layer->expected++;
        layer->early_first = (layer->early_first + 1) % RECEIVE_WINDOW;
    }
    queue_ack(layer, body->packet_id);
    layer->duplicates += duplicate;
    return CONTROL_GOOD;
}

void reliable_take(struct reliable *layer, uint8_t *into)
{
    for (struct reliable_piece *piece = layer->ready; piece != NULL; piece = piece->next) {
        memcpy(into, piece->bytes, piece->length);
        into += piece->length;
    }
    free_chain(layer->ready);
    layer->ready = NULL;
    layer->ready_end = &layer->ready;
    layer->ready_bytes = 0;
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

bool reliable_queue(struct reliable *layer, uint8_t opcode, const uint8_t *payload, size_t length)
{
    struct reliable_piece *piece = new_piece(opcode, payload, length);
    if (piece == NULL)
        return false;
    *layer->backlog_end = piece;
    layer->backlog_end = &piece->next;
    layer->backlog_bytes += length;
    return true;
}

static bool window_open(const struct reliable *layer)
{
    return layer->flying == 0 ||
           (layer->flying < SEND_WINDOW && layer->next_id - layer->in_flight[0].packet_id < SEND_WINDOW);
}

void reliable_begin_sending(struct reliable *layer, double now)
{
    while (layer->backlog != NULL && window_open(layer)) {
        struct reliable_piece *piece = layer->backlog;
        layer->backlog = piece->next;
        if (layer->backlog == NULL)
            layer->backlog_end = &layer->backlog;
        layer->backlog_bytes -= piece->length;
        layer->in_flight[layer->flying++] = (struct in_flight){
            .piece = piece, .packet_id = layer->next_id++, .due = now, .timeout_s = layer->first_timeout_s};
    }
}

static bool is_among(const uint32_t *ids, unsigned count, uint32_t id)
{
    for (unsigned i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* New acknowledgements first, the latest in front, then recent ones again. */
static void put_acks(struct reliable *layer, struct reliable_packet *packet)
{
    unsigned fresh = layer->acks_waiting < ACKS_SENT ? layer->acks_waiting : ACKS_SENT;
    if (fresh > 0) {
        uint32_t recent[ACKS_SENT];
        unsigned count = 0;
        while (count < fresh) {
            recent[count] = layer->acks[fresh - 1 - count];
            count++;
        }
        for (unsigned i = 0; i < layer->acks_recent && count < ACKS_SENT; i++)
            if (!is_among(recent, fresh, layer->recent[i]))
                recent[count++] = layer->recent[i];
        layer->acks_waiting -= fresh;
        memmove(layer->acks, layer->acks + fresh, layer->acks_waiting * sizeof layer->acks[0]);
        memcpy(layer->recent, recent, count * sizeof recent[0]);
        layer->acks_recent = count;
    }
    packet->ack_count = layer->acks_recent;
    memcpy(packet->acks, layer->recent, layer->acks_recent * sizeof layer->recent[0]);
}

bool reliable_next(struct reliable *layer, double now, unsigned *position, struct reliable_packet *packet)
{
    *packet = (struct reliable_packet){0};
    while (*position < layer->flying) {
        struct in_flight *sent = &layer->in_flight[(*position)++];
        if (now < sent->due && sent->higher_acks < HIGHER_ACKS_FOR_RETRANSMIT)
            continue;
        sent->due = layer->retransmits ? now + sent->timeout_s : INFINITY;
        sent->timeout_s = 2 * sent->timeout_s < MAX_TIMEOUT_S ? 2 * sent->timeout_s : MAX_TIMEOUT_S;
        sent->higher_acks = 0;
        packet->opcode = sent->piece->opcode;
        packet->has_id = true;
        packet->packet_id = sent->packet_id;
        packet->payload = cursor_over(sent->piece->bytes, sent->piece->length);
        put_acks(layer, packet);
        return true;
    }
    if (layer->acks_waiting == 0)
        return false;
    packet->opcode = P_ACK_V1;
    put_acks(layer, packet);
    return true;
}

bool reliable_next_timeout(const struct reliable *layer, double *due)
{
    for (unsigned i = 0; i < layer->flying; i++)
        if (i == 0 || layer->in_flight[i].due < *due)
            *due = layer->in_flight[i].due;
    return layer->flying > 0;
}

void reliable_restart(struct reliable *layer, double now)
{
    for (unsigned i = 0; i < layer->flying; i++) {
        layer->in_flight[i].due = now;
        layer->in_flight[i].timeout_s = layer->first_timeout_s;
    }
}

void reliable_stop_sending(struct reliable *layer)
{
    for (unsigned i = 0; i < layer->flying; i++)
        free(layer->in_flight[i].piece);
    layer->flying = 0;
    free_chain(layer->backlog);
    layer->backlog = NULL;
    layer->backlog_end = &layer->backlog;
    layer->backlog_bytes = 0;
}
