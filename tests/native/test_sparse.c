/* What goes before super-packets, and that nothing goes before its own flow. */
#include "check.h"
#include "model.h"
#include "sparse.h"
#include "wire.h"

enum { ICMP = 1, ICMPV6 = 58, ESP = 50 };

static struct packet_list list;
static struct shape shapes[BATCH_PACKETS];
static struct batch batch;
static uint8_t room[SUPER_MAX + 1];

/* A packet's number is where it was. */
static void begin(void)
{
    list_clear(&list);
    batch.count = 0;
}

static void add(const struct shape *shape, unsigned segments)
{
    for (unsigned i = 0; i < segments; i++) {
        list_add(&list, room, make_packet(room, shape));
        shapes[batch.count] = *shape;
        batch.packets[batch.count] = (struct packet){.bytes = list.bytes[batch.count],
                                                     .length = list.lengths[batch.count],
                                                     .peer_id = batch.count,
                                                     .follows = i > 0};
        batch.count++;
    }
}

static unsigned place_of(unsigned number)
{
    for (unsigned i = 0; i < batch.count; i++)
        if (batch.packets[i].peer_id == number)
            return i;
    CHECK(false);
    return 0;
}

static void what_came_alone_goes_before_super_packets(void)
{
    static const struct {
        const char *what;
        struct shape super, alone;
        bool passes;
    } table[] = {
        {"a ping between the same two", {0}, {.protocol = ICMP}, true},
        {"a datagram between them", {0}, {.udp = true}, true},
        {"another connection between them", {0}, {.port = 1}, true},
        {"the same ports of somebody else", {0}, {.host = 1}, true},
        {"its own last segment", {0}, {0}, false},
        {"behind IPv4 options", {0}, {.ip_options = 4}, false},
        {"a datagram of the same flow", {.udp = true}, {.udp = true}, false},
        {"a fragment that may be of the same flow", {.udp = true}, {.udp = true, .fragment = 0x2000}, false},
        {"a later one", {.udp = true}, {.udp = true, .fragment = 100}, false},
        {"a fragment of somebody else", {.udp = true}, {.udp = true, .fragment = 100, .host = 1}, true},
        {"of another IP version", {0}, {.v6 = true}, true},
        {"a ping over IPv6", {.v6 = true}, {.v6 = true, .protocol = ICMPV6}, true},
        {"a datagram over IPv6", {.v6 = true}, {.v6 = true, .udp = true}, true},
        {"its own over IPv6", {.v6 = true}, {.v6 = true}, false},
        {"behind extension headers", {.v6 = true}, {.v6 = true, .extension = 8}, false},
        {"any behind what is behind extension headers", {.v6 = true, .extension = 8}, {.v6 = true, .host = 9}, false},
    };
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct shape super = table[i].super, alone = table[i].alone;
        super.payload = 1000;
        alone.payload = 64;
        begin();
        add(&super, 3);
        add(&alone, 1);
        sparse_first(&batch);
        if (place_of(3) != (table[i].passes ? 0 : 3)) {
            fprintf(stderr, "%s: at %u\n", table[i].what, place_of(3));
            exit(1);
        }
    }
}

static void what_had_to_stay_holds_its_own_flow(void)
{
    struct shape super = {.udp = true, .payload = 500}, fragment = {.udp = true, .fragment = 0x2000, .payload = 8};
    struct shape other_ports = {.udp = true, .port = 1, .payload = 8};
    begin();
    add(&super, 2);
    add(&fragment, 1);
    add(&other_ports, 1); /* the fragment may be of this flow */
    sparse_first(&batch);
    CHECK_EQUAL(place_of(3), 3);
}

static void order_among_those_that_pass_stays(void)
{
    struct shape super = {.payload = 1000}, ping = {.protocol = ICMP, .payload = 64};
    begin();
    add(&ping, 1);
    add(&super, 45);
    add(&ping, 1);
    super.port = 1;
    add(&super, 45);
    add(&ping, 1);
    sparse_first(&batch);
    CHECK_EQUAL(place_of(0), 0);
    CHECK_EQUAL(place_of(46), 1);
    CHECK_EQUAL(place_of(92), 2);
    for (unsigned i = 1; i <= 45; i++) {
        CHECK_EQUAL(place_of(i), i + 2);
        CHECK_EQUAL(batch.packets[i + 2].follows, i > 1);
    }
}

/* Said of what the test has made, and so of no hash. */
static bool may_be_one_flow(const struct shape *a, const struct shape *b)
{
    if (a->v6 != b->v6)
        return false;
    if (a->extension > 0 || b->extension > 0)
        return true;
    bool hidden = a->fragment != 0 || b->fragment != 0 || a->protocol != 0 || b->protocol != 0;
    return a->host == b->host && a->udp == b->udp && a->protocol == b->protocol && (hidden || a->port == b->port);
}

static void random_batches_keep_every_flow_in_order(void)
{
    uint64_t state = 7;
    unsigned moved = 0;
    for (unsigned round = 0; round < 4000; round++) {
        begin();
        while (batch.count < BATCH_PACKETS - 8) {
            uint64_t dice = next_random(&state);
            struct shape shape = {.v6 = dice & 1, .udp = dice >> 1 & 1, .host = dice >> 2 & 3, .port = dice >> 4 & 3};
            shape.payload = 8 + (dice >> 8 & 63);
            unsigned segments = dice >> 16 & 1 ? 2 + (dice >> 17 & 3) : 1;
            if (segments == 1) {
                bool odd = (dice >> 20 & 7) == 0;
                if (shape.v6)
                    shape.extension = odd && (dice >> 24 & 3) == 0 ? 8 : 0;
                else
                    shape.fragment = odd ? 100 : 0;
                if ((dice >> 28 & 7) == 0 && shape.extension == 0 && shape.fragment == 0) {
                    shape.udp = false;
                    shape.protocol = shape.v6 ? ICMPV6 : dice >> 31 & 1 ? ICMP : ESP;
                }
            }
            add(&shape, segments);
        }
        unsigned count = batch.count, at[BATCH_PACKETS];
        sparse_first(&batch);
        CHECK_EQUAL(batch.count, count);
        for (unsigned i = 0; i < count; i++) {
            at[i] = place_of(i);
            moved += at[i] < i;
            CHECK(batch.packets[at[i]].bytes == list.bytes[i]);
            CHECK(!batch.packets[at[i]].follows || batch.packets[at[i] - 1].peer_id == i - 1);
        }
        for (unsigned i = 0; i < count; i++)
            for (unsigned j = i + 1; j < count; j++)
                CHECK(at[i] < at[j] || !may_be_one_flow(&shapes[i], &shapes[j]));
    }
    CHECK(moved > 10000);
}

int main(void)
{
    RUN(what_came_alone_goes_before_super_packets);
    RUN(what_had_to_stay_holds_its_own_flow);
    RUN(order_among_those_that_pass_stays);
    RUN(random_batches_keep_every_flow_in_order);
    list_clear(&list);
    return 0;
}
