/* Enough of a test framework: a failed check names its line and ends the program. */
#ifndef CVPND_CHECK_H
#define CVPND_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                             \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                          \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

#define CHECK_EQUAL(actual, expected)                                                                                \
    do {                                                                                                             \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected);                                  \
        if (actual_ != expected_) {                                                                                  \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #actual, actual_, expected_);       \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

#define RUN(test)                                                                                                    \
    do {                                                                                                             \
        test();                                                                                                      \
        printf("ok %s\n", #test);                                                                                    \
    } while (0)

/* Hexadecimal digits -> bytes; how many. */
static inline size_t from_hex(uint8_t *into, const char *hex)
{
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++) {
        unsigned byte;
        CHECK(sscanf(hex + 2 * i, "%2x", &byte) == 1);
        into[i] = (uint8_t)byte;
    }
    return length;
}

/* xorshift64: the same numbers on every machine. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
