#include "fixture.h"

#include <arpa/inet.h>
#include <unistd.h>

#include "check.h"
#include "mac.h"

static const uint8_t CLIENT_KEY[32] = "client to server, thirty-two by.";
static const uint8_t SERVER_KEY[32] = "server to client, thirty-two by.";
static const uint8_t CLIENT_IV[8] = "clientiv";
static const uint8_t SERVER_IV[8] = "serveriv";
static const uint8_t CLIENT_HMAC_KEY[HMAC_MAX] = "client to server, sixty-four bytes, of which each digest takes .";
static const uint8_t SERVER_HMAC_KEY[HMAC_MAX] = "server to client, sixty-four bytes, of which each digest takes .";

static struct ip_address ip(const char *text)
{
    uint8_t bytes[16];
    if (inet_pton(AF_INET, text, bytes) == 1)
        return ip_from_v4(bytes);
    CHECK(inet_pton(AF_INET6, text, bytes) == 1);
    return ip_from_v6(bytes);
}

static struct rule rule(const char *network, uint8_t length, const uint8_t *groups)
{
    struct ip_address address = ip(network);
    struct rule rule = {.groups = groups, .groups_length = 1};
    rule.prefix.v6 = !ip_is_v4(&address);
    rule.prefix.length = length;
    memcpy(rule.prefix.bytes, address.bytes + (rule.prefix.v6 ? 0 : 12), rule.prefix.v6 ? 16 : 4);
    return rule;
}

static struct socket_address client_address(void)
{
    return (struct socket_address){.ip = ip("192.0.2.7"), .port = 5000};
}

static struct peer *new_peer(struct fixture *fixture, struct fixture_format format)
{
    static const uint8_t groups[] = {1 << 0 | 1 << 3};
    struct peer *peer = peer_new(FIXTURE_PEER, 0, 2, 1000);
    CHECK(peer != NULL);
    peer->endpoint = fixture->endpoint;
    peer->data_v1 = format.data_v1;
    peer->framing = format.framing;
    path_init(&peer->path, &(struct path_settings){.tunnel_mtu = FIXTURE_MTU, .mss_v4 = 1300, .mss_v6 = 1280});
    peer->leases[0].address = ip("10.100.0.2");
    peer->leases[1].address = ip("fd00::2");
    atomic_store(&peer->groups, groups_new(groups, sizeof groups));
    struct remote *remote = calloc(1, sizeof *remote);
    CHECK(remote != NULL);
    remote->listener = fixture->listener;
    remote->address = client_address();
    atomic_store(&peer->remote, remote);
    struct cbc_suite suite;
    struct peer_key_material material = {AES_256_GCM, CLIENT_KEY,   CLIENT_IV, SERVER_KEY,
                                         SERVER_IV,   format.epoch, NULL};
    if (format.digest != NULL) {
        CHECK(cbc_suite_find(&suite, "AES-256-CBC", format.digest));
        material.cbc = &suite;
        material.open_iv = CLIENT_HMAC_KEY;
        material.seal_iv = SERVER_HMAC_KEY;
        fixture->client_cbc = cbc_keys_new(&suite, 1, SERVER_KEY, SERVER_HMAC_KEY, CLIENT_KEY, CLIENT_HMAC_KEY);
        CHECK(fixture->client_cbc != NULL);
    }
    fixture->format = format;
    struct key_slot *slot = key_slot_new(aead_backend(), FIXTURE_KEY, 1, &fixture->limits, &material);
    CHECK(slot != NULL);
    atomic_store(&peer->keys[FIXTURE_KEY], slot);
    atomic_store(&peer->sending, slot);
    return peer;
}

/* The client's context in one direction. */
static struct aead_context *client_context(struct fixture_format format, enum aead_direction direction)
{
    const uint8_t *secret = direction == AEAD_SEAL ? CLIENT_KEY : SERVER_KEY;
    uint8_t key[32];
    memcpy(key, secret, sizeof key);
    if (format.epoch)
        epoch_expand(secret, "data_key", key, sizeof key);
    struct aead_context *context = aead_backend()->context_new(AES_256_GCM, direction, key);
    CHECK(context != NULL);
    return context;
}

struct fixture_format fixture_format(unsigned number)
{
    static const char *const digests[] = {"SHA1", "SHA512", "SHA256"};
    unsigned way = number % 3;
    enum framing framing = (enum framing)(number / 3 % FRAMINGS);
    if (number < FIXTURE_FORMATS / 2)
        return (struct fixture_format){.data_v1 = way == 1, .epoch = way == 2, .framing = framing};
    return (struct fixture_format){.data_v1 = way == 1, .digest = digests[way], .framing = framing};
}

struct fixture *fixture_new(void) { return fixture_new_with((struct fixture_format){0}); }

