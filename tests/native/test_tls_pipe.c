/* The pipe without OpenSSL: how records are counted, and what is called when. tests/wire/test_tls.py has the real one. */
#include <string.h>

#include "check.h"
#include "tls_pipe.h"

static void records_are_counted_however_they_are_cut(void)
{
    static const uint8_t stream[] = {
        22, 3, 3, 0, 2, 1, 2, /* a record of two bytes */
        23, 3, 3, 0, 0,       /* an empty one, for OpenSSL to look at */
        23, 3, 3, 0, 1, 9,    /* and one of one byte */
    };
    for (size_t size = 1; size <= sizeof stream; size++) {
        struct tls_records records = {.left = 0};
        size_t begun = 0, ended = 0;
        for (size_t at = 0; at < sizeof stream; at += size) {
            size_t length = sizeof stream - at < size ? sizeof stream - at : size, begins, ends;
            tls_records_count(&records, stream + at, length, &begins, &ends);
            begun += begins;
            ended += ends;
        }
        CHECK_EQUAL(begun, 3);
        CHECK_EQUAL(ended, 3);
        CHECK(records.left == 0 && records.header_length == 0);
    }
}

static void what_cannot_be_a_record_is_to_be_looked_at_at_once(void)
{
    static const uint8_t strange[][5] = {
        {'G', 'E', 'T', ' ', '/'}, {22, 2, 0, 0, 32}, {22, 3, 1, 0xff, 0xff}, {0, 0, 0, 0, 0}, {24, 3, 3, 0, 1}};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        struct tls_records records = {.left = 0};
        size_t begun, ended;
        tls_records_count(&records, strange[i], sizeof strange[i], &begun, &ended);
        CHECK(begun == 1 && ended == 1);
    }
    struct tls_records records = {.left = 0};
    size_t begun, ended;
    tls_records_count(&records, strange[0], 4, &begun, &ended);
    CHECK(begun == 0 && ended == 0); /* not a header yet */
}

/* A library whose answers are written down before. */
static int answer, wants;
static long unread;
static unsigned handshakes, reads;

static int do_handshake(void *ssl) { return (void)ssl, handshakes++, answer; }
static int get_error(const void *ssl, int result) { return (void)ssl, (void)result, wants; }
static int read_record(void *ssl, void *buffer, int size)
{
    (void)ssl;
    reads++;
    memset(buffer, 'x', 3);
    return answer > 0 && size == TLS_RECORD_MAX ? 3 : answer;
}
static int version(const void *ssl) { return (void)ssl, 0x0304; }
static uint8_t last_written[TLS_RECORD_HEADER];
static int write_bio(void *bio, const void *buffer, int size)
{
    (void)bio;
    if (size == TLS_RECORD_HEADER)
        memcpy(last_written, buffer, sizeof last_written);
    return size;
}
static long mem_data(void *bio, char **data) { return (void)bio, (void)data, unread; }

static const struct tls_calls CALLS = {
    .SSL_do_handshake = do_handshake,
    .SSL_get_error = get_error,
    .SSL_read = read_record,
    .SSL_version = version,
    .BIO_write = write_bio,
    .BIO_get_mem_data = mem_data,
};
static const uint8_t RECORD[] = {22, 3, 3, 0, 1, 0};

static enum tls_result visit_of(struct tls_pipe *pipe, const uint8_t *bytes, size_t length, struct tls_visit *visit)
{
    uint8_t record[TLS_RECORD_MAX];
    size_t size;
    enum tls_result result = tls_pipe_feed(pipe, bytes, length, visit);
    if (result == TLS_GOES_ON && (result = tls_pipe_handshake(pipe, visit)) == TLS_GOES_ON) {
        while ((result = tls_pipe_read(pipe, record, &size, visit)) == TLS_GOES_ON)
            CHECK_EQUAL(size, 3);
        if (result == TLS_WAITS)
            tls_pipe_leave(pipe, visit);
    }
    return result;
}

static enum tls_result visit(struct tls_pipe *pipe, size_t length, struct tls_visit *seen)
{
    return visit_of(pipe, RECORD, length, seen);
}

static void openssl_is_asked_no_more_than_it_can_answer(void)
{
    struct tls_pipe pipe;
    struct tls_visit seen;
    tls_pipe_init(&pipe, &CALLS, &pipe, &pipe, &pipe, true);
    answer = -1, wants = 2, unread = 0, handshakes = reads = 0;
    CHECK_EQUAL(visit(&pipe, 4, &seen), TLS_WAITS); /* a part of a record */
    CHECK_EQUAL(handshakes, 0);
    tls_pipe_init(&pipe, &CALLS, &pipe, &pipe, &pipe, true);
    CHECK_EQUAL(visit(&pipe, sizeof RECORD, &seen), TLS_WAITS);
    CHECK(handshakes == 1 && !pipe.established && pipe.has_spoken);
    answer = 1;
    CHECK_EQUAL(visit(&pipe, sizeof RECORD, &seen), TLS_WAITS);
    CHECK(handshakes == 2 && pipe.established && reads == 0); /* nothing is left of what it was fed */
    CHECK(!pipe.has_spoken);                                  /* tickets can wait */
    CHECK_EQUAL(visit(&pipe, sizeof RECORD, &seen), TLS_WAITS);
    CHECK(handshakes == 2 && reads == 1 && seen.records == 1 && pipe.silent_records == 0);
    answer = -1;
    for (unsigned i = 1; i < 5; i++) { /* key updates, say */
        CHECK_EQUAL(visit(&pipe, sizeof RECORD, &seen), TLS_WAITS);
        CHECK(pipe.silent_records == i && pipe.has_spoken);
    }
    wants = 1;
    CHECK_EQUAL(visit(&pipe, sizeof RECORD, &seen), TLS_FAILED);
    CHECK_EQUAL(seen.answer, -1);
}

