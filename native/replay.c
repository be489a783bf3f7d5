#include "replay.h"

bool replay_accept(struct replay_window *window, uint64_t id)
{
    if (id == 0)
        return false;
    uint64_t word = id / 64;
    if (id > window->highest) {
        uint64_t advance = word - window->highest / 64;
        if (advance > REPLAY_WORDS)
            advance = REPLAY_WORDS;
        for (uint64_t i = 0; i < advance; i++)
            window->seen[(word - i) % REPLAY_WORDS] = 0;
        window->highest = id;
    } else if (window->highest - id >= REPLAY_WINDOW) {
        return false;
    }
    uint64_t bit = (uint64_t)1 << (id % 64);
    uint64_t *seen = &window->seen[word % REPLAY_WORDS];
    if (*seen & bit)
        return false;
    *seen |= bit;
    return true;
}