struct fixture *fixture_new_with(struct fixture_format format)
{
    static const uint8_t all[] = {1 << 0}, third[] = {1 << 3}, seventh[] = {1 << 7};
    size_t size = (sizeof(struct fixture) + 63) / 64 * 64;
    struct fixture *fixture = aligned_alloc(64, size);
    CHECK(fixture != NULL);
    memset(fixture, 0, size);
    CHECK(events_init(&fixture->events));
    fixture->limits = key_limits_default();
    fixture->forwarder = (struct forwarder){
        .peers = &fixture->peers,
        .events = &fixture->events,
        .counters = &fixture->counters,
        .limits = &fixture->limits,
        .aside = &fixture->aside,
        .now_ms = 2000,
    };
    fixture->endpoint = calloc(1, sizeof *fixture->endpoint);
    fixture->listener = calloc(1, sizeof *fixture->listener);
    CHECK(fixture->endpoint != NULL && fixture->listener != NULL);
    const struct rule rules[] = {
        rule("10.20.0.0", 16, all),
        rule("10.20.9.0", 24, seventh),
        rule("fd20::", 16, third),
    };
    atomic_store(&fixture->endpoint->rules, rules_build(rules, 3));
    CHECK(address_table_init(&fixture->endpoint->addresses));
    fixture->listener->id = 2;
    fixture->listener->endpoint = fixture->endpoint;
    fixture->peer = new_peer(fixture, format);
    CHECK(id_table_put(&fixture->peers, FIXTURE_PEER, fixture->peer));
    for (unsigned i = 0; i < fixture->peer->lease_count; i++)
        address_table_put(&fixture->endpoint->addresses, &fixture->peer->leases[i]);
    fixture->client_seal = client_context(format, AEAD_SEAL);
    fixture->client_open = client_context(format, AEAD_OPEN);
    return fixture;
}

void fixture_free(struct fixture *fixture)
{
    aead_backend()->context_free(fixture->client_seal);
    aead_backend()->context_free(fixture->client_open);
    cbc_keys_free(fixture->client_cbc);
    datagrams_free(&fixture->forwarder.whole);
    peer_free(fixture->peer);
    address_table_clear(&fixture->endpoint->addresses);
    rules_free(atomic_load(&fixture->endpoint->rules));
    free(fixture->endpoint);
    free(fixture->listener);
    id_table_clear(&fixture->peers);
    events_destroy(&fixture->events);
    free(fixture);
}

static size_t header_size(const struct fixture *fixture)
{
    return fixture->format.data_v1 ? DATA_V1_HEADER : DATA_HEADER;
}

size_t fixture_overhead(const struct fixture *fixture, size_t payload_length)
{
    if (fixture->format.digest == NULL)
        return fixture->format.epoch ? EPOCH_OVERHEAD : header_size(fixture) + PACKET_ID_SIZE + TAG_SIZE;
    struct cbc_suite suite;
    CHECK(cbc_suite_find(&suite, "AES-256-CBC", fixture->format.digest));
    size_t padding = CBC_BLOCK - (PACKET_ID_SIZE + payload_length) % CBC_BLOCK;
    return header_size(fixture) + suite.digest->size + CBC_BLOCK + PACKET_ID_SIZE + padding;
}

/* Where the parts of a packet of `length` bytes lie. */
struct layout {
    uint8_t *ad, *id, *text, *tag;
    size_t ad_length, text_length;
    uint8_t nonce[NONCE_SIZE];
};

static struct layout lay_out(const struct fixture *fixture, uint8_t *packet, size_t length, const uint8_t *secret,
                             const uint8_t *iv)
{
    struct layout layout = {.ad = packet, .text_length = length - fixture_overhead(fixture, 0)};
    layout.id = packet + header_size(fixture);
    if (fixture->format.epoch) {
        layout.ad_length = EPOCH_AD;
        layout.text = packet + EPOCH_AD;
        layout.tag = layout.text + layout.text_length;
        epoch_expand(secret, "data_iv", layout.nonce, NONCE_SIZE);
        for (unsigned i = 0; i < EPOCH_ID_SIZE; i++)
            layout.nonce[i] ^= layout.id[i];
        return layout;
    }
    layout.tag = layout.id + PACKET_ID_SIZE;
    layout.text = layout.tag + TAG_SIZE;
    if (fixture->format.data_v1)
        layout.ad = layout.id;
    layout.ad_length = (size_t)(layout.tag - layout.ad);
    memcpy(layout.nonce, layout.id, PACKET_ID_SIZE);
    memcpy(layout.nonce + PACKET_ID_SIZE, iv, IMPLICIT_IV_SIZE);
    return layout;
}

