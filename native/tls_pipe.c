#include "tls_pipe.h"

#include <limits.h>
#include <string.h>

enum {
    WANT_READ = 2, /* SSL_ERROR_WANT_READ */
    TLS_1_3 = 0x0304,
    CONTENT_TYPE_FIRST = 20,
    CONTENT_TYPE_LAST = 23,
    CONTENT_HANDSHAKE = 22,
    MESSAGE_HEADER = 4, /* type, length */
    MESSAGE_CERTIFICATE = 11,
    CIPHERTEXT_MAX = TLS_RECORD_MAX + 2048, /* TLS 1.2 allows that much in a record */
};

void tls_pipe_init(struct tls_pipe *pipe, const struct tls_calls *calls, void *ssl, void *reads, void *writes,
                   bool server)
{
    *pipe = (struct tls_pipe){
        .calls = calls, .ssl = ssl, .reads = reads, .writes = writes, .server = server, .has_grown = true};
}

void tls_records_count(struct tls_records *records, const uint8_t *bytes, size_t length, size_t *begun, size_t *ended)
{
    const uint8_t *first = bytes;
    *begun = *ended = 0;
    records->beyond = SIZE_MAX;
    while (length > 0) {
        if (records->left == 0) {
            size_t missing = TLS_RECORD_HEADER - records->header_length, step = length < missing ? length : missing;
            memcpy(records->header + records->header_length, bytes, step);
            records->header_length += (unsigned)step;
            bytes += step;
            length -= step;
            if (step < missing)
                return;
            const uint8_t *header = records->header;
            records->header_length = 0;
            records->left = (size_t)header[3] << 8 | header[4];
            size_t before = records->announced, consumed = (size_t)(bytes - first);
            records->announced += TLS_RECORD_HEADER + records->left;
            if (before <= TLS_HANDSHAKE_MAX && records->announced > TLS_HANDSHAKE_MAX)
                records->beyond = consumed > TLS_RECORD_HEADER ? consumed - TLS_RECORD_HEADER : 0;
            bool plausible = header[0] >= CONTENT_TYPE_FIRST && header[0] <= CONTENT_TYPE_LAST && header[1] == 3 &&
                             records->left <= CIPHERTEXT_MAX;
            ++*begun;
            *ended += !plausible || records->left == 0;
        }
        size_t step = records->left < length ? records->left : length;
        records->left -= step;
        bytes += step;
        length -= step;
        *ended += step > 0 && records->left == 0;
    }
}

/* Whose step of the handshake this thread is in: OpenSSL names the SSL, and there is no way from that to its pipe. */
static _Thread_local struct tls_pipe *in_step;

/* There is no answer to OpenSSL here. But the message lies in its buffer, where it reads it next, and with 0xff
 * throughout it is no Certificate message in any version: the handshake ends with an alert. */
static void message_seen(int sent, int version, int content_type, const void *message, size_t length, void *ssl,
                         void *argument)
{
    (void)ssl, (void)argument;
    const uint8_t *bytes = message;
    if (sent || content_type != CONTENT_HANDSHAKE || length < MESSAGE_HEADER || bytes[0] != MESSAGE_CERTIFICATE)
        return;
    enum certificates_problem problem =
        certificates_judge(bytes + MESSAGE_HEADER, length - MESSAGE_HEADER, version == TLS_1_3);
    if (problem == CERTIFICATES_GOOD)
        return;
    if (in_step != NULL)
        in_step->certificates = problem;
    memset((uint8_t *)message + MESSAGE_HEADER, 0xff, length - MESSAGE_HEADER);
}

void tls_judge_certificates(const struct tls_calls *calls, void *context)
{
    calls->SSL_CTX_set_msg_callback(context, message_seen);
}

/* Whether OpenSSL has yet to look at something that it was fed. Mostly not: to ask for a record in vain takes longer
 * than to read one. */
static bool holds_more(const struct tls_pipe *pipe) { return pipe->calls->BIO_get_mem_data(pipe->reads, NULL) > 0; }

static enum tls_result wait_or_fail(const struct tls_pipe *pipe, int answer, struct tls_visit *visit)
{
    visit->answer = answer;
    return pipe->calls->SSL_get_error(pipe->ssl, answer) == WANT_READ ? TLS_WAITS : TLS_FAILED;
}

static bool write_all(const struct tls_pipe *pipe, const uint8_t *bytes, size_t length)
{
    return length == 0 || pipe->calls->BIO_write(pipe->reads, bytes, (int)length) == (int)length;
}

enum tls_result tls_pipe_feed(struct tls_pipe *pipe, const uint8_t *bytes, size_t length, struct tls_visit *visit)
{
    struct tls_records *records = &pipe->records;
    *visit = (struct tls_visit){.first = !pipe->established, .cut_length = records->header_length};
    if (length > INT_MAX)
        return TLS_NO_MEMORY;
    memcpy(visit->cut, records->header, visit->cut_length);
    tls_records_count(records, bytes, length, &visit->begun, &visit->ended);
    if (visit->cut_length > 0 && visit->begun == 0)
        return TLS_WAITS; /* that head is still not whole */
    const uint8_t *fed_end = bytes + length - records->header_length;
    if (visit->first && records->beyond < length) {
        visit->rest = bytes + records->beyond;
        visit->rest_length = (size_t)(fed_end - visit->rest);
        visit->ended = 1; /* whatever comes of it, it is now */
        fed_end = visit->rest;
    }
    if (visit->rest != bytes) { /* the head that was cut is of what comes first */
        if (!write_all(pipe, visit->cut, visit->cut_length))
            return TLS_NO_MEMORY;
        visit->cut_length = 0;
    }
    if (!write_all(pipe, bytes, (size_t)(fed_end - bytes)))
        return TLS_NO_MEMORY;
    return visit->ended > 0 ? TLS_GOES_ON : TLS_WAITS; /* the rest of a record: nothing that OpenSSL could do */
}

