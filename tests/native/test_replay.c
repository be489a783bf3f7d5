#include "check.h"
#include "replay.h"

/* Edges of the window, each asked in turn of one window. */
static void edges_are_where_they_should_be(void)
{
    static const struct {
        uint32_t id;
        bool accepted;
    } table[] = {
        {0, false},
        {1, true},
        {1, false},
        {3, true},
        {2, true},
        {2, false},
        {REPLAY_WINDOW, true},
        {4, true},
        {REPLAY_WINDOW + 2, true},
        {3, false}, /* seen */
        {REPLAY_WINDOW + 1, true},
        {5, true}, /* behind by WINDOW - 3 */
        {REPLAY_WINDOW + 10, true},
        {10, false}, /* behind by WINDOW: gone */
        {11, true},  /* behind by WINDOW - 1: the last one */
        {11, false},
        {1000 * REPLAY_WINDOW, true}, /* a jump starts anew */
        {1000 * REPLAY_WINDOW - 1, true},
        {REPLAY_WINDOW + 11, false},
        {0xFFFFFFFF, true},
        {0xFFFFFFFF, false},
        {0xFFFFFFFF - REPLAY_WINDOW + 1, true},
        {0xFFFFFFFF - REPLAY_WINDOW, false},
    };
    struct replay_window window = {0};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (replay_accept(&window, table[i].id) != table[i].accepted) {
            fprintf(stderr, "row %zu, id %u\n", i, table[i].id);
            exit(1);
        }
}

/* Against an array of every id there is. */
static void agrees_with_remembering_everything(void)
{
    enum { IDS = 200000 };
    static bool seen[IDS];
    struct replay_window window = {0};
    uint32_t highest = 0;
    uint64_t random = 42;
    for (unsigned i = 0; i < 2 * IDS; i++) {
        uint32_t step = (uint32_t)(next_random(&random) % 100 == 0 ? next_random(&random) % 5000 : 3);
        uint32_t around = highest + step - (uint32_t)(next_random(&random) % 2500);
        uint32_t id = around < IDS ? around : 1;
        bool expected = id != 0 && !seen[id] && (id > highest || highest - id < REPLAY_WINDOW);
        CHECK_EQUAL(replay_accept(&window, id), expected);
        if (expected) {
            seen[id] = true;
            highest = id > highest ? id : highest;
        }
    }
    CHECK(highest > IDS / 4);
}

int main(void)
{
    RUN(edges_are_where_they_should_be);
    RUN(agrees_with_remembering_everything);
    return 0;
}
