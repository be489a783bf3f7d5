/* As many UDP packets of one size as a tunnel carries, from one namespace to another, and not many more: the sender keeps
 * as many under way as arrive without loss, like a TCP without retransmission. Both ends are threads of this process,
 * so acknowledgements take no way at all. Root.
 *
 *     packet_stream CLIENT_NAMESPACE TARGET_NAMESPACE TARGET_ADDRESS PORT up|down PAYLOAD_BYTES SECONDS
 *
 * "up" is from the client to the target. The client speaks first either way, for the sake of NAT between them.
 * Prints packets sent, packets received, and the seconds from the first to the last that was sent. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    RUN = 32,      /* packets in one call */
    MESSAGES = 16, /* runs received in one call */
    MESSAGE_MAX = 65536,
    WINDOW_FIRST = 128,
    WINDOW_MIN = 64,
    WINDOW_MAX = 4096, /* what the queues of a good path hold */
    WINDOW_STEP = RUN,
    STALL_NS = 50000000,
    SLEEP_NS = 20000,
    LAST_ONES_NS = 200000000,
};

static size_t payload;
static double seconds;
static atomic_bool over;

/* Written by the receiver: how many came, and up to which of those sent. */
static _Atomic uint64_t received, arrived;
/* Written by the sender. */
static uint64_t sent;
static double lasted;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int socket_in(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", name);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) < 0)
        fail(path);
    close(space);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = 8 << 20, on = 1;
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
    struct timeval wait = {.tv_usec = 50000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return fd;
}

/* -- the receiver ------------------------------------------------------------------------------------------------- */

static size_t segment_size(struct msghdr *header, size_t length)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control))
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(control), sizeof size);
            return size > 0 ? (size_t)size : length;
        }
    return length;
}

static void take(const uint8_t *bytes, size_t length, size_t segment)
{
    uint64_t came = 0, last = atomic_load_explicit(&arrived, memory_order_relaxed);
    for (size_t at = 0; at + sizeof(uint64_t) <= length; at += segment) {
        uint64_t number;
        memcpy(&number, bytes + at, sizeof number);
        if (number == 0)
            continue; /* the client's first word */
        came++;
        if (number > last)
            last = number;
    }
    atomic_fetch_add(&received, came);
    atomic_store(&arrived, last);
}

static void *receive(void *argument)
{
    int fd = *(int *)argument;
    static uint8_t bytes[MESSAGES][MESSAGE_MAX];
    static uint8_t control[MESSAGES][CMSG_SPACE(sizeof(int))];
    static struct mmsghdr messages[MESSAGES];
    static struct iovec vectors[MESSAGES];
    while (!atomic_load(&over)) {
        for (unsigned i = 0; i < MESSAGES; i++) {
            vectors[i] = (struct iovec){bytes[i], MESSAGE_MAX};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i],
                                                  .msg_iovlen = 1,
                                                  .msg_control = control[i],
                                                  .msg_controllen = sizeof control[i]};
        }
        int count = recvmmsg(fd, messages, MESSAGES, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++)
            take(bytes[i], messages[i].msg_len, segment_size(&messages[i].msg_hdr, messages[i].msg_len));
    }
    return NULL;
}

/* -- the sender --------------------------------------------------------------------------------------------------- */

struct window {
    double size;
    uint64_t base;    /* what was sent before it is no longer under way */
    uint64_t lost;    /* of which has been taken notice */
    uint64_t recover; /* losses before this one are of the same occasion */
    uint64_t acknowledged;
    uint64_t progress_ns;
    bool first; /* still doubling */
};

static void look(struct window *window)
{
    uint64_t came = atomic_load(&received), last = atomic_load(&arrived), now = now_ns();
    uint64_t lost = last > came ? last - came : 0;
    if (last > window->acknowledged) {
        double step = (double)(last - window->acknowledged);
        window->size += window->first ? step : step * WINDOW_STEP / window->size;
        window->acknowledged = last;
        window->progress_ns = now;
    }
    if (lost > window->lost && last > window->recover) {
        window->size *= 0.7;
        window->recover = sent;
        window->first = false;
    }
    window->lost = lost;
    if (now - window->progress_ns > STALL_NS) { /* the end of what was sent is lost, and nothing would tell */
        window->base = window->recover = sent;
        window->size = WINDOW_MIN;
        window->first = false;
        window->progress_ns = now;
    }
    if (window->size > WINDOW_MAX)
        window->size = WINDOW_MAX;
    if (window->size < WINDOW_MIN)
        window->size = WINDOW_MIN;
}

