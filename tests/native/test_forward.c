/* What one packet meets on its way, and that hostile bytes meet nothing else. */
#include "check.h"
#include "checksum.h"
#include "fixture.h"

enum { ROOM = 4096 };

/* One datagram through; the batch afterwards. */
static struct batch receive(struct fixture *fixture, uint8_t *packet, size_t length)
{
    struct batch batch;
    fixture_datagram(&batch, packet, length);
    link_to_tun(&fixture->forwarder, fixture->listener, &batch);
    return batch;
}

/* Seals a payload under the next id and receives it. */
static struct batch receive_payload(struct fixture *fixture, uint8_t *packet, const void *payload, size_t length)
{
    static uint32_t packet_id;
    size_t sealed = fixture_client_seal(fixture, packet, ++packet_id, payload, length);
    return receive(fixture, packet, sealed);
}

static void allowed_packet_passes_unchanged(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], inner[64];
    size_t length = fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    struct batch batch = receive_payload(fixture, packet, inner, length);
    CHECK_EQUAL(batch.count, 1);
    CHECK_EQUAL(batch.packets[0].length, length);
    CHECK(memcmp(batch.packets[0].bytes, inner, length) == 0);
    length = fixture_ipv6(inner, "fd00::2", "fd20::9");
    batch = receive_payload(fixture, packet, inner, length);
    CHECK_EQUAL(batch.count, 1);
    CHECK_EQUAL(atomic_load(&fixture->peer->packets_in), 2);
    CHECK_EQUAL(atomic_load(&fixture->peer->bytes_in), 28 + 48);
    CHECK_EQUAL(fixture_events(fixture), 0);
    fixture_free(fixture);
}

static void padding_behind_the_packet_is_cut_off(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], inner[64] = {0};
    size_t length = fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    struct batch batch = receive_payload(fixture, packet, inner, length + 9);
    CHECK_EQUAL(batch.count, 1);
    CHECK_EQUAL(batch.packets[0].length, length);
    fixture_free(fixture);
}

static void each_inner_refusal_has_its_reason(void)
{
    static const struct {
        const char *source, *destination;
        enum drop_reason reason;
    } table[] = {
        {"10.100.0.3", "10.20.1.1", DROP_BAD_SOURCE},      {"fe80::1", "ff02::2", DROP_BAD_SOURCE},
        {"::ffff:10.100.0.2", "fd20::1", DROP_BAD_SOURCE}, /* no disguise for the IPv4 lease */
        {"10.100.0.2", "10.20.9.1", DROP_DENIED},          /* the longest prefix names another group */
        {"10.100.0.2", "10.30.0.1", DROP_DENIED},          {"fd00::2", "fe20::1", DROP_DENIED},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct fixture *fixture = fixture_new();
        uint8_t packet[ROOM], inner[64];
        bool v6 = strchr(table[i].destination, ':') != NULL;
        if (v6 && strchr(table[i].source, '.') != NULL) { /* inet_pton folds nothing: write it by hand */
            fixture_ipv6(inner, "fd00::2", table[i].destination);
            memcpy(inner + 8, IPV4_MAPPED_PREFIX, 12);
            memcpy(inner + 20, (const uint8_t[]){10, 100, 0, 2}, 4);
        } else if (v6) {
            fixture_ipv6(inner, table[i].source, table[i].destination);
        } else {
            fixture_ipv4(inner, table[i].source, table[i].destination);
        }
        CHECK_EQUAL(receive_payload(fixture, packet, inner, v6 ? 48 : 28).count, 0);
        CHECK_EQUAL(fixture_dropped(fixture, table[i].reason), 1);
        fixture_free(fixture);
    }
}

/* An ICMP error, of either version, about a packet to this address; how long. */
static size_t error_about(uint8_t *inner, bool v6, uint8_t type, const char *address)
{
    size_t header = v6 ? IPV6_HEADER : IPV4_HEADER, at = header + 8, quoted;
    uint8_t quote[64];
    if (v6) {
        quoted = fixture_ipv6(quote, "fd20::9", address);
        fixture_ipv6(inner, "fd00::2", "fd20::9");
        inner[6] = 58;
        inner[5] = (uint8_t)(8 + quoted);
    } else {
        quoted = fixture_ipv4(quote, "10.20.1.1", address);
        fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
        inner[9] = 1;
        inner[3] = (uint8_t)(at + quoted);
    }
    memset(inner + header, 0, 8);
    inner[header] = type;
    memcpy(inner + at, quote, quoted);
    return at + quoted;
}

