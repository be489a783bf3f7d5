/* Link to TUN. The first byte chooses the client's format, and whether the rest is a datagram as it is, is handed in by
 * the control side, or is sealed first, so that the framing and the inner checks are reached too. What is handed in is
 * signed where the format has an HMAC, so that every ciphertext is decrypted. Input lies on the heap with no byte to
 * spare. */
#include "check.h"
#include "fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fixture *fixture_of(unsigned format)
{
    static struct fixture *fixtures[FIXTURE_FORMATS];
    if (fixtures[format] == NULL)
        fixtures[format] = fixture_new_with(fixture_format(format));
    return fixtures[format];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t packet_id;
    if (size < 2 || size - 1 > PACKET_MAX)
        return 0;
    bool seal = data[0] & 1, inject = data[0] & 2;
    struct fixture *fixture = fixture_of((data[0] >> 2) % FIXTURE_FORMATS);
    data++, size--;
    uint8_t *packet = malloc(size + (seal ? fixture_overhead(fixture, size) : 0));
    CHECK(packet != NULL);
    if (seal)
        size = fixture_client_seal(fixture, packet, ++packet_id, data, size);
    else
        memcpy(packet, data, size);
    if (inject && !seal)
        fixture_client_sign(fixture, packet, size);
    struct batch batch;
    fixture_datagram(&batch, packet, size);
    if (inject)
        injected_to_tun(&fixture->forwarder, fixture->peer, &batch);
    else
        link_to_tun(&fixture->forwarder, fixture->listener, &batch);
    for (unsigned i = 0; i < batch.count; i++) {
        struct inner inner;
        CHECK(inner_parse(&inner, batch.packets[i].bytes, batch.packets[i].length));
        CHECK(inner.length == batch.packets[i].length && peer_has_lease(fixture->peer, &inner.source));
    }
    datagrams_free(&fixture->forwarder.whole);
    fixture_events(fixture);
    free(packet);
    return 0;
}
