/* TCP connections of peers: frames of a 16-bit length and a packet (openvpn-wire.md 2.1).
 *
 * The peer's worker alone reads. Anybody sends: a frame is appended to a bounded queue under the connection's lock
 * and written at once as far as the kernel takes it; the peer's worker goes on when the socket is writable again.
 * Nobody ever blocks. Whoever finds the connection at fault closes it; the descriptor itself stays open until
 * tcp_free, since the reader may be using its number. */
#ifndef CVPND_TCP_H
#define CVPND_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "batch.h"
#include "counters.h"
#include "events.h"
#include "wire.h"

enum {
    TCP_DATA_QUEUE_MAX = 256 << 10,
    TCP_CONTROL_QUEUE_MAX = TCP_DATA_QUEUE_MAX + (64 << 10), /* control frames may use what data may not */
    TCP_SCRATCH = 64 << 10,
};

struct peer;
struct tcp_connection;

/* The bytes of one read, being cut into frames; one for each worker. */
struct tcp_scratch {
    size_t start, end;
    uint8_t bytes[TCP_SCRATCH];
};

/* Takes `fd`, which becomes known to `epoll_fd` under `tag` only by tcp_start. NULL when memory is short. */
struct tcp_connection *tcp_new(int fd, struct peer *peer, struct events *events, int epoll_fd, uint64_t tag,
                               const uint8_t *received, size_t received_length);

/* After publication: the worker is woken once in any case, for what was received already. False: errno. */
bool tcp_start(struct tcp_connection *connection);

/* Writes what the kernel takes at once and says no more. Before unpublishing. */
void tcp_finish(struct tcp_connection *connection);

/* After a failed tcp_start: frees all but the descriptor. */
void tcp_abandon(struct tcp_connection *connection);

/* Closes the descriptor. Nobody can see the connection any more. */
void tcp_free(struct tcp_connection *connection);

/* Reads once into the scratch, behind the frame that was left incomplete. False when there is nothing new. */
bool tcp_receive(struct tcp_connection *connection, struct tcp_scratch *scratch, struct counters *counters);

/* Of what the control side had read, a part is still to be received. */
bool tcp_has_received(const struct tcp_connection *connection);

/* Moves complete frames from the scratch into the batch; `more` says that the batch was too small. What is left of
 * the last, incomplete frame is kept. False on a length that cannot be. */
bool tcp_take_frames(struct tcp_connection *connection, struct tcp_scratch *scratch, struct batch *batch, bool *more,
                     struct counters *counters);

/* Data packets; those that find no room are dropped (`tcp_queue_full`), all if the connection is closed (`not_ready`). */
void tcp_send_data(struct tcp_connection *connection, const struct packet *packets, unsigned count,
                   struct counters *counters);

/* One control packet; the connection is closed when there is no room for it. */
void tcp_send_control(struct tcp_connection *connection, const uint8_t *packet, size_t length,
                      struct counters *counters);

/* Goes on writing after the socket was full. */
void tcp_writable(struct tcp_connection *connection, struct counters *counters);

/* Ends the connection and reports TcpClosed with `detail`, once. */
void tcp_close(struct tcp_connection *connection, const char *detail);

bool tcp_is_closed(const struct tcp_connection *connection);

/* Why it was closed; to be called after REPORT_TCP_CLOSED was seen. */
const char *tcp_close_detail(const struct tcp_connection *connection);

#endif
