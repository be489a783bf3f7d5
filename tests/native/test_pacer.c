/* When a worker pauses and for how long, by a clock of the test's own. */
#include "check.h"
#include "pacer.h"

enum { MS = 1000000, US = 1000 };

/* A second of the clock, so that nothing begins at zero. */
static const uint64_t BEGIN = UINT64_C(1000) * MS;

/* A pacer that has just been woken, and whose first window begins. */
static struct pacer started(unsigned longest_us)
{
    const uint64_t none[PACER_WAYS] = {0};
    struct pacer pacer = {.longest_ns = (uint64_t)longest_us * US};
    CHECK_EQUAL(pacer_pause(&pacer, BEGIN, none), 0);
    pacer_resume(&pacer, BEGIN);
    return pacer;
}

struct load {
    const char *what;
    unsigned up, up_messages, down, down_messages, ms; /* in all of the window */
    unsigned pause_us;
};

/* The pause of a worker that was woken at the end of the window, and is woken again at once. */
static void a_pause_fills_a_batch_of_the_busier_way(void)
{
    static const struct load table[] = {
        {"nothing", 0, 0, 0, 0, 1, 0},
        {"an idle tunnel's ping", 1, 1, 1, 1, 1, 0},
        {"not quite enough", 12, 12, 0, 0, 1, 0},
        {"just enough, of which a batch would take longer", 13, 13, 0, 0, 1, 600},
        {"the other way", 0, 0, 13, 13, 1, 600},
        {"both ways, but neither enough", 12, 12, 12, 12, 1, 0},
        {"a batch in less than the longest pause", 80, 80, 0, 0, 1, 400},
        {"the same rate over a longer window", 800, 800, 0, 0, 10, 400},
        {"what was enough for a shorter window", 80, 80, 0, 0, 10, 0},
        {"the busier way decides", 64, 64, 128, 128, 1, 250},
        {"whichever it is", 128, 128, 64, 64, 1, 250},
        {"not quite gathered", 799, 100, 0, 0, 1, 40},
        {"gathered already", 800, 100, 0, 0, 1, 0},
        {"one way gathered, the other not", 800, 100, 64, 64, 1, 500},
    };
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct load *load = &table[i];
        const uint64_t messages[PACER_WAYS] = {[PACER_UP] = load->up_messages, [PACER_DOWN] = load->down_messages};
        struct pacer pacer = started(600);
        pacer_count(&pacer, PACER_UP, load->up);
        pacer_count(&pacer, PACER_DOWN, load->down);
        uint64_t now = BEGIN + (uint64_t)load->ms * MS;
        pacer_resume(&pacer, now);
        uint64_t pause = pacer_pause(&pacer, now, messages);
        if (pause / US != load->pause_us) {
            fprintf(stderr, "%s: %llu us\n", load->what, (unsigned long long)pause / US);
            exit(1);
        }
    }
}

/* Woken `after_us` after the batches before, with `packets` in the millisecond until then. */
static uint64_t pause_after(unsigned after_us, unsigned packets)
{
    const uint64_t messages[PACER_WAYS] = {[PACER_UP] = packets};
    struct pacer pacer = started(600);
    pacer_count(&pacer, PACER_UP, packets);
    uint64_t now = BEGIN + MS;
    pacer_resume(&pacer, now);
    pacer_pause(&pacer, now, messages); /* judged: the next window is young */
    return pacer_pause(&pacer, now + (uint64_t)after_us * US, messages);
}

/* With so many acknowledgements, and packets that could be joined, in so many messages of the millisecond. */
static uint64_t pause_with(unsigned acknowledgements, unsigned joinable, unsigned received, unsigned longest_us)
{
    const uint64_t messages[PACER_WAYS] = {
        [PACER_UP] = received, [PACER_DOWN] = 1, [PACER_ACKNOWLEDGEMENTS] = received};
    struct pacer pacer = started(longest_us);
    pacer_count(&pacer, PACER_UP, joinable);
    pacer_count(&pacer, PACER_DOWN, 45);
    pacer_count(&pacer, PACER_ACKNOWLEDGEMENTS, acknowledgements);
    uint64_t now = BEGIN + MS;
    pacer_resume(&pacer, now);
    return pacer_pause(&pacer, now, messages);
}

