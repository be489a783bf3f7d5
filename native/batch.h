/* Packets travel in batches, from one buffer to the other end of the worker: a stage takes a batch and leaves the
 * packets that go on at its front. Bytes are changed in place, so whoever fills a batch for sealing leaves
 * SEAL_HEADROOM bytes before each packet and SEAL_TAILROOM behind it.
 *
 * Everything a packet points at (its peer, the peer's remote or connection) is valid until the worker's current
 * section ends (see quiescence in worker.h). */
#ifndef CVPND_BATCH_H
#define CVPND_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"

enum { BATCH_PACKETS = 128 }; /* holds the two full segmentation runs that a super-packet may need */

/* How a datagram is sent, where that is not as all others (link.c). */
enum passage {
    PASSAGE_USUAL,
    PASSAGE_UNPROVEN, /* no answer says that it passes whole (path.h) */
    PASSAGE_WHOLE,    /* nobody is to cut it: whether it passes is the question */
};

struct packet {
    uint8_t *bytes;
    uint32_t length;
    uint32_t peer_id;                  /* set when sealed */
    struct remote *remote;             /* sealed for UDP */
    enum passage passage;              /* sealed for UDP */
    struct tcp_connection *connection; /* sealed for TCP */
    bool follows; /* to be sealed: of the same super-packet as the one before it, so its way is the same */
    struct socket_address source; /* received from UDP */
    struct ip_address local;      /* received from UDP: the gateway's own address; unset = not known */
};

struct batch {
    unsigned count;
    struct packet packets[BATCH_PACKETS];
};

#endif
