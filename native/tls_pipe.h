/* One TLS connection between bytes of the network and records, on two memory BIOs of OpenSSL. What its bytes mean, and
 * what an error is called, is decided in cvpnd/wire/tls.py.
 *
 * OpenSSL is the one in the cryptography package, not the one that this module is linked with: its functions are called
 * by the addresses in `struct tls_calls`, and its objects are opaque here.
 *
 * One owner, one thread at a time. The SSL belongs to the caller and outlives the pipe; the BIOs belong to the SSL. */
#ifndef CVPND_TLS_PIPE_H
#define CVPND_TLS_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "certificates.h"

/* OpenSSL tells of each message that it sends or has read, before it acts upon it. */
typedef void tls_message_callback(int sent, int version, int content_type, const void *message, size_t length,
                                  void *ssl, void *argument);

enum {
    TLS_RECORD_HEADER = 5,
    TLS_RECORD_MAX = 16384,
    /* Of the peer's records until the handshake is complete. OpenSSL decodes all that it is sent before it looks for the
     * way to an authority: 90 kB of names and extensions in 20 ms, where a login takes 2. Eleven certificates with RSA
     * 4096, and half a kilobyte more in each than in a test's, are 20 kB. */
    TLS_HANDSHAKE_MAX = 32768,
};

/* As OpenSSL declares them, from 3.0 on. Also the order in which Python names them, and their types in the words of
 * cffi, which are compared before an address is taken. */
#define TLS_CALLS(X)                                                                                                 \
    X(int, SSL_do_handshake, (void *ssl), "int(*)(SSL *)")                                                           \
    X(int, SSL_get_error, (const void *ssl, int result), "int(*)(SSL *, int)")                                       \
    X(int, SSL_read, (void *ssl, void *buffer, int size), "int(*)(SSL *, void *, int)")                              \
    X(int, SSL_write, (void *ssl, const void *buffer, int size), "int(*)(SSL *, void *, int)")                       \
    X(int, SSL_version, (const void *ssl), "int(*)(SSL *)")                                                          \
    X(void, SSL_CTX_set_msg_callback, (void *context, tls_message_callback *callback),                               \
      "void(*)(SSL_CTX *, void(*)(int, int, int, void *, size_t, SSL *, void *))")                                   \
    X(void, SSL_set_bio, (void *ssl, void *reads, void *writes), "void(*)(SSL *, BIO *, BIO *)")                     \
    X(const void *, BIO_s_mem, (void), "BIO_METHOD *(*)()")                                                          \
    X(void *, BIO_new, (const void *method), "BIO *(*)(BIO_METHOD *)")                                               \
    X(int, BIO_free, (void *bio), "int(*)(BIO *)")                                                                   \
    X(int, BIO_read, (void *bio, void *buffer, int size), "int(*)(BIO *, void *, int)")                              \
    X(int, BIO_write, (void *bio, const void *buffer, int size), "int(*)(BIO *, void *, int)")                       \
    X(long, BIO_get_mem_data, (void *bio, char **data), "long(*)(BIO *, char * *)")

struct tls_calls {
#define X(result, name, arguments, type) result(*name) arguments;
    TLS_CALLS(X)
#undef X
};

/* Where in the stream of records the bytes end that have come so far. */
struct tls_records {
    uint8_t header[TLS_RECORD_HEADER];
    unsigned header_length; /* of one that has not come whole */
    size_t left;            /* to the end of the record */
    size_t announced;       /* bytes of all records that have begun */
    size_t beyond; /* where in the bytes that were counted last the first record began with which they are more than
                       * TLS_HANDSHAKE_MAX; SIZE_MAX: nowhere */
};

struct tls_pipe {
    const struct tls_calls *calls;
    void *ssl, *reads, *writes;
    bool server;
    bool established;
    bool has_spoken;                        /* there may be output that nobody has taken */
    bool has_grown;                         /* the BIOs are as large as a flight of the handshake */
    bool handshake_too_long;                /* which is why it failed */
    enum certificates_problem certificates; /* or this */
    unsigned silent_records;                /* without data in them, since the handshake */
    struct tls_records records;
};

enum tls_result {
    TLS_GOES_ON,
    TLS_WAITS,  /* for more from the peer */
    TLS_FAILED, /* `answer` is OpenSSL's, whose reasons are in this thread's error queue */
    TLS_NO_MEMORY,
};

void tls_pipe_init(struct tls_pipe *pipe, const struct tls_calls *calls, void *ssl, void *reads, void *writes,
                   bool server);

/* From now on no connection of this SSL_CTX decodes certificates that are more work than a client's are. */
void tls_judge_certificates(const struct tls_calls *calls, void *context);

/* How many records begin in `bytes`, and how many are for OpenSSL to look at: those that end there, and what cannot be
 * a record. */
void tls_records_count(struct tls_records *records, const uint8_t *bytes, size_t length, size_t *begun,
                       size_t *ended);

/* -- bytes of the network into records: one call of each, in this order, until one does not go on ------------------ */

struct tls_visit {
    size_t begun, ended; /* as above */
    size_t records;      /* with data, read so far */
    bool first;          /* it began inside the handshake */
    int answer;
    const uint8_t *rest; /* the caller's, from a record on that is too much for a handshake; NULL: there is none */
    size_t rest_length;
    uint8_t cut[TLS_RECORD_HEADER]; /* the rest begins with the end of a head, of which this came before */
    unsigned cut_length;
};

/* OpenSSL gets heads of records whole, so that each may yet be taken for another. */
enum tls_result tls_pipe_feed(struct tls_pipe *pipe, const uint8_t *bytes, size_t length, struct tls_visit *visit);
/* A step of the handshake, or nothing after it. The only one that takes long: 1 ms for a signature. The bytes that were
 * fed are still there. */
enum tls_result tls_pipe_handshake(struct tls_pipe *pipe, struct tls_visit *visit);
/* A record; TLS_WAITS: there is none left. Repeat it. */
enum tls_result tls_pipe_read(struct tls_pipe *pipe, uint8_t record[static TLS_RECORD_MAX], size_t *length,
                              struct tls_visit *visit);
/* After the last record. */
void tls_pipe_leave(struct tls_pipe *pipe, const struct tls_visit *visit);

/* -- and back ------------------------------------------------------------------------------------------------------ */

/* One message; up to TLS_RECORD_MAX it is one record. */
enum tls_result tls_pipe_send(struct tls_pipe *pipe, const uint8_t *bytes, size_t length, int *answer);
/* How much is to be sent to the peer. */
size_t tls_pipe_output_length(struct tls_pipe *pipe);
/* Takes all of it, `length` > 0. Gives memory back after the handshake. False: OpenSSL's memory is short. */
bool tls_pipe_take_output(struct tls_pipe *pipe, uint8_t *into, size_t length);

#endif
