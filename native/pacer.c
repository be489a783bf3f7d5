#include "pacer.h"

#include <sys/prctl.h>
#include <time.h>

#include "clock.h"

enum { WINDOW_NS = 1000000, TIMER_SLACK_NS = 1000 };

void pacer_start(const struct pacer *pacer)
{
    if (pacer->longest_ns > 0)
        prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* the default would add half a pause */
}

/* The time it takes to fill a batch at the rate of the window before; 0 when that is not `busy` packets a millisecond, or
 * they come together anyhow. */
static uint64_t filling_ns(const struct pacer *pacer, enum pacer_way way, unsigned busy, uint64_t elapsed,
                           const uint64_t messages[static PACER_WAYS])
{
    uint64_t packets = pacer->packets[way];
    bool gathered = packets >= PACER_GATHERED * (messages[way] - pacer->messages[way]);
    return gathered || packets * WINDOW_NS < busy * elapsed ? 0 : PACER_BATCH * elapsed / packets;
}

static void pause_at_most(struct pacer *pacer, uint64_t ns)
{
    if (!pacer->busy || pacer->pause_ns > ns)
        pacer->pause_ns = ns;
    pacer->busy = true;
}

/* The rates of the window before, judged when it is over. */
static void judge(struct pacer *pacer, uint64_t now, const uint64_t messages[static PACER_WAYS])
{
    uint64_t elapsed = now - pacer->window_ns;
    if (elapsed < WINDOW_NS)
        return;
    pacer->busy = false;
    for (enum pacer_way way = PACER_UP; way <= PACER_DOWN; way++) {
        uint64_t filling = filling_ns(pacer, way, PACER_BUSY, elapsed, messages);
        if (filling > 0)
            pause_at_most(pacer, filling < pacer->longest_ns ? filling : pacer->longest_ns);
    }
    if (!pacer->busy && filling_ns(pacer, PACER_ACKNOWLEDGEMENTS, PACER_ACKNOWLEDGEMENTS_BUSY, elapsed, messages) > 0)
        pause_at_most(pacer, pacer->longest_ns / PACER_ACKNOWLEDGEMENTS_PART);
    for (unsigned way = 0; way < PACER_WAYS; way++) {
        pacer->packets[way] = 0;
        pacer->messages[way] = messages[way];
    }
    pacer->window_ns = now;
}

uint64_t pacer_pause(struct pacer *pacer, uint64_t now_ns, const uint64_t messages[static PACER_WAYS])
{
    judge(pacer, now_ns, messages);
    uint64_t until = pacer->woken_ns + pacer->pause_ns;
    return pacer->busy && now_ns < until ? until - now_ns : 0;
}

bool pacer_wait(struct pacer *pacer, const uint64_t messages[static PACER_WAYS])
{
    if (pacer->longest_ns == 0)
        return false;
    uint64_t now = clock_now_ns(), pause = pacer_pause(pacer, now, messages);
    if (pause > 0) {
        struct timespec wait = {.tv_nsec = (long)pause}; /* below a second: PACER_PAUSE_MAX_US */
        nanosleep(&wait, NULL);                          /* workers block every signal */
        now = clock_now_ns();
    }
    pacer_resume(pacer, now);
    return pause > 0;
}
