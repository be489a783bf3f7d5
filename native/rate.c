#include "rate.h"

#include <sys/random.h>

bool hash_key_init(struct hash_key *key)
{
    return getrandom(key->words, sizeof key->words, 0) == (ssize_t)sizeof key->words;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_words(const struct hash_key *key, uint64_t a, uint64_t b)
{
    uint64_t once = mix(a ^ key->words[0], b ^ key->words[1]);
    return mix(once ^ key->words[1], key->words[0] ^ 0x9E3779B97F4A7C15u);
}

uint64_t source_prefix(const struct ip_address *ip)
{
    uint64_t words[2];
    memcpy(words, ip->bytes, sizeof words);
    return ip_is_v4(ip) ? words[1] : words[0];
}

bool prefix_take(struct prefix_rates *rates, uint64_t prefix_hash, uint32_t per_s, uint32_t now_ms)
{
    bool allowed = false;
    for (unsigned row = 0; row < PREFIX_ROWS; row++) {
        unsigned index = (unsigned)(prefix_hash >> (32 * row)) % PREFIX_BUCKETS;
        allowed |= bucket_take(&rates->rows[row][index], per_s, now_ms);
    }
    return allowed;
}
