/* A path in virtual time: `passes` is the longest outer packet that gets through, `told` what routers say of it, the
 * nearest first. */
#include "check.h"
#include "path.h"

enum { HEADER = 24, OUTER = UDP_OVER_IPV4, AROUND = OUTER + HEADER };

enum { ROUTERS = 4 };

struct world {
    uint32_t passes, told[ROUTERS]; /* 0 = it says nothing */
    bool answers, short_by;         /* it answers at all; its answers fall short, as those of OpenVPN 2.4 do */
    unsigned lost;                  /* of the next packets */
    uint64_t now_ms;
    unsigned sent;
};

static struct path new_path(bool asks)
{
    struct path path = {0};
    path_init(
        &path,
        &(struct path_settings){
            .outer_mtu = 1500, .header = HEADER, .tunnel_mtu = 1420, .mss_v4 = 1380, .mss_v6 = 1360, .asks = asks});
    atomic_store(&path.moved, true);
    return path;
}

static void ask(struct world *world, struct path *path, uint32_t length, uint32_t load)
{
    world->sent++;
    if (world->lost > 0) {
        world->lost--;
        return;
    }
    uint32_t answer = load - HEADER - (world->short_by ? 40 : 0);
    if (world->answers && length + AROUND <= world->passes && answer + AROUND <= world->passes)
        path_answered(path, answer, world->now_ms);
}

/* Once a second, as a worker looks. */
static void live(struct world *world, struct path *path, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++, world->now_ms += 1000) {
        if (!path_due(path, world->now_ms))
            continue;
        struct path_wish wish = path_look(path, OUTER, world->now_ms);
        if (wish.request != 0)
            ask(world, path, wish.request, wish.request_load);
        if (wish.small_load != 0)
            ask(world, path, 19, wish.small_load);
        if (wish.blind != 0) {
            world->sent++;
            for (unsigned r = 0; r < ROUTERS; r++)
                if (world->told[r] != 0 && wish.blind + (uint32_t)AROUND > world->told[r]) {
                    path_told(path, world->told[r]);
                    break; /* and drops it */
                }
        }
    }
}

static uint32_t outer_that_fits(const struct path *path) { return atomic_load(&path->fits) + (uint32_t)AROUND; }

static void is_found(uint32_t passes, uint32_t told, bool answers, bool short_by, uint32_t expected)
{
    struct path path = new_path(true);
    struct world world = {.passes = passes, .told = {told}, .answers = answers, .short_by = short_by, .now_ms = 5000};
    live(&world, &path, 20);
    CHECK_EQUAL(outer_that_fits(&path), expected);
    CHECK_EQUAL(atomic_load(&path.mss_v4), expected - AROUND - 40);
    CHECK_EQUAL(atomic_load(&path.mss_v6), expected - AROUND - 60);
    unsigned sent = world.sent;
    live(&world, &path, 600);
    CHECK_EQUAL(world.sent, sent); /* enough for ten minutes */
    live(&world, &path, 120);
    CHECK(world.sent > sent);
    CHECK_EQUAL(outer_that_fits(&path), expected);
}

static void the_path_is_found_whatever_routers_say(void)
{
    static const uint32_t PATHS[][2] = {{1500, 1472}, {1472, 1472}, {1452, 1452},
                                        {1440, 1400}, {1400, 1400}, {1280, 1280}};
    static const uint32_t TOLD[] = {0, 1, 576, 1300, 65536};
    for (unsigned i = 0; i < sizeof PATHS / sizeof PATHS[0]; i++)
        for (unsigned j = 0; j < 2 * sizeof TOLD / sizeof TOLD[0]; j++)
            is_found(PATHS[i][0], TOLD[j / 2], true, j % 2, PATHS[i][1]);
}

static void who_never_answers_is_believed_to_have_what_routers_say(void)
{
    is_found(1400, 1400, false, false, 1400);
    is_found(1400, 0, false, false, 1472);
    is_found(1400, 1500, false, false, 1472);
    is_found(1500, 1, false, false, 1280); /* and no further than this */
}

/* Each says only what its own link takes, and the next is heard once so much gets as far as there. */
static void behind_one_narrow_link_there_may_be_another(void)
{
    static const struct {
        uint32_t told[ROUTERS], expected;
    } WAYS[] = {{{1452, 1300}, 1300}, {{1300, 1452}, 1300}, {{1400, 1400}, 1400}, {{1460, 1452, 1400, 1}, 1280}};
    for (unsigned i = 0; i < 2 * sizeof WAYS / sizeof WAYS[0]; i++) {
        struct path path = new_path(i % 2);
        struct world world = {.now_ms = 5000};
        memcpy(world.told, WAYS[i / 2].told, sizeof world.told);
        live(&world, &path, 20);
        CHECK_EQUAL(outer_that_fits(&path), WAYS[i / 2].expected);
        CHECK_EQUAL(atomic_load(&path.mss_v4), WAYS[i / 2].expected - AROUND - 40);
        unsigned sent = world.sent;
        live(&world, &path, 600);
        CHECK_EQUAL(world.sent, sent);
        live(&world, &path, 120);
        CHECK_EQUAL(outer_that_fits(&path), WAYS[i / 2].expected);
    }
}

