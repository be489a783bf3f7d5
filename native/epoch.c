#include "epoch.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

static const char DATA_KEY[] = "data_key", DATA_IV[] = "data_iv", NEXT_SECRET[] = "datakey upd";

void epoch_expand(const uint8_t secret[static EPOCH_SECRET_SIZE], const char *label, uint8_t *into, size_t length)
{
    static const char prefix[] = "ovpn ";
    const size_t prefix_length = sizeof prefix - 1, label_length = strlen(label);
    uint8_t info[64], block[32];
    size_t at = 0;
    put_u16(info, (uint16_t)length);
    at += 2;
    info[at++] = (uint8_t)(prefix_length + label_length);
    memcpy(info + at, prefix, prefix_length);
    at += prefix_length;
    memcpy(info + at, label, label_length);
    at += label_length;
    info[at++] = 0; /* no context */
    info[at++] = 1; /* HKDF's first block, and there is no second one */
    if (HMAC(EVP_sha256(), secret, EPOCH_SECRET_SIZE, info, at, block, NULL) == NULL)
        abort(); /* out of memory; a key must never be made of what is left on the stack */
    memcpy(into, block, length);
    OPENSSL_cleanse(block, sizeof block);
}

static void step(uint8_t secret[static EPOCH_SECRET_SIZE])
{
    uint8_t next[EPOCH_SECRET_SIZE];
    epoch_expand(secret, NEXT_SECRET, next, sizeof next);
    memcpy(secret, next, sizeof next);
    OPENSSL_cleanse(next, sizeof next);
}

/* Nonces of an epoch: its IV, and the id over the first eight bytes of it. */
static void make_nonce(uint8_t nonce[static NONCE_SIZE], const uint8_t iv[static NONCE_SIZE],
                       const uint8_t id[static EPOCH_ID_SIZE])
{
    memcpy(nonce, iv, NONCE_SIZE);
    for (unsigned i = 0; i < EPOCH_ID_SIZE; i++)
        nonce[i] ^= id[i];
}

/* No id from here on: all workers stop before their ids could start anew. */
static const uint64_t IDS_END = UINT64_MAX - UINT32_MAX;

static uint64_t uses(uint32_t packet_length) { return (packet_length + 15) / 16 + 1; }

/* -- receiving ---------------------------------------------------------------------------------------------------- */

/* Fills in the key after the last opener. */
static void derive_opener(struct epoch_keys *keys, struct epoch_opener *opener, uint16_t epoch)
{
    *opener = (struct epoch_opener){.epoch = epoch};
    epoch_expand(keys->next_secret, DATA_KEY, opener->key, AEAD_CIPHER[keys->cipher].key_size);
    epoch_expand(keys->next_secret, DATA_IV, opener->iv, NONCE_SIZE);
    step(keys->next_secret);
}

static void forget_opener(struct epoch_keys *keys, struct epoch_opener *opener)
{
    keys->backend->context_free(opener->context);
    OPENSSL_cleanse(opener, sizeof *opener);
}

/* Whose packet this may be; NULL when its epoch is out of reach. */
static struct epoch_opener *find_opener(struct epoch_keys *keys, uint16_t epoch, const struct epoch_limits *limits)
{
    uint16_t current = keys->openers[0].epoch;
    if (epoch == current)
        return &keys->openers[0];
    if (epoch == 0)
        return NULL;
    if (epoch == keys->retiring.epoch)
        return &keys->retiring;
    /* With one of the last epochs there would be none to be expected behind it. */
    if (epoch < current || epoch > current + EPOCH_FUTURE || epoch + EPOCH_FUTURE + 1 > (int64_t)limits->last)
        return NULL;
    return &keys->openers[epoch - current];
}

/* The sender moves to at least this epoch; behind the last one, to where no id is left. Never back. */
static void raise_sending(struct epoch_keys *keys, uint64_t epoch)
{
    uint64_t start = epoch > EPOCH_LAST ? IDS_END : epoch << 48;
    uint64_t last = atomic_load(&keys->last_id);
    while (last < start && !atomic_compare_exchange_weak(&keys->last_id, &last, start)) {
    }
}

