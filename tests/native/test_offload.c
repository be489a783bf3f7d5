/* Splitting and coalescing against the plain model: every rule, and random flows. */
#include "check.h"
#include "model.h"
#include "wire.h"

static struct packet_list packets;
static uint8_t room[SUPER_MAX + 1];

static void add(const struct shape *shape) { list_add(&packets, room, make_packet(room, shape)); }

/* Into how many runs the list goes; the list is empty afterwards. */
static unsigned runs_with(enum tun_offload offload)
{
    unsigned runs = check_round_trip(&packets, offload, MODEL_PACKETS);
    list_clear(&packets);
    return runs;
}

static unsigned runs(void) { return runs_with(TUN_TCP_UDP); }

/* The packet that follows in the flow. */
static struct shape after(struct shape shape)
{
    shape.seq += shape.payload;
    shape.id++;
    shape.fill++;
    return shape;
}

/* -- what is coalesced -- */

static void flows_become_super_packets(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct shape shape = {.v6 = kind & 1, .udp = kind & 2, .payload = 1400, .id = 0xFFFE, .seq = 0xFFFFF000};
        for (unsigned i = 0; i < 40; i++, shape = after(shape))
            add(&shape);
        CHECK_EQUAL(runs(), 1);
    }
}

static void a_super_packet_is_no_longer_than_ip_allows(void)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct shape shape = {.v6 = v6, .payload = 1448, .tcp_options = 12};
        for (unsigned i = 0; i < 100; i++, shape = after(shape))
            add(&shape);
        CHECK_EQUAL(runs(), 3); /* 45 fit */
    }
}

static void udp_runs_have_at_most_64_packets_tcp_ones_128(void)
{
    for (int udp = 0; udp < 2; udp++) {
        struct shape shape = {.udp = udp, .payload = 100};
        for (unsigned i = 0; i < 129; i++, shape = after(shape))
            add(&shape);
        CHECK_EQUAL(runs(), udp ? 3 : 2);
    }
}

static void udp_stays_as_it_is_where_the_kernel_splits_tcp_only(void)
{
    struct shape tcp = {.payload = 100}, udp = {.udp = true, .payload = 100};
    for (unsigned i = 0; i < 4; i++, tcp = after(tcp), udp = after(udp)) {
        add(&tcp);
        add(&udp);
    }
    CHECK_EQUAL(runs_with(TUN_TCP), 5);
}

static void interleaved_flows_are_coalesced_each(void)
{
    struct shape shape = {.payload = 200};
    for (unsigned i = 0; i < 30; i++, shape = after(shape))
        for (unsigned flow = 0; flow < 10; flow++) {
            struct shape one = shape;
            one.port = (uint16_t)(flow % 5);
            one.host = (uint8_t)(flow / 5);
            add(&one);
        }
    CHECK_EQUAL(runs(), 10);
}

static void a_short_packet_and_psh_end_a_run(void)
{
    for (int udp = 0; udp < 2; udp++) {
        struct shape shape = {.udp = udp, .payload = 500};
        add(&shape);
        shape = after(shape);
        shape.payload = 499;
        add(&shape);
        shape = after(shape);
        add(&shape);
        CHECK_EQUAL(runs(), 2);
    }
    struct shape shape = {.payload = 500};
    add(&shape);
    shape = after(shape);
    shape.flags = 0x18;
    add(&shape);
    shape = after(shape);
    shape.flags = 0x10;
    add(&shape);
    CHECK_EQUAL(runs(), 2);
    shape.flags = 0x18; /* the first one already */
    add(&shape);
    shape = after(shape);
    add(&shape);
    CHECK_EQUAL(runs(), 2);
}

static void identification_of_unfragmentable_packets_is_free(void)
{
    struct shape shape = {.payload = 500, .fragment = 0x4000};
    add(&shape);
    shape = after(shape);
    shape.id = 777;
    add(&shape);
    CHECK_EQUAL(runs(), 1);
}

/* -- what is not: the second packet differs in one thing -- */

