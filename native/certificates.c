#include "certificates.h"

#include "wire.h"

enum tag {
    TAG_BOOLEAN = 0x01,
    TAG_INTEGER = 0x02,
    TAG_BIT_STRING = 0x03,
    TAG_OCTET_STRING = 0x04,
    TAG_NULL = 0x05,
    TAG_OBJECT = 0x06,
    TAG_SEQUENCE = 0x30,
    /* Of a certificate. */
    TAG_VERSION = 0xa0,
    TAG_ISSUER_ID = 0x81,
    TAG_SUBJECT_ID = 0x82,
    TAG_EXTENSIONS = 0xa3,
    /* Of a distribution point, and of its name. */
    TAG_POINT_NAME = 0xa0,
    TAG_POINT_REASONS = 0x81,
    TAG_POINT_ISSUER = 0xa2,
    TAG_FULL_NAME = 0xa0,
    TAG_RELATIVE_NAME = 0xa1,
    POINT_UNCOMPRESSED = 0x04, /* SEC 1, 2.3.3 */
};

const char *const CERTIFICATES_SENTENCES[CERTIFICATES_PROBLEM_COUNT] = {"",
#define X(name, sentence) sentence,
                                                                        CERTIFICATES_PROBLEMS(X)
#undef X
};

/* In the fewest bytes, as DER wants it. OpenSSL takes the other ways of BER too: who reads them otherwise than it does
 * looks at another key. */
static bool take_length(struct cursor *from, size_t *length)
{
    uint8_t first, byte;
    if (!take_u8(from, &first))
        return false;
    *length = first;
    if (first < 0x80)
        return true;
    unsigned count = first & 0x7fu;
    *length = 0;
    if (count < 1 || count > 3)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (!take_u8(from, &byte))
            return false;
        *length = *length << 8 | byte;
    }
    return *length >= (count == 1 ? 0x80u : 1u << 8 * (count - 1));
}

/* The next element, if that is its tag. */
static bool take(struct cursor *from, enum tag tag, struct cursor *content)
{
    struct cursor rest = *from;
    uint8_t found;
    const uint8_t *bytes;
    size_t length;
    if (!take_u8(&rest, &found) || found != tag || !take_length(&rest, &length) || !take_bytes(&rest, length, &bytes))
        return false;
    *content = cursor_over(bytes, length);
    *from = rest;
    return true;
}

static bool take_last(struct cursor *from, enum tag tag, struct cursor *content)
{
    return take(from, tag, content) && cursor_left(from) == 0;
}

/* Only the parameters of RSASSA-PSS are a sequence and no work. */
static const uint8_t RSASSA_PSS[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a};
static const uint8_t DISTRIBUTION_POINTS[] = {0x55, 0x1d, 0x1f};

static bool is(const struct cursor *object, const uint8_t *known, size_t length)
{
    return cursor_left(object) == length && memcmp(object->at, known, length) == 0;
}

static enum certificates_problem judge_key(struct cursor info)
{
    struct cursor algorithm, object, parameters, key;
    uint8_t unused_bits, form;
    if (!take(&info, TAG_SEQUENCE, &algorithm) || !take_last(&info, TAG_BIT_STRING, &key) ||
        !take(&algorithm, TAG_OBJECT, &object))
        return CERTIFICATES_MALFORMED;
    if (take(&algorithm, TAG_OBJECT, &parameters)) { /* a curve by its name */
        if (!take_u8(&key, &unused_bits) || !take_u8(&key, &form))
            return CERTIFICATES_MALFORMED;
        return form == POINT_UNCOMPRESSED ? CERTIFICATES_GOOD : CERTIFICATES_COMPRESSED;
    }
    bool usual = cursor_left(&algorithm) == 0 || take(&algorithm, TAG_NULL, &parameters) ||
                 is(&object, RSASSA_PSS, sizeof RSASSA_PSS);
    return usual ? CERTIFICATES_GOOD : CERTIFICATES_PARAMETERS;
}

/* RFC 5280, 4.2.1.13. */
static enum certificates_problem judge_distribution_points(struct cursor value)
{
    struct cursor points, point, name, content;
    if (!take_last(&value, TAG_SEQUENCE, &points))
        return CERTIFICATES_MALFORMED;
    while (cursor_left(&points) > 0) {
        if (!take(&points, TAG_SEQUENCE, &point))
            return CERTIFICATES_MALFORMED;
        if (take(&point, TAG_POINT_NAME, &name)) {
            if (take(&name, TAG_RELATIVE_NAME, &content))
                return CERTIFICATES_RELATIVE;
            if (!take(&name, TAG_FULL_NAME, &content))
                return CERTIFICATES_MALFORMED;
        }
        take(&point, TAG_POINT_REASONS, &content);
        take(&point, TAG_POINT_ISSUER, &content);
        if (cursor_left(&point) > 0)
            return CERTIFICATES_MALFORMED;
    }
    return CERTIFICATES_GOOD;
}

