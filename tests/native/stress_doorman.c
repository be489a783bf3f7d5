/* The doorman answers and lets in while listeners, protections, limits and sessions change under it. What is checked is what
 * the sanitizers see (build with -Db_sanitize=thread, and with address,undefined), that each client gets no more answers
 * than it asked for, and that only what echoes a cookie or is known comes through. */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "doorman.h"

enum { LISTENERS = 3, CLIENTS = 2, SECONDS = 2, PASSES_AT_LEAST = 100 };

static const uint8_t SECRET[32] = "a secret of thirty-two bytes, or";
static const uint8_t key2[KEY2_SIZE] = {1, 2, 3};
static const struct door_limits LIMITS = {1000000, 1000000, 100000, 100000, 100};

static struct doorman *doorman;
static atomic_bool stopping;
static _Atomic uint16_t ports[LISTENERS]; /* where each listener is now; 0: nowhere */
static atomic_ulong asked, answered;

static int bound_socket(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void receive_answers(int fd, const struct sockaddr_in *to)
{
    uint8_t reply[2048], echo[26] = {P_CONTROL_V1 << 3, [9] = 1, [25] = 1};
    while (recv(fd, reply, sizeof reply, MSG_DONTWAIT) == 26) {
        CHECK_EQUAL(reply[0], P_CONTROL_HARD_RESET_SERVER_V2 << 3);
        atomic_fetch_add(&answered, 1);
        memcpy(echo + 1, reply + 14, SESSION_ID_SIZE);
        memcpy(echo + 14, reply + 1, SESSION_ID_SIZE);
        sendto(fd, echo, sizeof echo, MSG_DONTWAIT, (const struct sockaddr *)to, sizeof *to);
    }
}

/* Resets, garbage, forged echoes, and echoes of what was answered. */
static void *run_client(void *seed)
{
    uint64_t random = (uint64_t)(uintptr_t)seed;
    uint16_t port;
    int fd = bound_socket(&port);
    for (unsigned i = 0; !atomic_load(&stopping); i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        to.sin_port = htons(atomic_load(&ports[i % LISTENERS]));
        if (to.sin_port == 0)
            continue;
        uint8_t packet[64] = {0};
        uint64_t session_id = next_random(&random);
        memcpy(packet + 1, &session_id, 8);
        packet[0] = (uint8_t)(i % 4 == 3 ? session_id : P_CONTROL_HARD_RESET_CLIENT_V2 << 3);
        size_t length = i % 4 == 3 ? session_id % 64 : 14;
        if (wire_opcode(packet[0]) == P_CONTROL_HARD_RESET_CLIENT_V2)
            atomic_fetch_add(&asked, 1);
        sendto(fd, packet, length, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to);
        receive_answers(fd, &to);
        if (i % 32 == 0)
            usleep(100);
    }
    close(fd);
    return NULL;
}

static struct protection *protection(enum wrapping shared)
{
    struct protection *made =
        protection_new(&(struct protection_settings){.shared = shared, .key2 = key2, .digest = "SHA256"});
    CHECK(made != NULL);
    return made;
}

static void add_listener(uint32_t id)
{
    struct failure failure;
    uint16_t port;
    int fd = bound_socket(&port);
    CHECK(doorman_add_listener(doorman, id, fd, 30, protection(WRAP_PLAIN), &failure));
    atomic_store(&ports[id], port);
}

/* What came through is forgotten, or becomes a handshake, or is let in; how much it was. */
static unsigned fetch(unsigned round)
{
    static const unsigned most[DOOR_CLASSES] = {64, 32, 16, 64};
    struct door_queue *queue = doorman_queue(doorman);
    unsigned count = 0;
    for (struct door_item *item = door_fetch(queue, most), *next; item != NULL; item = next, count++) {
        next = item->next;
        CHECK(item->length > 0 && item->length <= CONTROL_DATAGRAM_MAX);
        if ((round + count) % 3 == 0)
            door_forget(queue, &item->key);
        else
            CHECK(door_know(queue, &item->key, (round + count) % 3 == 1 ? DOOR_HANDSHAKE : DOOR_ESTABLISHED));
        free(item);
    }
    return count;
}

static void change_everything(unsigned round)
{
    struct failure failure;
    uint32_t id = round % LISTENERS;
    switch (round / LISTENERS % 5) {
    case 0: /* listener 0 stays */
        if (id > 0) {
            atomic_store(&ports[id], 0);
            CHECK(doorman_remove_listener(doorman, id, &failure));
            CHECK(!doorman_remove_listener(doorman, id, &failure) && failure.kind == FAILURE_MISSING);
            add_listener(id);
        }
        break;
    case 1: CHECK(doorman_set_protection(doorman, id, protection(WRAP_TLS_AUTH), &failure)); break;
    case 2: CHECK(doorman_set_protection(doorman, id, protection(WRAP_TLS_CRYPT), &failure)); break;
    case 3: CHECK(doorman_set_protection(doorman, id, protection(WRAP_PLAIN), &failure)); break;
    case 4:
        CHECK(doorman_set_limits(doorman, &LIMITS, &failure));
        if (id == 2)
            CHECK(doorman_stop_accepting(doorman, id, &failure));
        break;
    }
}

int main(void)
{
    struct failure failure;
    pthread_t clients[CLIENTS];
    doorman = doorman_new(SECRET, sizeof SECRET, &LIMITS, &failure);
    CHECK(doorman != NULL);
    for (uint32_t id = 0; id < LISTENERS; id++)
        add_listener(id);
    CHECK(!doorman_add_listener(doorman, 0, dup(0), 30, protection(WRAP_PLAIN), &failure));
    for (uintptr_t i = 0; i < CLIENTS; i++)
        CHECK(pthread_create(&clients[i], NULL, run_client, (void *)(i + 1)) == 0);
    unsigned long came = 0;
    uint64_t end = clock_now_ms() + SECONDS * 1000;
    for (unsigned round = 0; clock_now_ms() < end; round++) {
        struct pollfd waiting = {.fd = doorman_queue(doorman)->fd, .events = POLLIN};
        if (poll(&waiting, 1, 1) == 1)
            came += fetch(round);
        if (round % 4 == 0)
            change_everything(round / 4);
    }
    atomic_store(&stopping, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    uint64_t totals[DOOR_TOTAL_COUNT], drops[CONTROL_DROP_COUNT];
    doorman_totals(doorman, totals);
    doorman_drops(doorman, drops);
    printf("%lu resets, %lu answers, %lu packets through\n", atomic_load(&asked), atomic_load(&answered), came);
    CHECK(atomic_load(&answered) <= atomic_load(&asked));
    CHECK(atomic_load(&answered) >= PASSES_AT_LEAST && came >= PASSES_AT_LEAST);
    CHECK(totals[DOOR_TOTAL_FIRST_PACKETS] + totals[DOOR_TOTAL_KNOWN_PACKETS] >= came);
    CHECK(drops[CONTROL_NOT_AUTHENTIC] > 0 && drops[CONTROL_BAD_OPCODE] > 0);
    doorman_close(doorman);
    doorman_close(doorman);
    CHECK(!doorman_stop_accepting(doorman, 0, &failure) && failure.kind == FAILURE_INVALID);
    doorman_free(doorman);
    return 0;
}
