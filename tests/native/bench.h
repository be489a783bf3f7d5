/* Median times of small pieces of the data plane, one line each: ROW, a tab, WHERE on its curve, a tab, nanoseconds.
 * With any argument everything is done once and short, to see that it works. */
#ifndef CVPND_BENCH_H
#define CVPND_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BENCH_RUNS = 9 };

/* The thread's own time: others on the machine still spoil caches, but their turns are not counted. */
static inline double bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static inline int bench_by_value(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* Sorts `runs`. */
static inline double bench_median(double *runs, unsigned count)
{
    qsort(runs, count, sizeof runs[0], bench_by_value);
    return runs[count / 2];
}

static inline void bench_tell(const char *row, unsigned long where, double ns)
{
    printf("%s\t%lu\t%.2f\n", row, where, ns);
}

/* xorshift64: the same numbers in every run. */
static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
