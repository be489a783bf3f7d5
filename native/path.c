#include "path.h"

static uint16_t at_most(uint32_t a, uint32_t b) { return (uint16_t)(a < b ? a : b); }
static uint32_t at_least(uint32_t a, uint32_t b) { return a > b ? a : b; }

static uint32_t tunnel_max(const struct path_settings *settings)
{
    return settings->tunnel_mtu != 0 ? settings->tunnel_mtu : UINT16_MAX;
}

/* A bound for SYNs: that of the settings, and what leaves room for the headers. */
static uint16_t mss_within(uint16_t bound, uint32_t packet, uint32_t headers)
{
    return bound == 0 ? 0 : at_most(bound, packet - headers);
}

static void publish(struct path *path, uint16_t fits, uint16_t for_tcp, uint16_t proven)
{
    atomic_store_explicit(&path->proven, proven, memory_order_relaxed);
    atomic_store_explicit(&path->fits, fits, memory_order_relaxed);
    atomic_store_explicit(&path->mss_v4, mss_within(path->settings.mss_v4, for_tcp, 40), memory_order_relaxed);
    atomic_store_explicit(&path->mss_v6, mss_within(path->settings.mss_v6, for_tcp, 60), memory_order_relaxed);
}

/* The tunnel packet that makes an outer packet of this length. */
static uint16_t inside(const struct path *path, uint32_t outer)
{
    return (uint16_t)(outer - path->outer_headers - path->settings.header);
}

void path_init(struct path *path, const struct path_settings *settings)
{
    path->settings = *settings;
    path->slack = (int16_t)settings->header;
    uint16_t longest = (uint16_t)tunnel_max(settings);
    path->outer_headers = UDP_OVER_IPV6; /* no remote yet: the worst */
    bool certain = settings->outer_mtu == 0 || !settings->asks;
    publish(path, longest, certain ? longest : at_most(inside(path, PATH_OUTER_MIN), longest), 0);
}

bool path_due(const struct path *path, uint64_t now_ms)
{
    if (path->settings.outer_mtu == 0)
        return false;
    bool worn = path->state == PATH_TRYING || now_ms >= path->trusted_ms || atomic_load(&path->used);
    return (now_ms >= path->due_ms && worn) || atomic_load(&path->moved);
}

static void believe(struct path *path, uint16_t length) { publish(path, length, length, length); }

static void conclude(struct path *path, uint16_t length, uint64_t now_ms)
{
    publish(path, length, length, path->good);
    path->state = PATH_KNOWN;
    if (!path->again)
        path->trusted_ms = now_ms + PATH_TRUSTED_MS + path->settings.spread_ms;
    else if (length < path->largest && length == inside(path, PATH_OUTER_MIN) &&
             path->trusted_ms > now_ms + PATH_USED_MS)
        path->trusted_ms = now_ms + PATH_USED_MS; /* perhaps nobody was there to answer: all is asked anew */
    path->due_ms = path->trusted_ms;
    if (path->heard && path->due_ms > now_ms + PATH_USED_MS)
        path->due_ms = now_ms + PATH_USED_MS;
    atomic_store_explicit(&path->used, false, memory_order_relaxed);
}

static void try_next(struct path *path, uint16_t length, uint64_t now_ms)
{
    path->length = length;
    path->tries = 0;
    path->due_ms = now_ms;
}

/* Usual paths between the least and the longest. */
static uint16_t next_longer(const struct path *path)
{
    static const uint16_t OUTER[] = {1400, 1452};
    for (unsigned i = 0; i < sizeof OUTER / sizeof OUTER[0]; i++) {
        uint16_t length = inside(path, OUTER[i]);
        if (length > path->good && length < path->largest)
            return length;
    }
    return path->largest;
}

