/* HMAC under one key, over the parts of a message that does not lie in one piece. For one thread at a time. */
#ifndef CVPND_MAC_H
#define CVPND_MAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAC_MAX = 64 };

struct mac {
    void *context; /* an EVP_MAC_CTX */
    size_t size;   /* of its result */
};

struct part {
    const void *bytes;
    size_t length;
};

/* `digest`: "SHA1", "SHA256", "SHA384" or "SHA512". False: no such digest, or memory is short. */
bool mac_init(struct mac *mac, const char *digest);
void mac_destroy(struct mac *mac);

bool mac_set_key(struct mac *mac, const uint8_t *key, size_t length);

/* After a key was set. False only if the library fails. */
bool mac_compute(struct mac *mac, const struct part *parts, unsigned count, uint8_t result[static MAC_MAX]);

/* In constant time; the first `length` bytes of the result. */
bool mac_matches(struct mac *mac, const struct part *parts, unsigned count, const uint8_t *expected, size_t length);

#endif
