/* Datagrams of a control socket, a batch for each system call: in, and replies out to where they came from, from the
 * address they were sent to. */
#ifndef CVPND_DOOR_SOCKET_H
#define CVPND_DOOR_SOCKET_H

#include "control_packet.h"

enum { DOOR_BATCH = 64 };

struct datagram {
    const uint8_t *bytes;
    size_t length;
    bool truncated; /* longer than any control packet */
    struct socket_address source;
    struct ip_address local; /* unset when the socket does not tell */
};

/* Buffers of one batch. */
struct door_socket;

struct door_socket *door_socket_new(void);
void door_socket_free(struct door_socket *socket);

/* How many datagrams there are; they stay until the next call. -1: the descriptor is of no use any more. */
int door_receive(struct door_socket *socket, int fd);
const struct datagram *door_datagram(const struct door_socket *socket, unsigned index);

/* To be sent by door_send to the source of a datagram of this batch. `bytes` stay valid until then. */
void door_reply(struct door_socket *socket, unsigned index, const uint8_t *bytes, size_t length);
/* How many of them the kernel took: what it has no room for, or cannot deliver, is dropped. */
unsigned door_send(struct door_socket *socket, int fd);

#endif