static void each_difference_keeps_packets_apart(void)
{
    struct difference {
        const char *what;
        struct shape first; /* payload 300 is added */
        struct shape second;
    };
    static const struct difference table[] = {
        {"gap", {0}, {.seq = 301}},
        {"overlap", {0}, {.seq = 299}},
        {"repeated", {.seq = 300}, {.seq = 300}},
        {"out of order", {.seq = 600}, {.seq = 300}},
        {"longer", {0}, {.seq = 300, .payload = 301}},
        {"empty", {0}, {.seq = 300, .payload = UINT32_MAX}},
        {"acknowledgement", {0}, {.seq = 300, .ack = 1}},
        {"window", {0}, {.seq = 300, .window = 1}},
        {"urgent pointer", {0}, {.seq = 300, .urgent = 1}},
        {"option appears", {0}, {.seq = 300, .tcp_options = 12}},
        {"option value", {.tcp_options = 12}, {.seq = 300, .tcp_options = 12, .option_value = 1}},
        {"SYN", {0}, {.seq = 300, .flags = 0x12}},
        {"FIN", {0}, {.seq = 300, .flags = 0x11}},
        {"RST", {0}, {.seq = 300, .flags = 0x14}},
        {"URG", {0}, {.seq = 300, .flags = 0x30}},
        {"ECE", {0}, {.seq = 300, .flags = 0x50}},
        {"CWR", {0}, {.seq = 300, .flags = 0x90}},
        {"no ACK", {.flags = 0x08}, {.seq = 300, .flags = 0x08}},
        {"reserved bit", {.reserved = 1}, {.seq = 300, .reserved = 1}},
        {"TOS", {0}, {.seq = 300, .tos = 4}},
        {"congestion mark", {.tos = 2}, {.seq = 300, .tos = 3}},
        {"TTL", {0}, {.seq = 300, .ttl = 63}},
        {"flow label", {.v6 = true}, {.v6 = true, .seq = 300, .flow_label = 1}},
        {"traffic class", {.v6 = true}, {.v6 = true, .seq = 300, .tos = 1}},
        {"hop limit", {.v6 = true}, {.v6 = true, .seq = 300, .ttl = 63}},
        {"extension header", {.v6 = true, .extension = 8}, {.v6 = true, .extension = 8, .seq = 300}},
        {"DF", {0}, {.seq = 300, .id = 1, .fragment = 0x4000}},
        {"identification", {0}, {.seq = 300, .id = 2}},
        {"same identification", {0}, {.seq = 300, .id = 0}},
        {"first fragment", {0}, {.seq = 300, .id = 1, .fragment = 0x2000}},
        {"later fragment", {0}, {.seq = 300, .id = 1, .fragment = 0x0010}},
        {"reserved fragment bit", {.fragment = 0x8000}, {.seq = 300, .id = 1, .fragment = 0x8000}},
        {"IP options", {.ip_options = 4}, {.ip_options = 4, .seq = 300, .id = 1}},
        {"port", {0}, {.seq = 300, .id = 1, .port = 1}},
        {"host", {0}, {.seq = 300, .id = 1, .host = 1}},
        {"protocol", {0}, {.udp = true, .id = 1}},
        {"another protocol", {.protocol = 132}, {.protocol = 132, .seq = 300, .id = 1}},
        {"bad checksum", {0}, {.seq = 300, .id = 1, .bad_sum = true}},
        {"bad checksum of the first", {.bad_sum = true}, {.seq = 300, .id = 1}},
        {"bad IP checksum", {0}, {.seq = 300, .id = 1, .bad_ip_sum = true}},
        {"bad UDP checksum", {.udp = true}, {.udp = true, .id = 1, .bad_sum = true}},
        {"UDP without checksum", {.udp = true, .no_sum = true}, {.udp = true, .id = 1, .no_sum = true}},
        {"longer datagram", {.udp = true}, {.udp = true, .id = 1, .payload = 301}},
        {"empty datagram", {.udp = true}, {.udp = true, .id = 1, .payload = UINT32_MAX}},
        {"UDP TTL", {.udp = true}, {.udp = true, .id = 1, .ttl = 63}},
        {"IPv6 without UDP checksum", {.udp = true, .v6 = true}, {.udp = true, .v6 = true, .no_sum = true}},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct shape first = table[i].first, second = table[i].second;
        first.payload = 300;
        second.payload = second.payload == 0 ? 300 : second.payload == UINT32_MAX ? 0 : second.payload;
        if (!first.v6 && second.id == 0 && strcmp(table[i].what, "same identification") != 0)
            second.id = 1; /* only what the table says may keep them apart */
        if (!first.v6 && strcmp(table[i].what, "option value") == 0)
            second.id = 1;
        add(&first);
        add(&second);
        unsigned count = runs();
        if (count != 2)
            fprintf(stderr, "%s:\n", table[i].what);
        CHECK_EQUAL(count, 2);
    }
}