static void an_error_is_about_what_went_to_the_client_itself(void)
{
    static const uint8_t ERRORS_V4[] = {3, 4, 5, 11, 12}, ERRORS_V6[] = {0, 1, 2, 3, 4, 127};
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], inner[256];
    uint64_t lies = 0;
    for (unsigned i = 0; i < sizeof ERRORS_V4 + sizeof ERRORS_V6; i++) {
        bool v6 = i >= sizeof ERRORS_V4;
        uint8_t type = v6 ? ERRORS_V6[i - sizeof ERRORS_V4] : ERRORS_V4[i];
        size_t length = error_about(inner, v6, type, v6 ? "fd00::2" : "10.100.0.2");
        CHECK_EQUAL(receive_payload(fixture, packet, inner, length).count, 1);
        length = error_about(inner, v6, type, v6 ? "fd00::3" : "10.100.0.3");
        CHECK_EQUAL(receive_payload(fixture, packet, inner, length).count, 0);
        CHECK_EQUAL(fixture_dropped(fixture, DROP_BAD_SOURCE), ++lies);
    }
    size_t length = error_about(inner, false, 8, "10.100.0.3"); /* no error */
    CHECK_EQUAL(receive_payload(fixture, packet, inner, length).count, 1);
    length = error_about(inner, true, 128, "fd00::3");
    CHECK_EQUAL(receive_payload(fixture, packet, inner, length).count, 1);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_BAD_SOURCE), lies);
    fixture_free(fixture);
}

static void malformed_inner_packets_are_no_ip(void)
{
    uint8_t good[64];
    fixture_ipv4(good, "10.100.0.2", "10.20.1.1");
    static const struct {
        uint8_t at, value, length;
    } table[] = {
        {0, 0x44, 28}, /* header of 16 bytes */
        {0, 0x4f, 28}, /* header of 60 bytes */
        {0, 0x55, 28}, /* version 5 */
        {0, 0x65, 28}, /* IPv6 of 28 bytes */
        {3, 19, 28},   /* total length below the header */
        {3, 29, 28},   /* total length beyond the packet */
        {0, 0x45, 19}, {0, 0x45, 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct fixture *fixture = fixture_new();
        uint8_t packet[ROOM], inner[64];
        memcpy(inner, good, sizeof inner);
        inner[table[i].at] = table[i].value;
        CHECK_EQUAL(receive_payload(fixture, packet, inner, table[i].length).count, 0);
        CHECK_EQUAL(fixture_dropped(fixture, DROP_NOT_IP), 1);
        fixture_free(fixture);
    }
}

static void outer_refusals_leave_no_trace_on_the_peer(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], copy[ROOM], inner[64];
    fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    size_t length = fixture_client_seal(fixture, packet, 1, inner, 28);

    receive(fixture, packet, 0);
    memcpy(copy, packet, length);
    receive(fixture, copy, DATA_OVERHEAD);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_TRUNCATED), 2);
    memcpy(copy, packet, length);
    copy[3] = FIXTURE_PEER + 1;
    receive(fixture, copy, length);
    memcpy(copy, packet, length);
    memset(copy + 1, 0xff, 3);
    receive(fixture, copy, length);
    fixture->forwarder.worker = 1; /* not this peer's worker */
    memcpy(copy, packet, length);
    receive(fixture, copy, length);
    fixture->forwarder.worker = 0;
    struct endpoint other = {0};
    fixture->listener->endpoint = &other;
    memcpy(copy, packet, length);
    receive(fixture, copy, length);
    fixture->listener->endpoint = fixture->endpoint;
    CHECK_EQUAL(fixture_dropped(fixture, DROP_UNKNOWN_PEER), 4);
    memcpy(copy, packet, length);
    copy[0] = P_DATA_V2 << 3 | 7;
    receive(fixture, copy, length);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_NO_KEY), 1);
    memcpy(copy, packet, length);
    copy[length - 1] ^= 1;
    receive(fixture, copy, length);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_AUTH_FAILED), 1);
    for (unsigned opcode = 0; opcode < 32; opcode++) {
        memcpy(copy, packet, length);
        copy[0] = (uint8_t)(opcode << 3);
        if (opcode != P_DATA_V2 && !wire_is_client_control(opcode))
            receive(fixture, copy, length);
    }
    CHECK_EQUAL(fixture_dropped(fixture, DROP_BAD_OPCODE), 32 - 7);

    CHECK_EQUAL(atomic_load(&fixture->peer->last_authentic_ms), 1000);
    CHECK_EQUAL(fixture_events(fixture), 0);
    memcpy(copy, packet, length);
    CHECK_EQUAL(receive(fixture, copy, length).count, 1); /* its id is still new */
    CHECK_EQUAL(receive(fixture, packet, length).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_REPLAYED), 1);
    fixture_free(fixture);
}

