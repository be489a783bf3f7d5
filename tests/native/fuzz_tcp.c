/* A TCP stream that arrives in two parts, cut where the first byte says: framing, control, data. */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "fixture.h"
#include "tcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool forward(struct fixture *fixture, struct tcp_connection *connection, struct tcp_scratch *scratch)
{
    bool more = true;
    while (more) {
        struct batch batch;
        bool framed = tcp_take_frames(connection, scratch, &batch, &more, &fixture->counters);
        for (unsigned i = 0; i < batch.count; i++)
            CHECK(batch.packets[i].length >= 1 && batch.packets[i].length <= LINK_PACKET_MAX);
        bool good = tcp_to_tun(&fixture->forwarder, fixture->peer, &batch);
        datagrams_free(&fixture->forwarder.whole);
        if (!good || !framed)
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fixture *fixture;
    static struct tcp_scratch scratch;
    static int epoll, ends[2];
    if (fixture == NULL) {
        fixture = fixture_new();
        epoll = epoll_create1(0);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    }
    if (size < 1)
        return 0;
    size_t cut = data[0];
    data++, size--;
    cut = cut < size ? cut : size;
    struct tcp_connection *connection = tcp_new(dup(ends[0]), fixture->peer, &fixture->events, epoll, 0, data, cut);
    CHECK(connection != NULL);
    bool good = true;
    if (tcp_has_received(connection) && tcp_receive(connection, &scratch, &fixture->counters))
        good = forward(fixture, connection, &scratch);
    if (good && size > cut && size - cut < 32768) {
        CHECK(write(ends[1], data + cut, size - cut) == (ssize_t)(size - cut));
        if (tcp_receive(connection, &scratch, &fixture->counters))
            forward(fixture, connection, &scratch);
    }
    tcp_free(connection);
    fixture_events(fixture);
    return 0;
}
