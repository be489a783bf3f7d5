/* Two workers forward both ways while the control side adds and removes everything they look up. What is checked is
 * what the sanitizers see (build with -Db_sanitize=thread, and with address,undefined), that packets keep coming
 * through, and that nothing but the two clients' own packets does.
 *
 * Peers 0..3 are on UDP, 4 and 5 on TCP; peer p is received by worker p % 2. Peer 0 stays all the time. Peers 2 and 5
 * have epoch keys, which the workers that seal for them rotate; peer 3 has no peer id on the wire, and CBC
 * under its first key. Peer 7 stays too, behind a router that tells of what it does not pass on. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "blind.h"
#include "check.h"
#include "checksum.h"
#include "clock.h"
#include "dataplane.h"
#include "icmp.h"

enum { WORKERS = 2, UDP_PEERS = 4, PEERS = 6, ROUTED_PEER = 7, SECONDS = 2 };
enum { ROUTER_PASSES = 1400, SECONDS_AT_MOST = 20, KEEPALIVES_END = 100 };

static const uint8_t KEY[32] = "the same in both directions here";
static const uint8_t IV[8] = "implicit";
static atomic_bool stopping;
static atomic_ulong through_tun, through_link;

static struct dataplane *plane;
static int tun_ours[WORKERS];               /* our ends of the TUN queues */
static struct sockaddr_in workers[WORKERS]; /* where each worker's socket listens */
static int client_udp, routed_udp;
static struct sockaddr_in client_address, routed_address;
static atomic_uint shortest_outer = UINT32_MAX; /* of what came to the router */

static struct ip_address lease(uint32_t peer)
{
    return ip_from_v4((const uint8_t[]){10, 100, 0, (uint8_t)(2 + peer)});
}

static void make_inner(uint8_t inner[28], struct ip_address source, struct ip_address destination)
{
    memset(inner, 0, 28);
    inner[0] = 0x45;
    inner[3] = 28;
    inner[9] = 17;
    memcpy(inner + 12, source.bytes + 12, 4);
    memcpy(inner + 16, destination.bytes + 12, 4);
}

static size_t make_packet(struct aead_context *seal, uint8_t *packet, uint32_t peer, unsigned key_id,
                          uint32_t packet_id)
{
    static const uint8_t target[4] = {10, 20, 0, 1};
    uint8_t nonce[NONCE_SIZE];
    put_u32(packet, (uint32_t)P_DATA_V2 << 27 | key_id << 24 | peer);
    put_u32(packet + DATA_HEADER, packet_id);
    memcpy(nonce, packet + DATA_HEADER, PACKET_ID_SIZE);
    memcpy(nonce + PACKET_ID_SIZE, IV, IMPLICIT_IV_SIZE);
    make_inner(packet + DATA_OVERHEAD, lease(peer), ip_from_v4(target));
    CHECK(aead_backend()->seal(seal, nonce, packet, DATA_AD, packet + DATA_OVERHEAD, 28, packet + DATA_AD));
    return DATA_OVERHEAD + 28;
}

/* Clients: datagrams of every UDP peer under every key id, ids rising all the time. */
static void *run_clients(void *unused)
{
    struct aead_context *seal = aead_backend()->context_new(AES_256_GCM, AEAD_SEAL, KEY);
    CHECK(seal != NULL);
    for (uint32_t id = 1; !atomic_load(&stopping); id++) {
        for (uint32_t peer = 0; peer < UDP_PEERS; peer++) {
            uint8_t packet[128];
            size_t length = make_packet(seal, packet, peer, id % 3, id);
            sendto(client_udp, packet, length, MSG_DONTWAIT, (struct sockaddr *)&workers[peer % WORKERS],
                   sizeof workers[0]);
        }
        if (id % 16 == 0)
            usleep(200);
    }
    aead_backend()->context_free(seal);
    return unused;
}

/* As the kernel hands it out: one packet, or a super-packet of three TCP segments. */
static size_t make_frame(uint8_t *frame, struct ip_address source, struct ip_address destination, bool super)
{
    enum { PAYLOAD = 600, HEADERS = 40 };
    uint8_t *packet = frame + VIRTIO_HEADER;
    memset(frame, 0, VIRTIO_HEADER);
    make_inner(packet, source, destination);
    if (!super)
        return VIRTIO_HEADER + 28;
    const struct virtio_header header = {
        .flags = VIRTIO_NEEDS_CSUM,
        .gso_type = VIRTIO_GSO_TCPV4,
        .gso_size = PAYLOAD / 3,
        .csum_start = 20,
        .csum_offset = 16,
    };
    memcpy(frame, &header, VIRTIO_HEADER);
    put_u16(packet + 2, HEADERS + PAYLOAD);
    packet[9] = 6;
    memset(packet + 20, 0, 20 + PAYLOAD);
    packet[32] = 0x50;
    packet[33] = 0x10;
    return VIRTIO_HEADER + HEADERS + PAYLOAD;
}

