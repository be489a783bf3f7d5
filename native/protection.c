#include "protection.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum {
    HALF_SIZE = 128,
    HMAC_OFFSET = 64,
    SIV_KEY_SIZE = 32,
    SIV_TAG_SIZE = 32,
    SIV_IV_SIZE = 16,
    REPLAY_ID_SIZE = 8,
    CRYPT_AD_SIZE = CONTROL_HEADER + REPLAY_ID_SIZE,
    WKC_SHORTEST = SIV_TAG_SIZE + KEY2_SIZE + 2,
    WKC_LONGEST = 1024,
    EARLY_NEGOTIATION = 0x0F, /* top byte of the replay ids (section 5.3) */
};

/* AES-256-CTR with the HMAC-SHA256 tag as its initial counter (sections 6.3 and 6.4). */
struct siv {
    EVP_CIPHER_CTX *aes;
    struct mac mac;
};

static bool siv_init(struct siv *siv)
{
    siv->aes = EVP_CIPHER_CTX_new();
    return mac_init(&siv->mac, "SHA256") && siv->aes != NULL &&
           EVP_CipherInit_ex(siv->aes, EVP_aes_256_ctr(), NULL, NULL, NULL, 1) == 1;
}

static void siv_destroy(struct siv *siv)
{
    EVP_CIPHER_CTX_free(siv->aes);
    mac_destroy(&siv->mac);
}

/* `half`: 64 bytes for the cipher and 64 for the HMAC, of which it takes 32 each. */
static bool siv_set_key(struct siv *siv, const uint8_t *half)
{
    return EVP_CipherInit_ex(siv->aes, NULL, NULL, half, NULL, 1) == 1 &&
           mac_set_key(&siv->mac, half + HMAC_OFFSET, SIV_KEY_SIZE);
}

static bool siv_crypt(struct siv *siv, const uint8_t tag[static SIV_TAG_SIZE], const uint8_t *from, size_t length,
                      uint8_t *into)
{
    int written;
    return EVP_CipherInit_ex(siv->aes, NULL, NULL, NULL, tag, 1) == 1 &&
           EVP_CipherUpdate(siv->aes, into, &written, from, (int)length) == 1;
}

/* Decrypts first, as the construction demands; false leaves `plain` for nobody to use. */
static bool siv_open(struct siv *siv, const uint8_t *ad, size_t ad_length, const uint8_t *tag, const uint8_t *sealed,
                     size_t length, uint8_t *plain)
{
    const struct part parts[] = {{ad, ad_length}, {plain, length}};
    return siv_crypt(siv, tag, sealed, length, plain) && mac_matches(&siv->mac, parts, 2, tag, SIV_TAG_SIZE);
}

static bool siv_seal(struct siv *siv, const uint8_t *ad, size_t ad_length, const uint8_t *plain, size_t length,
                     uint8_t *tag, uint8_t *sealed)
{
    uint8_t result[MAC_MAX];
    const struct part parts[] = {{ad, ad_length}, {plain, length}};
    if (!mac_compute(&siv->mac, parts, 2, result))
        return false;
    memcpy(tag, result, SIV_TAG_SIZE);
    return siv_crypt(siv, tag, plain, length, sealed);
}

struct protection {
    enum wrapping shared;
    bool has_server_key;
    bool allow_stateful;
    struct mac auth_open, auth_seal;   /* tls-auth */
    struct siv crypt_open, crypt_seal; /* tls-crypt */
    struct siv server;                 /* around client keys */
    struct siv client_open;            /* keyed anew for each packet that brings its key */
    struct siv client_seal;
    uint8_t client_key[WKC_LONGEST]; /* of the packet opened last; also its metadata, which Python judges */
    uint8_t body[CONTROL_DATAGRAM_MAX];
};

static bool init_tls_auth(struct protection *protection, const struct protection_settings *settings)
{
    struct mac *open = &protection->auth_open, *seal = &protection->auth_seal;
    if (!mac_init(open, settings->digest) || !mac_init(seal, settings->digest))
        return false;
    const uint8_t *first = settings->key2 + HMAC_OFFSET, *second = first + HALF_SIZE;
    return mac_set_key(seal, settings->direction == 1 ? second : first, seal->size) &&
           mac_set_key(open, settings->direction == 0 ? second : first, open->size);
}