static uint64_t under_way(const struct window *window)
{
    uint64_t base = window->base > window->acknowledged ? window->base : window->acknowledged;
    return sent > base ? sent - base : 0;
}

static void send_run(int fd, uint8_t *bytes)
{
    struct iovec vector = {bytes, RUN * payload};
    alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))] = {0};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
    uint16_t size = (uint16_t)payload;
    segment->cmsg_level = IPPROTO_UDP;
    segment->cmsg_type = UDP_SEGMENT;
    segment->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(segment), &size, sizeof size);
    for (unsigned i = 0; i < RUN; i++) {
        uint64_t number = sent + i + 1;
        memcpy(bytes + i * payload, &number, sizeof number);
    }
    if (sendmsg(fd, &message, 0) > 0)
        sent += RUN;
    else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
        fail("send");
}

static void *transmit(void *argument)
{
    int fd = *(int *)argument;
    uint8_t *bytes = calloc(RUN, payload);
    if (bytes == NULL)
        fail("memory");
    prctl(PR_SET_TIMERSLACK, 1000);
    uint64_t begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9), now;
    struct window window = {.size = WINDOW_FIRST, .first = true, .progress_ns = begun};
    while ((now = now_ns()) < end) {
        look(&window);
        if (under_way(&window) + RUN <= (uint64_t)window.size)
            send_run(fd, bytes);
        else
            nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    }
    lasted = (double)(now - begun) / 1e9;
    free(bytes);
    nanosleep(&(struct timespec){.tv_nsec = LAST_ONES_NS}, NULL);
    atomic_store(&over, true);
    return NULL;
}

/* -- both --------------------------------------------------------------------------------------------------------- */

/* The client says a word until the target has heard it, and the target answers to where it came from. */
static void meet(int client, int target)
{
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    uint64_t word = 0, heard;
    for (unsigned i = 0; i < 100; i++) {
        if (send(client, &word, sizeof word, 0) < 0 && errno != ECONNREFUSED)
            fail("send");
        if (recvfrom(target, &heard, sizeof heard, 0, (struct sockaddr *)&from, &length) > 0) {
            if (connect(target, (struct sockaddr *)&from, length) < 0)
                fail("connect");
            return;
        }
    }
    fail("the target hears nothing");
}

int main(int argc, char **argv)
{
    if (argc != 8 || (strcmp(argv[5], "up") != 0 && strcmp(argv[5], "down") != 0)) {
        fprintf(stderr, "usage: packet_stream CLIENT TARGET ADDRESS PORT up|down PAYLOAD SECONDS\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4]))};
    payload = (size_t)atoi(argv[6]);
    seconds = atof(argv[7]);
    if (inet_pton(AF_INET, argv[3], &address.sin_addr) != 1 || payload < sizeof(uint64_t) ||
        payload * RUN > MESSAGE_MAX - 100)
        return 2;
    int client = socket_in(argv[1]), target = socket_in(argv[2]);
    if (bind(target, (struct sockaddr *)&address, sizeof address) < 0 ||
        connect(client, (struct sockaddr *)&address, sizeof address) < 0)
        fail("address");
    meet(client, target);
    bool up = strcmp(argv[5], "up") == 0;
    pthread_t receiver, sender;
    pthread_create(&receiver, NULL, receive, up ? &target : &client);
    pthread_create(&sender, NULL, transmit, up ? &client : &target);
    pthread_join(sender, NULL);
    pthread_join(receiver, NULL);
    printf("%lu %lu %.3f\n", (unsigned long)sent, (unsigned long)received, lasted);
    return 0;
}
