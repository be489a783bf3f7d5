/* Packets that the control side hands to a worker: a pair of sockets, so that the kernel bounds what waits and the
 * worker finds it among its other descriptors. Each message is a peer id and a packet. */
#ifndef CVPND_INBOX_H
#define CVPND_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum { INBOX_BYTES = 1 << 20, INBOX_ID = 4, INBOX_MESSAGE_MAX = INBOX_ID + LINK_PACKET_MAX };

struct inbox {
    int read_fd;  /* the worker's */
    int write_fd; /* the control side's, under its lock */
};

bool inbox_open(struct inbox *inbox); /* errno */
void inbox_close(struct inbox *inbox);

/* False when the worker has too much waiting. */
bool inbox_put(const struct inbox *inbox, uint32_t peer_id, const uint8_t *packet, size_t length);

/* The next message; 0 when there is none, else the packet's length. */
size_t inbox_take(const struct inbox *inbox, uint32_t *peer_id, uint8_t packet[static LINK_PACKET_MAX]);

#endif