/* The target network: packets to every lease into both queues, and takes what comes out of them. */
static void *run_target(void *unused)
{
    for (unsigned i = 0; !atomic_load(&stopping); i++) {
        static const uint8_t target[4] = {10, 20, 0, 1};
        uint8_t inner[2048];
        size_t length = make_frame(inner, ip_from_v4(target), lease(i % PEERS), i % 5 == 0);
        send(tun_ours[i / 3 % WORKERS], inner, length, MSG_DONTWAIT);
        for (unsigned w = 0; w < WORKERS; w++)
            while (recv(tun_ours[w], inner, sizeof inner, MSG_DONTWAIT) > 0) {
                const uint8_t *packet = inner + VIRTIO_HEADER;
                CHECK(packet[0] == 0x45 && memcmp(packet + 12, "\x0a\x64\x00", 3) == 0);
                atomic_fetch_add(&through_tun, 1);
            }
        while (recv(client_udp, inner, sizeof inner, MSG_DONTWAIT) > 0)
            atomic_fetch_add(&through_link, 1);
        if (i % 16 == 0)
            usleep(200);
    }
    return unused;
}

/* ICMP "fragmentation needed" about this datagram, as far as routers quote it (RFC 1812 4.3.2.3). */
static void complain(int raw, const struct sockaddr_in *source, const uint8_t *datagram, size_t length)
{
    enum { QUOTED = BLIND_HEADER, UDP_AT = ICMP_HEADER + IPV4_HEADER };
    uint8_t message[UDP_AT + 8 + QUOTED] = {3, 4, [6] = ROUTER_PASSES >> 8, [7] = ROUTER_PASSES & 0xFF};
    uint8_t *packet = message + ICMP_HEADER;
    make_inner(packet, ip_from_v4((const uint8_t *)&source->sin_addr),
               ip_from_v4((const uint8_t *)&routed_address.sin_addr));
    put_u16(packet + 2, (uint16_t)(UDP_OVER_IPV4 + length));
    put_u16(message + UDP_AT, ntohs(source->sin_port));
    put_u16(message + UDP_AT + 2, ntohs(routed_address.sin_port));
    put_u16(message + UDP_AT + 4, (uint16_t)(8 + length));
    memcpy(message + UDP_AT + 8, datagram, QUOTED);
    checksum_set_field(message + 2, (uint16_t)~checksum_add(0, message, sizeof message));
    sendto(raw, message, sizeof message, MSG_DONTWAIT, (const struct sockaddr *)source, sizeof *source);
}

static void *run_router(void *argument)
{
    int raw = *(int *)argument;
    while (!atomic_load(&stopping)) {
        struct sockaddr_in source;
        socklen_t size = sizeof source;
        uint8_t datagram[2048];
        ssize_t length =
            recvfrom(routed_udp, datagram, sizeof datagram, MSG_DONTWAIT, (struct sockaddr *)&source, &size);
        if (length < KEEPALIVES_END) {
            usleep(200);
            continue;
        }
        unsigned outer = (unsigned)length + UDP_OVER_IPV4;
        if (outer < atomic_load(&shortest_outer))
            atomic_store(&shortest_outer, outer);
        if (outer > ROUTER_PASSES)
            complain(raw, &source, datagram, (size_t)length);
    }
    return NULL;
}

static struct failure failure;
#define MUST(call)                                                                                                   \
    do {                                                                                                             \
        if (!(call)) {                                                                                               \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, failure.text);                             \
            exit(1);                                                                                                 \
        }                                                                                                            \
    } while (0)

static void set_rules(unsigned variant)
{
    static const uint8_t all[] = {1};
    struct rule rules[3] = {
        {.prefix = {.bytes = {10, 20}, .length = 16}, .groups = all, .groups_length = 1},
        {.prefix = {.bytes = {10, 20, 9}, .length = 24}, .groups = all, .groups_length = 1},
        {.prefix = {.bytes = {0xfd, 0x20}, .length = 16, .v6 = true}, .groups = all, .groups_length = 1},
    };
    MUST(dataplane_set_rules(plane, 1, rules, 1 + variant % 3, &failure));
}