static void notices_end_here(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], notice[OCC_MAGIC_SIZE + 1];
    CHECK_EQUAL(receive_payload(fixture, packet, KEEPALIVE, KEEPALIVE_SIZE).count, 0);
    CHECK_EQUAL(atomic_load(&fixture->peer->last_authentic_ms), 2000);
    memcpy(notice, OCC_MAGIC, OCC_MAGIC_SIZE);
    notice[OCC_MAGIC_SIZE] = 0; /* REQUEST */
    receive_payload(fixture, packet, notice, sizeof notice);
    CHECK_EQUAL(fixture_events(fixture), 0);
    notice[OCC_MAGIC_SIZE] = OCC_EXIT;
    receive_payload(fixture, packet, notice, sizeof notice);
    CHECK_EQUAL(fixture_events(fixture), 1u << EVENT_PEER_EXIT);
    receive_payload(fixture, packet, notice, sizeof notice);
    CHECK_EQUAL(fixture_events(fixture), 0);
    for (unsigned reason = 0; reason < DROP_REASON_COUNT; reason++)
        CHECK_EQUAL(fixture_dropped(fixture, reason), 0);
    fixture_free(fixture);
}

static void terminal_event_waits_for_room(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], notice[OCC_MAGIC_SIZE + 1];
    struct event filler = {.kind = EVENT_KEY_USED};
    while (events_push(&fixture->events, &filler, NULL, 0)) {
    }
    memcpy(notice, OCC_MAGIC, OCC_MAGIC_SIZE);
    notice[OCC_MAGIC_SIZE] = OCC_EXIT;
    receive_payload(fixture, packet, notice, sizeof notice);
    CHECK_EQUAL(fixture_events(fixture), 1u << EVENT_KEY_USED);
    report_due(fixture->peer, &fixture->events);
    CHECK_EQUAL(fixture_events(fixture), 1u << EVENT_PEER_EXIT);
    report_due(fixture->peer, &fixture->events);
    CHECK_EQUAL(fixture_events(fixture), 0);
    fixture_free(fixture);
}

static void float_is_told_five_times_a_second_and_moves_nothing(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t inner[64];
    fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    const struct remote *remote = atomic_load(&fixture->peer->remote);
    for (uint32_t i = 1; i <= 3; i++) {
        uint8_t packet[ROOM];
        struct batch batch;
        fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, i, inner, 28));
        batch.packets[0].source.port++;
        fixture->forwarder.now_ms = 2000 + (i == 3 ? 200 : 0);
        link_to_tun(&fixture->forwarder, fixture->listener, &batch);
        CHECK_EQUAL(batch.count, 1); /* authentic, so delivered */
        CHECK_EQUAL(fixture_events(fixture), i == 2 ? 0 : 1u << EVENT_FLOAT_SEEN);
    }
    CHECK_EQUAL(fixture_dropped(fixture, DROP_FLOAT_REFUSED), 1);
    CHECK(atomic_load(&fixture->peer->remote) == remote);
    fixture_free(fixture);
}