/* What follows the key. */
static enum certificates_problem judge_extensions(struct cursor rest)
{
    struct cursor content, extensions, extension, object, value;
    enum certificates_problem problem = CERTIFICATES_GOOD;
    take(&rest, TAG_ISSUER_ID, &content);
    take(&rest, TAG_SUBJECT_ID, &content);
    if (cursor_left(&rest) == 0)
        return CERTIFICATES_GOOD;
    if (!take_last(&rest, TAG_EXTENSIONS, &content) || !take_last(&content, TAG_SEQUENCE, &extensions))
        return CERTIFICATES_MALFORMED;
    for (unsigned count = 1; cursor_left(&extensions) > 0 && problem == CERTIFICATES_GOOD; count++) {
        if (count > CERTIFICATE_EXTENSIONS_MAX)
            return CERTIFICATES_EXTENSIONS;
        if (!take(&extensions, TAG_SEQUENCE, &extension) || !take(&extension, TAG_OBJECT, &object))
            return CERTIFICATES_MALFORMED;
        take(&extension, TAG_BOOLEAN, &content); /* whether it is critical */
        if (!take_last(&extension, TAG_OCTET_STRING, &value))
            return CERTIFICATES_MALFORMED;
        if (is(&object, DISTRIBUTION_POINTS, sizeof DISTRIBUTION_POINTS))
            problem = judge_distribution_points(value);
    }
    return problem;
}

/* RFC 5280, 4.1. */
enum certificates_problem certificate_judge(const uint8_t *der, size_t length, size_t *words)
{
    enum part { SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, PARTS };
    struct cursor bytes = cursor_over(der, length), certificate, signed_part, content;
    if (!take(&bytes, TAG_SEQUENCE, &certificate) || !take(&certificate, TAG_SEQUENCE, &signed_part))
        return CERTIFICATES_MALFORMED;
    size_t whole = cursor_left(&signed_part);
    take(&signed_part, TAG_VERSION, &content);
    for (enum part part = SERIAL; part < PARTS; part++) {
        if (!take(&signed_part, part == SERIAL ? TAG_INTEGER : TAG_SEQUENCE, &content))
            return CERTIFICATES_MALFORMED;
        if ((part == ISSUER || part == SUBJECT) && cursor_left(&content) > CERTIFICATE_NAME_MAX)
            return CERTIFICATES_LONG_NAME;
    }
    if (!take(&signed_part, TAG_SEQUENCE, &content))
        return CERTIFICATES_MALFORMED;
    if (words != NULL)
        *words = whole - cursor_left(&content);
    enum certificates_problem problem = judge_key(content);
    return problem == CERTIFICATES_GOOD ? judge_extensions(signed_part) : problem;
}

static bool take_u24(struct cursor *from, size_t *value)
{
    uint8_t high;
    uint16_t low;
    if (!take_u8(from, &high) || !take_u16(from, &low))
        return false;
    *value = (size_t)high << 16 | low;
    return true;
}

enum certificates_problem certificates_judge(const uint8_t *message, size_t length, bool tls_1_3)
{
    struct cursor left = cursor_over(message, length);
    uint8_t context_length;
    uint16_t extensions_length;
    size_t size, words, all_words = 0;
    const uint8_t *bytes;
    if (tls_1_3 && (!take_u8(&left, &context_length) || !take_bytes(&left, context_length, &bytes)))
        return CERTIFICATES_MALFORMED;
    if (!take_u24(&left, &size) || size != cursor_left(&left))
        return CERTIFICATES_MALFORMED;
    for (unsigned count = 1; cursor_left(&left) > 0; count++) {
        if (count > CERTIFICATES_MAX)
            return CERTIFICATES_TOO_MANY;
        if (!take_u24(&left, &size) || !take_bytes(&left, size, &bytes))
            return CERTIFICATES_MALFORMED;
        enum certificates_problem problem = certificate_judge(bytes, size, &words);
        if (problem != CERTIFICATES_GOOD)
            return problem;
        if ((all_words += words) > CERTIFICATES_WORDS_MAX)
            return CERTIFICATES_WORDY;
        if (tls_1_3 && (!take_u16(&left, &extensions_length) || !take_bytes(&left, extensions_length, &bytes)))
            return CERTIFICATES_MALFORMED;
    }
    return CERTIFICATES_GOOD;
}
