#include "tun.h"

#include <errno.h>
#include <unistd.h>

/* After a failed or empty read. */
static enum io_result read_result(ssize_t length)
{
    bool nothing = length < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM);
    return nothing ? IO_DONE : IO_BROKEN; /* the device is gone, or the other end of a socket pair */
}

static ssize_t read_once(int fd, uint8_t *into, size_t room, struct counters *counters)
{
    ssize_t length;
    do {
        length = read(fd, into, room);
        count_total(counters, TOTAL_TUN_READ_CALLS, 1);
    } while (length < 0 && errno == EINTR);
    return length;
}

enum io_result tun_read(int fd, uint8_t buffer[static TUN_BUFFER], struct batch *batch, struct counters *counters)
{
    uint8_t *at = buffer;
    batch->count = 0;
    while (batch->count < BATCH_PACKETS) {
        ssize_t length = read_once(fd, at + SEAL_HEADROOM, PACKET_MAX, counters);
        if (length <= 0)
            return read_result(length);
        batch->packets[batch->count++] = (struct packet){.bytes = at + SEAL_HEADROOM, .length = (uint32_t)length};
        at += SEAL_HEADROOM + length + SEAL_TAILROOM;
        count_total(counters, TOTAL_TUN_PACKETS_OUT, 1);
    }
    return IO_DONE;
}

static void count_written(struct counters *counters, ssize_t written, unsigned packets)
{
    count_total(counters, TOTAL_TUN_WRITE_CALLS, 1);
    if (written < 0)
        counter_add(&counters->drops[DROP_TUN_FULL], packets);
    else
        count_total(counters, TOTAL_TUN_PACKETS_IN, packets);
}

void tun_write(int fd, const struct batch *batch, struct counters *counters)
{
    for (unsigned i = 0; i < batch->count; i++) {
        const struct packet *packet = &batch->packets[i];
        ssize_t written;
        do
            written = write(fd, packet->bytes, packet->length);
        while (written < 0 && errno == EINTR);
        count_written(counters, written, 1);
    }
}

enum io_result tun_read_super(int fd, struct super_buffer *buffer, struct split *split, struct counters *counters)
{
    uint8_t *at = buffer->bytes + SUPER_PADDING;
    ssize_t length = read_once(fd, at, sizeof buffer->bytes - SUPER_PADDING, counters);
    if (length <= 0)
        return read_result(length);
    struct virtio_header header;
    if (length > VIRTIO_HEADER) {
        memcpy(&header, at, VIRTIO_HEADER);
        if (split_begin(split, &header, at + VIRTIO_HEADER, (uint32_t)length - VIRTIO_HEADER))
            return IO_MORE;
    }
    count_total(counters, TOTAL_TUN_PACKETS_OUT, 1);
    count_drop(counters, DROP_NOT_IP);
    return IO_SKIPPED;
}

void tun_take_segments(struct split *split, uint8_t buffer[static TUN_BUFFER], size_t *used, struct batch *batch,
                       struct counters *counters)
{
    unsigned before = batch->count;
    while (batch->count < BATCH_PACKETS && !split_done(split)) {
        uint8_t *bytes = buffer + *used + SEAL_HEADROOM;
        uint32_t length = split_next(split, bytes);
        batch->packets[batch->count] =
            (struct packet){.bytes = bytes, .length = length, .follows = batch->count > before};
        batch->count++;
        *used += SEAL_HEADROOM + length + SEAL_TAILROOM;
    }
    count_total(counters, TOTAL_TUN_PACKETS_OUT, batch->count - before);
}

void tun_write_runs(int fd, struct coalescer *coalescer, struct counters *counters)
{
    struct run_vectors run;
    count_total(counters, TOTAL_ACKS_SUPERSEDED, coalescer_superseded(coalescer));
    for (unsigned i = 0; i < coalescer_runs(coalescer); i++) {
        coalescer_take(coalescer, i, &run);
        ssize_t written;
        do
            written = writev(fd, run.vectors, (int)run.count);
        while (written < 0 && errno == EINTR);
        count_written(counters, written, run.packets);
    }
    coalescer_reset(coalescer);
}
