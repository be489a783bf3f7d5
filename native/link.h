/* UDP, many datagrams for each system call, and many packets of a peer as one datagram in the kernel: sent with
 * UDP_SEGMENT, received with UDP_GRO. */
#ifndef CVPND_LINK_H
#define CVPND_LINK_H

#include "batch.h"
#include "counters.h"
#include "wire.h"

enum io_result {
    IO_DONE,
    IO_BROKEN,  /* the descriptor is of no use any more */
    IO_MORE,    /* something was read (tun_read_super) */
    IO_SKIPPED, /* something was read, and dropped */
};

/* One worker's buffers for recvmmsg. */
struct link_receiver;

struct link_receiver *link_receiver_new(void);
void link_receiver_free(struct link_receiver *receiver);

/* Receives what waits, at most one buffer of messages; the bytes stay valid until the next call. */
enum io_result link_receive(struct link_receiver *receiver, int fd, struct counters *counters);

/* Fills the batch with packets that were received and not taken yet. False when there are none. */
bool link_take(struct link_receiver *receiver, struct batch *batch, struct counters *counters);

/* Sends the packets that have a remote, each listener's through this worker's socket of it. What the kernel does
 * not take is dropped (`link_full`), but for what was only to see whether it passes. */
void link_send(const struct batch *batch, unsigned worker, struct counters *counters);

/* Receive coalescing, if wanted and as far as the kernel has it; large socket buffers, as far as permitted: the default
 * costs 13-20 % and drops bursts (DATAPLANE.md). IPv4 packets may be fragmented on their way. */
void link_prepare(int fd, bool coalesce);

#endif