static void a_packet_that_fits_no_run_keeps_its_place(void)
{
    /* The model checks the order: an acknowledgement, a fragment and an ICMP message in the middle of a flow. */
    static const struct shape between[] = {
        {.ack = 5, .seq = 300}, {.fragment = 0x2000, .payload = 8}, {.protocol = 1, .payload = 64}};
    for (unsigned i = 0; i < 3; i++) {
        struct shape shape = {.payload = 300};
        add(&shape);
        add(&between[i]);
        shape = after(shape);
        add(&shape);
        CHECK_EQUAL(runs(), 3);
    }
}

/* -- acknowledgements -- */

static void an_acknowledgement_makes_place_for_a_later_one(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct shape shape = {
            .v6 = kind & 1, .timestamp = kind & 2 ? 0xFFFFFFF8 : 0, .ack = 0xFFFFF000, .window = 500};
        for (unsigned i = 0; i < 2 * (SUPERSEDED_MAX + 1) + 1; i++) {
            add(&shape);
            shape.ack += 2800, shape.id += 3, shape.window++;
            shape.timestamp += kind & 2 ? 1 : 0;
            shape.timestamp += kind & 2 && shape.timestamp == 0; /* which would mean none */
        }
        CHECK_EQUAL(runs(), 3); /* the last of each eight, and the one behind them */
    }
}

static void acknowledgements_of_several_flows_make_place_for_their_own(void)
{
    struct shape shape = {0};
    for (unsigned i = 0; i < 4; i++, shape.ack += 1000)
        for (unsigned flow = 0; flow < 10; flow++) {
            shape.port = (uint16_t)(flow % 5), shape.host = (uint8_t)(flow / 5);
            add(&shape);
        }
    CHECK_EQUAL(runs(), 10);
}

