/* One forwarder with an endpoint, a listener and a peer, made of the same parts as the data plane but without
 * threads and descriptors: what the unit tests and the fuzzers forward through. */
#ifndef CVPND_FIXTURE_H
#define CVPND_FIXTURE_H

#include "forward.h"
#include "inner.h"

enum { FIXTURE_PEER = 5, FIXTURE_KEY = 1, FIXTURE_MTU = 1400 };

/* How the client writes; all zero is P_DATA_V2 with packet ids and an AEAD cipher. */
struct fixture_format {
    bool data_v1;
    bool epoch;
    const char *digest; /* with CBC */
    enum framing framing;
};

struct fixture {
    struct id_table peers;
    struct events events;
    struct counters counters;
    struct key_limits limits;
    struct forwarder forwarder;
    struct aside aside;
    struct endpoint *endpoint;
    struct listener *listener;
    struct peer *peer; /* leases 10.100.0.2 and fd00::2, group 0 and 3 */

    /* The client's side of FIXTURE_KEY; in the epoch format it stays in epoch 1. */
    struct aead_context *client_seal;
    struct aead_context *client_open;
    struct cbc_keys *client_cbc; /* in place of them; NULL = none */
    struct fixture_format format;
};

/* Every way to write under every framing, by number. */
enum { FIXTURE_FORMATS = 18 };
struct fixture_format fixture_format(unsigned number);

/* Rules: 10.20.0.0/16 for group 0, 10.20.9.0/24 for group 7, fd20::/16 for group 3. */
struct fixture *fixture_new(void);
struct fixture *fixture_new_with(struct fixture_format format);
void fixture_free(struct fixture *fixture);

/* The client's packet under FIXTURE_KEY; how long. `into` has room for fixture_overhead more than the payload. */
size_t fixture_client_seal(struct fixture *fixture, uint8_t *into, uint32_t packet_id, const void *payload,
                           size_t length);

/* What the client makes of a packet: its payload in place; NULL when it does not authenticate. */
const uint8_t *fixture_client_open(struct fixture *fixture, const struct packet *packet);

/* Makes an authentic packet of any bytes whatever, by writing header and HMAC over its first ones; false when the
 * format has no HMAC, or they are too few. What they mean is not said: decrypting makes of the rest what it will. */
bool fixture_client_sign(struct fixture *fixture, uint8_t *packet, size_t length);

/* What a packet with so much payload is longer than that. */
size_t fixture_overhead(const struct fixture *fixture, size_t payload_length);

/* A batch of one datagram from the peer's address. */
void fixture_datagram(struct batch *batch, uint8_t *bytes, size_t length);

/* IPv4 with a UDP header's worth of payload; 28 bytes. */
size_t fixture_ipv4(uint8_t *into, const char *source, const char *destination);
size_t fixture_ipv6(uint8_t *into, const char *source, const char *destination); /* 48 bytes */

uint64_t fixture_dropped(const struct fixture *fixture, enum drop_reason reason);

/* The kinds of the events that wait, as a bit set; they are taken. */
unsigned fixture_events(struct fixture *fixture);

#endif
