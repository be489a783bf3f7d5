/* Link to TUN. The first byte chooses: the rest as a datagram as it is, or sealed first, so that the inner checks are
 * reached too. Input lies on the heap with no byte to spare. */
#include "check.h"
#include "fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fixture *fixture;
    static uint32_t packet_id;
    if (fixture == NULL)
        fixture = fixture_new();
    if (size < 1 || size - 1 > PACKET_MAX)
        return 0;
    bool seal = data[0] & 1;
    data++, size--;
    uint8_t *packet = malloc(size + (seal ? DATA_OVERHEAD : 0) + 1);
    CHECK(packet != NULL);
    if (seal)
        size = fixture_client_seal(fixture, packet, ++packet_id, data, size);
    else
        memcpy(packet, data, size);
    struct batch batch;
    fixture_datagram(&batch, packet, size);
    link_to_tun(&fixture->forwarder, fixture->listener, &batch);
    for (unsigned i = 0; i < batch.count; i++) {
        struct inner inner;
        CHECK(inner_parse(&inner, batch.packets[i].bytes, batch.packets[i].length));
        CHECK(inner.length == batch.packets[i].length && peer_has_lease(fixture->peer, &inner.source));
    }
    fixture_events(fixture);
    free(packet);
    return 0;
}
