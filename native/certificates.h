/* The certificates of a client before OpenSSL decodes them: it decodes the key, the names and the extensions of each,
 * whoever has signed it, and strangers choose how much work that is. A curve that is written out, over a prime of theirs,
 * takes 170 ms a certificate of 620 bytes, a compressed point on P-224 more than one, any key in its usual form less than
 * 0.1, a kilobyte of short names 0.2, 1,500 extensions 4 (OpenSSL 4.0). For each distribution point with a name relative to
 * the issuer's, 3.x copies that: 410 ms a certificate of 11 kB (3.0). Pure functions. */
#ifndef CVPND_CERTIFICATES_H
#define CVPND_CERTIFICATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CERTIFICATES_MAX = 17, /* its own, and as many authorities as MAX_CHAIN_DEPTH in cvpnd/auth/context.py */
    CERTIFICATE_NAME_MAX = 1024,
    CERTIFICATE_EXTENSIONS_MAX = 64, /* mostly ten */
    CERTIFICATES_WORDS_MAX = 12288,  /* of all, what is neither key nor signature: mostly 500 to 1,000 of each */
};

/* As the connection log says them. */
#define CERTIFICATES_PROBLEMS(X)                                                                                     \
    X(MALFORMED, "a certificate that is not DER")                                                                    \
    X(TOO_MANY, "more than 17 certificates")                                                                         \
    X(PARAMETERS, "a certificate with a key of unusual parameters, such as a curve that is written out, not named")  \
    X(COMPRESSED, "a certificate of which the key is a compressed point")                                            \
    X(LONG_NAME, "a certificate with a name of more than 1,024 bytes")                                               \
    X(RELATIVE, "a certificate that names where revocation lists are relative to their issuer")                      \
    X(EXTENSIONS, "a certificate with more than 64 extensions")                                                      \
    X(WORDY, "certificates with more than 12 kB of names and extensions")

enum certificates_problem {
    CERTIFICATES_GOOD,
#define X(name, sentence) CERTIFICATES_##name,
    CERTIFICATES_PROBLEMS(X)
#undef X
        CERTIFICATES_PROBLEM_COUNT,
};

/* "" for none. */
extern const char *const CERTIFICATES_SENTENCES[CERTIFICATES_PROBLEM_COUNT];

/* One certificate. ``words`` (or NULL), if it is good: how much of it is neither key nor signature. */
enum certificates_problem certificate_judge(const uint8_t *der, size_t length, size_t *words);

/* A Certificate message without its head. What TLS itself has against it is left to OpenSSL unless it is in the way. */
enum certificates_problem certificates_judge(const uint8_t *message, size_t length, bool tls_1_3);

#endif