/* For whoever gathers a flood: fragments are counted with their packet. */
static void what_goes_on_and_what_waits_does_not_end_here(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], inner[64];
    struct batch batch;
    size_t length = fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, 1, inner, length));
    CHECK_EQUAL(link_to_tun(&fixture->forwarder, fixture->listener, &batch), 0);
    fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, 1, inner, length)); /* replayed */
    CHECK_EQUAL(link_to_tun(&fixture->forwarder, fixture->listener, &batch), 1);
    fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, 2, KEEPALIVE, KEEPALIVE_SIZE));
    CHECK_EQUAL(link_to_tun(&fixture->forwarder, fixture->listener, &batch), 1);
    put_u16(inner + IPV4_FRAGMENT_FIELD, 1); /* the last 8 bytes of 16 */
    memset(inner + IPV4_CHECKSUM, 0, 2);
    checksum_set_field(inner + IPV4_CHECKSUM, (uint16_t)~checksum_add(0, inner, 20));
    fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, 3, inner, length));
    CHECK_EQUAL(link_to_tun(&fixture->forwarder, fixture->listener, &batch), 0);
    CHECK_EQUAL(fixture->peer->unfinished.count, 1);
    fixture_free(fixture);
}

static void control_packet_belongs_behind_data_of_its_client(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], control[] = {P_CONTROL_V1 << 3, 1, 2, 3};
    CHECK_EQUAL(receive(fixture, control, sizeof control).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_STRAY_CONTROL), 1);
    CHECK_EQUAL(fixture_events(fixture), 0);
    receive_payload(fixture, packet, KEEPALIVE, KEEPALIVE_SIZE);
    receive(fixture, control, sizeof control);
    CHECK_EQUAL(fixture_events(fixture), 1u << EVENT_STRAY_CONTROL);

    struct batch batch;
    fixture_datagram(&batch, control, sizeof control);
    batch.packets[0].source.port++; /* somebody else's */
    link_to_tun(&fixture->forwarder, fixture->listener, &batch);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_STRAY_CONTROL), 2);
    CHECK_EQUAL(fixture_events(fixture), 0);

    unsigned told = 0;
    for (unsigned i = 0; i < 3000; i++) {
        receive(fixture, control, sizeof control);
        told += fixture_events(fixture) != 0;
    }
    CHECK_EQUAL(told + fixture_dropped(fixture, DROP_CONTROL_LIMIT), 3000);
    CHECK_EQUAL(told, 249); /* of a second, in which one had come */
    fixture_free(fixture);
}

/* TUN to link: one inner packet with headroom; the client opens what comes out. */
static struct batch send_out(struct fixture *fixture, uint8_t *room, const uint8_t *inner, size_t length)
{
    struct batch batch = {.count = 1};
    memcpy(room + SEAL_HEADROOM, inner, length);
    batch.packets[0] = (struct packet){.bytes = room + SEAL_HEADROOM, .length = (uint32_t)length};
    tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
    return batch;
}

static void sealed_packet_opens_at_the_client(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t room[ROOM], inner[64];
    for (uint32_t id = 1; id <= 3; id++) {
        size_t length =
            id == 2 ? fixture_ipv6(inner, "fd20::1", "fd00::2") : fixture_ipv4(inner, "10.20.1.1", "10.100.0.2");
        struct batch batch = send_out(fixture, room, inner, length);
        CHECK_EQUAL(batch.count, 1);
        CHECK_EQUAL(batch.packets[0].length, length + DATA_OVERHEAD);
        CHECK_EQUAL(get_u32(batch.packets[0].bytes), (uint32_t)P_DATA_V2 << 27 | FIXTURE_KEY << 24 | FIXTURE_PEER);
        CHECK_EQUAL(get_u32(batch.packets[0].bytes + DATA_HEADER), id);
        const uint8_t *text = fixture_client_open(fixture, &batch.packets[0]);
        CHECK(text != NULL && memcmp(text, inner, length) == 0);
    }
    CHECK_EQUAL(atomic_load(&fixture->peer->bytes_out), 28 + 48 + 28);
    fixture_free(fixture);
}

