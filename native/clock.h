/* The monotonic clock. Only workers and the control side ask; forward.c and the pacer's rule are told. */
#ifndef CVPND_CLOCK_H
#define CVPND_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline uint64_t clock_now_ms(void) { return clock_now_ns() / 1000000; }

/* What has passed since `then`, which another thread may have written after `now` was looked at: then nothing. */
static inline uint64_t clock_since(uint64_t now_ms, uint64_t then_ms)
{
    return now_ms > then_ms ? now_ms - then_ms : 0;
}

#endif