static void an_acknowledgement_that_says_something_of_its_own_stays(void)
{
    static const struct {
        const char *what;
        struct shape first, second;
    } table[] = {
        {"a duplicate", {0}, {0}},
        {"another window only", {0}, {.window = 1}},
        {"an earlier one", {.ack = 2}, {.ack = 1}},
        {"half a turn ahead", {0}, {.ack = 0x80000001}},
        {"another sequence number", {0}, {.ack = 1, .seq = 1}},
        {"a keepalive", {.seq = 1}, {.ack = 1, .seq = 0}},
        {"with payload", {0}, {.ack = 1, .payload = 1}},
        {"behind payload", {.payload = 1}, {.seq = 1, .ack = 1}},
        {"PSH", {0}, {.ack = 1, .flags = 0x18}},
        {"PSH before", {.flags = 0x18}, {.ack = 1}},
        {"ECE", {.flags = 0x50}, {.ack = 1, .flags = 0x50}},
        {"ECE appears", {0}, {.ack = 1, .flags = 0x50}},
        {"ECE disappears", {.flags = 0x50}, {.ack = 1}},
        {"CWR", {.flags = 0x90}, {.ack = 1}},
        {"SYN", {.flags = 0x12}, {.ack = 1}},
        {"FIN", {0}, {.ack = 1, .flags = 0x11}},
        {"RST", {0}, {.ack = 1, .flags = 0x14}},
        {"URG", {.flags = 0x30}, {.ack = 1, .flags = 0x30}},
        {"no ACK", {.flags = 0x08}, {.ack = 1, .flags = 0x08}},
        {"reserved bit", {.reserved = 1}, {.ack = 1, .reserved = 1}},
        {"blocks of its own", {.sack = {100, 200}}, {.ack = 1, .sack = {300, 400}}},
        {"blocks beyond what is acknowledged later", {.sack = {100, 200}}, {.ack = 199}},
        {"a block that grows to the left alone", {.sack = {100, 200}}, {.ack = 1, .sack = {101, 250}}},
        {"a second block", {.sack = {300, 400, 100, 200}}, {.ack = 1, .sack = {300, 500}}},
        {"the first duplicate", {0}, {.sack = {100, 200}}},
        {"a duplicate segment", {.ack = 50, .sack = {10, 20}}, {.ack = 1000}},
        {"a duplicate segment behind a hole", {.sack = {100, 200, 100, 300}}, {.ack = 1000}},
        {"an option like blocks", {.tcp_options = 12, .option_value = 0}, {.ack = 1}},
        {"options that are no timestamp",
         {.tcp_options = 12, .option_value = 4},
         {.ack = 1, .tcp_options = 12, .option_value = 4}},
        {"more options", {.tcp_options = 16}, {.ack = 1, .tcp_options = 16}},
        {"timestamp appears", {0}, {.ack = 1, .timestamp = 1}},
        {"timestamp disappears", {.timestamp = 1}, {.ack = 1}},
        {"timestamp goes back", {.timestamp = 2}, {.ack = 1, .timestamp = 1}},
        {"TOS", {0}, {.ack = 1, .tos = 4}},
        {"congestion mark", {.tos = 3}, {.ack = 1, .tos = 2}},
        {"TTL", {0}, {.ack = 1, .ttl = 63}},
        {"flow label", {.v6 = true}, {.v6 = true, .ack = 1, .flow_label = 1}},
        {"hop limit", {.v6 = true}, {.v6 = true, .ack = 1, .ttl = 63}},
        {"extension header", {.v6 = true, .extension = 8}, {.v6 = true, .extension = 8, .ack = 1}},
        {"IP options", {.ip_options = 4}, {.ack = 1, .ip_options = 4}},
        {"a fragment", {.fragment = 0x2000}, {.ack = 1, .fragment = 0x2000}},
        {"port", {0}, {.ack = 1, .port = 1}},
        {"host", {0}, {.ack = 1, .host = 1}},
        {"a damaged one", {0}, {.ack = 1, .bad_sum = true}},
        {"a damaged one before", {.bad_sum = true}, {.ack = 1}},
        {"a damaged header", {0}, {.ack = 1, .bad_ip_sum = true}},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        add(&table[i].first);
        add(&table[i].second);
        unsigned count = runs();
        if (count != 2)
            fprintf(stderr, "%s:\n", table[i].what);
        CHECK_EQUAL(count, 2);
    }
}

static void nothing_of_its_flow_is_between_an_acknowledgement_and_the_one_that_stands_for_it(void)
{
    static const struct shape between[] = {
        {.payload = 8}, {0}, {.flags = 0x11}, {.fragment = 0x2000, .payload = 8}, {.protocol = 1, .payload = 64}};
    for (unsigned i = 0; i < sizeof between / sizeof between[0]; i++) {
        const struct shape first = {.ack = 7}, last = {.ack = 8};
        struct shape other = between[i];
        other.ack = 7;
        add(&first);
        add(&other);
        add(&last);
        CHECK_EQUAL(runs(), 3);
    }
}

static void duplicates_stay_also_those_of_a_batch_before(void)
{
    const struct shape first = {.ack = 7}, later = {.ack = 9};
    for (unsigned together = 1; together <= 6; together++)
        for (unsigned payload = 0; payload < 2; payload++) { /* what had the number first may carry something */
            struct shape one = first;
            one.seq -= one.payload = payload;
            add(&one);
            for (unsigned i = 0; i < 5; i++)
                add(&first);
            add(&later);
            CHECK_EQUAL(check_round_trip(&packets, TUN_TCP_UDP, together), 7);
            list_clear(&packets);
        }
}

