/* A client's packets, one behind the other: two bytes say how long each is. Whatever they hold, what goes on is packets as
 * they came, and what waits stays within bounds. Input lies on the heap with no byte to spare. */
#include "check.h"
#include "checksum.h"
#include "fragments.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct unfinished unfinished = {0};
    struct counters counters = {0};
    struct datagram *whole = NULL;
    uint64_t held = 0, now_ms = 0;
    while (size > 2) {
        size_t length = get_u16(data) % 2048;
        data += 2, size -= 2;
        length = length < size ? length : size;
        uint8_t *packet = malloc(length);
        CHECK(packet != NULL);
        memcpy(packet, data, length);
        data += length, size -= length;
        now_ms += length;
        struct inner inner;
        if (inner_parse(&inner, packet, length) && may_be_fragment(packet)) {
            if (!inner.v6) { /* which chance would not find */
                put_u16(packet + IPV4_CHECKSUM, 0);
                uint16_t sum = checksum_add(0, packet, (packet[0] & 15u) * 4);
                checksum_set_field(packet + IPV4_CHECKSUM, (uint16_t)~sum);
            }
            enum drop_reason reason = fragments_hold(&unfinished, packet, inner.length, now_ms, &counters, &whole);
            held += reason == PACKET_WAITS || reason == PACKET_COMPLETES;
            CHECK(unfinished.count <= UNFINISHED_PACKETS && unfinished.cost <= UNFINISHED_BYTES);
        }
        free(packet);
    }
    fragments_expire(&unfinished, now_ms + UNFINISHED_MS, &counters);
    CHECK(unfinished.oldest == NULL && unfinished.count == 0 && unfinished.cost == 0);
    for (const struct datagram *list = whole; list != NULL;) {
        struct batch batch;
        datagram_take(&list, &batch);
        for (unsigned i = 0; i < batch.count; i++) {
            struct inner inner;
            CHECK(inner_parse(&inner, batch.packets[i].bytes, batch.packets[i].length));
            CHECK_EQUAL(inner.length, batch.packets[i].length);
            held--;
        }
    }
    CHECK_EQUAL(held, atomic_load(&counters.drops[DROP_INCOMPLETE]));
    datagrams_free(&whole);
    return 0;
}
