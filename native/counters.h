/* Why packets go no further, and how many went where.
 *
 * Each worker counts in its own block, which nobody else writes; the control side sums them when asked. So an
 * increment is a plain load and store, atomic only in that the reader never sees half a number. */
#ifndef CVPND_COUNTERS_H
#define CVPND_COUNTERS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

/* The same words in the same order as Drop in cvpnd/dataplane/api.py. */
#define DROP_REASONS(X)                                                                                              \
    X(TRUNCATED, "truncated")                                                                                        \
    X(BAD_OPCODE, "bad_opcode")                                                                                      \
    X(UNKNOWN_PEER, "unknown_peer")                                                                                  \
    X(NO_KEY, "no_key")                                                                                              \
    X(AUTH_FAILED, "auth_failed")                                                                                    \
    X(REPLAYED, "replayed")                                                                                          \
    X(NOT_IP, "not_ip")                                                                                              \
    X(COMPRESSED, "compressed")                                                                                      \
    X(BAD_SOURCE, "bad_source")                                                                                      \
    X(BAD_FRAGMENT, "bad_fragment")                                                                                  \
    X(INCOMPLETE, "incomplete")                                                                                      \
    X(DENIED, "denied")                                                                                              \
    X(DENIED_SOURCE, "denied_source")                                                                                \
    X(NO_ROUTE, "no_route")                                                                                          \
    X(NOT_READY, "not_ready")                                                                                        \
    X(TOO_BIG, "too_big")                                                                                            \
    X(KEY_EXHAUSTED, "key_exhausted")                                                                                \
    X(TUN_FULL, "tun_full")                                                                                          \
    X(LINK_FULL, "link_full")                                                                                        \
    X(TCP_QUEUE_FULL, "tcp_queue_full")                                                                              \
    X(EVENTS_FULL, "events_full")                                                                                    \
    X(CONTROL_LIMIT, "control_limit")                                                                                \
    X(STRAY_CONTROL, "stray_control")                                                                                \
    X(INBOX_FULL, "inbox_full")                                                                                      \
    X(FLOAT_REFUSED, "float_refused")

/* "in" is towards the target network, "out" towards the clients; link is UDP and TCP together. The quotients
 * explain almost every regression (DATAPLANE.md): packets per message is what segmentation and receive coalescing
 * give, packets per TUN write what ours gives, messages per call what batching gives. */
#define TOTALS(X)                                                                                                    \
    X(LINK_PACKETS_IN, "link_packets_in")                                                                            \
    X(LINK_PACKETS_OUT, "link_packets_out")                                                                          \
    X(TUN_PACKETS_IN, "tun_packets_in")                                                                              \
    X(TUN_PACKETS_OUT, "tun_packets_out")                                                                            \
    X(RECEIVE_CALLS, "receive_calls")                                                                                \
    X(RECEIVE_MESSAGES, "receive_messages")                                                                          \
    X(SEND_CALLS, "send_calls")                                                                                      \
    X(SEND_MESSAGES, "send_messages")                                                                                \
    X(TUN_READ_CALLS, "tun_read_calls")                                                                              \
    X(TUN_WRITE_CALLS, "tun_write_calls")                                                                            \
    X(ACKS_SUPERSEDED, "acks_superseded")                                                                            \
    X(TOO_BIG_TOLD, "too_big_told")                                                                                  \
    X(PACKETS_CUT, "packets_cut")                                                                                    \
    X(PATH_PROBES, "path_probes")                                                                                    \
    X(WAKEUPS, "wakeups")                                                                                            \
    X(PAUSES, "pauses")

enum drop_reason {
#define X(name, word) DROP_##name,
    DROP_REASONS(X)
#undef X
        DROP_REASON_COUNT,
    PACKET_PASSES = DROP_REASON_COUNT,
    PACKET_COMPLETES, /* the last fragment of a packet, all of which goes on in its place */
    PACKET_WAITS,     /* a fragment, for the others of its packet */
    PACKET_ABSORBED,  /* it has ended where it should: a keepalive, a notice, an event */
};
enum total {
#define X(name, word) TOTAL_##name,
    TOTALS(X)
#undef X
        TOTAL_COUNT,
};

extern const char *const DROP_WORDS[DROP_REASON_COUNT];
extern const char *const TOTAL_WORDS[TOTAL_COUNT];

struct counters {
    alignas(64) _Atomic uint64_t drops[DROP_REASON_COUNT];
    _Atomic uint64_t totals[TOTAL_COUNT];
};

/* Only for a counter with a single writer. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t by)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + by, memory_order_relaxed);
}
static inline void count_drop(struct counters *counters, enum drop_reason reason)
{
    counter_add(&counters->drops[reason], 1);
}
static inline void count_total(struct counters *counters, enum total total, uint64_t by)
{
    counter_add(&counters->totals[total], by);
}

#endif
