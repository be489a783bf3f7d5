/* How often something may happen: in all, and for each source prefix in memory that does not grow with their number.
 * A bucket holds what may be done at once, at most a second's worth, and fills up evenly. For one thread. */
#ifndef CVPND_RATE_H
#define CVPND_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"

struct bucket {
    float tokens;
    uint32_t at_ms;
};

static inline void bucket_refill(struct bucket *bucket, uint32_t per_s, uint32_t now_ms)
{
    float full = (float)per_s;
    float tokens = bucket->tokens + (float)(uint32_t)(now_ms - bucket->at_ms) * full / 1000.0f;
    bucket->tokens = tokens < full ? tokens : full;
    bucket->at_ms = now_ms;
}

/* Whether it may happen now; then it is counted. */
static inline bool bucket_take(struct bucket *bucket, uint32_t per_s, uint32_t now_ms)
{
    bucket_refill(bucket, per_s, now_ms);
    if (bucket->tokens < 1.0f)
        return false;
    bucket->tokens -= 1.0f;
    return true;
}

/* Secret of this process, so that nobody can choose prefixes that share a bucket. */
struct hash_key {
    uint64_t words[2];
};

bool hash_key_init(struct hash_key *key); /* errno */
uint64_t hash_words(const struct hash_key *key, uint64_t a, uint64_t b);

/* What counts as one stranger: an IPv4 address, or the /64 that an IPv6 site can pick addresses from. */
uint64_t source_prefix(const struct ip_address *ip);

/* Two rows of buckets, in each of which a prefix has one; it is refused when both are empty. Prefixes that share one
 * bucket seldom share the other, so who shares with a flood still has a bucket. */
enum { PREFIX_ROWS = 2, PREFIX_BUCKETS = 8192 };

struct prefix_rates {
    struct bucket rows[PREFIX_ROWS][PREFIX_BUCKETS];
};

bool prefix_take(struct prefix_rates *rates, uint64_t prefix_hash, uint32_t per_s, uint32_t now_ms);

#endif
