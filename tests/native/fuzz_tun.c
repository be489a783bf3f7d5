/* TUN to link: any packet, with the room that sealing takes, on the heap with no byte to spare. What is sealed must open,
 * in the format that the first byte chooses. */
#include "check.h"
#include "fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fixture *fixtures[FIXTURE_FORMATS];
    if (size < 2 || size - 1 > PACKET_MAX)
        return 0;
    unsigned format = data[0] % FIXTURE_FORMATS;
    if (fixtures[format] == NULL)
        fixtures[format] = fixture_new_with(fixture_format(format));
    struct fixture *fixture = fixtures[format];
    data++, size--;
    uint8_t *room = malloc(SEAL_HEADROOM + size + SEAL_TAILROOM);
    CHECK(room != NULL);
    memcpy(room + SEAL_HEADROOM, data, size);
    struct batch batch = {.count = 1};
    batch.packets[0] = (struct packet){.bytes = room + SEAL_HEADROOM, .length = (uint32_t)size};
    tun_to_link(&fixture->forwarder, fixture->endpoint, &batch);
    if (batch.count > 0)
        CHECK(fixture_client_open(fixture, &batch.packets[0]) != NULL);
    struct aside *aside = &fixture->aside;
    for (unsigned i = 0; i < aside->pieces.count; i++)
        CHECK(fixture_client_open(fixture, &aside->pieces.packets[i]) != NULL);
    struct inner inner;
    for (unsigned i = 0; i < aside->answers.count; i++)
        CHECK(inner_parse(&inner, aside->answers.packets[i].bytes, aside->answers.packets[i].length));
    aside_reset(aside);
    fixture->forwarder.now_ms += 10;
    free(room);
    return 0;
}
