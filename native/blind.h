/* Packets that nobody reads, so that routers which do not pass them on say so (README, "Path MTU"): for clients that cannot
 * be asked. They leave from sockets of their own, one of each family and worker, whose error queues bring what routers
 * say. The sockets of listeners read none and believe nothing: anybody may write to their port, and an error there
 * makes the next packet of somebody else be refused.
 *
 * A word is believed that quotes the secret in such a packet, which only the way to that client has seen. So it takes a router
 * that quotes 28 bytes behind the IP header; RFC 792 asks for 8, RFC 1812 and 4443 for as much as there is room for. */
#ifndef CVPND_BLIND_H
#define CVPND_BLIND_H

#include <sys/socket.h>

#include "counters.h"
#include "id_table.h"
#include "peer.h"

/* A packet begins as data does, then comes whose it is, then the secret. */
enum { BLIND_OWNER = 4, BLIND_SECRET = BLIND_OWNER + 4, BLIND_HEADER = BLIND_SECRET + PATH_SECRET };

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

/* What one message of an error queue is about, and how long a packet passes by it; NULL when it says nothing of that, or
 * nothing that is believed. `length`: of the packet's beginning that it brings; `refused`: whose packet this host has
 * just refused to send. Inside a section. */
struct path *blind_understand(const struct blind *blind, struct msghdr *message, size_t length, struct path *refused,
                              uint32_t *mtu);

#endif