static bool init(struct protection *protection, const struct protection_settings *settings)
{
    protection->shared = settings->shared;
    protection->has_server_key = settings->server_key != NULL;
    protection->allow_stateful = settings->allow_stateful;
    if (settings->shared == WRAP_TLS_AUTH && !init_tls_auth(protection, settings))
        return false;
    if (settings->shared == WRAP_TLS_CRYPT) {
        struct siv *open = &protection->crypt_open, *seal = &protection->crypt_seal;
        /* The server sends with the first half (section 6.3). */
        if (!siv_init(open) || !siv_init(seal) || !siv_set_key(seal, settings->key2) ||
            !siv_set_key(open, settings->key2 + HALF_SIZE))
            return false;
    }
    return settings->server_key == NULL ||
           (siv_init(&protection->client_open) && siv_init(&protection->client_seal) &&
            siv_init(&protection->server) && siv_set_key(&protection->server, settings->server_key));
}

struct protection *protection_new(const struct protection_settings *settings)
{
    struct protection *protection = calloc(1, sizeof *protection);
    if (protection != NULL && !init(protection, settings)) {
        protection_free(protection);
        return NULL;
    }
    return protection;
}

void protection_free(struct protection *protection)
{
    if (protection == NULL)
        return;
    mac_destroy(&protection->auth_open);
    mac_destroy(&protection->auth_seal);
    siv_destroy(&protection->crypt_open);
    siv_destroy(&protection->crypt_seal);
    siv_destroy(&protection->server);
    siv_destroy(&protection->client_open);
    siv_destroy(&protection->client_seal);
    OPENSSL_cleanse(protection, sizeof *protection);
    free(protection);
}

bool protection_allows_stateful(const struct protection *protection) { return protection->allow_stateful; }

/* -- open --------------------------------------------------------------------------------------------------------- */

static enum control_drop open_tls_auth(struct protection *protection, const uint8_t *packet, size_t length,
                                       struct cursor *body)
{
    struct mac *mac = &protection->auth_open;
    struct cursor cursor = cursor_over(packet, length);
    const uint8_t *header, *hmac, *replay_id;
    if (!take_bytes(&cursor, CONTROL_HEADER, &header) || !take_bytes(&cursor, mac->size, &hmac) ||
        !take_bytes(&cursor, REPLAY_ID_SIZE, &replay_id) || cursor_left(&cursor) == 0)
        return CONTROL_NOT_AUTHENTIC; /* too short to hold its MAC and a body */
    const struct part parts[] = {
        {replay_id, REPLAY_ID_SIZE}, {header, CONTROL_HEADER}, {cursor.at, cursor_left(&cursor)}};
    if (!mac_matches(mac, parts, 3, hmac, mac->size))
        return CONTROL_NOT_AUTHENTIC;
    *body = cursor;
    return CONTROL_GOOD;
}

static enum control_drop open_siv(struct protection *protection, struct siv *siv, const uint8_t *packet,
                                  size_t length, struct cursor *body)
{
    struct cursor cursor = cursor_over(packet, length);
    const uint8_t *ad, *tag;
    if (!take_bytes(&cursor, CRYPT_AD_SIZE, &ad) || !take_bytes(&cursor, SIV_TAG_SIZE, &tag) ||
        cursor_left(&cursor) == 0)
        return CONTROL_NOT_AUTHENTIC; /* too short to hold its MAC and a body */
    size_t sealed = cursor_left(&cursor);
    if (sealed > sizeof protection->body)
        return CONTROL_TOO_LONG;
    if (!siv_open(siv, ad, CRYPT_AD_SIZE, tag, cursor.at, sealed, protection->body))
        return CONTROL_NOT_AUTHENTIC;
    *body = cursor_over(protection->body, sealed);
    return CONTROL_GOOD;
}

