/* Packets that nobody reads, so that routers which do not pass them on say so (README, "Path MTU"): for clients that cannot
 * be asked. They leave from sockets of their own, one of each family and worker, whose error queues bring what routers
 * say. The sockets of listeners read none and believe nothing: anybody may write to their port, and an error there
 * makes the next packet of somebody else be refused.
 *
 * A word is believed that quotes the secret in such a packet, which only the way to that client has seen. So it takes a router
 * that quotes 28 bytes behind the IP header; RFC 792 asks for 8, RFC 1812 and 4443 for as much as there is room for. */
#ifndef CVPND_BLIND_H
#define CVPND_BLIND_H

#include "counters.h"
#include "id_table.h"
#include "peer.h"

/* A worker's, for the peers whose worker it is. Without such sockets (-1) there are no such packets. */
struct blind {
    unsigned worker;
    struct id_table *peers;
    int fd_v4, fd_v6;
};

void blind_open(struct blind *blind, unsigned worker, struct id_table *peers);
void blind_close(struct blind *blind);

/* Sends the peer one whose UDP payload has this length, not to be fragmented on its way. Inside a section. */
void blind_send(const struct blind *blind, struct peer *peer, const struct remote *remote, uint32_t length,
                struct counters *counters);

/* Tells paths what routers have said since. Inside a section. */
void blind_hear(const struct blind *blind);

#endif
