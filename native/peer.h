/* One authenticated client as the data plane sees it: leases, groups, where to send, and its key slots.
 *
 * Who writes what decides how it is protected, so the fields are grouped by writer. "Published" pointers are set by
 * the control side under its lock; workers read them without one, with the default ordering, and what was replaced
 * is freed only after every worker has been quiescent (dataplane.h). */
#ifndef CVPND_PEER_H
#define CVPND_PEER_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "address_table.h"
#include "aead.h"
#include "cbc.h"
#include "epoch.h"
#include "events.h"
#include "fragments.h"
#include "framing.h"
#include "path.h"
#include "rate.h"
#include "replay.h"
#include "rules.h"
#include "wire.h"

/* Usage limits of one key (openvpn-wire.md 11.4). */
struct key_limits {
    uint64_t packet_ids;       /* this id is never sent */
    uint64_t packet_ids_rekey; /* from here on a new key is asked for, in either direction */
    uint64_t blocks_rekey;     /* AES-GCM blocks and packets, in either direction */
    uint64_t failures;         /* failed authentications after which everything is dropped */
    uint64_t failures_rekey;
    struct epoch_limits epoch; /* in place of the first three for a key of the epoch format */
};

struct key_limits key_limits_default(void);
/* A refusal at `limit` with the renegotiation proportionally before it, as 0xFF000000 is before 0xFFFFFFFF. */
void key_limits_set_packet_ids(struct key_limits *limits, uint64_t limit);
/* The last epoch, with the renegotiation before it as 0xF000 is before 0xFFFF. */
void key_limits_set_epochs(struct key_limits *limits, uint32_t last);

/* Each worker has its own seal context, made when it first needs one, on its own cache line. */
struct seal_state {
    alignas(64) struct aead_context *context; /* its worker only */
    _Atomic uint64_t blocks;                  /* written by its worker, summed by the peer's */
};

struct key_slot {
    /* Constant. */
    const struct aead_backend *backend;
    enum aead_cipher_id cipher;
    uint8_t key_id;
    uint64_t generation; /* rises with every key installed on the peer: a later key is a newer key */
    unsigned workers;
    uint8_t seal_key[AEAD_KEY_MAX]; /* kept for workers that have no context yet */
    uint8_t seal_iv[IMPLICIT_IV_SIZE];
    uint8_t open_iv[IMPLICIT_IV_SIZE];
    struct epoch_keys *epoch; /* of the epoch format, which then stands for all that is below but `failures` */
    struct cbc_keys *cbc;     /* of the CBC format, in place of `open`, `seal`, cipher, keys and IVs */
    bool counts_blocks;       /* there is a limit on blocks here; epochs have one of their own */

    /* The peer's worker only. */
    struct aead_context *open;
    struct replay_window replay;
    uint64_t blocks_opened;
    uint64_t failures;
    uint32_t last_opened; /* id of the last authentic packet */

    /* Any worker. */
    alignas(64) _Atomic uint64_t last_packet_id; /* 64 bits, so that asking on past the limit cannot wrap */
    atomic_bool rekey_due;                       /* a sealing worker saw the limit near */

    /* The peer's worker only. */
    bool rekey_reported;

    struct seal_state seal[];
};

/* Where and how to send to a peer over UDP. Not changed while published, but for what sending teaches. */
struct remote {
    struct listener *listener;
    struct remote *next_retired;        /* control side, once unpublished */
    _Atomic uint32_t segment_limit;     /* packets of this length or longer are refused as segments; 0 = none yet */
    _Atomic uint32_t segments_withheld; /* that went alone since */
    struct socket_address address;
    struct sockaddr_storage sockaddr; /* in the form of the listener's sockets */
    socklen_t sockaddr_length;
    size_t control_length; /* 0 = no source address asked for */
    alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Terminal reports that must not be lost: a bit stays set until the event is in the ring. */
enum { REPORT_TIMEOUT = 1, REPORT_EXIT = 2, REPORT_TCP_CLOSED = 4 };

struct peer {
    /* Constant after publication. */
    uint32_t id;
    unsigned worker; /* receives it: id % workers */
    struct endpoint *endpoint;
    uint64_t ping_interval_ms;
    uint64_t timeout_ms;
    uint32_t remote_id; /* written into packets to it: its own id, or one of its choice (section 9.3) */
    bool data_v1;       /* it knows no peer ids: P_DATA_V1 both ways */
    enum framing framing;

    struct path path; /* who writes what is said there */

    /* Published. */
    _Atomic(struct groups *) groups;
    _Atomic(struct remote *) remote;             /* UDP */
    _Atomic(struct tcp_connection *) connection; /* TCP; never both */
    _Atomic(struct key_slot *) keys[KEY_IDS];
    _Atomic(struct key_slot *) sending; /* one of keys; also moved forward by workers */
    atomic_bool sending_unproven; /* a worker moved there before the peer did: EVENT_KEY_USED is still to come */

    /* Control side only, under its lock. */
    uint64_t generations;

    /* Written by the peer's worker; the statistics are read by anybody. */
    alignas(64) _Atomic uint64_t last_authentic_ms;
    _Atomic uint64_t bytes_in;
    _Atomic uint64_t packets_in;
    _Atomic uint64_t packets_denied; /* by the authorization rules */
    uint64_t last_float_ms;          /* 0 = never */
    bool timeout_reported;
    bool exit_reported;
    struct bucket control; /* control packets handed up; the peer's worker only */
    struct unfinished unfinished;

    struct event_share share; /* under the event queue's lock */

    /* Any thread. */
    atomic_uint reports_due;
    alignas(64) _Atomic uint64_t last_sent_ms;
    _Atomic uint64_t bytes_out;
    _Atomic uint64_t packets_out;
    _Atomic uint64_t told_too_big_ms; /* when a sender was last told, 0 = never */

    /* Constant after publication. */
    unsigned lease_count;
    struct lease leases[];
};

struct peer_key_material {
    enum aead_cipher_id cipher;
    const uint8_t *open_key, *open_iv, *seal_key, *seal_iv;
    bool epoch;                  /* the keys are the secrets of epoch 1, and there are no IVs */
    const struct cbc_suite *cbc; /* NULL, or in place of the cipher; the HMAC's keys then stand in place of the IVs */
};

/* Unpublished; NULL when memory is short. The endpoint, groups and leases are set by the caller. */
/* Nothing authentic for its timeout, if it has one. `now_ms` may be from before the peer was made, or last heard. */
bool peer_is_silent(const struct peer *peer, uint64_t now_ms);

struct peer *peer_new(uint32_t id, unsigned worker, unsigned lease_count, uint64_t now_ms);

/* Wipes and frees a peer that nobody can see any more, with its keys, groups and remote. */
void peer_free(struct peer *peer);

/* The key installed last of those that are there; NULL when there is none. */
struct key_slot *peer_newest_key(const struct peer *peer);

bool peer_has_lease(const struct peer *peer, const struct ip_address *address);

/* NULL when memory is short. */
struct key_slot *key_slot_new(const struct aead_backend *backend, uint8_t key_id, unsigned workers,
                              const struct key_limits *limits, const struct peer_key_material *material);
void key_slot_free(struct key_slot *slot);

/* Blocks and packets sealed so far by all workers. */
uint64_t key_slot_sealed(const struct key_slot *slot);

#endif
