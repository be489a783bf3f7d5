/* Constants that headers declare: names of counters, magic strings of the data channel. */
#include "counters.h"
#include "wire.h"

const char *const DROP_WORDS[DROP_REASON_COUNT] = {
#define X(name, word) word,
    DROP_REASONS(X)
#undef X
};

const char *const TOTAL_WORDS[TOTAL_COUNT] = {
#define X(name, word) word,
    TOTALS(X)
#undef X
};

const uint8_t KEEPALIVE[KEEPALIVE_SIZE] = {0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb,
                                           0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48};

const uint8_t OCC_MAGIC[OCC_MAGIC_SIZE] = {0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81,
                                           0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c};