/* What is not may be cut on the way by whoever has been told to. */
static void only_what_the_client_has_answered_is_proven(void)
{
    struct path path = new_path(true);
    struct world world = {.passes = 1400, .answers = true, .now_ms = 5000};
    CHECK_EQUAL(atomic_load(&path.proven), 0);
    live(&world, &path, 20);
    CHECK_EQUAL(atomic_load(&path.proven), 1400 - AROUND);
    atomic_store(&path.moved, true);
    live(&world, &path, 1);
    CHECK_EQUAL(atomic_load(&path.proven), 0);
    path = new_path(false);
    live(&world, &path, 20);
    CHECK_EQUAL(atomic_load(&path.fits), 1420);
    CHECK_EQUAL(atomic_load(&path.proven), 0);
    world.told[0] = 1350;
    atomic_store(&path.moved, true);
    live(&world, &path, 20);
    CHECK_EQUAL(outer_that_fits(&path), 1350);
    CHECK_EQUAL(atomic_load(&path.proven), 0); /* it may become narrower, and nobody would be asked for minutes */
}

static void nobody_is_heard_who_was_not_asked(void)
{
    struct path path = new_path(true);
    struct world world = {.passes = 1500, .answers = true, .now_ms = 5000};
    path_told(&path, 1300);
    live(&world, &path, 1);
    path_told(&path, 1300);
    live(&world, &path, 700);
    CHECK_EQUAL(outer_that_fits(&path), 1472);
    path = new_path(false);
    path_told(&path, 1300);
    live(&world, &path, 20);
    path_told(&path, 1300);
    live(&world, &path, 700);
    CHECK_EQUAL(outer_that_fits(&path), 1472);
}

static void tcp_begins_small_until_the_client_has_answered(void)
{
    struct path path = new_path(true);
    CHECK(atomic_load(&path.mss_v4) < 1280 - 40);
    struct world world = {.passes = 1500, .answers = true, .now_ms = 5000};
    live(&world, &path, 1);
    CHECK_EQUAL(atomic_load(&path.mss_v4), 1380);
    path = new_path(false);
    CHECK_EQUAL(atomic_load(&path.mss_v4), 1380);
}

static void loss_is_no_reason_to_shrink_for_long(void)
{
    for (unsigned lost = 0; lost < 12; lost++) {
        struct path path = new_path(true);
        struct world world = {.passes = 1500, .answers = true, .now_ms = 5000};
        live(&world, &path, 2);
        atomic_store(&path.moved, true);
        world.lost = lost < 5 ? lost : 5;
        live(&world, &path, 20);
        CHECK_EQUAL(outer_that_fits(&path), 1472);
    }
}

/* One that has been heard is asked less often than it had been already. */
static void a_search_ends_however_late_the_first_answer_is(void)
{
    for (unsigned lost = 0; lost < 2 * PATH_TRIES_UNHEARD; lost++) {
        struct path path = new_path(true);
        struct world world = {.passes = 1400, .answers = true, .lost = lost, .now_ms = 5000};
        live(&world, &path, 20);
        CHECK_EQUAL(outer_that_fits(&path), 1400);
        CHECK_EQUAL(atomic_load(&path.proven), 1400 - AROUND);
        unsigned sent = world.sent;
        live(&world, &path, 600);
        CHECK_EQUAL(world.sent, sent);
    }
}

static void a_move_to_another_path_is_a_new_beginning(void)
{
    struct path path = new_path(true);
    struct world world = {.passes = 1500, .answers = true, .now_ms = 5000};
    live(&world, &path, 5);
    world.passes = 1400;
    live(&world, &path, 5);
    CHECK_EQUAL(outer_that_fits(&path), 1472);
    atomic_store(&path.moved, true);
    live(&world, &path, 15);
    CHECK_EQUAL(outer_that_fits(&path), 1400);
    world.passes = 1500;
    live(&world, &path, 700);
    CHECK_EQUAL(outer_that_fits(&path), 1472);
}

/* Long packets go there all the time, and what is known to fit never falls below `least` meanwhile. */
static void be_used(struct world *world, struct path *path, unsigned seconds, uint32_t least)
{
    for (unsigned i = 0; i < seconds; i++) {
        path_use(path, 1300);
        live(world, path, 1);
        CHECK(outer_that_fits(path) >= least);
    }
}

