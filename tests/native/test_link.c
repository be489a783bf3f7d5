/* Runs that the kernel refuses, at real sockets: without UDP checksums (SO_NO_CHECK) it takes no segments. And what a
 * socket is told about cutting; setsockopt is wrapped by the linker, to be counted. */
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
    remote.address.ip = ip_from_v4((const uint8_t *)&address->sin_addr);
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

static unsigned told;

int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length);

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    told +=
        (level == IPPROTO_IP && option == IP_MTU_DISCOVER) || (level == IPPROTO_IPV6 && option == IPV6_MTU_DISCOVER);
    return __real_setsockopt(fd, level, option, value, length);
}

static void questions_that_nobody_is_to_cut_cost_two_calls_a_batch(void)
{
    struct sockaddr_in address;
    struct world *world = world_new(&address);
    link_prepare(world->listener->udp_fds[0], true);
    struct remote remotes[PACKETS];
    uint8_t bytes[PACKETS][LENGTH] = {0}, received[LENGTH + 1];
    struct batch batch = {.count = PACKETS};
    for (unsigned i = 0; i < PACKETS; i++) {
        remotes[i] = remote_at(world, &address);
        batch.packets[i] = (struct packet){
            .bytes = bytes[i], .length = LENGTH, .remote = &remotes[i], .passage = (enum passage)(i % 3)};
    }
    told = 0;
    link_send(&batch, 0, &world->counters);
    CHECK_EQUAL(told, 2);
    for (unsigned i = 0; i < PACKETS; i++)
        CHECK_EQUAL(recv(world->receiver, received, sizeof received, MSG_DONTWAIT), LENGTH);
    int how;
    socklen_t size = sizeof how;
    CHECK(getsockopt(world->listener->udp_fds[0], IPPROTO_IP, IP_MTU_DISCOVER, &how, &size) == 0);
    CHECK_EQUAL(how, IP_PMTUDISC_OMIT);
    world_free(world);
}

/* More than UDP has room for, as a stand-in for the link of the gateway's own. */
static void a_question_that_is_refused_at_once_is_an_answer_and_no_loss(void)
{
    static uint8_t bytes[70000];
    struct sockaddr_in address;
    struct world *world = world_new(&address);
    struct remote remote = remote_at(world, &address);
    struct batch batch = {.count = 1};
    batch.packets[0] =
        (struct packet){.bytes = bytes, .length = sizeof bytes, .remote = &remote, .passage = PASSAGE_WHOLE};
    link_send(&batch, 0, &world->counters);
    CHECK_EQUAL(world->counters.drops[DROP_LINK_FULL], 0);
    batch.packets[0].passage = PASSAGE_USUAL;
    link_send(&batch, 0, &world->counters);
    CHECK_EQUAL(world->counters.drops[DROP_LINK_FULL], 1);
    world_free(world);
}

int main(void)
{
    RUN(a_refused_run_arrives_packet_by_packet_and_slows_nobody_else_down);
    RUN(what_was_refused_is_tried_again_in_the_end);
    RUN(questions_that_nobody_is_to_cut_cost_two_calls_a_batch);
    RUN(a_question_that_is_refused_at_once_is_an_answer_and_no_loss);
    return 0;
}
