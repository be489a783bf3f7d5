#include "control_replay.h"

#include <string.h>

/* Not seen yet, not behind the window, and no later one came more than CONTROL_REPLAY_S ago. */
static bool fits_behind(const struct control_replay *window, uint32_t id, double now)
{
    if (window->highest - id >= CONTROL_REPLAY_IDS || window->ids[id % CONTROL_REPLAY_IDS] == id)
        return false;
    for (unsigned i = 0; i < CONTROL_REPLAY_IDS; i++)
        if (window->ids[i] > id && window->arrived[i] < now - CONTROL_REPLAY_S)
            return false;
    return true;
}

bool control_replay_accept(struct control_replay *window, uint32_t id, uint32_t time, double now)
{
    if (id == 0 || (window->begun && time < window->time))
        return false;
    if (!window->begun || time > window->time) {
        window->begun = true;
        window->time = time;
        window->highest = 0;
        memset(window->ids, 0, sizeof window->ids);
    }
    if (id <= window->highest && !fits_behind(window, id, now))
        return false;
    if (id > window->highest)
        window->highest = id;
    window->ids[id % CONTROL_REPLAY_IDS] = id;
    window->arrived[id % CONTROL_REPLAY_IDS] = now;
    return true;
}
