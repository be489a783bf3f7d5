/* What the doorman hands to the control side: the sessions it knows, and the packets that wait to be fetched.
 *
 * Packets wait in classes, each with a bound of its own: a flood of handshakes cannot take the place of a
 * renegotiation, nor one of first packets that of a handshake. Within a class no session and no source prefix has more
 * than its share. One lock guards all of it; the doorman takes it for a batch, the control side for a call, and neither
 * blocks while holding it. */
#ifndef CVPND_DOOR_QUEUE_H
#define CVPND_DOOR_QUEUE_H

#include <pthread.h>

#include "rate.h"
#include "reset_cookie.h"

enum door_class { DOOR_ESTABLISHED, DOOR_HANDSHAKE, DOOR_STRANGER, DOOR_DATA, DOOR_CLASSES };

enum {
    DOOR_SESSION_WAITING = 64,        /* packets of one session; a handshake sends at most 12 without an answer */
    DOOR_SESSION_WAITING_CROWDED = 8, /* while half of the room for its class is taken */
    DOOR_SESSION_PACKETS_PER_S = 250, /* a busy handshake has some 50 in all */
    DOOR_RESETS_PER_S = 4,            /* from the address of one established session */
    DOOR_BUSY_MS = 1500,              /* so long after its last packet a handshake is taken for under way */
    DOOR_DATA_PACKETS_PER_S = 5000,   /* that name no peer, of one session: for old clients, and no fast path */
    DOOR_PREFIX_WAITING = 256,        /* first packets of one source prefix */
    DOOR_PREFIX_HANDSHAKES = 1024,    /* packets of its handshakes */
    DOOR_PREFIX_COUNTS = 4096,
};

/* Found by listener, source address and the client's session id. */
struct door_key {
    struct socket_address source;
    uint32_t listener;
    uint8_t session_id[SESSION_ID_SIZE];
};

struct door_session {
    struct door_session *next;
    struct door_key key;
    enum door_class standing; /* DOOR_STRANGER: let through, and the control side has not said yet what it is */
    bool proven;              /* it began with a cookie, so nobody else has begun it at that address */
    uint32_t heard_ms;
    unsigned waiting;
    struct bucket packets;
    struct bucket resets;
    struct bucket data;
};

struct door_item {
    struct door_item *next;
    struct door_key key;
    struct ip_address local;
    enum door_class standing;
    bool proven; /* it echoes our cookie, which the doorman has verified */
    size_t length;
    uint8_t packet[];
};

struct door_line {
    struct door_item *first;
    struct door_item **last;
    unsigned count;
};

struct door_queue {
    int fd; /* an eventfd: readable while something waits */
    struct hash_key hash_key;
    pthread_mutex_t lock;
    struct door_line lines[DOOR_CLASSES];
    unsigned waiting;
    uint16_t prefix_waiting[DOOR_PREFIX_COUNTS];
    uint16_t prefix_handshakes[DOOR_PREFIX_COUNTS];
    struct door_session **slots;
    size_t slot_count; /* a power of two */
    size_t session_count;
};

bool door_queue_init(struct door_queue *queue); /* errno */
void door_queue_destroy(struct door_queue *queue);

uint64_t door_prefix_hash(const struct door_queue *queue, const struct ip_address *source);

/* -- the control side: these take the lock -- */

/* From now on packets of this session are of that class. False when memory is short. */
bool door_know(struct door_queue *queue, const struct door_key *key, enum door_class standing);
void door_forget(struct door_queue *queue, const struct door_key *key);
void door_forget_listener(struct door_queue *queue, uint32_t listener);

/* Up to `most[class]` of each class, the established first; the caller frees each. */
struct door_item *door_fetch(struct door_queue *queue, const unsigned most[static DOOR_CLASSES]);

/* -- the doorman: with the lock held -- */

enum door_result {
    DOOR_QUEUED,
    DOOR_UNKNOWN,      /* nobody's packet */
    DOOR_OCCUPIED,     /* nobody's packet either, from where an established session is */
    DOOR_BUSY,         /* the same, from where a handshake is under way */
    DOOR_RATE_LIMITED, /* more than its share */
    DOOR_FULL,
};

struct door_packet {
    struct door_key key;
    struct ip_address local;
    const uint8_t *bytes;
    size_t length;
    bool proven; /* of a first packet */
};

/* Queues a packet of a session that is known. */
enum door_result door_push_known_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms);
/* Queues a data packet that names no peer, if an established session is where it came from (openvpn-wire.md 2.3). */
enum door_result door_push_data_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms);
/* Queues a first packet, whose session is known from here on so that the packets behind it find their way; the control
 * side answers each with door_know or door_forget. */
enum door_result door_push_first_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms);
/* Queues a reset from an occupied address. Whoever is there takes an answer for a server that restarted, and starts over
 * itself: so it depends on whether it is still heard from, which only the control side can find out. */
enum door_result door_push_reset_locked(struct door_queue *queue, const struct door_packet *packet, uint32_t now_ms);

#endif
