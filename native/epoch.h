/* Keys of the epoch format: one secret for each direction, from which key follows key (openvpn-wire.md 10.3, 11.3).
 *
 * A packet's id is a u64 of which the epoch is the upper 16 bits and the counter the rest. So "take the next id" is
 * one atomic add, a switch to a later epoch is one compare-and-swap, and no id can be given out twice.
 *
 * Sending: any worker. Each walks along the chain of secrets by itself when the id it has got is of a later epoch,
 * so there is nothing to share but the position. Receiving: the peer's worker only. */
#ifndef CVPND_EPOCH_H
#define CVPND_EPOCH_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "aead.h"
#include "counters.h"
#include "replay.h"
#include "wire.h"

enum {
    EPOCH_SECRET_SIZE = 32,
    EPOCH_LAST = 0xFFFF,
    EPOCH_FUTURE = 4,                /* how far ahead a peer may be */
    EPOCH_OPENERS = 1 + EPOCH_FUTURE /* current and future ones */
};
#define EPOCH_COUNTER_MASK ((UINT64_C(1) << 48) - 1)

/* HKDF-Expand-Label with the prefix "ovpn " and no context; at most 32 bytes. */
void epoch_expand(const uint8_t secret[static EPOCH_SECRET_SIZE], const char *label, uint8_t *into, size_t length);

/* Usage limits of one epoch's key and of all of them. */
struct epoch_limits {
    uint64_t use;   /* AES-GCM blocks and packets under one key, then the next epoch */
    uint32_t last;  /* no epoch is sent after this one */
    uint32_t rekey; /* from this one on a new key is asked for */
};

struct epoch_opener {
    uint16_t epoch; /* 0 = none */
    uint8_t key[AEAD_KEY_MAX];
    uint8_t iv[NONCE_SIZE];
    struct aead_context *context; /* made when first needed: most future keys never are */
};

/* One worker's place in the chain. */
struct epoch_sealer {
    alignas(64) struct aead_context *context; /* NULL = nothing sent yet */
    uint16_t epoch;
    uint8_t iv[NONCE_SIZE];
    uint8_t secret[EPOCH_SECRET_SIZE]; /* of `epoch` */
};

struct epoch_keys {
    /* Constant. */
    const struct aead_backend *backend;
    enum aead_cipher_id cipher;
    unsigned workers;

    /* The peer's worker only. */
    struct epoch_opener retiring; /* the epoch before the current one */
    struct replay_window retiring_replay;
    struct epoch_opener openers[EPOCH_OPENERS]; /* the current one first */
    struct replay_window replay;                /* of the current one */
    uint8_t next_secret[EPOCH_SECRET_SIZE];     /* of the epoch behind the last opener */
    uint64_t blocks_opened;                     /* in the current epoch */

    /* Any worker. */
    alignas(64) _Atomic uint64_t last_id; /* the id given out last; starts as epoch 1, counter 0 */
    _Atomic uint64_t used;                /* blocks and packets sealed in all epochs */
    _Atomic uint64_t rotate_at;           /* the value of `used` that ends the epoch */

    struct epoch_sealer sealers[];
};

/* From the secrets of epoch 1. NULL when memory is short. */
struct epoch_keys *epoch_keys_new(const struct aead_backend *backend, enum aead_cipher_id cipher, unsigned workers,
                                  const struct epoch_limits *limits,
                                  const uint8_t open_secret[static EPOCH_SECRET_SIZE],
                                  const uint8_t seal_secret[static EPOCH_SECRET_SIZE]);
void epoch_keys_free(struct epoch_keys *keys); /* NULL is allowed */

/* The epoch that is being sent in. */
static inline uint32_t epoch_sending(const struct epoch_keys *keys)
{
    return (uint32_t)(atomic_load_explicit(&keys->last_id, memory_order_relaxed) >> 48);
}

/* Opens a packet of at least EPOCH_OVERHEAD + 1 bytes in place: its text lies behind EPOCH_AD and ends before the tag.
 * DROP_NO_KEY when the epoch is none that can be expected, and nothing was tried then. A future epoch that
 * authenticates becomes the current one, and what is sent follows it. */
enum drop_reason epoch_open(struct epoch_keys *keys, const struct epoch_limits *limits, uint8_t *packet,
                            uint32_t length);

/* Seals `length` bytes of text behind an EPOCH_AD whose header is filled in already; the tag goes behind it.
 * DROP_KEY_EXHAUSTED when the last epoch is used up. */
enum drop_reason epoch_seal(struct epoch_keys *keys, unsigned worker, const struct epoch_limits *limits,
                            uint8_t *packet, uint32_t length);

#endif