static void install_key(uint32_t peer, uint8_t key_id)
{
    struct cbc_suite suite;
    CHECK(cbc_suite_find(&suite, "AES-256-CBC", "SHA256"));
    const bool cbc = peer == 3 && key_id == 0;
    const uint8_t *iv = cbc ? KEY : IV;
    const struct peer_key_material material = {AES_256_GCM, KEY, iv, KEY, iv, peer % 3 == 2, cbc ? &suite : NULL};
    MUST(dataplane_install_key(plane, peer, key_id, &material, &failure));
}

static void set_remote(uint32_t peer, uint32_t listener)
{
    const struct sockaddr_in *client = peer == ROUTED_PEER ? &routed_address : &client_address;
    struct socket_address address = {.port = ntohs(client->sin_port)};
    address.ip = ip_from_v4((const uint8_t *)&client->sin_addr);
    MUST(
        dataplane_set_remote(plane, peer, listener, &address, peer == 1 || peer == 3 ? &address.ip : NULL, &failure));
}

static void add_peer(uint32_t peer)
{
    static const uint8_t groups[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct ip_address addresses[2] = {lease(peer), ip_from_v6((const uint8_t[16]){0xfd, [15] = (uint8_t)peer})};
    const struct peer_settings settings = {
        .endpoint = 1,
        .addresses = addresses,
        .address_count = 2,
        .groups = groups,
        .groups_length = sizeof groups,
        .ping_interval_s = 1,
        .timeout_s = 1,
        .path = {.outer_mtu = 1500,
                 .header = 28,
                 .tunnel_mtu = 1420,
                 .mss_v4 = 1300,
                 .mss_v6 = 1280,
                 .asks = peer % 3 == 0},
        .remote_id = peer,
        .data_v1 = peer == 3,
    };
    MUST(dataplane_add_peer(plane, peer, &settings, &failure));
    install_key(peer, 0);
}

/* A TCP peer whose client half sends a control frame and some data, and reads now and then. */
static int attach_tcp(uint32_t peer, struct aead_context *seal)
{
    int ends[2];
    uint8_t stream[256] = {0, 2, P_CONTROL_V1 << 3, 7};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    size_t length = make_packet(seal, stream + 6, peer, 0, 1);
    put_u16(stream + 4, (uint16_t)length);
    MUST(dataplane_attach_tcp(plane, peer, ends[0], stream, 5, &failure));
    CHECK(write(ends[1], stream + 5, length + 1) == (ssize_t)length + 1);
    return ends[1];
}

static int udp_at(struct sockaddr_in *address, in_addr_t host)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)address, length) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)address, &length) == 0);
    return fd;
}

static int bound_udp(struct sockaddr_in *address) { return udp_at(address, INADDR_LOOPBACK); }

static void add_second_listener(void)
{
    int fds[WORKERS];
    struct sockaddr_in unused;
    for (unsigned i = 0; i < WORKERS; i++)
        fds[i] = bound_udp(&unused);
    MUST(dataplane_add_listener(plane, 2, 1, fds, WORKERS, &failure));
}

static void take_events(void)
{
    for (struct event *event = dataplane_take_events(plane), *next; event != NULL; event = next) {
        next = event->next;
        free(event);
    }
}