static void unsendable_packets_have_their_reasons(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t room[ROOM], inner[64];
    fixture_ipv4(inner, "10.20.1.1", "10.100.0.9");
    CHECK_EQUAL(send_out(fixture, room, inner, 28).count, 0);
    fixture_ipv6(inner, "fd20::1", "::ffff:10.100.0.2");
    CHECK_EQUAL(send_out(fixture, room, inner, 48).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_NO_ROUTE), 2);
    CHECK_EQUAL(send_out(fixture, room, inner, 3).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_NOT_IP), 1);
    fixture_ipv4(inner, "10.20.9.1", "10.100.0.2"); /* the longest prefix names another group */
    CHECK_EQUAL(send_out(fixture, room, inner, 28).count, 0);
    fixture_ipv6(inner, "fe20::1", "fd00::2");
    CHECK_EQUAL(send_out(fixture, room, inner, 48).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_DENIED_SOURCE), 2);
    fixture_ipv4(inner, "10.20.1.1", "10.100.0.2");
    struct key_slot *slot = atomic_exchange(&fixture->peer->sending, NULL);
    CHECK_EQUAL(send_out(fixture, room, inner, 28).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_NOT_READY), 1);
    atomic_store(&fixture->peer->sending, slot);
    fixture_free(fixture);
}

/* Of one that the client opens. */
static uint32_t packet_id_of(struct fixture *fixture, const struct packet *packet)
{
    uint32_t outside = get_u32(packet->bytes + (fixture->format.data_v1 ? DATA_V1_HEADER : DATA_HEADER));
    const uint8_t *text = fixture_client_open(fixture, packet);
    CHECK(text != NULL);
    return fixture->format.digest == NULL ? outside : get_u32(text - PACKET_ID_SIZE);
}

/* A packet to the client by the way of everybody, whose id is expected; 0: none is sent. */
static void is_sealed_with(struct fixture *fixture, uint32_t packet_id)
{
    uint8_t room[ROOM], inner[64];
    fixture_ipv4(inner, "10.20.1.1", "10.100.0.2");
    struct batch batch = send_out(fixture, room, inner, 28);
    CHECK_EQUAL(batch.count, packet_id != 0);
    if (packet_id != 0)
        CHECK_EQUAL(packet_id_of(fixture, &batch.packets[0]), packet_id);
}

/* What a packet of the client leads to, by the way of its format. */
static void is_received(struct fixture *fixture, uint32_t packet_id, unsigned packets, unsigned events)
{
    uint8_t packet[ROOM], payload[64];
    size_t framed = fixture->format.framing == FRAMING_COMP_LZO;
    payload[0] = UNCOMPRESSED;
    fixture_ipv4(payload + framed, "10.100.0.2", "10.20.1.1");
    struct batch batch;
    fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, packet_id, payload, framed + 28));
    if (fixture->format.data_v1)
        injected_to_tun(&fixture->forwarder, fixture->peer, &batch);
    else
        link_to_tun(&fixture->forwarder, fixture->listener, &batch);
    CHECK_EQUAL(batch.count, packets);
    CHECK_EQUAL(fixture_events(fixture), events);
}

/* An id that came twice would be a nonce that came twice, which gives away what GCM authenticates with. The counter is set
 * to where it is after weeks; beyond the last id too, where those who go on asking have moved it. */
static void packet_ids_of_every_format_end_before_they_could_begin_anew(void)
{
    static const uint64_t BEYOND[] = {0xFFFFFFFE, 0xFFFFFFFF, 0x100000000, 0x1FFFFFFFF, UINT64_C(1) << 63};
    unsigned formats = 0;
    for (unsigned number = 0; number < FIXTURE_FORMATS; number++) {
        struct fixture_format format = fixture_format(number);
        if (format.epoch)
            continue; /* test_epoch.c */
        struct fixture *fixture = fixture_new_with(format);
        struct key_slot *slot = atomic_load(&fixture->peer->sending);
        atomic_store(&slot->last_packet_id, 0xFEFFFFFE);
        is_sealed_with(fixture, 0xFEFFFFFF);
        CHECK(!atomic_load(&slot->rekey_due));
        is_sealed_with(fixture, 0xFF000000);
        CHECK(atomic_load(&slot->rekey_due));
        atomic_store(&slot->last_packet_id, 0xFFFFFFFD);
        is_sealed_with(fixture, 0xFFFFFFFE); /* the last one */
        for (unsigned i = 0; i < sizeof BEYOND / sizeof BEYOND[0]; i++) {
            atomic_store(&slot->last_packet_id, BEYOND[i]);
            is_sealed_with(fixture, 0);
            CHECK_EQUAL(fixture_dropped(fixture, DROP_KEY_EXHAUSTED), i + 1);
        }
        is_received(fixture, 0xFEFFFFFF, 1, 0);
        is_received(fixture, 0xFF000000, 1, 1u << EVENT_REKEY_NEEDED);
        is_received(fixture, 0xFF000001, 1, 0); /* told once */
        is_received(fixture, 0xFFFFFFFF, 1, 0);
        for (uint32_t again = 0; again < 3; again++) /* as if it began anew */
            is_received(fixture, again, 0, 0);
        CHECK_EQUAL(fixture_dropped(fixture, DROP_REPLAYED), 3);
        fixture_free(fixture);
        formats++;
    }
    CHECK_EQUAL(formats, 15);
}