static void acknowledgements_of_a_download_wait_for_each_other_a_little(void)
{
    CHECK_EQUAL(pause_with(4, 0, 4, 600), 0);
    CHECK_EQUAL(pause_with(5, 0, 5, 600), 100 * US);
    CHECK_EQUAL(pause_with(1000, 0, 1000, 600), 100 * US);
    CHECK_EQUAL(pause_with(25, 0, 25, 300), 50 * US);
    CHECK_EQUAL(pause_with(25, 0, 25, 0), 0);
    CHECK_EQUAL(pause_with(25, 0, 3, 600), 0); /* gathered already */
    /* An upload beside it decides. */
    CHECK_EQUAL(pause_with(25, 13, 38, 600), 600 * US);
    CHECK_EQUAL(pause_with(25, 80, 105, 600), 400 * US);
    CHECK_EQUAL(pause_with(25, 12, 37, 600), 100 * US);
}

static void a_pause_is_counted_from_the_wake_up_before(void)
{
    CHECK_EQUAL(pause_after(0, 80), 400 * US);
    CHECK_EQUAL(pause_after(150, 80), 250 * US);
    CHECK_EQUAL(pause_after(399, 80), 1 * US);
    CHECK_EQUAL(pause_after(400, 80), 0);
    CHECK_EQUAL(pause_after(900, 80), 0);
}

static void load_that_is_over_pauses_nobody(void)
{
    uint64_t messages[PACER_WAYS] = {[PACER_DOWN] = 80};
    struct pacer pacer = started(600);
    pacer_count(&pacer, PACER_DOWN, 80);
    uint64_t now = BEGIN + MS;
    pacer_resume(&pacer, now);
    CHECK(pacer_pause(&pacer, now, messages) > 0);
    pacer_resume(&pacer, now);
    CHECK_EQUAL(pacer_pause(&pacer, now + MS, messages), 0);
    /* The same in a night. */
    pacer_count(&pacer, PACER_DOWN, 80);
    messages[PACER_DOWN] += 80;
    now += UINT64_C(36000000) * MS;
    pacer_resume(&pacer, now);
    CHECK_EQUAL(pacer_pause(&pacer, now, messages), 0);
}

static void each_window_is_judged_by_itself(void)
{
    uint64_t messages[PACER_WAYS] = {[PACER_UP] = 80}, now = BEGIN + MS;
    struct pacer busy = started(600);
    pacer_count(&busy, PACER_UP, 80);
    pacer_resume(&busy, now);
    CHECK(pacer_pause(&busy, now, messages) > 0);

    struct pacer gathered = busy, slow = busy;
    now += MS;
    messages[PACER_UP] = 80 + 100;
    pacer_count(&gathered, PACER_UP, 800);
    pacer_resume(&gathered, now);
    CHECK_EQUAL(pacer_pause(&gathered, now, messages), 0);
    messages[PACER_UP] = 80 + 12;
    pacer_count(&slow, PACER_UP, 8);
    pacer_resume(&slow, now);
    CHECK_EQUAL(pacer_pause(&slow, now, messages), 0);
}

static void no_pause_is_longer_than_allowed(void)
{
    uint64_t state = 11;
    for (unsigned longest = 0; longest <= PACER_PAUSE_MAX_US; longest += 500) {
        struct pacer pacer = started(longest);
        uint64_t now = BEGIN, messages[PACER_WAYS] = {0};
        unsigned pauses = 0;
        for (unsigned i = 0; i < 5000; i++) {
            now += next_random(&state) % (100 * US);
            uint64_t pause = pacer_pause(&pacer, now, messages);
            CHECK(pause <= pacer.longest_ns);
            pauses += pause > 0;
            now += pause;
            pacer_resume(&pacer, now);
            for (unsigned way = 0; way < PACER_WAYS; way++) {
                unsigned packets = next_random(&state) % 64;
                pacer_count(&pacer, way, packets);
                messages[way] += packets;
            }
        }
        CHECK((pauses > 0) == (longest > 0));
    }
}

int main(void)
{
    RUN(a_pause_fills_a_batch_of_the_busier_way);
    RUN(acknowledgements_of_a_download_wait_for_each_other_a_little);
    RUN(a_pause_is_counted_from_the_wake_up_before);
    RUN(load_that_is_over_pauses_nobody);
    RUN(each_window_is_judged_by_itself);
    RUN(no_pause_is_longer_than_allowed);
    return 0;
}
