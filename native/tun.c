#include "tun.h"

#include <errno.h>
#include <unistd.h>

enum io_result tun_read(int fd, uint8_t buffer[static TUN_BUFFER], struct batch *batch, struct counters *counters)
{
    uint8_t *at = buffer;
    batch->count = 0;
    while (batch->count < BATCH_PACKETS) {
        ssize_t length = read(fd, at + SEAL_HEADROOM, PACKET_MAX);
        count_total(counters, TOTAL_TUN_READ_CALLS, 1);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
            return IO_DONE;
        if (length <= 0)
            return IO_BROKEN; /* the device is gone, or the other end of a socket pair */
        batch->packets[batch->count++] = (struct packet){.bytes = at + SEAL_HEADROOM, .length = (uint32_t)length};
        at += SEAL_HEADROOM + length + SEAL_TAILROOM;
        count_total(counters, TOTAL_TUN_PACKETS_OUT, 1);
    }
    return IO_DONE;
}

void tun_write(int fd, const struct batch *batch, struct counters *counters)
{
    for (unsigned i = 0; i < batch->count; i++) {
        const struct packet *packet = &batch->packets[i];
        ssize_t written;
        do
            written = write(fd, packet->bytes, packet->length);
        while (written < 0 && errno == EINTR);
        count_total(counters, TOTAL_TUN_WRITE_CALLS, 1);
        if (written < 0)
            count_drop(counters, DROP_TUN_FULL);
        else
            count_total(counters, TOTAL_TUN_PACKETS_IN, 1);
    }
}