static void put_header(const struct fixture *fixture, uint8_t *into)
{
    if (fixture->format.data_v1)
        into[0] = P_DATA_V1 << 3 | FIXTURE_KEY;
    else
        put_u32(into, (uint32_t)P_DATA_V2 << 27 | FIXTURE_KEY << 24 | FIXTURE_PEER);
}

size_t fixture_client_seal(struct fixture *fixture, uint8_t *into, uint32_t packet_id, const void *payload,
                           size_t length)
{
    size_t total = length + fixture_overhead(fixture, length);
    put_header(fixture, into);
    if (fixture->client_cbc != NULL) {
        struct cbc_suite suite;
        CHECK(cbc_suite_find(&suite, "AES-256-CBC", fixture->format.digest));
        uint8_t *text = into + header_size(fixture) + suite.digest->size + CBC_BLOCK;
        uint32_t text_length = PACKET_ID_SIZE + (uint32_t)length;
        put_u32(text, packet_id);
        memcpy(text + PACKET_ID_SIZE, payload, length);
        CHECK(cbc_seal(fixture->client_cbc, 0, &text, &text_length));
        CHECK(text == into + header_size(fixture) && text + text_length == into + total);
        return total;
    }
    if (fixture->format.epoch)
        put_u64(into + DATA_HEADER, UINT64_C(1) << 48 | packet_id);
    else
        put_u32(into + header_size(fixture), packet_id);
    struct layout at = lay_out(fixture, into, total, CLIENT_KEY, CLIENT_IV);
    memcpy(at.text, payload, length);
    CHECK(aead_backend()->seal(fixture->client_seal, at.nonce, at.ad, at.ad_length, at.text, length, at.tag));
    return total;
}

const uint8_t *fixture_client_open(struct fixture *fixture, const struct packet *packet)
{
    if (fixture->client_cbc != NULL) {
        uint8_t *text = packet->bytes + header_size(fixture);
        uint32_t length = packet->length - (uint32_t)header_size(fixture);
        bool opens = cbc_open(fixture->client_cbc, &text, &length) == PACKET_PASSES && length > PACKET_ID_SIZE;
        return opens ? text + PACKET_ID_SIZE : NULL;
    }
    struct layout at = lay_out(fixture, packet->bytes, packet->length, SERVER_KEY, SERVER_IV);
    bool authentic =
        aead_backend()->open(fixture->client_open, at.nonce, at.ad, at.ad_length, at.text, at.text_length, at.tag);
    return authentic ? at.text : NULL;
}

bool fixture_client_sign(struct fixture *fixture, uint8_t *packet, size_t length)
{
    struct mac mac;
    uint8_t hmac[MAC_MAX];
    if (fixture->client_cbc == NULL)
        return false;
    CHECK(mac_init(&mac, fixture->format.digest) && mac_set_key(&mac, CLIENT_HMAC_KEY, mac.size));
    size_t before = header_size(fixture) + mac.size, size = mac.size;
    const struct part part = {packet + before, length > before ? length - before : 0};
    bool done = length >= before && mac_compute(&mac, &part, 1, hmac);
    mac_destroy(&mac);
    if (done) {
        put_header(fixture, packet);
        memcpy(packet + before - size, hmac, size);
    }
    return done;
}

void fixture_datagram(struct batch *batch, uint8_t *bytes, size_t length)
{
    batch->count = 1;
    batch->packets[0] = (struct packet){
        .bytes = bytes, .length = (uint32_t)length, .source = client_address(), .local = ip("192.0.2.1")};
}

size_t fixture_ipv4(uint8_t *into, const char *source, const char *destination)
{
    struct ip_address from = ip(source), to = ip(destination);
    memset(into, 0, 28);
    into[0] = 0x45;
    into[3] = 28;
    into[8] = 64;
    into[9] = 17;
    memcpy(into + 12, from.bytes + 12, 4);
    memcpy(into + 16, to.bytes + 12, 4);
    return 28;
}

size_t fixture_ipv6(uint8_t *into, const char *source, const char *destination)
{
    struct ip_address from = ip(source), to = ip(destination);
    memset(into, 0, 48);
    into[0] = 0x60;
    into[5] = 8;
    into[6] = 17;
    into[7] = 64;
    memcpy(into + 8, from.bytes, 16);
    memcpy(into + 24, to.bytes, 16);
    return 48;
}

uint64_t fixture_dropped(const struct fixture *fixture, enum drop_reason reason)
{
    return atomic_load(&fixture->counters.drops[reason]);
}

unsigned fixture_events(struct fixture *fixture)
{
    unsigned kinds = 0;
    for (struct event *event = events_take(&fixture->events), *next; event != NULL; event = next) {
        next = event->next;
        kinds |= 1u << event->kind;
        free(event);
    }
    return kinds;
}