static void too_many_forgeries_kill_the_key(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t packet[ROOM], copy[ROOM], inner[64];
    fixture->limits.failures_rekey = 3;
    fixture->limits.failures = 6;
    fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    size_t length = fixture_client_seal(fixture, packet, 1, inner, 28);
    for (unsigned i = 0; i < 7; i++) {
        memcpy(copy, packet, length);
        copy[DATA_AD] ^= 1;
        receive(fixture, copy, length);
        CHECK_EQUAL(fixture_events(fixture), i == 3 ? 1u << EVENT_REKEY_NEEDED : 0);
    }
    CHECK_EQUAL(receive(fixture, packet, length).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_AUTH_FAILED), 8);
    fixture_free(fixture);
}

static void tcp_stream_ends_with_the_first_forgery(void)
{
    struct fixture *fixture = fixture_new();
    uint8_t first[ROOM], second[ROOM], third[ROOM], inner[64];
    fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    size_t length = fixture_client_seal(fixture, first, 1, inner, 28);
    fixture_client_seal(fixture, second, 2, inner, 28);
    fixture_client_seal(fixture, third, 3, inner, 28);
    memset(first + 1, 0xff, 3); /* the peer id in the packet does not matter for finding the peer … */
    second[DATA_AD] ^= 1;
    struct batch batch = {.count = 3};
    batch.packets[0] = (struct packet){.bytes = third, .length = (uint32_t)length};
    batch.packets[1] = (struct packet){.bytes = second, .length = (uint32_t)length};
    batch.packets[2] = (struct packet){.bytes = third, .length = (uint32_t)length};
    CHECK(!tcp_to_tun(&fixture->forwarder, fixture->peer, &batch));
    CHECK_EQUAL(batch.count, 1);
    batch.count = 1;
    batch.packets[0] = (struct packet){.bytes = first, .length = (uint32_t)length};
    CHECK(!tcp_to_tun(&fixture->forwarder, fixture->peer, &batch)); /* … but it is authenticated */
    uint8_t control[] = {P_CONTROL_V1 << 3 | 1, 1, 2, 3}, odd[] = {31 << 3, 1};
    batch.count = 2;
    batch.packets[0] = (struct packet){.bytes = control, .length = sizeof control};
    batch.packets[1] = (struct packet){.bytes = odd, .length = sizeof odd};
    CHECK(tcp_to_tun(&fixture->forwarder, fixture->peer, &batch));
    CHECK_EQUAL(batch.count, 0);
    CHECK_EQUAL(fixture_events(fixture), 1u << EVENT_TCP_CONTROL);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_BAD_OPCODE), 1);
    fixture_free(fixture);
}

/* Any bytes at all, with a correct tag or without, on the heap for the sanitizer. Nothing but an allowed packet may
 * come out. */
