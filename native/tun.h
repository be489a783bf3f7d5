/* One queue of a TUN device: a packet, or a super-packet behind a virtio header, for each read or write. */
#ifndef CVPND_TUN_H
#define CVPND_TUN_H

#include "batch.h"
#include "counters.h"
#include "link.h"
#include "offload.h"
#include "wire.h"

enum {
    /* A whole batch with room around each packet for what sealing adds. */
    TUN_BUFFER = BATCH_PACKETS * (SEAL_HEADROOM + PACKET_MAX + SEAL_TAILROOM),
    TUN_READS = 64, /* in one go, and then at most one super-packet more than these bytes */
    TUN_READ_BYTES = 120 << 10,
    SUPER_PADDING = 6, /* so that the IP header is aligned */
};

/* What one read of a queue with virtio headers brings. */
struct super_buffer {
    uint8_t bytes[SUPER_PADDING + VIRTIO_HEADER + SUPER_MAX + 1];
};

/* -- plain queues -- */

/* Reads until nothing waits or the batch is full. */
enum io_result tun_read(int fd, uint8_t buffer[static TUN_BUFFER], struct batch *batch, struct counters *counters);

/* What the kernel does not take is dropped (`tun_full`). */
void tun_write(int fd, const struct batch *batch, struct counters *counters);

/* -- queues with virtio headers -- */

/* Reads once: IO_MORE with `split` ready to be taken from, or IO_SKIPPED for what is not well-formed (`not_ip`). */
enum io_result tun_read_super(int fd, struct super_buffer *buffer, struct split *split, struct counters *counters);

/* Appends segments with headroom to a batch in `buffer`, where its packets end at `*used`, until either is through. */
void tun_take_segments(struct split *split, uint8_t buffer[static TUN_BUFFER], size_t *used, struct batch *batch,
                       struct counters *counters);

/* Writes every run, each with one call, and resets. What the kernel does not take is dropped (`tun_full`). */
void tun_write_runs(int fd, struct coalescer *coalescer, struct counters *counters);

#endif