/* OpenSSL answers the head of a record that TLS does not allow with an alert, as it alone can, and ends there. */
static enum tls_result end_long_handshake(struct tls_pipe *pipe, struct tls_visit *visit)
{
    uint8_t head[TLS_RECORD_HEADER];
    memcpy(head, visit->cut, visit->cut_length);
    memcpy(head + visit->cut_length, visit->rest, sizeof head - visit->cut_length);
    head[3] = head[4] = 0xff;
    pipe->handshake_too_long = true;
    if (!write_all(pipe, head, sizeof head))
        return TLS_NO_MEMORY;
    visit->answer = pipe->calls->SSL_do_handshake(pipe->ssl);
    return TLS_FAILED;
}

enum tls_result tls_pipe_handshake(struct tls_pipe *pipe, struct tls_visit *visit)
{
    if (pipe->established)
        return TLS_GOES_ON;
    pipe->has_spoken = true;
    in_step = pipe;
    int answer = pipe->calls->SSL_do_handshake(pipe->ssl);
    in_step = NULL;
    if (answer != 1) {
        enum tls_result result = wait_or_fail(pipe, answer, visit);
        return result == TLS_WAITS && visit->rest != NULL ? end_long_handshake(pipe, visit) : result;
    }
    pipe->established = true;
    if (visit->rest != NULL) { /* it was long enough, and this is what follows it */
        /* No head is cut here: before one, OpenSSL would have been at the end of the handshake a visit ago. */
        if (!write_all(pipe, visit->rest, visit->rest_length))
            return TLS_NO_MEMORY;
    }
    visit->begun = 0;
    visit->ended = holds_more(pipe) ? SIZE_MAX : 0; /* some of it was the handshake's */
    return TLS_GOES_ON;
}

enum tls_result tls_pipe_read(struct tls_pipe *pipe, uint8_t record[static TLS_RECORD_MAX], size_t *length,
                              struct tls_visit *visit)
{
    /* To ask for another where there can be none costs more than the record. */
    if (visit->records >= visit->ended)
        return TLS_WAITS;
    int answer = pipe->calls->SSL_read(pipe->ssl, record, TLS_RECORD_MAX);
    if (answer <= 0) {
        pipe->has_spoken = true; /* a key update is answered, an error with an alert */
        return wait_or_fail(pipe, answer, visit);
    }
    visit->records++;
    *length = (size_t)answer;
    return TLS_GOES_ON;
}

void tls_pipe_leave(struct tls_pipe *pipe, const struct tls_visit *visit)
{
    /* Our last word was said a flight ago. What there is now are tickets, which nobody uses and OpenSSL insists on
     * (auth/context.py): they go along with the next record, not in a packet that is acknowledged by itself. */
    if (visit->first && pipe->server && pipe->calls->SSL_version(pipe->ssl) == TLS_1_3)
        pipe->has_spoken = false;
    size_t silent = pipe->silent_records + visit->begun;
    silent = silent > visit->records ? silent - visit->records : 0;
    pipe->silent_records = silent < UINT_MAX ? (unsigned)silent : UINT_MAX;
}

enum tls_result tls_pipe_send(struct tls_pipe *pipe, const uint8_t *bytes, size_t length, int *answer)
{
    pipe->has_spoken = true;
    while (length > 0) {
        int step = length < TLS_RECORD_MAX ? (int)length : TLS_RECORD_MAX;
        *answer = pipe->calls->SSL_write(pipe->ssl, bytes, step);
        if (*answer != step) /* all or nothing, unless it is asked to write in parts */
            return TLS_FAILED;
        bytes += step;
        length -= (size_t)step;
    }
    return TLS_GOES_ON;
}

size_t tls_pipe_output_length(struct tls_pipe *pipe)
{
    if (!pipe->has_spoken)
        return 0;
    pipe->has_spoken = false;
    long length = pipe->calls->BIO_get_mem_data(pipe->writes, NULL);
    return length > 0 ? (size_t)length : 0;
}

/* Both BIOs for new ones, which saves 6 kB. Not while one of them still holds something. */
static void renew_buffers(struct tls_pipe *pipe)
{
    const struct tls_calls *calls = pipe->calls;
    if (holds_more(pipe) || calls->BIO_get_mem_data(pipe->writes, NULL) > 0)
        return;
    void *reads = calls->BIO_new(calls->BIO_s_mem()), *writes = calls->BIO_new(calls->BIO_s_mem());
    if (reads == NULL || writes == NULL) {
        calls->BIO_free(reads); /* which takes NULL */
        calls->BIO_free(writes);
        return;
    }
    calls->SSL_set_bio(pipe->ssl, reads, writes); /* frees what it had, and owns these */
    pipe->reads = reads;
    pipe->writes = writes;
    pipe->has_grown = false;
}

bool tls_pipe_take_output(struct tls_pipe *pipe, uint8_t *into, size_t length)
{
    if (pipe->calls->BIO_read(pipe->writes, into, (int)length) != (int)length)
        return false;
    if (pipe->has_grown && pipe->established)
        renew_buffers(pipe);
    return true;
}