/* A future epoch has proven itself. */
static void promote(struct epoch_keys *keys, unsigned steps)
{
    forget_opener(keys, &keys->retiring);
    keys->retiring = keys->openers[0];
    keys->retiring_replay = keys->replay;
    for (unsigned i = 1; i < steps; i++)
        forget_opener(keys, &keys->openers[i]);
    memmove(keys->openers, keys->openers + steps, (EPOCH_OPENERS - steps) * sizeof keys->openers[0]);
    uint16_t current = keys->openers[0].epoch;
    for (unsigned i = EPOCH_OPENERS - steps; i < EPOCH_OPENERS; i++)
        derive_opener(keys, &keys->openers[i], (uint16_t)(current + i)); /* beyond the last epoch: never found */
    memset(&keys->replay, 0, sizeof keys->replay);
    keys->blocks_opened = 0;
    raise_sending(keys, current);
}

enum drop_reason epoch_open(struct epoch_keys *keys, const struct epoch_limits *limits, uint8_t *packet,
                            uint32_t length)
{
    const uint8_t *id = packet + DATA_HEADER;
    struct epoch_opener *opener = find_opener(keys, get_u16(id), limits);
    if (opener == NULL)
        return DROP_NO_KEY;
    if (opener->context == NULL)
        opener->context = keys->backend->context_new(keys->cipher, AEAD_OPEN, opener->key);
    if (opener->context == NULL)
        return DROP_NO_KEY; /* memory is short */
    uint8_t nonce[NONCE_SIZE];
    make_nonce(nonce, opener->iv, id);
    uint32_t text_length = length - EPOCH_OVERHEAD;
    uint8_t *text = packet + EPOCH_AD;
    if (!keys->backend->open(opener->context, nonce, packet, EPOCH_AD, text, text_length, text + text_length))
        return DROP_AUTH_FAILED;
    uint64_t counter = get_u64(id) & EPOCH_COUNTER_MASK;
    if (opener == &keys->retiring)
        return replay_accept(&keys->retiring_replay, counter) ? PACKET_PASSES : DROP_REPLAYED;
    if (counter == 0)
        return DROP_REPLAYED; /* no id of anybody's: not even its epoch counts */
    if (opener != &keys->openers[0])
        promote(keys, (unsigned)(opener - keys->openers));
    if (!replay_accept(&keys->replay, counter))
        return DROP_REPLAYED;
    keys->blocks_opened += uses(length) - 1;
    /* The peer uses its key too much and does not move: it will follow us. */
    uint32_t current = keys->openers[0].epoch;
    if (AEAD_CIPHER[keys->cipher].counts_blocks && keys->blocks_opened + keys->replay.highest >= limits->use &&
        epoch_sending(keys) == current && current < limits->last)
        raise_sending(keys, current + 1);
    return PACKET_PASSES;
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

/* The next id, or 0 when there is none left. Counter 0 is not used: it is where a raise puts the position, and where
 * a counter that runs over its 48 bits would carry into the next epoch. */
static uint64_t take_id(struct epoch_keys *keys, const struct epoch_limits *limits)
{
    for (;;) {
        uint64_t last = atomic_load_explicit(&keys->last_id, memory_order_relaxed);
        if (last >> 48 > limits->last || last >= IDS_END)
            return 0;
        uint64_t id = atomic_fetch_add_explicit(&keys->last_id, 1, memory_order_relaxed) + 1;
        if ((id & EPOCH_COUNTER_MASK) != 0 && id >> 48 <= limits->last)
            return id;
    }
}

/* Walks to `epoch`, which never lies behind: the ids that a worker gets rise. False when memory is short. */
static bool follow(struct epoch_keys *keys, struct epoch_sealer *sealer, uint16_t epoch)
{
    while (sealer->epoch < epoch) {
        step(sealer->secret);
        sealer->epoch++;
    }
    uint8_t key[AEAD_KEY_MAX];
    epoch_expand(sealer->secret, DATA_KEY, key, AEAD_CIPHER[keys->cipher].key_size);
    epoch_expand(sealer->secret, DATA_IV, sealer->iv, NONCE_SIZE);
    keys->backend->context_free(sealer->context);
    sealer->context = keys->backend->context_new(keys->cipher, AEAD_SEAL, key);
    OPENSSL_cleanse(key, sizeof key);
    return sealer->context != NULL;
}

/* Counts a packet, and ends the epoch when its key is used up. One worker finds that out: whoever moves the mark. */
static void count_use(struct epoch_keys *keys, const struct epoch_limits *limits, uint32_t packet_length)
{
    if (!AEAD_CIPHER[keys->cipher].counts_blocks)
        return;
    uint64_t by = uses(packet_length);
    uint64_t used = atomic_fetch_add_explicit(&keys->used, by, memory_order_relaxed) + by;
    uint64_t mark = atomic_load(&keys->rotate_at);
    if (used < mark || !atomic_compare_exchange_strong(&keys->rotate_at, &mark, used + limits->use))
        return;
    raise_sending(keys, (uint64_t)epoch_sending(keys) + 1);
}

enum drop_reason epoch_seal(struct epoch_keys *keys, unsigned worker, const struct epoch_limits *limits,
                            uint8_t *packet, uint32_t length)
{
    struct epoch_sealer *sealer = &keys->sealers[worker];
    uint64_t id = take_id(keys, limits);
    if (id == 0)
        return DROP_KEY_EXHAUSTED;
    if ((sealer->context == NULL || id >> 48 != sealer->epoch) && !follow(keys, sealer, (uint16_t)(id >> 48)))
        return DROP_NOT_READY;
    uint8_t nonce[NONCE_SIZE], *text = packet + EPOCH_AD;
    put_u64(packet + DATA_HEADER, id);
    make_nonce(nonce, sealer->iv, packet + DATA_HEADER);
    if (!keys->backend->seal(sealer->context, nonce, packet, EPOCH_AD, text, length, text + length))
        return DROP_NOT_READY;
    count_use(keys, limits, length + EPOCH_OVERHEAD);
    return PACKET_PASSES;
}

/* -- life --------------------------------------------------------------------------------------------------------- */

struct epoch_keys *epoch_keys_new(const struct aead_backend *backend, enum aead_cipher_id cipher, unsigned workers,
                                  const struct epoch_limits *limits,
                                  const uint8_t open_secret[static EPOCH_SECRET_SIZE],
                                  const uint8_t seal_secret[static EPOCH_SECRET_SIZE])
{
    struct epoch_keys *keys;
    size_t size = (sizeof *keys + workers * sizeof keys->sealers[0] + 63) / 64 * 64;
    keys = aligned_alloc(64, size);
    if (keys == NULL)
        return NULL;
    memset(keys, 0, size);
    keys->backend = backend;
    keys->cipher = cipher;
    keys->workers = workers;
    memcpy(keys->next_secret, open_secret, EPOCH_SECRET_SIZE);
    for (uint16_t i = 0; i < EPOCH_OPENERS; i++)
        derive_opener(keys, &keys->openers[i], i + 1);
    for (unsigned i = 0; i < workers; i++) {
        keys->sealers[i].epoch = 1;
        memcpy(keys->sealers[i].secret, seal_secret, EPOCH_SECRET_SIZE);
    }
    atomic_store(&keys->last_id, UINT64_C(1) << 48);
    atomic_store(&keys->rotate_at, limits->use);
    return keys;
}

void epoch_keys_free(struct epoch_keys *keys)
{
    if (keys == NULL)
        return;
    keys->backend->context_free(keys->retiring.context);
    for (unsigned i = 0; i < EPOCH_OPENERS; i++)
        keys->backend->context_free(keys->openers[i].context);
    for (unsigned i = 0; i < keys->workers; i++)
        keys->backend->context_free(keys->sealers[i].context);
    OPENSSL_cleanse(keys, sizeof *keys + keys->workers * sizeof keys->sealers[0]);
    free(keys);
}