static void hostile_bytes_do_no_harm(void)
{
    struct fixture *fixture = fixture_new();
    uint64_t random = 99;
    for (uint32_t round = 1; round < 30000; round++) {
        uint8_t payload[128], packet[256];
        size_t length = 1 + next_random(&random) % 90;
        for (size_t i = 0; i < length; i++)
            payload[i] = (uint8_t)next_random(&random);
        if (round % 2)
            payload[0] = round % 4 == 1 ? 0x45 : 0x60;
        if (round % 8 == 1 && length >= 20)
            fixture_ipv4(payload, "10.100.0.2", "10.20.1.1");
        size_t sealed = fixture_client_seal(fixture, packet, round, payload, length);
        if (round % 3 == 0)
            sealed = next_random(&random) % (sealed + 1);
        if (round % 5 == 0)
            packet[next_random(&random) % 8] = (uint8_t)next_random(&random);
        uint8_t *heap = malloc(sealed + 1);
        CHECK(heap != NULL);
        memcpy(heap, packet, sealed);
        struct batch batch = receive(fixture, heap, sealed);
        for (unsigned i = 0; i < batch.count; i++)
            CHECK(batch.packets[i].bytes[0] == 0x45 &&
                  memcmp(batch.packets[i].bytes + 12, "\x0a\x64\x00\x02", 4) == 0);
        free(heap);
        fixture_events(fixture);
    }
    CHECK(atomic_load(&fixture->peer->packets_in) > 100);
    fixture_free(fixture);
}

/* Every format there is, both ways, framed and not, with no byte to spare behind what is sealed. */
static void every_format_passes_both_ways(void)
{
    for (unsigned number = 0; number < FIXTURE_FORMATS; number++) {
        struct fixture *fixture = fixture_new_with(fixture_format(number));
        bool framed = fixture->peer->framing == FRAMING_COMP_LZO;
        uint8_t packet[ROOM], payload[64] = {UNCOMPRESSED}, *inner = payload + framed;
        size_t length = fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
        struct batch batch;
        for (uint32_t id = 1; id <= 3; id++) {
            fixture_datagram(&batch, packet, fixture_client_seal(fixture, packet, id, payload, length + framed));
            injected_to_tun(&fixture->forwarder, fixture->peer, &batch);
            CHECK_EQUAL(batch.count, 1);
            CHECK(batch.packets[0].length == length && memcmp(batch.packets[0].bytes, inner, length) == 0);
            fixture_ipv4(inner, "10.20.1.1", "10.100.0.2");
            uint8_t *room = malloc(SEAL_HEADROOM + length + SEAL_TAILROOM);
            CHECK(room != NULL);
            batch = send_out(fixture, room, inner, length);
            CHECK_EQUAL(batch.count, 1);
            CHECK_EQUAL(batch.packets[0].length, length + framed + fixture_overhead(fixture, length + framed));
            const uint8_t *text = fixture_client_open(fixture, &batch.packets[0]);
            CHECK(text != NULL && memcmp(text, payload, length + framed) == 0);
            fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
            free(room);
        }
        batch = receive(fixture, packet, fixture_client_seal(fixture, packet, 4, payload, length + framed));
        CHECK_EQUAL(batch.count, fixture->peer->data_v1 ? 0 : 1); /* a datagram needs a peer id */
        fixture_free(fixture);
    }
}

/* As with the AEAD ciphers, but the packet id is inside and known only when the packet is authentic. */
static void cbc_packets_meet_the_same(void)
{
    struct fixture *fixture = fixture_new_with((struct fixture_format){.digest = "SHA256"});
    uint8_t packet[ROOM], copy[ROOM], inner[64];
    fixture_ipv4(inner, "10.100.0.2", "10.20.1.1");
    size_t length = fixture_client_seal(fixture, packet, 1, inner, 28);
    for (size_t i = DATA_HEADER; i < length; i++) {
        memcpy(copy, packet, length);
        copy[i] ^= 1;
        CHECK_EQUAL(receive(fixture, copy, length).count, 0);
    }
    CHECK_EQUAL(fixture_dropped(fixture, DROP_AUTH_FAILED), length - DATA_HEADER);
    CHECK_EQUAL(atomic_load(&fixture->peer->last_authentic_ms), 1000);
    memcpy(copy, packet, length);
    CHECK_EQUAL(receive(fixture, copy, length).count, 1);
    memcpy(copy, packet, length);
    CHECK_EQUAL(receive(fixture, copy, length).count, 0);
    CHECK_EQUAL(fixture_dropped(fixture, DROP_REPLAYED), 1);
    receive(fixture, packet, fixture_client_seal(fixture, packet, 0, inner, 28)); /* no id of anybody's */
    CHECK_EQUAL(fixture_dropped(fixture, DROP_REPLAYED), 2);
    receive(fixture, packet, fixture_client_seal(fixture, packet, 2, inner, 0)); /* nothing in it */
    CHECK_EQUAL(fixture_dropped(fixture, DROP_NOT_IP), 1);
    CHECK_EQUAL(receive(fixture, packet, fixture_client_seal(fixture, packet, 2, inner, 28)).count, 1); /* a new id */
    CHECK_EQUAL(fixture_events(fixture), 0);
    CHECK(!atomic_load(&fixture->peer->sending)->counts_blocks);
    fixture_free(fixture);
}