/* One round of everything the control side can do. */
static void churn(unsigned round, struct aead_context *seal)
{
    int tcp[PEERS];
    for (uint32_t peer = 1; peer < PEERS; peer++) {
        add_peer(peer);
        if (peer < UDP_PEERS)
            set_remote(peer, 1);
        else
            tcp[peer] = attach_tcp(peer, seal);
    }
    add_second_listener();
    set_rules(round);
    usleep(500);
    for (uint32_t peer = 0; peer < PEERS; peer++) {
        uint8_t key_id = (uint8_t)(1 + round % 2);
        install_key(peer, key_id);
        install_key(peer, key_id);
        MUST(dataplane_use_key(plane, peer, round % 3 ? key_id : 0, &failure));
        MUST(dataplane_remove_key(plane, peer, key_id, &failure));
        MUST(dataplane_set_groups(plane, peer, (const uint8_t[]){1, (uint8_t)round}, 1 + round % 2, &failure));
        if (peer < UDP_PEERS)
            set_remote(peer, 1 + round % 2);
        for (unsigned i = 0; i < 50 && peer < UDP_PEERS; i++)
            MUST(dataplane_inject(plane, peer, (const uint8_t[40]){P_DATA_V1 << 3}, 40, &failure));
        if (peer >= UDP_PEERS)
            MUST(dataplane_send_control(plane, peer, (const uint8_t *)"control", 7, &failure));
        struct peer_statistics statistics;
        MUST(dataplane_peer_statistics(plane, peer, &statistics, &failure));
    }
    install_key(ROUTED_PEER, (uint8_t)(KEY_IDS - 1 - round % 2)); /* where keys are looked for that there are not */
    take_events();
    usleep(500);
    MUST(dataplane_remove_key(plane, ROUTED_PEER, (uint8_t)(KEY_IDS - 1 - round % 2), &failure));
    MUST(dataplane_remove_listener(plane, 2, &failure));
    set_remote(0, 1);
    for (uint32_t peer = 1; peer < PEERS; peer++) {
        if (peer == UDP_PEERS)
            close(tcp[peer]); /* this one ends from the client's side */
        MUST(dataplane_remove_peer(plane, peer, &failure));
        if (peer > UDP_PEERS)
            close(tcp[peer]);
    }
    uint64_t drops[DROP_REASON_COUNT], totals[TOTAL_COUNT];
    dataplane_drops(plane, drops);
    dataplane_totals(plane, totals);
}

/* What comes is no longer than it passes. */
static bool router_is_believed(void) { return atomic_load(&shortest_outer) <= ROUTER_PASSES; }

int main(void)
{
    int tun_theirs[WORKERS], udp_theirs[WORKERS];
    struct dataplane_options options = dataplane_options_default();
    options.limits.epoch.use = 40;
    plane = dataplane_new(WORKERS, &options, &failure);
    CHECK(plane != NULL);
    for (unsigned i = 0; i < WORKERS; i++) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0);
        tun_ours[i] = ends[0];
        tun_theirs[i] = ends[1];
        udp_theirs[i] = bound_udp(&workers[i]);
    }
    client_udp = bound_udp(&client_address);
    MUST(dataplane_add_endpoint(plane, 1, tun_theirs, WORKERS, TUN_TCP_UDP, &failure));
    MUST(dataplane_add_listener(plane, 1, 1, udp_theirs, WORKERS, &failure));
    set_rules(0);
    add_peer(0);
    set_remote(0, 1);
    /* An address of its own: for ten minutes the kernel believes what it is told of one. */
    routed_udp = udp_at(&routed_address, INADDR_LOOPBACK + 77);
    add_peer(ROUTED_PEER);
    set_remote(ROUTED_PEER, 1);

    pthread_t clients, target, router = 0;
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    CHECK(raw >= 0 || errno == EPERM);
    if (raw >= 0)
        CHECK(pthread_create(&router, NULL, run_router, &raw) == 0);
    else
        printf("not root: no router speaks\n");
    CHECK(pthread_create(&clients, NULL, run_clients, NULL) == 0);
    CHECK(pthread_create(&target, NULL, run_target, NULL) == 0);
    struct aead_context *seal = aead_backend()->context_new(AES_256_GCM, AEAD_SEAL, KEY);
    CHECK(seal != NULL);
    unsigned rounds = 0;
    const uint64_t begun = clock_now_ms(), end = begun + SECONDS * 1000, last = begun + SECONDS_AT_MOST * 1000;
    bool enough = false;
    for (; !(clock_now_ms() >= end && enough) && clock_now_ms() < last; rounds++) {
        churn(rounds, seal);
        enough = rounds > 0 && (raw < 0 || router_is_believed());
    }
    atomic_store(&stopping, true);
    pthread_join(clients, NULL);
    pthread_join(target, NULL);
    if (raw >= 0) {
        pthread_join(router, NULL);
        CHECK(router_is_believed());
        close(raw);
    }
    aead_backend()->context_free(seal);
    printf("%u rounds, %lu packets to the target, %lu to the clients\n", rounds, through_tun, through_link);
    CHECK(rounds > 1 && through_tun > 100 && through_link > 100);
    dataplane_close(plane);
    CHECK(!dataplane_remove_peer(plane, 0, &failure) && failure.kind == FAILURE_INVALID);
    dataplane_free(plane);
    for (unsigned i = 0; i < WORKERS; i++)
        close(tun_ours[i]);
    close(client_udp);
    close(routed_udp);
    return 0;
}
