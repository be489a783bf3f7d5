/* An inner packet that is too big, on the heap with no byte to spare: the first two bytes choose the MTU. What is cut are
 * IPv4 packets that fit and, put together, carry the same payload; an answer is a well-formed ICMP error to the sender. */
#include "check.h"
#include "inner.h"
#include "path.h"
#include "too_big.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_answer(const uint8_t *packet, const struct inner *inner, uint32_t mtu)
{
    uint8_t *answer = malloc(TOO_BIG_ANSWER_MAX);
    CHECK(answer != NULL);
    uint32_t length = too_big_answer(answer, packet, inner->length, mtu);
    struct inner parsed;
    if (length > 0) {
        CHECK(length <= TOO_BIG_ANSWER_MAX && inner_parse(&parsed, answer, length) && parsed.length == length);
        CHECK(parsed.v6 == inner->v6 && ip_equal(&parsed.destination, &inner->source) &&
              ip_equal(&parsed.source, &inner->destination));
        uint8_t *nothing = malloc(TOO_BIG_ANSWER_MAX);
        CHECK(nothing != NULL && too_big_answer(nothing, answer, length, mtu) == 0); /* never about an answer */
        free(nothing);
    }
    free(answer);
}

static void check_pieces(const uint8_t *packet, uint32_t length, uint32_t mtu)
{
    uint8_t *last = malloc(length);
    CHECK(last != NULL);
    memcpy(last, packet, length);
    uint32_t payload = 0;
    while (length > mtu) {
        uint8_t *rest = malloc(length);
        CHECK(rest != NULL);
        uint32_t rest_length = too_big_cut(last, &length, mtu, rest);
        struct inner inner;
        CHECK(length <= mtu && inner_parse(&inner, last, length) && inner.length == length);
        CHECK(memcmp(last + IPV4_HEADER, packet + IPV4_HEADER + payload, length - IPV4_HEADER) == 0);
        payload += length - IPV4_HEADER;
        free(last);
        last = rest;
        length = rest_length;
    }
    CHECK(memcmp(last + IPV4_HEADER, packet + IPV4_HEADER + payload, length - IPV4_HEADER) == 0);
    free(last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size - 2 > PACKET_MAX)
        return 0;
    uint32_t mtu = PATH_TUNNEL_MIN + get_u16(data) % 1000;
    data += 2, size -= 2;
    uint8_t *packet = malloc(size);
    CHECK(packet != NULL);
    memcpy(packet, data, size);
    struct inner inner;
    if (inner_parse(&inner, packet, size)) {
        check_answer(packet, &inner, mtu);
        if (too_big_verdict(packet, inner.length) == TOO_BIG_CUT)
            check_pieces(packet, inner.length, mtu);
    }
    free(packet);
    return 0;
}
