/* A batch of inner packets, alone or as super-packets: of each, a length of two bytes and as many bytes, on the heap with no
 * byte to spare. The length's highest five bits say how many segments more there are. What goes first came alone, no
 * packet passes one that may be of its flow, and what came together stays together. */
#include "check.h"
#include "inner.h"
#include "sparse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct view {
    bool whole; /* an IP packet; others are dropped behind, in whichever order */
    bool v6, shows_ports, unknown;
    uint8_t protocol;
    uint8_t addresses[32];
    uint32_t ports;
};

static struct view view_of(const struct packet *packet)
{
    const uint8_t *bytes = packet->bytes;
    struct inner inner;
    struct view view = {.whole = inner_parse(&inner, bytes, packet->length)};
    if (!view.whole)
        return view;
    view.v6 = inner.v6;
    view.protocol = bytes[inner.v6 ? 6 : 9];
    memcpy(view.addresses, inner.source.bytes, 16);
    memcpy(view.addresses + 16, inner.destination.bytes, 16);
    bool tcp_or_udp = view.protocol == 6 || view.protocol == 17;
    view.unknown = inner.v6 && !tcp_or_udp && view.protocol != 58;
    uint32_t at = inner.v6 ? 40 : (bytes[0] & 15u) * 4;
    bool fragment = !inner.v6 && (bytes[6] & 0x3F) + bytes[7] != 0;
    view.shows_ports = tcp_or_udp && !fragment && packet->length >= at + 4;
    if (view.shows_ports)
        view.ports = get_u32(bytes + at);
    return view;
}

static bool may_be_one_flow(const struct view *a, const struct view *b)
{
    if (!a->whole || !b->whole || a->v6 != b->v6)
        return false;
    if (a->unknown || b->unknown)
        return true;
    return a->protocol == b->protocol && memcmp(a->addresses, b->addresses, 32) == 0 &&
           (!a->shows_ports || !b->shows_ports || a->ports == b->ports);
}

static void fill(struct batch *batch, const uint8_t *data, size_t size)
{
    batch->count = 0;
    while (size > 2 && batch->count < BATCH_PACKETS) {
        uint32_t length = get_u16(data) & 0x7FF;
        unsigned segments = 1 + (data[0] >> 3);
        data += 2, size -= 2;
        if (length == 0)
            length = 1;
        if (length > size)
            length = (uint32_t)size;
        for (unsigned i = 0; i < segments && batch->count < BATCH_PACKETS; i++) {
            uint8_t *bytes = malloc(length);
            CHECK(bytes != NULL);
            memcpy(bytes, data, length);
            batch->packets[batch->count] =
                (struct packet){.bytes = bytes, .length = length, .peer_id = batch->count, .follows = i > 0};
            batch->count++;
        }
        data += length, size -= length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct batch before, after;
    fill(&before, data, size);
    after.count = before.count;
    memcpy(after.packets, before.packets, before.count * sizeof before.packets[0]);
    sparse_first(&after);
    CHECK_EQUAL(after.count, before.count);

    unsigned place[BATCH_PACKETS];
    struct view views[BATCH_PACKETS];
    memset(place, 0xFF, sizeof place);
    for (unsigned i = 0; i < after.count; i++) {
        unsigned number = after.packets[i].peer_id;
        CHECK(number < before.count && place[number] >= before.count);
        place[number] = i;
        CHECK(after.packets[i].bytes == before.packets[number].bytes &&
              after.packets[i].length == before.packets[number].length &&
              after.packets[i].follows == before.packets[number].follows);
        views[number] = view_of(&before.packets[number]);
    }
    for (unsigned i = 0; i < before.count; i++) {
        bool together = before.packets[i].follows || (i + 1 < before.count && before.packets[i + 1].follows);
        CHECK(!before.packets[i].follows || place[i] == place[i - 1] + 1);
        for (unsigned j = 0; j < i; j++)
            CHECK(place[j] < place[i] || (!together && !may_be_one_flow(&views[j], &views[i])));
    }
    for (unsigned i = 0; i < before.count; i++)
        free(before.packets[i].bytes);
    return 0;
}
