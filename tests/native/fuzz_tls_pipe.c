/* A stream of TLS records in packets, through a pipe whose library is a few lines: what it is told of records is what a
 * second reader, of one byte at a time, finds there, however they were cut.
 *
 * The first byte says with which record the handshake is complete (0: never), the second how far the limit of a handshake
 * is used up before; then packets, each with its length in one byte. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tls_pipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTENT_MAX = TLS_RECORD_MAX + 2048, STREAM_MAX = 1 << 16 };

/* What it was fed, on the heap with no byte to spare, and how much of it is read. */
static struct {
    uint8_t *bytes;
    size_t length, read;
    unsigned records, complete_with;
    bool alert;
} library;

static bool is_record(const uint8_t *head)
{
    return head[0] >= 20 && head[0] <= 23 && head[1] == 3 && ((size_t)head[3] << 8 | head[4]) <= CONTENT_MAX;
}

/* 1: there was a record, 0: there is none yet, -1: there never will be. */
static int next_record(void)
{
    size_t left = library.length - library.read;
    if (library.alert || left == 0)
        return library.alert ? -1 : 0;
    CHECK(left >= TLS_RECORD_HEADER); /* heads come whole */
    const uint8_t *head = library.bytes + library.read;
    library.alert = !is_record(head);
    size_t whole = TLS_RECORD_HEADER + ((size_t)head[3] << 8 | head[4]);
    if (library.alert || left < whole)
        return library.alert ? -1 : 0;
    library.read += whole;
    library.records++;
    return 1;
}

static int wants = 2;

static int do_handshake(void *ssl)
{
    (void)ssl;
    int got = 0;
    while (library.records != library.complete_with || library.complete_with == 0)
        if ((got = next_record()) != 1) {
            wants = got == 0 ? 2 : 1;
            return -1;
        }
    return 1;
}

static int get_error(const void *ssl, int result) { return (void)ssl, (void)result, wants; }

static int read_record(void *ssl, void *buffer, int size)
{
    (void)ssl;
    CHECK_EQUAL(size, TLS_RECORD_MAX);
    int got = next_record();
    wants = got == 0 ? 2 : 1;
    memset(buffer, 'x', 1);
    return got == 1 ? 1 : -1;
}

static int version(const void *ssl) { return (void)ssl, 0x0304; }

static int write_bio(void *bio, const void *buffer, int size)
{
    (void)bio;
    CHECK(size > 0);
    uint8_t *grown = malloc(library.length + (size_t)size);
    CHECK(grown != NULL);
    if (library.length > 0)
        memcpy(grown, library.bytes, library.length);
    memcpy(grown + library.length, buffer, (size_t)size);
    free(library.bytes);
    library.bytes = grown;
    library.length += (size_t)size;
    return size;
}

static long mem_data(void *bio, char **data) { return (void)bio, (void)data, (long)(library.length - library.read); }

static const struct tls_calls CALLS = {
    .SSL_do_handshake = do_handshake,
    .SSL_get_error = get_error,
    .SSL_read = read_record,
    .SSL_version = version,
    .BIO_write = write_bio,
    .BIO_get_mem_data = mem_data,
};

/* The second reader: all that came, and where the heads are. */
static struct {
    uint8_t bytes[STREAM_MAX];
    size_t length, record, announced;
    size_t whole_heads; /* to here no head is cut */
    size_t too_much;    /* a record begins here with which it is too much for a handshake */
} stream;

static void append(const uint8_t *packet, size_t length)
{
    CHECK(stream.length + length <= sizeof stream.bytes);
    memcpy(stream.bytes + stream.length, packet, length);
    stream.length += length;
    while (stream.record + TLS_RECORD_HEADER <= stream.length) {
        const uint8_t *head = stream.bytes + stream.record;
        size_t whole = TLS_RECORD_HEADER + ((size_t)head[3] << 8 | head[4]);
        stream.announced += whole;
        if (stream.announced > TLS_HANDSHAKE_MAX && stream.too_much == SIZE_MAX)
            stream.too_much = stream.record;
        stream.record += whole;
    }
    stream.whole_heads = stream.record < stream.length ? stream.record : stream.length;
}

static enum tls_result visit(struct tls_pipe *pipe, const uint8_t *packet, size_t length)
{
    static uint8_t record[TLS_RECORD_MAX];
    struct tls_visit seen;
    size_t got;
    enum tls_result result = tls_pipe_feed(pipe, packet, length, &seen);
    if (result == TLS_GOES_ON && (result = tls_pipe_handshake(pipe, &seen)) == TLS_GOES_ON) {
        while ((result = tls_pipe_read(pipe, record, &got, &seen)) == TLS_GOES_ON)
            CHECK_EQUAL(got, 1);
        if (result == TLS_WAITS)
            tls_pipe_leave(pipe, &seen);
    }
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct tls_pipe pipe;
    tls_pipe_init(&pipe, &CALLS, &pipe, &pipe, &pipe, true);
    memset(&library, 0, sizeof library);
    memset(&stream, 0, sizeof stream);
    library.complete_with = data[0];
    stream.announced = pipe.records.announced = (size_t)data[1] * 128;
    stream.too_much = SIZE_MAX;
    data += 2, size -= 2;
    enum tls_result result = TLS_WAITS;
    while (result == TLS_WAITS && size > 0 && stream.length + UINT8_MAX <= sizeof stream.bytes) {
        size_t length = data[0] < size ? data[0] : size - 1;
        data++, size--;
        uint8_t *packet = malloc(length + (length == 0));
        CHECK(packet != NULL);
        memcpy(packet, data, length);
        append(packet, length);
        bool handshaking = !pipe.established;
        result = visit(&pipe, packet, length);
        free(packet);
        data += length, size -= length;
        CHECK(result != TLS_GOES_ON && result != TLS_NO_MEMORY);
        if (pipe.handshake_too_long) {
            CHECK(handshaking && result == TLS_FAILED && library.alert); /* the peer hears of it */
            CHECK_EQUAL(library.length, stream.too_much + TLS_RECORD_HEADER);
            CHECK(memcmp(library.bytes, stream.bytes, library.length - 2) == 0);
            continue;
        }
        CHECK_EQUAL(library.alert, result == TLS_FAILED);
        CHECK(memcmp(library.bytes != NULL ? library.bytes : stream.bytes, stream.bytes, library.length) == 0);
        if (result == TLS_FAILED)
            continue;
        CHECK_EQUAL(library.length, stream.whole_heads);
        CHECK(pipe.established || stream.too_much == SIZE_MAX);
        CHECK_EQUAL(next_record(), 0); /* it was asked for all that it could read */
    }
    free(library.bytes);
    return 0;
}