static void begin(struct path *path, uint16_t outer_headers, bool moved, uint64_t now_ms)
{
    path->outer_headers = outer_headers;
    path->largest = at_most(inside(path, path->settings.outer_mtu), tunnel_max(&path->settings));
    path->again = !moved && now_ms < path->trusted_ms;
    if (path->again)
        path->largest = at_most(atomic_load_explicit(&path->fits, memory_order_relaxed), path->largest);
    path->state = PATH_TRYING;
    path->good = 0;
    path->asked = 0;
    path->told = 0;
    try_next(path, path->largest, now_ms);
    if (!moved)
        return; /* what was found holds until something else is */
    /* TCP cannot take back its segment size, so it begins small where an answer is to be had in a moment. */
    bool certain = !path->settings.asks || path->deaf;
    publish(path, path->largest, certain ? path->largest : at_most(inside(path, PATH_OUTER_MIN), path->largest), 0);
}

static uint16_t told_length(const struct path *path)
{
    if (path->told == 0 || path->told >= path->settings.outer_mtu)
        return path->largest;
    return at_most(inside(path, at_least(path->told, PATH_OUTER_MIN)), path->largest);
}

static bool looks_blind(const struct path *path) { return !path->settings.asks || path->deaf; }

/* Who cannot be asked is sent something that nobody reads; routers that do not pass it on say so. */
static struct path_wish look_blind(struct path *path, uint64_t now_ms)
{
    uint16_t told = path->tries == 0 ? path->length : told_length(path);
    if (told < path->length) { /* the next router may let less through */
        if (told < atomic_load_explicit(&path->fits, memory_order_relaxed))
            publish(path, told, told, 0); /* else what was found holds until nobody speaks */
        try_next(path, told, now_ms);
    }
    if (path->tries >= PATH_TRIES) {
        conclude(path, path->length, now_ms);
        return (struct path_wish){0};
    }
    path->tries++;
    path->due_ms = now_ms + PATH_TRY_MS;
    return (struct path_wish){.blind = path->length};
}

void path_told(struct path *path, uint32_t outer_mtu)
{
    if (path->state == PATH_TRYING && looks_blind(path) && path->tries > 0)
        path->told = at_most(at_least(outer_mtu, 1), UINT16_MAX);
}

struct path_wish path_look(struct path *path, uint16_t outer_headers, uint64_t now_ms)
{
    bool moved = atomic_exchange(&path->moved, false);
    if (moved || path->state == PATH_KNOWN)
        begin(path, outer_headers, moved, now_ms);
    if (looks_blind(path))
        return look_blind(path, now_ms);

    uint16_t least = at_most(inside(path, PATH_OUTER_MIN), path->largest);
    bool first = path->good == 0;
    unsigned most = path->again ? PATH_TRIES_AGAIN : path->heard ? PATH_TRIES : PATH_TRIES_UNHEARD;
    if (path->tries >= (first ? most : PATH_TRIES)) { /* more, where a late first answer has made it fewer */
        if (!first) {
            conclude(path, path->good, now_ms);
            return (struct path_wish){0};
        }
        if (!path->heard) {
            path->deaf = true;
            path->tries = 0;
            return look_blind(path, now_ms);
        }
        believe(path, path->good = least);
        try_next(path, next_longer(path), now_ms);
    }
    path->tries++;
    path->due_ms = now_ms + PATH_TRY_MS;
    path->asked += path->heard ? 1 : 2;
    return (struct path_wish){
        .request = path->length,
        .request_load = (uint16_t)(path->length + path->slack),
        .small_load = path->heard ? 0 : PATH_SMALL,
    };
}

void path_answered(struct path *path, uint32_t length, uint64_t now_ms)
{
    if (path->state != PATH_TRYING || path->asked == 0)
        return;
    path->asked--;
    path->heard = true;
    path->deaf = false;
    if (length <= PATH_SMALL)
        path->slack = (int16_t)(PATH_SMALL - length);
    if (length < path->length)
        return;
    path->good = path->length;
    if (path->good == path->largest) {
        conclude(path, path->good, now_ms);
    } else {
        believe(path, path->good);
        try_next(path, next_longer(path), now_ms);
    }
}