/* What a client sends that misses a segment: each duplicate has all that the one before had, and more. */
static void of_many_duplicates_with_growing_blocks_the_last_stands_for_them(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct shape shape = {.v6 = kind & 1, .timestamp = kind & 2 ? 5 : 0, .ack = 0xFFFFFC00, .window = 500};
        add(&shape);
        shape.sack[0] = 0xFFFFFF00, shape.sack[1] = 0xFFFFFF80;
        for (unsigned i = 0; i < 3 + 2 * (SUPERSEDED_MAX + 1); i++, shape.sack[1] += 0x80) {
            if (i == 3 + SUPERSEDED_MAX + 1) { /* and of several the newest comes first */
                shape.sack[2] = shape.sack[0], shape.sack[3] = shape.sack[1];
                shape.sack[0] = shape.sack[1] + 0x100, shape.sack[1] = shape.sack[0] + 0x80;
            }
            if (shape.sack[1] == 0)
                shape.sack[1]++; /* which would mean none */
            add(&shape);
        }
        CHECK_EQUAL(runs(), 4 + 2); /* the three that are counted, and the last of each eight */
    }
}

static void a_duplicate_with_blocks_that_says_something_of_its_own_stays(void)
{
    static const struct {
        const char *what;
        struct shape first, second;
    } table[] = {
        {"the same again", {.sack = {100, 200}}, {.sack = {100, 200}}},
        {"less", {.sack = {100, 200}}, {.sack = {100, 150}}},
        {"a block forgotten", {.sack = {300, 400, 100, 200}}, {.sack = {300, 500}}},
        {"no blocks", {.sack = {100, 200}}, {0}},
        {"another window", {.sack = {100, 200}}, {.sack = {100, 300}, .window = 1}},
        {"without blocks before", {0}, {.sack = {100, 200}}},
        {"a duplicate segment", {.sack = {100, 200, 100, 300}}, {.sack = {100, 400}}},
        {"ECE", {.sack = {100, 200}}, {.sack = {100, 300}, .flags = 0x50}},
        {"TOS", {.sack = {100, 200}}, {.sack = {100, 300}, .tos = 4}},
        {"timestamp goes back", {.sack = {100, 200}, .timestamp = 2}, {.sack = {100, 300}, .timestamp = 1}},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        for (unsigned repeat = 0; repeat < 4; repeat++) {
            struct shape earlier = {.sack = {100, 101}, .timestamp = table[i].first.timestamp};
            add(&earlier);
        }
        add(&table[i].first);
        add(&table[i].second);
        unsigned count = runs();
        if (count != 6)
            fprintf(stderr, "%s:\n", table[i].what);
        CHECK_EQUAL(count, 6);
    }
}

static void a_full_coalescer_says_so_and_loses_nothing(void)
{
    struct shape shape = {.payload = 1};
    for (unsigned i = 0; i < 600; i++) {
        shape.port = (uint16_t)i;
        add(&shape);
    }
    CHECK_EQUAL(runs(), 600);
}

/* -- random flows -- */

/* What a pause may gather (pacer.h). */
static void what_may_be_part_of_a_super_packet_is_counted(void)
{
    static const struct {
        struct shape shape;
        unsigned all, tcp_only; /* counted, by what the kernel splits */
    } table[] = {
        {{.payload = 1}, 1, 1},
        {{.payload = 0}, 0, 0}, /* a bare acknowledgement */
        {{.payload = 1, .flags = 0x11}, 0, 0},
        {{.payload = 1, .bad_sum = true}, 0, 0},
        {{.payload = 1, .fragment = 0x2000}, 0, 0},
        {{.udp = true, .payload = 1}, 1, 0},
        {{.v6 = true, .udp = true, .payload = 1}, 1, 0},
        {{.payload = 1, .protocol = 1}, 0, 0},
    };
    struct coalescer *coalescer = coalescer_new();
    CHECK(coalescer != NULL);
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint32_t length = make_packet(room, &table[i].shape);
        for (unsigned times = 1; times <= 2; times++) {
            CHECK(coalesce(coalescer, TUN_TCP_UDP, room, length));
            CHECK_EQUAL(coalescer_joinable(coalescer), times * table[i].all);
        }
        coalescer_reset(coalescer);
        CHECK(coalesce(coalescer, TUN_TCP, room, length));
        CHECK_EQUAL(coalescer_joinable(coalescer), table[i].tcp_only);
        coalescer_reset(coalescer);
        CHECK_EQUAL(coalescer_joinable(coalescer), 0);
    }
    coalescer_free(coalescer);
}

