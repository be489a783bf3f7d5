/* TUN to link: any packet, with its headroom, on the heap with no byte to spare. What is sealed must open. */
#include "check.h"
#include "fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fixture *fixture;
    if (fixture == NULL)
        fixture = fixture_new();
    if (size < 1 || size > PACKET_MAX)
        return 0;
    uint8_t *room = malloc(DATA_OVERHEAD + size);
    CHECK(room != NULL);
    memcpy(room + DATA_OVERHEAD, data, size);
    struct batch batch = {.count = 1};
    batch.packets[0] = (struct packet){.bytes = room + DATA_OVERHEAD, .length = (uint32_t)size};
    tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
    if (batch.count > 0)
        CHECK(fixture_client_open(fixture, &batch.packets[0]) != NULL);
    free(room);
    return 0;
}
