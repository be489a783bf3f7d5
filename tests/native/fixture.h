/* One forwarder with an endpoint, a listener and a peer, made of the same parts as the data plane but without
 * threads and descriptors: what the unit tests and the fuzzers forward through. */
#ifndef CVPND_FIXTURE_H
#define CVPND_FIXTURE_H

#include "forward.h"
#include "inner.h"

enum { FIXTURE_PEER = 5, FIXTURE_KEY = 1 };

struct fixture {
    struct id_table peers;
    struct events events;
    struct counters counters;
    struct key_limits limits;
    struct forwarder forwarder;
    struct endpoint *endpoint;
    struct listener *listener;
    struct peer *peer; /* leases 10.100.0.2 and fd00::2, group 0 and 3 */

    /* The client's side of FIXTURE_KEY; in the epoch format it stays in epoch 1. */
    struct aead_context *client_seal;
    struct aead_context *client_open;
};

/* How the client writes; all zero is P_DATA_V2 with packet ids. */
struct fixture_format {
    bool data_v1;
    bool epoch;
    enum framing framing;
};

/* Rules: 10.20.0.0/16 for group 0, 10.20.9.0/24 for group 7, fd20::/16 for group 3. */
struct fixture *fixture_new(void);
struct fixture *fixture_new_with(struct fixture_format format);
void fixture_free(struct fixture *fixture);

/* The client's packet under FIXTURE_KEY; how long. `into` has room for EPOCH_OVERHEAD more than the payload. */
size_t fixture_client_seal(struct fixture *fixture, uint8_t *into, uint32_t packet_id, const void *payload,
                           size_t length);

/* What the client makes of a packet: its payload in place; NULL when it does not authenticate. `fixture_overhead` is
 * what the packet is longer than that. */
const uint8_t *fixture_client_open(struct fixture *fixture, const struct packet *packet);

size_t fixture_overhead(const struct fixture *fixture);

/* A batch of one datagram from the peer's address. */
void fixture_datagram(struct batch *batch, uint8_t *bytes, size_t length);

/* IPv4 with a UDP header's worth of payload; 28 bytes. */
size_t fixture_ipv4(uint8_t *into, const char *source, const char *destination);
size_t fixture_ipv6(uint8_t *into, const char *source, const char *destination); /* 48 bytes */

uint64_t fixture_dropped(const struct fixture *fixture, enum drop_reason reason);

/* The kinds of the events that wait, as a bit set; they are taken. */
unsigned fixture_events(struct fixture *fixture);

#endif