/* A receiver goes on, or has got something behind a hole. */
static void acknowledge_on(struct shape *flow, uint64_t *random)
{
    uint32_t *sack = flow->sack;
    switch (next_random(random) % 8) {
    case 0:
    case 1:
        flow->ack += (uint32_t)(next_random(random) % 4) * 1400;
        memset(sack, 0, sizeof flow->sack);
        break;
    case 2:
        memmove(sack + 2, sack, 6 * sizeof sack[0]);
        sack[0] = flow->ack + 1400 * (uint32_t)(next_random(random) % 20);
        sack[1] = sack[0] + 1400;
        if (flow->timestamp != 0)
            sack[6] = sack[7] = 0; /* no room for four */
        break;
    case 3: break;
    default: sack[1] += sack[1] != 0 ? 1400 : 0;
    }
    for (unsigned i = 0; i < 4; i++)
        if (sack[2 * i + 1] == 0)
            memset(sack + 2 * i, 0, (8 - 2 * i) * sizeof sack[0]);
}

static void random_flows_come_back_as_they_were(void)
{
    uint64_t random = 88172645463325252;
    for (unsigned round = 0; round < 400; round++) {
        struct shape flows[8];
        unsigned flow_count = 1 + next_random(&random) % 8, count = next_random(&random) % 200;
        memset(flows, 0, sizeof flows);
        for (unsigned i = 0; i < flow_count; i++) {
            flows[i].v6 = next_random(&random) % 3 == 0;
            flows[i].udp = next_random(&random) % 3 == 0;
            flows[i].port = (uint16_t)(next_random(&random) % 3);
            flows[i].payload = 1 + next_random(&random) % 1900;
            flows[i].seq = (uint32_t)next_random(&random);
            flows[i].id = (uint16_t)next_random(&random);
            flows[i].fragment = next_random(&random) % 2 ? 0x4000 : 0;
            flows[i].tcp_options = (uint8_t)(next_random(&random) % 4 * 4);
            if (next_random(&random) % 3 == 0) { /* one that receives */
                flows[i].payload = 0;
                flows[i].ack = (uint32_t)next_random(&random);
                flows[i].timestamp = next_random(&random) % 2 ? (uint32_t)next_random(&random) | 1 : 0;
            }
        }
        for (unsigned i = 0; i < count; i++) {
            struct shape *flow = &flows[next_random(&random) % flow_count];
            struct shape one = *flow;
            switch (next_random(&random) % 40) {
            case 0: one.flags = (uint8_t)next_random(&random); break;
            case 1: one.bad_sum = true; break;
            case 2: one.payload = (uint32_t)(next_random(&random) % (one.payload + 1)); break;
            case 3: one.fragment = 0x2000; break;
            case 4: one.seq += 17; break;
            case 5: one.ack++; break;
            case 6: one.flags = 0x18; break;
            case 7: one.tos = 1; break;
            case 8: one.protocol = one.v6 ? 58 : 1; break;
            case 9: one.extension = one.v6 ? 8 : 0; break;
            case 10: one.ip_options = one.v6 ? 0 : 8; break;
            case 11: one.timestamp += one.timestamp > 2 ? UINT32_MAX - 1 : 0; break;
            case 12: one.window++; break;
            default: break;
            }
            add(&one);
            *flow = after(*flow);
            if (flow->payload == 0)
                acknowledge_on(flow, &random);
        }
        enum tun_offload offload = next_random(&random) % 2 ? TUN_TCP : TUN_TCP_UDP;
        check_round_trip(&packets, offload, next_random(&random) % 2 ? MODEL_PACKETS : 16);
        list_clear(&packets);
    }
}

