/* Frames of a TCP connection, over a socket pair: any cut, and a queue that is bounded. */
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "check.h"
#include "fixture.h"
#include "tcp.h"

struct pair {
    struct fixture *fixture;
    struct tcp_connection *connection;
    int client;
    int epoll;
};

static struct pair pair_new(const uint8_t *received, size_t length)
{
    struct pair pair = {.fixture = fixture_new(), .epoll = epoll_create1(0)};
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    pair.client = ends[1];
    pair.connection = tcp_new(ends[0], pair.fixture->peer, &pair.fixture->events, pair.epoll, 1, received, length);
    CHECK(pair.connection != NULL);
    atomic_store(&pair.fixture->peer->connection, pair.connection);
    CHECK(tcp_start(pair.connection));
    return pair;
}

static void pair_free(struct pair *pair)
{
    tcp_free(pair->connection);
    fixture_free(pair->fixture);
    close(pair->client);
    close(pair->epoll);
}

/* Reads what is there and collects the frames' first bytes; false when the framing is broken. */
static bool collect(struct pair *pair, char *firsts)
{
    static struct tcp_scratch scratch;
    struct counters *counters = &pair->fixture->counters;
    while (tcp_receive(pair->connection, &scratch, counters)) {
        bool more = true;
        while (more) {
            struct batch batch;
            bool good = tcp_take_frames(pair->connection, &scratch, &batch, &more, counters);
            for (unsigned i = 0; i < batch.count; i++) {
                size_t at = strlen(firsts);
                firsts[at] = (char)batch.packets[i].bytes[0];
                firsts[at + 1] = 0;
            }
            if (!good)
                return false;
        }
    }
    return true;
}

static const uint8_t STREAM[] = {0, 1, 'a', 0, 3, 'b', 'x', 'x', 0, 2, 'c', 'x', 0, 1, 'd'};

static void frames_survive_any_cut(void)
{
    for (size_t handed = 0; handed <= sizeof STREAM; handed++) {
        for (size_t cut = handed; cut <= sizeof STREAM; cut++) {
            struct pair pair = pair_new(STREAM, handed);
            char firsts[16] = "";
            CHECK(write(pair.client, STREAM + handed, cut - handed) == (ssize_t)(cut - handed));
            CHECK(collect(&pair, firsts));
            CHECK(write(pair.client, STREAM + cut, sizeof STREAM - cut) == (ssize_t)(sizeof STREAM - cut));
            CHECK(collect(&pair, firsts));
            CHECK(strcmp(firsts, "abcd") == 0);
            pair_free(&pair);
        }
    }
}

static void more_frames_than_a_batch_holds(void)
{
    enum { FRAMES = 200 };
    static uint8_t stream[FRAMES * 3 + 1];
    static char firsts[FRAMES + 1], expected[FRAMES + 1];
    for (unsigned i = 0; i < FRAMES; i++) {
        stream[3 * i + 1] = 1;
        stream[3 * i + 2] = (uint8_t)(expected[i] = (char)('a' + i % 26));
    }
    struct pair pair = pair_new(stream, sizeof stream); /* ends inside a length */
    CHECK(collect(&pair, firsts));
    CHECK(strcmp(firsts, expected) == 0);
    pair_free(&pair);
}

static void impossible_lengths_break_the_framing(void)
{
    static const uint8_t empty[] = {0, 1, 'a', 0, 0}, huge[] = {0, 1, 'a', 0xff, 0xff};
    const uint8_t beyond[] = {0, 1, 'a', (LINK_PACKET_MAX + 1) >> 8, (LINK_PACKET_MAX + 1) & 255};
    const uint8_t *streams[] = {empty, huge, beyond};
    for (unsigned i = 0; i < 3; i++) {
        struct pair pair = pair_new(streams[i], 5);
        char firsts[4] = "";
        CHECK(!collect(&pair, firsts));
        CHECK(strcmp(firsts, "a") == 0); /* what came before is good */
        pair_free(&pair);
    }
}

static void what_finds_the_connection_closed_is_counted(void)
{
    struct pair pair = pair_new(NULL, 0);
    uint8_t bytes[] = "sealed";
    const struct packet packets[] = {{.bytes = bytes, .length = 6}, {.bytes = bytes, .length = 6}};
    tcp_send_data(pair.connection, packets, 2, &pair.fixture->counters);
    CHECK_EQUAL(fixture_dropped(pair.fixture, DROP_NOT_READY), 0);
    tcp_close(pair.connection, "for a test");
    tcp_send_data(pair.connection, packets, 2, &pair.fixture->counters);
    CHECK_EQUAL(fixture_dropped(pair.fixture, DROP_NOT_READY), 2);
    CHECK_EQUAL(pair.fixture->counters.totals[TOTAL_LINK_PACKETS_OUT], 2);
    pair_free(&pair);
}

