#include "control_keys.h"

#include <openssl/crypto.h>

enum { HMAC_OFFSET = 64, CRYPT_AD_SIZE = CONTROL_HEADER + REPLAY_ID_SIZE };

bool control_keys_init(struct control_keys *keys, enum wrapping kind, const char *digest)
{
    *keys = (struct control_keys){.kind = kind};
    switch (kind) {
    case WRAP_TLS_AUTH: return mac_init(&keys->auth_open, digest) && mac_init(&keys->auth_seal, digest);
    case WRAP_TLS_CRYPT: return siv_init(&keys->crypt_open) && siv_init(&keys->crypt_seal);
    case WRAP_REFUSED:
    case WRAP_PLAIN: break;
    }
    return true;
}

void control_keys_destroy(struct control_keys *keys)
{
    mac_destroy(&keys->auth_open);
    mac_destroy(&keys->auth_seal);
    siv_destroy(&keys->crypt_open);
    siv_destroy(&keys->crypt_seal); /* the keys themselves are in the contexts, which wipe theirs */
    OPENSSL_cleanse(keys, sizeof *keys);
}

/* Of the 64 bytes for the cipher and the 64 for the HMAC it takes the first 32 each. */
static bool set_half(struct siv *siv, const uint8_t *half) { return siv_set_key(siv, half, half + HMAC_OFFSET); }

bool control_keys_set(struct control_keys *keys, const uint8_t key2[static KEY2_SIZE], int direction)
{
    if (keys->kind == WRAP_TLS_CRYPT) /* the server sends with the first half (section 6.3) */
        return set_half(&keys->crypt_seal, key2) && set_half(&keys->crypt_open, key2 + KEY2_HALF);
    if (keys->kind != WRAP_TLS_AUTH)
        return true;
    const uint8_t *first = key2 + HMAC_OFFSET, *second = first + KEY2_HALF;
    struct mac *open = &keys->auth_open, *seal = &keys->auth_seal;
    return mac_set_key(seal, direction == 1 ? second : first, seal->size) &&
           mac_set_key(open, direction == 0 ? second : first, open->size);
}

size_t control_keys_overhead(const struct control_keys *keys)
{
    switch (keys->kind) {
    case WRAP_TLS_AUTH: return keys->auth_seal.size + REPLAY_ID_SIZE;
    case WRAP_TLS_CRYPT: return REPLAY_ID_SIZE + SIV_TAG_SIZE;
    case WRAP_REFUSED:
    case WRAP_PLAIN: break;
    }
    return 0;
}

/* -- open --------------------------------------------------------------------------------------------------------- */

static enum control_drop open_tls_auth(struct mac *mac, const uint8_t *packet, size_t length, struct cursor *body,
                                       const uint8_t **replay_id)
{
    struct cursor cursor = cursor_over(packet, length);
    const uint8_t *header, *hmac;
    if (!take_bytes(&cursor, CONTROL_HEADER, &header) || !take_bytes(&cursor, mac->size, &hmac) ||
        !take_bytes(&cursor, REPLAY_ID_SIZE, replay_id) || cursor_left(&cursor) == 0)
        return CONTROL_NOT_AUTHENTIC; /* too short to hold its MAC and a body */
    const struct part parts[] = {
        {*replay_id, REPLAY_ID_SIZE}, {header, CONTROL_HEADER}, {cursor.at, cursor_left(&cursor)}};
    if (!mac_matches(mac, parts, 3, hmac, mac->size))
        return CONTROL_NOT_AUTHENTIC;
    *body = cursor;
    return CONTROL_GOOD;
}

