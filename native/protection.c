#include "protection.h"

#include <openssl/crypto.h>
#include <stdlib.h>

#include "siv.h"

enum {
    HALF_SIZE = 128,
    HMAC_OFFSET = 64,
    REPLAY_ID_SIZE = 8,
    CRYPT_AD_SIZE = CONTROL_HEADER + REPLAY_ID_SIZE,
    WKC_SHORTEST = SIV_TAG_SIZE + KEY2_SIZE + 2,
    WKC_LONGEST = 1024,
    CLIENTS_KEPT = 32,
    EARLY_NEGOTIATION = 0x0F, /* top byte of the replay ids (section 5.3) */
};

/* A client's own key as it was shown last, ready for use: unwrapping it and setting both halves up costs 9 us, and who
 * shows one once shows it a hundred thousand times a second. */
struct client {
    struct siv open, seal;
    size_t length; /* of its wrapped form; 0: none is here */
    uint8_t wrapped[WKC_LONGEST];
};

struct protection {
    enum wrapping shared;
    bool has_server_key;
    bool allow_stateful;
    struct mac auth_open, auth_seal;   /* tls-auth */
    struct siv crypt_open, crypt_seal; /* tls-crypt */
    struct siv server;                 /* around client keys */
    struct client *clients;            /* CLIENTS_KEPT, by the tag of the wrapped key, which nobody can choose */
    uint8_t unwrapped[WKC_LONGEST];    /* scratch */
    uint8_t body[CONTROL_DATAGRAM_MAX];
};

/* Of the 64 bytes for the cipher and the 64 for the HMAC it takes the first 32 each. */
static bool set_half(struct siv *siv, const uint8_t *half) { return siv_set_key(siv, half, half + HMAC_OFFSET); }

static bool init_tls_auth(struct protection *protection, const struct protection_settings *settings)
{
    struct mac *open = &protection->auth_open, *seal = &protection->auth_seal;
    if (!mac_init(open, settings->digest) || !mac_init(seal, settings->digest))
        return false;
    const uint8_t *first = settings->key2 + HMAC_OFFSET, *second = first + HALF_SIZE;
    return mac_set_key(seal, settings->direction == 1 ? second : first, seal->size) &&
           mac_set_key(open, settings->direction == 0 ? second : first, open->size);
}

static bool init_client_keys(struct protection *protection, const uint8_t *server_key)
{
    if (!siv_init(&protection->server) || !set_half(&protection->server, server_key))
        return false;
    protection->clients = calloc(CLIENTS_KEPT, sizeof *protection->clients);
    for (unsigned i = 0; protection->clients != NULL && i < CLIENTS_KEPT; i++)
        if (!siv_init(&protection->clients[i].open) || !siv_init(&protection->clients[i].seal))
            return false;
    return protection->clients != NULL;
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
        if (!siv_init(open) || !siv_init(seal) || !set_half(seal, settings->key2) ||
            !set_half(open, settings->key2 + HALF_SIZE))
            return false;
    }
    return settings->server_key == NULL || init_client_keys(protection, settings->server_key);
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
    for (unsigned i = 0; protection->clients != NULL && i < CLIENTS_KEPT; i++) {
        siv_destroy(&protection->clients[i].open);
        siv_destroy(&protection->clients[i].seal);
    }
    free(protection->clients); /* the keys themselves are in the contexts, which wipe theirs */
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

/* The client's own key stands at the end of its packet, wrapped under ours (section 6.4). What is not authentic takes
 * nobody's place. */
static enum control_drop find_client(struct protection *protection, const uint8_t *packet, size_t length,
                                     struct client **found, size_t *inner_length)
{
    if (length < CONTROL_HEADER + WKC_SHORTEST)
        return CONTROL_TRUNCATED;
    const uint8_t *length_field = packet + length - 2;
    size_t wkc_length = get_u16(length_field);
    if (wkc_length < WKC_SHORTEST || wkc_length > WKC_LONGEST || wkc_length > length - CONTROL_HEADER)
        return CONTROL_BAD_CLIENT_KEY;
    const uint8_t *tag = packet + length - wkc_length;
    struct client *client = &protection->clients[tag[0] % CLIENTS_KEPT];
    *found = client;
    *inner_length = length - wkc_length;
    if (client->length == wkc_length && memcmp(client->wrapped, tag, wkc_length) == 0)
        return CONTROL_GOOD;
    uint8_t *key2 = protection->unwrapped;
    if (!siv_open(&protection->server, length_field, 2, tag, tag + SIV_TAG_SIZE, wkc_length - SIV_TAG_SIZE - 2, key2))
        return CONTROL_BAD_CLIENT_KEY;
    bool usable = set_half(&client->seal, key2) && set_half(&client->open, key2 + HALF_SIZE);
    OPENSSL_cleanse(key2, sizeof protection->unwrapped);
    memcpy(client->wrapped, tag, wkc_length);
    client->length = usable ? wkc_length : 0;
    return usable ? CONTROL_GOOD : CONTROL_BAD_CLIENT_KEY;
}

static enum control_drop open_with_client_key(struct protection *protection, const uint8_t *packet, size_t length,
                                              struct cursor *body, struct opened *opened)
{
    size_t inner_length;
    enum control_drop drop = find_client(protection, packet, length, &opened->client, &inner_length);
    if (drop != CONTROL_GOOD)
        return drop;
    drop = open_siv(protection, &opened->client->open, packet, inner_length, body);
    if (drop == CONTROL_GOOD)
        opened->early_negotiation = packet[CONTROL_HEADER] == EARLY_NEGOTIATION;
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
    if (opened->client != NULL)
        return seal_siv(&opened->client->seal, header, replay_id, body, body_length, wire);
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
