/* A virtio header and what follows it, whoever wrote them: on the heap with no byte to spare. What is split off is IP,
 * is no longer than a packet may be, and carries the super-packet's payload. */
#include "check.h"
#include "inner.h"
#include "offload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= VIRTIO_HEADER || size > VIRTIO_HEADER + SUPER_MAX)
        return 0;
    struct virtio_header header;
    memcpy(&header, data, VIRTIO_HEADER);
    size -= VIRTIO_HEADER;
    uint8_t *packet = malloc(size);
    CHECK(packet != NULL);
    memcpy(packet, data + VIRTIO_HEADER, size);
    struct split split;
    if (split_begin(&split, &header, packet, (uint32_t)size)) {
        uint32_t payload = 0, headers = split.headers;
        while (!split_done(&split)) {
            uint8_t *segment = malloc(PACKET_MAX);
            CHECK(segment != NULL);
            uint32_t length = split_next(&split, segment);
            struct inner inner;
            CHECK(length <= PACKET_MAX && inner_parse(&inner, segment, length) && inner.length == length);
            payload += length - headers;
            free(segment);
        }
        CHECK(payload == split.length - headers);
    }
    free(packet);
    return 0;
}