/* An HMAC over anything gets it decrypted, and no further unless it is what a client writes. */
static void authentic_nonsense_of_every_length_ends_here(void)
{
    uint64_t state = 7;
    for (unsigned number = FIXTURE_FORMATS / 2; number < FIXTURE_FORMATS; number++) {
        struct fixture *fixture = fixture_new_with(fixture_format(number));
        unsigned signed_ones = 0;
        for (size_t length = 1; length < 300; length++) {
            uint8_t *heap = malloc(length);
            CHECK(heap != NULL);
            for (size_t i = 0; i < length; i++)
                heap[i] = (uint8_t)next_random(&state);
            signed_ones += fixture_client_sign(fixture, heap, length);
            heap[0] = (uint8_t)((fixture->format.data_v1 ? P_DATA_V1 : P_DATA_V2) << 3 | FIXTURE_KEY);
            struct batch batch;
            fixture_datagram(&batch, heap, length);
            injected_to_tun(&fixture->forwarder, fixture->peer, &batch);
            CHECK_EQUAL(batch.count, 0);
            free(heap);
        }
        CHECK(signed_ones > 200);
        CHECK_EQUAL(fixture_dropped(fixture, DROP_AUTH_FAILED), 0);
        CHECK(fixture_dropped(fixture, DROP_NOT_IP) >= 5); /* the whole blocks */
        CHECK(fixture_dropped(fixture, DROP_TRUNCATED) > 200);
        fixture_free(fixture);
    }
}

/* A login was thrown out at once when its peer was made between a worker's look at the clock and its look at the peers:
 * some time before the peer was there looked like a silence of ages. */
static void who_has_just_come_is_not_silent(void)
{
    struct fixture *fixture = fixture_new();
    struct peer *peer = fixture->peer;
    atomic_store(&peer->last_authentic_ms, 5000);
    CHECK(!peer_is_silent(peer, UINT64_MAX));
    peer->timeout_ms = 1000;
    CHECK(!peer_is_silent(peer, 4999));
    CHECK(!peer_is_silent(peer, 5000));
    CHECK(!peer_is_silent(peer, 5999));
    CHECK(peer_is_silent(peer, 6000));
    fixture_free(fixture);
}

int main(void)
{
    RUN(cbc_packets_meet_the_same);
    RUN(authentic_nonsense_of_every_length_ends_here);
    RUN(every_format_passes_both_ways);
    RUN(allowed_packet_passes_unchanged);
    RUN(padding_behind_the_packet_is_cut_off);
    RUN(each_inner_refusal_has_its_reason);
    RUN(an_error_is_about_what_went_to_the_client_itself);
    RUN(malformed_inner_packets_are_no_ip);
    RUN(outer_refusals_leave_no_trace_on_the_peer);
    RUN(notices_end_here);
    RUN(who_has_just_come_is_not_silent);
    RUN(terminal_event_waits_for_room);
    RUN(float_is_told_five_times_a_second_and_moves_nothing);
    RUN(what_goes_on_and_what_waits_does_not_end_here);
    RUN(control_packet_belongs_behind_data_of_its_client);
    RUN(sealed_packet_opens_at_the_client);
    RUN(unsendable_packets_have_their_reasons);
    RUN(packet_ids_of_every_format_end_before_they_could_begin_anew);
    RUN(too_many_forgeries_kill_the_key);
    RUN(tcp_stream_ends_with_the_first_forgery);
    RUN(hostile_bytes_do_no_harm);
    return 0;
}
