/* The owner of everything: tables, workers, descriptors, keys. Its functions are the verbs of
 * cvpnd/dataplane/api.py, in C.
 *
 * The control lock serialises them. Lock order: control lock, a TCP connection's lock, the event queue's lock.
 * Workers never take the control lock. A verb that removes something unpublishes it, waits until every worker has
 * been quiescent (worker.h), and frees it; nothing is freed that a worker could still see.
 * Descriptors passed in belong to the data plane from then on, also when the verb fails. */
#ifndef CVPND_DATAPLANE_H
#define CVPND_DATAPLANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counters.h"
#include "endpoint.h"
#include "events.h"
#include "peer.h"

enum { WORKERS_MAX = 64, LEASES_MAX = 64 };

struct dataplane;

enum failure_kind {
    FAILURE_MISSING, /* no such id */
    FAILURE_INVALID, /* out of range, or taken */
    FAILURE_SYSTEM,  /* the kernel said no: `error` is the errno */
    FAILURE_MEMORY,
};

/* Why a verb returned false; nothing has changed then. */
struct failure {
    enum failure_kind kind;
    int error;
    char text[160];
};

struct peer_settings {
    uint32_t endpoint;
    const struct ip_address *addresses;
    unsigned address_count;
    const uint8_t *groups; /* bit set, lowest byte first */
    size_t groups_length;
    uint32_t ping_interval_s;
    uint32_t timeout_s;
    struct path_settings path;
    uint32_t remote_id;
    bool data_v1;
    enum framing framing;
};

struct peer_statistics {
    uint64_t bytes_in, packets_in, bytes_out, packets_out, packets_denied;
    uint64_t idle_ms;
};

struct dataplane_options {
    struct key_limits limits;
    enum aead_choice crypto;
    unsigned pause_us; /* longest pause under load (pacer.h); 0 = none */
    bool link_offload; /* UDP segments both ways, as far as the kernel has them (link.h) */
};

struct dataplane_options dataplane_options_default(void);

/* Starts the workers. NULL with `failure` filled in. */
struct dataplane *dataplane_new(unsigned workers, const struct dataplane_options *options, struct failure *failure);

/* Stops the workers, closes every descriptor, wipes every key. Idempotent; every verb fails afterwards. */
void dataplane_close(struct dataplane *plane);

/* Closes first. */
void dataplane_free(struct dataplane *plane);

unsigned dataplane_workers(const struct dataplane *plane);
const char *dataplane_crypto_backend(const struct dataplane *plane);

bool dataplane_add_endpoint(struct dataplane *plane, uint32_t id, const int *tun_fds, size_t count,
                            enum tun_offload offload, struct failure *failure);
bool dataplane_remove_endpoint(struct dataplane *plane, uint32_t id, struct failure *failure);
bool dataplane_set_rules(struct dataplane *plane, uint32_t endpoint, const struct rule *rules, uint32_t count,
                         struct failure *failure);

bool dataplane_add_listener(struct dataplane *plane, uint32_t id, uint32_t endpoint, const int *udp_fds, size_t count,
                            struct failure *failure);
bool dataplane_remove_listener(struct dataplane *plane, uint32_t id, struct failure *failure);

bool dataplane_add_peer(struct dataplane *plane, uint32_t id, const struct peer_settings *settings,
                        struct failure *failure);
bool dataplane_remove_peer(struct dataplane *plane, uint32_t id, struct failure *failure);
/* `local` NULL: the kernel chooses. */
bool dataplane_set_remote(struct dataplane *plane, uint32_t id, uint32_t listener,
                          const struct socket_address *address, const struct ip_address *local,
                          struct failure *failure);
bool dataplane_attach_tcp(struct dataplane *plane, uint32_t id, int fd, const uint8_t *received, size_t length,
                          struct failure *failure);
bool dataplane_send_control(struct dataplane *plane, uint32_t id, const uint8_t *packet, size_t length,
                            struct failure *failure);
/* A data packet of a UDP peer that the control side received for it. Dropped (`inbox_full`) when its worker has too
 * many waiting. */
bool dataplane_inject(struct dataplane *plane, uint32_t id, const uint8_t *packet, size_t length,
                      struct failure *failure);
bool dataplane_set_groups(struct dataplane *plane, uint32_t id, const uint8_t *groups, size_t length,
                          struct failure *failure);

bool dataplane_install_key(struct dataplane *plane, uint32_t id, uint8_t key_id,
                           const struct peer_key_material *material, struct failure *failure);
bool dataplane_use_key(struct dataplane *plane, uint32_t id, uint8_t key_id, struct failure *failure);
bool dataplane_remove_key(struct dataplane *plane, uint32_t id, uint8_t key_id, struct failure *failure);

bool dataplane_event_fd(struct dataplane *plane, int *fd, struct failure *failure);
/* The caller frees each. */
struct event *dataplane_take_events(struct dataplane *plane);
bool dataplane_peer_statistics(struct dataplane *plane, uint32_t id, struct peer_statistics *statistics,
                               struct failure *failure);
/* Sums over all workers; they stay readable after close. */
void dataplane_drops(struct dataplane *plane, uint64_t drops[static DROP_REASON_COUNT]);
void dataplane_totals(struct dataplane *plane, uint64_t totals[static TOTAL_COUNT]);

#endif
