/* How much of a packet fits a peer's path in one piece, and how that is found out (README, "Path MTU").
 *
 * A clock and answers in, wishes out: whoever owns the sockets asks. All lengths are those of tunnel packets unless they
 * are called `outer`. */
#ifndef CVPND_PATH_H
#define CVPND_PATH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    PATH_OUTER_MIN = 1280, /* nobody is believed that less fits: IPv6 has to carry this (RFC 8200 5), IPv4 does */
    PATH_TUNNEL_MIN = 576,
    PATH_HEADER_MAX = 255,
    UDP_OVER_IPV4 = 28,
    UDP_OVER_IPV6 = 48,
    PATH_TRY_MS = 900,            /* one try a second: who asks looks once a second */
    PATH_TRIES = 3,               /* of one length, then it does not fit */
    PATH_TRIES_UNHEARD = 6,       /* of the first one, when the client has never answered at all */
    PATH_TRIES_AGAIN = 6,         /* of what used to fit: loss must not shrink it */
    PATH_TRUSTED_MS = 11 * 60000, /* then all is asked anew; hosts forget their own findings after ten minutes */
    PATH_USED_MS = 60000, /* whether it still fits is asked so often where long packets go: a path may get narrow */
    PATH_LONG = 1200,     /* such packets are longer */
    PATH_SMALL = 256,     /* length asked for to see whether, and how exactly, the client answers */
    PATH_SECRET = 12,     /* bytes; chance and the number of errors that fit through a link decide */
};

struct path_settings {
    uint16_t outer_mtu;  /* taken for the path's to begin with, and never exceeded; 0 = do not look at it */
    uint16_t header;     /* bytes that a data packet has around a tunnel packet, at most */
    uint16_t tunnel_mtu; /* longest packet that the client takes; 0 = any */
    uint16_t mss_v4;     /* at most; 0 = leave SYNs alone */
    uint16_t mss_v6;
    uint16_t spread_ms; /* added to the time for which a finding is trusted, so that not all ask at once */
    bool asks;          /* the client can be asked (openvpn-wire.md 11.7) */
};

enum path_state { PATH_KNOWN, PATH_TRYING };

struct path {
    /* Constant after publication. */
    struct path_settings settings;

    /* Set by the control side when the peer has moved. */
    atomic_bool moved;

    /* Written by the peer's worker, read by all. */
    _Atomic uint16_t fits;
    _Atomic uint16_t mss_v4;
    _Atomic uint16_t mss_v6;
    _Atomic uint16_t proven; /* so much passes whole, by the client's answer; 0 = it has given none */

    /* Set by all when they send a long packet, cleared by the peer's worker. */
    atomic_bool used;

    /* The peer's worker only. */
    enum path_state state;
    uint64_t due_ms;
    uint64_t trusted_ms;    /* then more may fit than is known */
    bool again;             /* only what is known is being tried */
    uint16_t outer_headers; /* IP and UDP, of the remote's version */
    uint16_t largest;       /* nothing longer is sent to this peer */
    uint16_t length;        /* being tried */
    uint16_t good;          /* longest that is known to fit; 0 = none yet */
    unsigned tries;
    unsigned asked; /* requests whose answers have not come: more answers than these say nothing */
    bool heard;     /* the client has answered something */
    bool deaf;      /* it never does */
    uint16_t told;  /* what routers say of the outer packet being tried; 0 = nothing */
    bool has_secret;
    uint8_t secret[PATH_SECRET]; /* what blind packets carry, and a router has to quote (blind.h) */
    int16_t slack;               /* what the client's answer falls short of the length asked for */
};

/* What is to be sent now, each alone and not to be fragmented; 0 = nothing. */
struct path_wish {
    uint16_t request;      /* length of a request, padded, … */
    uint16_t request_load; /* … and of the answer it asks for */
    uint16_t small_load;   /* a request without padding, for this answer */
    uint16_t blind;        /* a packet that nobody reads, as long as a tunnel packet of this length sealed */
};

/* Unpublished. */
void path_init(struct path *path, const struct path_settings *settings);

/* Whether path_look has something to do: for the peer's worker, once a second. */
bool path_due(const struct path *path, uint64_t now_ms);

/* A packet of this length is being sent. */
static inline void path_use(struct path *path, uint32_t length)
{
    if (length > PATH_LONG && !atomic_load_explicit(&path->used, memory_order_relaxed))
        atomic_store_explicit(&path->used, true, memory_order_relaxed);
}

/* `outer_headers`: of the peer's remote. */
struct path_wish path_look(struct path *path, uint16_t outer_headers, uint64_t now_ms);

/* A router on the way has quoted our blind packet, or this host refused it: no longer outer packet passes. */
void path_told(struct path *path, uint32_t outer_mtu);

/* The client has sent a load of this length: so much passes, and a request as long has passed before. */
void path_answered(struct path *path, uint32_t length, uint64_t now_ms);

#endif
