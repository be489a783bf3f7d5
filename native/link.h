/* UDP, a batch of datagrams for each system call. */
#ifndef CVPND_LINK_H
#define CVPND_LINK_H

#include "batch.h"
#include "counters.h"
#include "wire.h"

enum io_result { IO_DONE, IO_BROKEN /* the descriptor is of no use any more */ };

/* One worker's buffers for recvmmsg. */
struct link_receiver;

struct link_receiver *link_receiver_new(void);
void link_receiver_free(struct link_receiver *receiver);

/* Fills the batch with what waits, at most BATCH_PACKETS; the bytes stay valid until the next call. */
enum io_result link_receive(struct link_receiver *receiver, int fd, struct batch *batch, struct counters *counters);

/* Sends the packets that have a remote, each listener's through this worker's socket of it. What the kernel does
 * not take is dropped (`link_full`). */
void link_send(const struct batch *batch, unsigned worker, struct counters *counters);

/* Large socket buffers: the default costs 13-20 % and drops bursts (DATAPLANE.md). As far as permitted. */
void link_enlarge_buffers(int fd);

#endif