static void what_follows_the_handshake_in_one_flight_is_read(void)
{
    struct tls_pipe pipe;
    struct tls_visit seen;
    tls_pipe_init(&pipe, &CALLS, &pipe, &pipe, &pipe, true);
    uint8_t record[TLS_RECORD_MAX];
    size_t size;
    answer = 1, wants = 2, unread = 20, reads = 0;
    CHECK_EQUAL(tls_pipe_feed(&pipe, RECORD, sizeof RECORD, &seen), TLS_GOES_ON);
    CHECK_EQUAL(tls_pipe_handshake(&pipe, &seen), TLS_GOES_ON);
    CHECK_EQUAL(tls_pipe_read(&pipe, record, &size, &seen), TLS_GOES_ON);
    CHECK_EQUAL(tls_pipe_read(&pipe, record, &size, &seen), TLS_GOES_ON);
    answer = -1;
    CHECK_EQUAL(tls_pipe_read(&pipe, record, &size, &seen), TLS_WAITS);
    tls_pipe_leave(&pipe, &seen);
    CHECK(seen.records == 2 && pipe.silent_records == 0);
}

static void a_handshake_ends_before_the_record_that_is_too_much(void)
{
    enum { LEFT = 100 };
    static uint8_t stream[TLS_HANDSHAKE_MAX + LEFT]; /* records of 1000 bytes with their heads */
    for (size_t at = 0; at + TLS_RECORD_HEADER <= sizeof stream; at += 1000)
        memcpy(stream + at, (const uint8_t[]){22, 3, 3, 995 >> 8, 995 & 0xff}, TLS_RECORD_HEADER);
    const size_t too_much = TLS_HANDSHAKE_MAX / 1000 * 1000;
    for (size_t size = 1; size <= sizeof stream; size += size < 1100 ? 1 : 4001) {
        struct tls_records records = {.left = 0};
        size_t begun, ended, found = SIZE_MAX;
        for (size_t at = 0; at < sizeof stream; at += size) {
            size_t length = sizeof stream - at < size ? sizeof stream - at : size;
            tls_records_count(&records, stream + at, length, &begun, &ended);
            if (records.beyond < length) {
                CHECK_EQUAL(found, SIZE_MAX);
                found = at + records.beyond;
            }
        }
        CHECK(found >= too_much && found < too_much + TLS_RECORD_HEADER); /* later where its head was cut */
    }
    struct tls_pipe pipe;
    struct tls_visit seen;
    for (int established = 0; established <= 1; established++) {
        tls_pipe_init(&pipe, &CALLS, &pipe, &pipe, &pipe, true);
        answer = established ? 1 : -1, wants = 2, unread = 0, handshakes = 0;
        CHECK_EQUAL(tls_pipe_feed(&pipe, stream, sizeof stream, &seen), TLS_GOES_ON);
        CHECK(seen.rest == stream + too_much && seen.rest_length == sizeof stream - too_much);
        CHECK_EQUAL(tls_pipe_handshake(&pipe, &seen), established ? TLS_GOES_ON : TLS_FAILED);
        CHECK(handshakes == (established ? 1 : 2) && pipe.handshake_too_long == !established);
    }
    CHECK_EQUAL(tls_pipe_feed(&pipe, stream, sizeof stream, &seen), TLS_GOES_ON);
    CHECK(seen.rest == NULL); /* after the handshake there is no limit */
}

static void the_alert_is_asked_for_wherever_the_head_is_cut(void)
{
    static uint8_t stream[TLS_HANDSHAKE_MAX + 1000];
    for (size_t at = 0; at + TLS_RECORD_HEADER <= sizeof stream; at += 1000)
        memcpy(stream + at, (const uint8_t[]){22, 3, 1, 995 >> 8, 995 & 0xff}, TLS_RECORD_HEADER);
    const size_t too_much = TLS_HANDSHAKE_MAX / 1000 * 1000;
    for (size_t cut = 0; cut <= TLS_RECORD_HEADER; cut++)
        for (size_t next = 1; next <= TLS_RECORD_HEADER; next++) {
            struct tls_pipe pipe;
            struct tls_visit seen;
            tls_pipe_init(&pipe, &CALLS, &pipe, &pipe, &pipe, true);
            answer = -1, wants = 2, unread = 0;
            CHECK_EQUAL(visit_of(&pipe, stream, too_much + cut, &seen),
                        cut < TLS_RECORD_HEADER ? TLS_WAITS : TLS_FAILED);
            for (size_t at = too_much + cut; at < too_much + TLS_RECORD_HEADER; at += next)
                CHECK_EQUAL(visit_of(&pipe, stream + at, next, &seen),
                            at + next < too_much + TLS_RECORD_HEADER ? TLS_WAITS : TLS_FAILED);
            CHECK(pipe.handshake_too_long && memcmp(last_written, (const uint8_t[]){22, 3, 1, 0xff, 0xff}, 5) == 0);
        }
}

int main(void)
{
    RUN(records_are_counted_however_they_are_cut);
    RUN(what_cannot_be_a_record_is_to_be_looked_at_at_once);
    RUN(openssl_is_asked_no_more_than_it_can_answer);
    RUN(what_follows_the_handshake_in_one_flight_is_read);
    RUN(a_handshake_ends_before_the_record_that_is_too_much);
    RUN(the_alert_is_asked_for_wherever_the_head_is_cut);
    return 0;
}
