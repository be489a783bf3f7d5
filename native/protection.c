#include "protection.h"

#include <openssl/crypto.h>
#include <stdlib.h>

enum {
    HMAC_OFFSET = 64,
    CLIENTS_KEPT = 32,
    EARLY_NEGOTIATION = 0x0F, /* top byte of the replay ids (section 5.3) */
};

/* A client's own key as it was shown last, ready for use: unwrapping it and setting both halves up costs 9 us, and who
 * shows one once shows it a hundred thousand times a second. */
struct client {
    struct control_keys keys;
    size_t length; /* of its wrapped form; 0: none is here */
    uint8_t wrapped[CLIENT_KEY_LONGEST];
};

struct protection {
    bool has_server_key;
    bool allow_stateful;
    struct control_keys shared;
    struct siv server;                     /* around client keys */
    struct client *clients;                /* CLIENTS_KEPT, by the tag of the wrapped key, which nobody can choose */
    uint8_t unwrapped[CLIENT_KEY_LONGEST]; /* scratch */
    uint8_t body[CONTROL_DATAGRAM_MAX];
};

static bool init_client_keys(struct protection *protection, const uint8_t *server_key)
{
    if (!siv_init(&protection->server) || !siv_set_key(&protection->server, server_key, server_key + HMAC_OFFSET))
        return false;
    protection->clients = calloc(CLIENTS_KEPT, sizeof *protection->clients);
    for (unsigned i = 0; protection->clients != NULL && i < CLIENTS_KEPT; i++)
        if (!control_keys_init(&protection->clients[i].keys, WRAP_TLS_CRYPT, NULL))
            return false;
    return protection->clients != NULL;
}

static bool init(struct protection *protection, const struct protection_settings *settings)
{
    protection->has_server_key = settings->server_key != NULL;
    protection->allow_stateful = settings->allow_stateful;
    if (!control_keys_init(&protection->shared, settings->shared, settings->digest))
        return false;
    bool keyed = settings->shared == WRAP_TLS_AUTH || settings->shared == WRAP_TLS_CRYPT;
    if (keyed && !control_keys_set(&protection->shared, settings->key2, settings->direction))
        return false;
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
    control_keys_destroy(&protection->shared);
    siv_destroy(&protection->server);
    for (unsigned i = 0; protection->clients != NULL && i < CLIENTS_KEPT; i++)
        control_keys_destroy(&protection->clients[i].keys);
    free(protection->clients);
    OPENSSL_cleanse(protection, sizeof *protection);
    free(protection);
}

bool protection_allows_stateful(const struct protection *protection) { return protection->allow_stateful; }

/* The client's own key stands at the end of its packet, wrapped under ours (section 6.4). What is not authentic takes
 * nobody's place. */
static enum control_drop find_client(struct protection *protection, const uint8_t *packet, size_t length,
                                     struct client **found, size_t *inner_length)
{
    enum control_drop drop = control_split_client_key(packet, length, inner_length);
    if (drop != CONTROL_GOOD)
        return drop;
    const uint8_t *tag = packet + *inner_length, *length_field = packet + length - 2;
    size_t wkc_length = length - *inner_length;
    struct client *client = &protection->clients[tag[0] % CLIENTS_KEPT];
    *found = client;
    if (client->length == wkc_length && memcmp(client->wrapped, tag, wkc_length) == 0)
        return CONTROL_GOOD;
    uint8_t *key2 = protection->unwrapped;
    if (!siv_open(&protection->server, length_field, 2, tag, tag + SIV_TAG_SIZE, wkc_length - SIV_TAG_SIZE - 2, key2))
        return CONTROL_BAD_CLIENT_KEY;
    bool usable = control_keys_set(&client->keys, key2, -1);
    OPENSSL_cleanse(key2, sizeof protection->unwrapped);
    memcpy(client->wrapped, tag, wkc_length);
    client->length = usable ? wkc_length : 0;
    return usable ? CONTROL_GOOD : CONTROL_BAD_CLIENT_KEY;
}

enum control_drop protection_open(struct protection *protection, const uint8_t *packet, size_t length,
                                  struct opened *opened)
{
    *opened = (struct opened){0};
    enum control_drop drop = control_parse_header(&opened->header, packet, length);
    if (drop != CONTROL_GOOD)
        return drop;
    struct control_keys *keys = &protection->shared;
    bool brings_key = control_brings_key(opened->header.opcode);
    if (brings_key) {
        if (!protection->has_server_key)
            return CONTROL_BAD_OPCODE;
        drop = find_client(protection, packet, length, &opened->client, &length);
        if (drop != CONTROL_GOOD)
            return drop;
        keys = &opened->client->keys;
    }
    struct cursor body;
    const uint8_t *replay_id;
    drop = control_keys_open(keys, packet, length, protection->body, &body, &replay_id);
    if (drop != CONTROL_GOOD)
        return drop;
    opened->early_negotiation = brings_key && replay_id[0] == EARLY_NEGOTIATION;
    return control_parse_body(&opened->body, opened->header.opcode, body);
}

size_t protection_seal(struct protection *protection, const struct opened *opened,
                       const uint8_t header[static CONTROL_HEADER], const uint8_t *body, size_t body_length,
                       uint32_t wall_s, uint8_t *wire)
{
    uint8_t replay_id[REPLAY_ID_SIZE];
    put_u32(replay_id, 1);
    put_u32(replay_id + 4, wall_s);
    struct control_keys *keys = opened->client != NULL ? &opened->client->keys : &protection->shared;
    return control_keys_seal(keys, header, replay_id, body, body_length, wire);
}