/* The client's own key stands at the end of its packet, wrapped under ours (section 6.4). */
static enum control_drop unwrap_client_key(struct protection *protection, const uint8_t *packet, size_t length,
                                           size_t *inner_length)
{
    if (length < CONTROL_HEADER + WKC_SHORTEST)
        return CONTROL_TRUNCATED;
    const uint8_t *length_field = packet + length - 2;
    size_t wkc_length = get_u16(length_field);
    if (wkc_length < WKC_SHORTEST || wkc_length > WKC_LONGEST || wkc_length > length - CONTROL_HEADER)
        return CONTROL_BAD_CLIENT_KEY;
    const uint8_t *tag = packet + length - wkc_length;
    if (!siv_open(&protection->server, length_field, 2, tag, tag + SIV_TAG_SIZE, wkc_length - SIV_TAG_SIZE - 2,
                  protection->client_key))
        return CONTROL_BAD_CLIENT_KEY;
    *inner_length = length - wkc_length;
    return CONTROL_GOOD;
}

static enum control_drop open_with_client_key(struct protection *protection, const uint8_t *packet, size_t length,
                                              struct cursor *body, struct opened *opened)
{
    size_t inner_length;
    enum control_drop drop = unwrap_client_key(protection, packet, length, &inner_length);
    if (drop != CONTROL_GOOD)
        return drop;
    if (!siv_set_key(&protection->client_open, protection->client_key + HALF_SIZE))
        return CONTROL_BAD_CLIENT_KEY;
    drop = open_siv(protection, &protection->client_open, packet, inner_length, body);
    if (drop == CONTROL_GOOD)
        opened->early_negotiation = packet[CONTROL_HEADER] == EARLY_NEGOTIATION;
    opened->client_key = true;
    return drop;
}

enum control_drop protection_open(struct protection *protection, const uint8_t *packet, size_t length,
                                  struct opened *opened)
{
    *opened = (struct opened){0};
    enum control_drop drop = control_parse_header(&opened->header, packet, length);
    if (drop != CONTROL_GOOD)
        return drop;
    struct cursor body;
    if (control_brings_key(opened->header.opcode)) {
        if (!protection->has_server_key)
            return CONTROL_BAD_OPCODE;
        drop = open_with_client_key(protection, packet, length, &body, opened);
    } else {
        switch (protection->shared) {
        case WRAP_REFUSED: return CONTROL_NOT_AUTHENTIC;
        case WRAP_PLAIN: body = cursor_over(packet + CONTROL_HEADER, length - CONTROL_HEADER); break;
        case WRAP_TLS_AUTH: drop = open_tls_auth(protection, packet, length, &body); break;
        case WRAP_TLS_CRYPT: drop = open_siv(protection, &protection->crypt_open, packet, length, &body); break;
        }
    }
    return drop == CONTROL_GOOD ? control_parse_body(&opened->body, opened->header.opcode, body) : drop;
}

/* -- seal --------------------------------------------------------------------------------------------------------- */

static size_t seal_siv(struct siv *siv, const uint8_t *header, const uint8_t *replay_id, const uint8_t *body,
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

size_t protection_seal(struct protection *protection, const struct opened *opened,
                       const uint8_t header[static CONTROL_HEADER], const uint8_t *body, size_t body_length,
                       uint32_t wall_s, uint8_t *wire)
{
    uint8_t replay_id[REPLAY_ID_SIZE];
    put_u32(replay_id, 1);
    put_u32(replay_id + 4, wall_s);
    if (opened->client_key) {
        if (!siv_set_key(&protection->client_seal, protection->client_key))
            return 0;
        return seal_siv(&protection->client_seal, header, replay_id, body, body_length, wire);
    }
    switch (protection->shared) {
    case WRAP_REFUSED: return 0;
    case WRAP_PLAIN:
        memcpy(wire, header, CONTROL_HEADER);
        memcpy(wire + CONTROL_HEADER, body, body_length);
        return CONTROL_HEADER + body_length;
    case WRAP_TLS_AUTH: return seal_tls_auth(&protection->auth_seal, header, replay_id, body, body_length, wire);
    case WRAP_TLS_CRYPT: return seal_siv(&protection->crypt_seal, header, replay_id, body, body_length, wire);
    }
    return 0;
}
