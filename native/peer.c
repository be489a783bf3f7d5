#include "peer.h"

#include <openssl/crypto.h>
#include <stdlib.h>

#include "clock.h"

struct key_limits key_limits_default(void)
{
    const uint64_t blocks = (UINT64_C(1) << 36) - 1;
    struct key_limits limits = {
        .blocks_rekey = blocks / 8 * 7,
        .failures = UINT64_C(1) << 36,
        .failures_rekey = UINT64_C(1) << 35,
    };
    key_limits_set_packet_ids(&limits, 0xFFFFFFFF);
    limits.epoch.use = blocks;
    key_limits_set_epochs(&limits, EPOCH_LAST);
    return limits;
}

void key_limits_set_packet_ids(struct key_limits *limits, uint64_t limit)
{
    limits->packet_ids = limit;
    limits->packet_ids_rekey = limit - limit / 256 - (limit < 256);
}

void key_limits_set_epochs(struct key_limits *limits, uint32_t last)
{
    limits->epoch.last = last;
    limits->epoch.rekey = last - last / 16;
}

/* aligned_alloc wants a multiple of the alignment. */
static void *zeroed_aligned(size_t size)
{
    size = (size + 63) / 64 * 64;
    void *memory = aligned_alloc(64, size);
    if (memory != NULL)
        memset(memory, 0, size);
    return memory;
}

struct peer *peer_new(uint32_t id, unsigned worker, unsigned lease_count, uint64_t now_ms)
{
    struct peer *peer = zeroed_aligned(sizeof *peer + lease_count * sizeof peer->leases[0]);
    if (peer == NULL)
        return NULL;
    peer->id = id;
    peer->remote_id = id;
    peer->worker = worker;
    peer->lease_count = lease_count;
    for (unsigned i = 0; i < lease_count; i++)
        peer->leases[i].peer = peer;
    atomic_store(&peer->last_authentic_ms, now_ms);
    atomic_store(&peer->last_sent_ms, now_ms);
    return peer;
}

bool peer_is_silent(const struct peer *peer, uint64_t now_ms)
{
    uint64_t last_ms = atomic_load_explicit(&peer->last_authentic_ms, memory_order_relaxed);
    return peer->timeout_ms != 0 && clock_since(now_ms, last_ms) >= peer->timeout_ms;
}

void peer_free(struct peer *peer)
{
    if (peer == NULL)
        return;
    for (unsigned i = 0; i < KEY_IDS; i++)
        key_slot_free(atomic_load(&peer->keys[i]));
    fragments_clear(&peer->unfinished);
    free(atomic_load(&peer->groups));
    free(atomic_load(&peer->remote));
    free(peer);
}

struct key_slot *peer_newest_key(const struct peer *peer)
{
    struct key_slot *newest = NULL;
    for (unsigned i = 0; i < KEY_IDS; i++) {
        struct key_slot *slot = atomic_load(&peer->keys[i]);
        if (slot != NULL && (newest == NULL || slot->generation > newest->generation))
            newest = slot;
    }
    return newest;
}

bool peer_has_lease(const struct peer *peer, const struct ip_address *address)
{
    for (unsigned i = 0; i < peer->lease_count; i++)
        if (ip_equal(&peer->leases[i].address, address))
            return true;
    return false;
}

struct key_slot *key_slot_new(const struct aead_backend *backend, uint8_t key_id, unsigned workers,
                              const struct key_limits *limits, const struct peer_key_material *material)
{
    struct key_slot *slot = zeroed_aligned(sizeof *slot + workers * sizeof slot->seal[0]);
    if (slot == NULL)
        return NULL;
    slot->backend = backend;
    slot->cipher = material->cipher;
    slot->key_id = key_id;
    slot->workers = workers;
    if (material->epoch) {
        slot->epoch = epoch_keys_new(backend, material->cipher, workers, &limits->epoch, material->open_key,
                                     material->seal_key);
        if (slot->epoch != NULL)
            return slot;
        key_slot_free(slot);
        return NULL;
    }
    if (material->cbc != NULL) {
        slot->cbc = cbc_keys_new(material->cbc, workers, material->open_key, material->open_iv, material->seal_key,
                                 material->seal_iv);
        if (slot->cbc != NULL)
            return slot;
        key_slot_free(slot);
        return NULL;
    }
    slot->counts_blocks = AEAD_CIPHER[material->cipher].counts_blocks;
    memcpy(slot->seal_key, material->seal_key, AEAD_CIPHER[material->cipher].key_size);
    memcpy(slot->seal_iv, material->seal_iv, IMPLICIT_IV_SIZE);
    memcpy(slot->open_iv, material->open_iv, IMPLICIT_IV_SIZE);
    slot->open = backend->context_new(material->cipher, AEAD_OPEN, material->open_key);
    if (slot->open == NULL) {
        key_slot_free(slot);
        return NULL;
    }
    return slot;
}

void key_slot_free(struct key_slot *slot)
{
    if (slot == NULL)
        return;
    epoch_keys_free(slot->epoch);
    cbc_keys_free(slot->cbc);
    slot->backend->context_free(slot->open);
    for (unsigned i = 0; i < slot->workers; i++)
        slot->backend->context_free(slot->seal[i].context);
    OPENSSL_cleanse(slot, sizeof *slot);
    free(slot);
}

uint64_t key_slot_sealed(const struct key_slot *slot)
{
    uint64_t sum = atomic_load_explicit(&slot->last_packet_id, memory_order_relaxed);
    for (unsigned i = 0; i < slot->workers; i++)
        sum += atomic_load_explicit(&slot->seal[i].blocks, memory_order_relaxed);
    return sum;
}
