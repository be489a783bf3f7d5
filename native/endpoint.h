/* What belongs to one endpoint (TUN queues, leases, rules) and to one of its UDP listeners. */
#ifndef CVPND_ENDPOINT_H
#define CVPND_ENDPOINT_H

#include <stdatomic.h>
#include <stdint.h>

#include "address_table.h"
#include "offload.h"
#include "rules.h"

struct endpoint {
    uint32_t id;
    _Atomic(struct rules *) rules; /* published; never NULL, to begin with nothing is allowed */
    struct address_table addresses;
    unsigned peers;           /* control side */
    unsigned listeners;       /* control side */
    enum tun_offload offload; /* constant: what the TUN queues speak */
    int tun_fds[];            /* one for each worker */
};

struct listener {
    uint32_t id;
    struct endpoint *endpoint;
    int family;     /* of its sockets: AF_INET, or AF_INET6 which may carry IPv4 too */
    bool segmented; /* constant: whether segments are wanted */
    int udp_fds[];  /* one for each worker */
};

#endif