static void a_path_that_becomes_narrow_in_silence_is_found_within_a_minute_of_use(void)
{
    struct path path = new_path(true);
    struct world world = {.passes = 1500, .answers = true, .now_ms = 5000};
    live(&world, &path, 5);
    world.passes = 1400;
    for (unsigned i = 0; i < 70; i++) {
        path_use(&path, PATH_LONG); /* passes everywhere */
        live(&world, &path, 1);
    }
    CHECK_EQUAL(outer_that_fits(&path), 1472);
    be_used(&world, &path, 75, 1280);
    CHECK_EQUAL(outer_that_fits(&path), 1400);
    be_used(&world, &path, 400, 1400);
    world.passes = 1500;
    be_used(&world, &path, 700, 1400);
    CHECK_EQUAL(outer_that_fits(&path), 1472);
}

static void to_see_whether_a_path_still_fits_costs_a_packet_a_minute_and_shrinks_nothing_for_loss(void)
{
    static const uint32_t PATHS[] = {1280, 1400, 1452, 1500};
    for (unsigned i = 0; i < sizeof PATHS / sizeof PATHS[0]; i++) {
        struct path path = new_path(true);
        struct world world = {.passes = PATHS[i], .answers = true, .now_ms = 5000};
        live(&world, &path, 20);
        uint32_t found = outer_that_fits(&path);
        unsigned sent = world.sent;
        be_used(&world, &path, 600, found);
        CHECK(world.sent - sent >= 9 && world.sent - sent <= 10);
        for (unsigned lost = 1; lost < PATH_TRIES_AGAIN; lost++) {
            if (world.now_ms + 70000 >= path.trusted_ms) /* then all is asked anew */
                live(&world, &path, 90);
            world.lost = lost;
            be_used(&world, &path, 66, found);
        }
    }
}

static void who_was_away_for_a_while_gets_long_packets_again_soon_after(void)
{
    struct path path = new_path(true);
    struct world world = {.passes = 1500, .answers = true, .now_ms = 5000};
    live(&world, &path, 5);
    world.answers = false;
    be_used(&world, &path, 75, 1280);
    CHECK_EQUAL(outer_that_fits(&path), 1280);
    world.answers = true;
    be_used(&world, &path, 75, 1280);
    CHECK_EQUAL(outer_that_fits(&path), 1472);
}

static void answers_that_nobody_asked_for_say_nothing(void)
{
    struct path path = new_path(true);
    uint16_t before = atomic_load(&path.mss_v4);
    for (unsigned i = 0; i < 100; i++)
        path_answered(&path, 1500, 5000);
    CHECK_EQUAL(atomic_load(&path.mss_v4), before);
    struct world world = {.passes = 1400, .answers = true, .now_ms = 5000};
    live(&world, &path, 20);
    CHECK_EQUAL(outer_that_fits(&path), 1400);
    for (unsigned i = 0; i < 100; i++)
        path_answered(&path, 1500, world.now_ms);
    CHECK_EQUAL(outer_that_fits(&path), 1400);
    live(&world, &path, 5);
    CHECK_EQUAL(outer_that_fits(&path), 1400);
}

static void nonsense_from_the_client_stays_within_bounds(void)
{
    struct path path = new_path(true);
    for (uint32_t i = 0; i < 2000; i++) {
        uint64_t now_ms = 5000 + i * 1000;
        path_answered(&path, i * 37 % 70000, now_ms);
        path_told(&path, i * 131 % 3000);
        if (path_due(&path, now_ms)) {
            struct path_wish wish = path_look(&path, i % 2 ? UDP_OVER_IPV4 : UDP_OVER_IPV6, now_ms);
            CHECK(wish.request <= 1420 && wish.blind <= 1420);
        }
        CHECK(atomic_load(&path.fits) <= 1420 && atomic_load(&path.fits) >= 1280 - 72);
        CHECK(atomic_load(&path.mss_v4) <= 1380 && atomic_load(&path.mss_v4) >= 1280 - 72 - 40);
    }
}

int main(void)
{
    RUN(the_path_is_found_whatever_routers_say);
    RUN(who_never_answers_is_believed_to_have_what_routers_say);
    RUN(behind_one_narrow_link_there_may_be_another);
    RUN(only_what_the_client_has_answered_is_proven);
    RUN(nobody_is_heard_who_was_not_asked);
    RUN(tcp_begins_small_until_the_client_has_answered);
    RUN(loss_is_no_reason_to_shrink_for_long);
    RUN(a_search_ends_however_late_the_first_answer_is);
    RUN(a_move_to_another_path_is_a_new_beginning);
    RUN(a_path_that_becomes_narrow_in_silence_is_found_within_a_minute_of_use);
    RUN(to_see_whether_a_path_still_fits_costs_a_packet_a_minute_and_shrinks_nothing_for_loss);
    RUN(who_was_away_for_a_while_gets_long_packets_again_soon_after);
    RUN(answers_that_nobody_asked_for_say_nothing);
    RUN(nonsense_from_the_client_stays_within_bounds);
    return 0;
}
