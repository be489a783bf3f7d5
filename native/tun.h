/* One queue of a TUN device: plain IP packets, one for each read or write. */
#ifndef CVPND_TUN_H
#define CVPND_TUN_H

#include "batch.h"
#include "counters.h"
#include "link.h"
#include "wire.h"

/* A whole batch with room around each packet for what sealing adds. */
enum { TUN_BUFFER = BATCH_PACKETS * (SEAL_HEADROOM + PACKET_MAX + SEAL_TAILROOM) };

/* Reads until nothing waits or the batch is full. */
enum io_result tun_read(int fd, uint8_t buffer[static TUN_BUFFER], struct batch *batch, struct counters *counters);

/* What the kernel does not take is dropped (`tun_full`). */
void tun_write(int fd, const struct batch *batch, struct counters *counters);

#endif