static enum control_drop open_tls_crypt(struct siv *siv, const uint8_t *packet, size_t length, uint8_t *scratch,
                                        struct cursor *body, const uint8_t **replay_id)
{
    struct cursor cursor = cursor_over(packet, length);
    const uint8_t *ad, *tag;
    if (!take_bytes(&cursor, CRYPT_AD_SIZE, &ad) || !take_bytes(&cursor, SIV_TAG_SIZE, &tag) ||
        cursor_left(&cursor) == 0)
        return CONTROL_NOT_AUTHENTIC; /* too short to hold its MAC and a body */
    size_t sealed = cursor_left(&cursor);
    if (sealed > CONTROL_DATAGRAM_MAX)
        return CONTROL_TOO_LONG;
    if (!siv_open(siv, ad, CRYPT_AD_SIZE, tag, cursor.at, sealed, scratch))
        return CONTROL_NOT_AUTHENTIC;
    *body = cursor_over(scratch, sealed);
    *replay_id = ad + CONTROL_HEADER;
    return CONTROL_GOOD;
}

enum control_drop control_keys_open(struct control_keys *keys, const uint8_t *packet, size_t length,
                                    uint8_t scratch[static CONTROL_DATAGRAM_MAX], struct cursor *body,
                                    const uint8_t **replay_id)
{
    *replay_id = NULL;
    switch (keys->kind) {
    case WRAP_REFUSED: return CONTROL_NOT_AUTHENTIC;
    case WRAP_PLAIN: *body = cursor_over(packet + CONTROL_HEADER, length - CONTROL_HEADER); return CONTROL_GOOD;
    case WRAP_TLS_AUTH: return open_tls_auth(&keys->auth_open, packet, length, body, replay_id);
    case WRAP_TLS_CRYPT: return open_tls_crypt(&keys->crypt_open, packet, length, scratch, body, replay_id);
    }
    return CONTROL_NOT_AUTHENTIC;
}

/* -- seal --------------------------------------------------------------------------------------------------------- */

static size_t seal_tls_crypt(struct siv *siv, const uint8_t *header, const uint8_t *replay_id, const uint8_t *body,
                             size_t body_length, uint8_t *wire)
{
    memcpy(wire, header, CONTROL_HEADER);
    memcpy(wire + CONTROL_HEADER, replay_id, REPLAY_ID_SIZE);
    uint8_t *tag = wire + CRYPT_AD_SIZE;
    if (!siv_seal(siv, wire, CRYPT_AD_SIZE, body, body_length, tag, tag + SIV_TAG_SIZE))
        return 0;
    return CRYPT_AD_SIZE + SIV_TAG_SIZE + body_length;
}

static size_t seal_tls_auth(struct mac *mac, const uint8_t *header, const uint8_t *replay_id, const uint8_t *body,
                            size_t body_length, uint8_t *wire)
{
    uint8_t hmac[MAC_MAX];
    const struct part parts[] = {{replay_id, REPLAY_ID_SIZE}, {header, CONTROL_HEADER}, {body, body_length}};
    if (!mac_compute(mac, parts, 3, hmac))
        return 0;
    uint8_t *at = wire;
    memcpy(at, header, CONTROL_HEADER);
    memcpy(at += CONTROL_HEADER, hmac, mac->size);
    memcpy(at += mac->size, replay_id, REPLAY_ID_SIZE);
    memcpy(at += REPLAY_ID_SIZE, body, body_length);
    return (size_t)(at - wire) + body_length;
}

size_t control_keys_seal(struct control_keys *keys, const uint8_t header[static CONTROL_HEADER],
                         const uint8_t replay_id[static REPLAY_ID_SIZE], const uint8_t *body, size_t body_length,
                         uint8_t *wire)
{
    switch (keys->kind) {
    case WRAP_REFUSED: return 0;
    case WRAP_PLAIN:
        memcpy(wire, header, CONTROL_HEADER);
        memcpy(wire + CONTROL_HEADER, body, body_length);
        return CONTROL_HEADER + body_length;
    case WRAP_TLS_AUTH: return seal_tls_auth(&keys->auth_seal, header, replay_id, body, body_length, wire);
    case WRAP_TLS_CRYPT: return seal_tls_crypt(&keys->crypt_seal, header, replay_id, body, body_length, wire);
    }
    return 0;
}