static void longest_frame_may_come_in_two_parts(void)
{
    static uint8_t frame[FRAME_PREFIX + LINK_PACKET_MAX];
    put_u16(frame, LINK_PACKET_MAX);
    frame[2] = 'L';
    struct pair pair = pair_new(frame, sizeof frame - 1);
    char firsts[4] = "";
    CHECK(collect(&pair, firsts));
    CHECK(strcmp(firsts, "") == 0);
    CHECK(write(pair.client, "", 1) == 1);
    CHECK(collect(&pair, firsts));
    CHECK(strcmp(firsts, "L") == 0);
    pair_free(&pair);
}

static void closed_by_the_client_is_told_once(void)
{
    struct pair pair = pair_new(NULL, 0);
    char firsts[4] = "";
    close(pair.client);
    collect(&pair, firsts);
    collect(&pair, firsts);
    struct event *event = events_take(&pair.fixture->events);
    CHECK(event != NULL && event->kind == EVENT_TCP_CLOSED && event->next == NULL);
    CHECK(event->length == 11 && memcmp(event->bytes, "end of file", 11) == 0);
    free(event);
    CHECK(tcp_is_closed(pair.connection));
    pair.client = dup(pair.epoll); /* for pair_free to close */
    pair_free(&pair);
}

/* Nobody reads: data fills its share of the queue, control goes on into the reserve, and then the end. */
static void slow_client_loses_data_then_the_connection(void)
{
    struct pair pair = pair_new(NULL, 0);
    static uint8_t bytes[1000];
    struct packet packet = {.bytes = bytes, .length = sizeof bytes};
    struct counters *counters = &pair.fixture->counters;
    unsigned sent = 0;
    while (fixture_dropped(pair.fixture, DROP_TCP_QUEUE_FULL) == 0 && sent++ < 100000)
        tcp_send_data(pair.connection, &packet, 1, counters);
    CHECK(sent < 100000);
    CHECK(!tcp_is_closed(pair.connection));
    unsigned control = 0;
    while (!tcp_is_closed(pair.connection) && control++ < 1000)
        tcp_send_control(pair.connection, bytes, sizeof bytes, counters);
    CHECK(control > 60 && control < 70); /* 64 KiB of 1002 bytes */
    CHECK_EQUAL(fixture_events(pair.fixture), 1u << EVENT_TCP_CLOSED);
    tcp_send_control(pair.connection, bytes, sizeof bytes, counters); /* silently dropped */
    pair_free(&pair);
}

/* What was queued comes out in order, whatever the kernel took at once. */
static void queue_drains_in_order(void)
{
    enum { FRAMES = 400, LENGTH = 600 };
    struct pair pair = pair_new(NULL, 0);
    int small = 4096;
    setsockopt(pair.client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct counters *counters = &pair.fixture->counters;
    for (uint32_t i = 0; i < FRAMES; i++) {
        uint8_t bytes[LENGTH] = {0};
        put_u32(bytes, i);
        struct packet packet = {.bytes = bytes, .length = LENGTH};
        tcp_send_data(pair.connection, &packet, 1, counters);
    }
    CHECK_EQUAL(fixture_dropped(pair.fixture, DROP_TCP_QUEUE_FULL), 0);
    static uint8_t stream[FRAMES * (FRAME_PREFIX + LENGTH)];
    size_t length = 0;
    while (length < sizeof stream) {
        ssize_t part = read(pair.client, stream + length, sizeof stream - length);
        if (part > 0)
            length += (size_t)part;
        tcp_writable(pair.connection, counters);
    }
    for (uint32_t i = 0; i < FRAMES; i++) {
        CHECK_EQUAL(get_u16(stream + i * (FRAME_PREFIX + LENGTH)), LENGTH);
        CHECK_EQUAL(get_u32(stream + i * (FRAME_PREFIX + LENGTH) + FRAME_PREFIX), i);
    }
    pair_free(&pair);
}

int main(void)
{
    RUN(frames_survive_any_cut);
    RUN(more_frames_than_a_batch_holds);
    RUN(impossible_lengths_break_the_framing);
    RUN(longest_frame_may_come_in_two_parts);
    RUN(what_finds_the_connection_closed_is_counted);
    RUN(closed_by_the_client_is_told_once);
    RUN(slow_client_loses_data_then_the_connection);
    RUN(queue_drains_in_order);
    return 0;
}