/* -- splitting what the kernel hands out -- */

/* A super-packet as the kernel makes it: the transport checksum is the pseudo header's sum, not inverted. */
static uint32_t make_super(struct virtio_header *header, const struct shape *shape, uint16_t gso_size)
{
    uint32_t length = make_packet(room, shape);
    uint32_t transport = shape->v6 ? 40u + shape->extension : 20u + shape->ip_options;
    *header = (struct virtio_header){
        .flags = VIRTIO_NEEDS_CSUM,
        .gso_type = shape->udp  ? VIRTIO_GSO_UDP_L4
                    : shape->v6 ? VIRTIO_GSO_TCPV6
                                : VIRTIO_GSO_TCPV4,
        .gso_size = gso_size,
        .csum_start = (uint16_t)transport,
        .csum_offset = shape->udp ? 6 : 16,
    };
    put_u16(room + transport + header->csum_offset, 0xBEEF); /* what the kernel left there does not matter */
    return length;
}

static void super_packets_are_split_as_the_model_does(void)
{
    static const uint16_t sizes[] = {1, 7, 536, 1400, 1900};
    for (unsigned kind = 0; kind < 16; kind++)
        for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct shape shape = {.v6 = kind & 1, .udp = kind & 2, .payload = sizes[i] * 37u + (kind & 4 ? 1 : 0)};
            if (shape.payload > 65000)
                shape.payload = 65000;
            shape.flags = 0x99; /* CWR, ACK, PSH, FIN */
            shape.seq = 0xFFFFFF00;
            shape.id = 0xFFF0;
            shape.tcp_options = 12;
            if (kind & 8 && sizes[i] < 1900) {
                shape.extension = shape.v6 ? 16 : 0;
                shape.ip_options = shape.v6 ? 0 : 8;
            }
            struct virtio_header header;
            uint32_t length = make_super(&header, &shape, sizes[i]);
            static struct packet_list segments;
            model_split(&header, room, length, &segments);
            if (!shape.udp && kind & 4)
                header.gso_type |= VIRTIO_GSO_ECN;
            struct split split;
            static uint8_t segment[PACKET_MAX];
            CHECK(split_begin(&split, &header, room, length));
            for (unsigned s = 0; s < segments.count; s++) {
                CHECK(!split_done(&split));
                CHECK_EQUAL(split_next(&split, segment), segments.lengths[s]);
                CHECK(memcmp(segment, segments.bytes[s], segments.lengths[s]) == 0);
            }
            CHECK(split_done(&split));
            list_clear(&segments);
        }
}

static void a_partial_checksum_is_completed(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct shape shape = {.v6 = kind & 1, .udp = kind & 2, .payload = 33};
        uint32_t length = make_packet(room, &shape);
        uint8_t right[256], segment[PACKET_MAX];
        memcpy(right, room, length);
        uint32_t transport = shape.v6 ? 40 : 20;
        uint16_t offset = shape.udp ? 6 : 16;
        uint8_t pseudo[128];
        memcpy(pseudo, room, transport);
        /* The pseudo header's sum alone: over a segment of zeros of that length. */
        memset(pseudo + transport, 0, length - transport);
        put_u16(room + transport + offset, model_sum(pseudo, length, transport, shape.udp ? 17 : 6));
        const struct virtio_header header = {
            .flags = VIRTIO_NEEDS_CSUM, .csum_start = (uint16_t)transport, .csum_offset = offset};
        struct split split;
        CHECK(split_begin(&split, &header, room, length));
        CHECK_EQUAL(split_next(&split, segment), length);
        CHECK(split_done(&split));
        CHECK(memcmp(segment, right, length) == 0);
    }
}

