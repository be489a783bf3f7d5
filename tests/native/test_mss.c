#include "check.h"
#include "mss.h"
#include "wire.h"

/* The sum that a correct checksum makes all ones, over pseudo-header and segment. */
static uint16_t folded_sum(const uint8_t *packet, size_t length)
{
    bool v6 = packet[0] >> 4 == 6;
    size_t header = v6 ? 40 : (size_t)(packet[0] & 15) * 4;
    uint32_t sum = 6 + (uint32_t)(length - header);
    const uint8_t *addresses = packet + (v6 ? 8 : 12);
    for (size_t i = 0; i < (v6 ? 32u : 8u); i += 2)
        sum += get_u16(addresses + i);
    for (size_t i = header; i < length; i += 2)
        sum += i + 1 < length ? get_u16(packet + i) : (uint32_t)packet[i] << 8;
    while (sum > 0xFFFF)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

/* A SYN with these option bytes (a multiple of four) and a correct checksum; its length. */
static size_t make_syn(uint8_t *packet, bool v6, const uint8_t *options, size_t options_length)
{
    size_t header = v6 ? 40 : 20;
    size_t length = header + 20 + options_length;
    memset(packet, 0, length);
    if (v6) {
        packet[0] = 0x60;
        put_u16(packet + 4, (uint16_t)(length - 40));
        packet[6] = 6;
        memset(packet + 8, 0xfd, 32);
    } else {
        packet[0] = 0x45;
        put_u16(packet + 2, (uint16_t)length);
        packet[9] = 6;
        memset(packet + 12, 10, 8);
    }
    uint8_t *tcp = packet + header;
    put_u32(tcp, 0xC0DE01BB);
    tcp[12] = (uint8_t)((20 + options_length) / 4 << 4);
    tcp[13] = 0x02;
    if (options_length > 0)
        memcpy(tcp + 20, options, options_length);
    put_u16(tcp + 16, (uint16_t)~folded_sum(packet, length));
    CHECK_EQUAL(folded_sum(packet, length), 0xFFFF);
    return length;
}

static void option_is_lowered_and_the_checksum_stays_right(void)
{
    static const uint8_t even[] = {2, 4, 0x05, 0xb4, 1, 1, 4, 2};
    static const uint8_t odd[] = {1, 2, 4, 0x05, 0xb4, 1, 1, 1};
    for (int v6 = 0; v6 < 2; v6++) {
        uint8_t packet[128];
        size_t mss_at = (v6 ? 40 : 20) + 20 + 2;
        size_t length = make_syn(packet, v6, even, sizeof even);
        mss_clamp(packet, length, 1300, 1280);
        CHECK_EQUAL(get_u16(packet + mss_at), v6 ? 1280 : 1300);
        CHECK_EQUAL(folded_sum(packet, length), 0xFFFF);
        length = make_syn(packet, v6, odd, sizeof odd);
        mss_clamp(packet, length, 1300, 1280);
        CHECK_EQUAL(get_u16(packet + mss_at + 1), v6 ? 1280 : 1300);
        CHECK_EQUAL(folded_sum(packet, length), 0xFFFF);
    }
}

static void unchanged(const uint8_t *packet, size_t length, uint16_t v4, uint16_t v6)
{
    uint8_t copy[128];
    memcpy(copy, packet, length);
    mss_clamp(copy, length, v4, v6);
    CHECK(memcmp(copy, packet, length) == 0);
}

static void other_packets_stay_as_they_are(void)
{
    static const uint8_t options[] = {2, 4, 0x05, 0xb4};
    uint8_t packet[128];
    size_t length = make_syn(packet, false, options, sizeof options);
    unchanged(packet, length, 1460, 1280); /* not above the bound */
    unchanged(packet, length, 0, 1280);    /* no bound */
    packet[20 + 13] = 0x10;                /* ACK */
    unchanged(packet, length, 1300, 1280);
    packet[20 + 13] = 0x02;
    packet[6] = 0x20; /* a fragment */
    unchanged(packet, length, 1300, 1280);
    packet[6] = 0x40; /* "don't fragment" is none */
    mss_clamp(packet, length, 1300, 1280);
    CHECK_EQUAL(get_u16(packet + 42), 1300);
    packet[9] = 17;
    unchanged(packet, length, 1200, 1200);
}

static void broken_options_are_left_alone(void)
{
    static const uint8_t broken[][8] = {
        {2, 5, 0x05, 0xb4, 0, 0, 0, 0},   /* wrong length */
        {8, 0, 2, 4, 0x05, 0xb4, 0, 0},   /* length 0 would never end */
        {8, 1, 2, 4, 0x05, 0xb4, 0, 0},   /* less than its own header */
        {3, 200, 2, 4, 0x05, 0xb4, 0, 0}, /* beyond the header */
        {0, 0, 2, 4, 0x05, 0xb4, 0, 0},   /* after the end */
        {1, 1, 1, 1, 1, 1, 1, 2},         /* the kind is the last byte */
        {1, 1, 1, 1, 1, 1, 2, 4},         /* its value is missing */
    };
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        uint8_t packet[128];
        size_t length = make_syn(packet, false, broken[i], 8);
        unchanged(packet, length, 1300, 1280);
    }
}

/* Every cut of a SYN, on the heap so that the sanitizer sees a step over the end. */
static void truncated_segments_are_not_read_beyond(void)
{
    static const uint8_t options[] = {1, 2, 4, 0x05, 0xb4, 1, 1, 1};
    for (int v6 = 0; v6 < 2; v6++) {
        uint8_t packet[128];
        size_t length = make_syn(packet, v6, options, sizeof options);
        for (size_t cut = v6 ? 40 : 20; cut < length; cut++) {
            uint8_t *heap = malloc(cut);
            CHECK(heap != NULL);
            memcpy(heap, packet, cut);
            mss_clamp(heap, cut, 1300, 1280);
            CHECK(memcmp(heap, packet, cut) == 0);
            free(heap);
        }
    }
}

int main(void)
{
    RUN(option_is_lowered_and_the_checksum_stays_right);
    RUN(other_packets_stay_as_they_are);
    RUN(broken_options_are_left_alone);
    RUN(truncated_segments_are_not_read_beyond);
    return 0;
}
