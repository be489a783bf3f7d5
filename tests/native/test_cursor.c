#include "check.h"
#include "wire.h"

static void reading_stops_at_the_end(void)
{
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7};
    struct cursor cursor = cursor_over(bytes, sizeof bytes);
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    const uint8_t *rest;
    CHECK(take_u8(&cursor, &u8) && u8 == 1);
    CHECK(take_u16(&cursor, &u16) && u16 == 0x0203);
    CHECK(take_u32(&cursor, &u32) && u32 == 0x04050607);
    CHECK(!take_u8(&cursor, &u8) && !take_u16(&cursor, &u16) && !take_u32(&cursor, &u32));
    CHECK(take_bytes(&cursor, 0, &rest) && rest == bytes + sizeof bytes);
}

static void failed_take_leaves_the_cursor(void)
{
    const uint8_t bytes[] = {9, 8, 7};
    struct cursor cursor = cursor_over(bytes, sizeof bytes);
    const uint8_t *rest;
    uint32_t u32;
    CHECK(!take_u32(&cursor, &u32));
    CHECK(!take_bytes(&cursor, SIZE_MAX, &rest));
    CHECK_EQUAL(cursor_left(&cursor), 3);
}

static void numbers_survive_a_round_trip(void)
{
    uint8_t bytes[4];
    put_u32(bytes, 0xDEADBEEF);
    CHECK_EQUAL(get_u32(bytes), 0xDEADBEEF);
    put_u16(bytes, 0xCAFE);
    CHECK_EQUAL(get_u16(bytes), 0xCAFE);
}

int main(void)
{
    RUN(reading_stops_at_the_end);
    RUN(failed_take_leaves_the_cursor);
    RUN(numbers_survive_a_round_trip);
    return 0;
}
