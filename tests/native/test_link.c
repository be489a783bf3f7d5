/* Runs that the kernel refuses, at real sockets: without UDP checksums (SO_NO_CHECK) it takes no segments. */
#include "check.h"
#include "endpoint.h"
#include "link.h"
#include "peer.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKETS = 50, LENGTH = 200 };

struct world {
    struct listener *listener;
    int receiver;
    struct counters counters;
};

static int bound_socket(struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof *address;
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)address, length) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)address, &length) == 0);
    return fd;
}

static struct world *world_new(struct sockaddr_in *receiver)
{
    struct world *world = calloc(1, sizeof *world);
    CHECK(world != NULL);
    world->listener = calloc(1, sizeof *world->listener + sizeof world->listener->udp_fds[0]);
    CHECK(world->listener != NULL);
    struct sockaddr_in own;
    world->listener->segmented = true;
    world->listener->udp_fds[0] = bound_socket(&own);
    world->receiver = bound_socket(receiver);
    return world;
}

static void world_free(struct world *world)
{
    close(world->listener->udp_fds[0]);
    close(world->receiver);
    free(world->listener);
    free(world);
}

static struct remote remote_at(struct world *world, const struct sockaddr_in *address)
{
    struct remote remote = {.listener = world->listener, .sockaddr_length = sizeof *address};
    memcpy(&remote.sockaddr, address, sizeof *address);
    return remote;
}

static void set_refusing(struct world *world, int refusing)
{
    CHECK(setsockopt(world->listener->udp_fds[0], SOL_SOCKET, SO_NO_CHECK, &refusing, sizeof refusing) == 0);
}

/* Sends one batch, all of which arrives; in how many messages. */
static unsigned messages_for_a_batch(struct world *world, struct remote *remote)
{
    static uint8_t bytes[PACKETS][LENGTH];
    static struct batch batch;
    batch = (struct batch){.count = PACKETS};
    for (unsigned i = 0; i < PACKETS; i++) {
        bytes[i][0] = (uint8_t)i;
        batch.packets[i] = (struct packet){.bytes = bytes[i], .length = LENGTH, .remote = remote};
    }
    uint64_t before = world->counters.totals[TOTAL_SEND_MESSAGES];
    link_send(&batch, 0, &world->counters);
    for (unsigned i = 0; i < PACKETS; i++) {
        uint8_t received[LENGTH + 1];
        CHECK_EQUAL(recv(world->receiver, received, sizeof received, MSG_DONTWAIT), LENGTH);
        CHECK_EQUAL(received[0], i);
    }
    return (unsigned)(world->counters.totals[TOTAL_SEND_MESSAGES] - before);
}

static void a_refused_run_arrives_packet_by_packet_and_slows_nobody_else_down(void)
{
    struct sockaddr_in address;
    struct world *world = world_new(&address);
    struct remote refused = remote_at(world, &address), other = remote_at(world, &address);
    CHECK_EQUAL(messages_for_a_batch(world, &refused), 1);
    set_refusing(world, 1);
    CHECK_EQUAL(messages_for_a_batch(world, &refused), PACKETS);
    set_refusing(world, 0);
    CHECK_EQUAL(messages_for_a_batch(world, &other), 1);
    CHECK_EQUAL(messages_for_a_batch(world, &refused), PACKETS);
    CHECK_EQUAL(world->counters.drops[DROP_LINK_FULL], 0);
    world_free(world);
}

static void what_was_refused_is_tried_again_in_the_end(void)
{
    struct sockaddr_in address;
    struct world *world = world_new(&address);
    struct remote remote = remote_at(world, &address);
    set_refusing(world, 1);
    unsigned batches = 0;
    uint64_t calls = 0;
    for (; batches < 5000; batches++) { /* while it is refused, a try costs one call and no packet */
        CHECK_EQUAL(messages_for_a_batch(world, &remote), PACKETS);
        calls = world->counters.totals[TOTAL_SEND_CALLS];
    }
    CHECK(calls < 2 * batches);
    set_refusing(world, 0);
    for (batches = 0; messages_for_a_batch(world, &remote) > 1; batches++)
        CHECK(batches < 5000);
    CHECK_EQUAL(messages_for_a_batch(world, &remote), 1);
    CHECK_EQUAL(world->counters.drops[DROP_LINK_FULL], 0);
    world_free(world);
}

int main(void)
{
    RUN(a_refused_run_arrives_packet_by_packet_and_slows_nobody_else_down);
    RUN(what_was_refused_is_tried_again_in_the_end);
    return 0;
}