static void headers_that_do_not_fit_are_refused(void)
{
    const struct shape tcp = {.payload = 3000}, tcp6 = {.v6 = true, .payload = 3000},
                       udp = {.udp = true, .payload = 3000};
    struct virtio_header good, bad;
    struct split split;
#define REFUSED(shape, change)                                                                                       \
    do {                                                                                                             \
        uint32_t length = make_super(&good, &shape, 1000);                                                           \
        CHECK(split_begin(&split, &good, room, length));                                                             \
        bad = good;                                                                                                  \
        change;                                                                                                      \
        CHECK(!split_begin(&split, &bad, room, length));                                                             \
    } while (0)
    REFUSED(tcp, bad.gso_size = 0);
    REFUSED(tcp, bad.gso_size = PACKET_MAX);
    REFUSED(tcp, bad.gso_type = VIRTIO_GSO_TCPV6);
    REFUSED(tcp, bad.gso_type = VIRTIO_GSO_UDP_L4);
    REFUSED(tcp, bad.gso_type = 3); /* whole-datagram fragmentation was not asked for */
    REFUSED(tcp, bad.gso_type = 0x7f);
    REFUSED(tcp, bad.flags = 0);
    REFUSED(tcp, bad.gso_type = VIRTIO_GSO_NONE); /* longer than a packet */
    REFUSED(tcp, room[20 + 12] = 0x40);           /* TCP header of 16 bytes */
    REFUSED(tcp, length = 19);
    REFUSED(tcp, length = 3039);
    REFUSED(tcp, put_u16(room + 2, 39));
    REFUSED(tcp, put_u16(room + 2, 40)); /* no payload */
    REFUSED(tcp, room[6] = 0x20);        /* a fragment */
    REFUSED(tcp6, bad.csum_start = 39);
    REFUSED(tcp6, bad.csum_start = 3050);
    REFUSED(tcp6, bad.csum_start = 0xFFFF);
    REFUSED(tcp6, bad.gso_type = VIRTIO_GSO_UDP_L4);
    REFUSED(tcp6, put_u16(room + 4, 19));
    REFUSED(udp, bad.gso_type = VIRTIO_GSO_TCPV4);
    REFUSED(udp, put_u16(room + 2, 28));
#undef REFUSED
    const struct shape small = {.payload = 10};
    uint32_t length = make_packet(room, &small);
    bad = (struct virtio_header){.flags = VIRTIO_NEEDS_CSUM, .csum_start = (uint16_t)length, .csum_offset = 0};
    CHECK(!split_begin(&split, &bad, room, length));
    bad.csum_start = (uint16_t)(length - 2), bad.csum_offset = 1;
    CHECK(!split_begin(&split, &bad, room, length));
    bad.csum_offset = 0xFFFF;
    CHECK(!split_begin(&split, &bad, room, length));
    bad.csum_start = 19, bad.csum_offset = 0; /* the IP header is not the device's */
    CHECK(!split_begin(&split, &bad, room, length));
}

int main(void)
{
    RUN(flows_become_super_packets);
    RUN(a_super_packet_is_no_longer_than_ip_allows);
    RUN(udp_runs_have_at_most_64_packets_tcp_ones_128);
    RUN(udp_stays_as_it_is_where_the_kernel_splits_tcp_only);
    RUN(interleaved_flows_are_coalesced_each);
    RUN(a_short_packet_and_psh_end_a_run);
    RUN(identification_of_unfragmentable_packets_is_free);
    RUN(each_difference_keeps_packets_apart);
    RUN(a_packet_that_fits_no_run_keeps_its_place);
    RUN(an_acknowledgement_makes_place_for_a_later_one);
    RUN(acknowledgements_of_several_flows_make_place_for_their_own);
    RUN(an_acknowledgement_that_says_something_of_its_own_stays);
    RUN(nothing_of_its_flow_is_between_an_acknowledgement_and_the_one_that_stands_for_it);
    RUN(duplicates_stay_also_those_of_a_batch_before);
    RUN(of_many_duplicates_with_growing_blocks_the_last_stands_for_them);
    RUN(a_duplicate_with_blocks_that_says_something_of_its_own_stays);
    RUN(a_full_coalescer_says_so_and_loses_nothing);
    RUN(what_may_be_part_of_a_super_packet_is_counted);
    RUN(random_flows_come_back_as_they_were);
    RUN(super_packets_are_split_as_the_model_does);
    RUN(a_partial_checksum_is_completed);
    RUN(headers_that_do_not_fit_are_refused);
    return 0;
}
