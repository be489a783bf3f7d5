/* Certificate messages before anybody decodes a key: in which forms, and that nothing is read beyond the end. */
#include "certificates.h"
#include "check.h"

enum { MESSAGE_MAX = 32768, HEAD = 3 };

struct bytes {
    uint8_t at[MESSAGE_MAX];
    size_t length;
};

static struct bytes element(unsigned tag, const struct bytes *content)
{
    struct bytes result = {.at = {(uint8_t)tag}, .length = 1};
    if (content->length >= 256)
        result.at[result.length++] = 0x82, result.at[result.length++] = (uint8_t)(content->length >> 8);
    else if (content->length >= 128)
        result.at[result.length++] = 0x81;
    result.at[result.length++] = (uint8_t)content->length;
    memcpy(result.at + result.length, content->at, content->length);
    result.length += content->length;
    return result;
}

static void append(struct bytes *to, const struct bytes *more)
{
    CHECK(to->length + more->length <= sizeof to->at);
    memcpy(to->at + to->length, more->at, more->length);
    to->length += more->length;
}

/* With this SubjectPublicKeyInfo, so many bytes in issuer and subject, and this behind the key. */
static struct bytes certificate_with(const char *key, size_t issuer, size_t subject, const struct bytes *rest)
{
    struct bytes facts, names[] = {{.length = issuer}, {.length = subject}}, name;
    facts.length = from_hex(facts.at, "a003020102" /* version */ "020101" /* serial */ "3000" /* algorithm */);
    name = element(0x30, &names[0]);
    append(&facts, &name);
    facts.length += from_hex(facts.at + facts.length, "3000" /* validity */);
    name = element(0x30, &names[1]);
    append(&facts, &name);
    facts.length += from_hex(facts.at + facts.length, key);
    append(&facts, rest);
    struct bytes signed_part = element(0x30, &facts);
    return element(0x30, &signed_part);
}

static struct bytes certificate(const char *key) { return certificate_with(key, 0, 0, &(struct bytes){0}); }

static struct bytes from(const char *hex)
{
    struct bytes result;
    result.length = from_hex(result.at, hex);
    return result;
}

static struct bytes extensions_of(const struct bytes *list)
{
    struct bytes sequence = element(0x30, list);
    return element(0xa3, &sequence);
}

static struct bytes extension(const char *object, const struct bytes *value)
{
    struct bytes content = from(object), octets = element(0x04, value);
    append(&content, &octets);
    return element(0x30, &content);
}

static struct bytes message(const struct bytes *one, unsigned count, bool tls_1_3)
{
    struct bytes result = {.length = tls_1_3 ? 1 : 0};
    size_t of_one = HEAD + one->length + (tls_1_3 ? 2 : 0), all = of_one * count;
    CHECK(all + 4 <= sizeof result.at);
    result.at[result.length + 1] = (uint8_t)(all >> 8), result.at[result.length + 2] = (uint8_t)all;
    result.length += HEAD;
    for (unsigned i = 0; i < count; i++, result.length += of_one) {
        result.at[result.length + 1] = (uint8_t)(one->length >> 8);
        result.at[result.length + 2] = (uint8_t)one->length;
        memcpy(result.at + result.length + HEAD, one->at, one->length);
    }
    return result;
}

/* From the heap, with no byte to spare. */
static enum certificates_problem judged(const uint8_t *bytes, size_t length, bool tls_1_3)
{
    uint8_t *exact = malloc(length + (length == 0));
    CHECK(exact != NULL);
    memcpy(exact, bytes, length);
    enum certificates_problem problem = certificates_judge(exact, length, tls_1_3);
    free(exact);
    return problem;
}

static enum certificates_problem of(const char *key, unsigned count)
{
    struct bytes one = certificate(key), old = message(&one, count, false), new = message(&one, count, true);
    enum certificates_problem problem = judged(old.at, old.length, false);
    CHECK_EQUAL(judged(new.at, new.length, true), problem);
    return problem;
}

#define ED25519        "300a300506032b6570030100"
#define RSA            "300c300706032a03040500030100"
#define RSA_PSS        "3016301006092a864886f70d01010a3003a0010003020030"
#define NAMED          "3010300a06032a030406032b810403020004"
#define COMPRESSED     "3010300a06032a030406032b810403020002"
#define INFINITE       "3010300a06032a030406032b810403020000"
#define WRITTEN_OUT    "300f300906032a03043002050003020004"
#define WRITTEN_IN_BER "3011300b06032a030430800500000003020004"
#define LONG_LENGTH    "300b30810506032b6570030100"
#define CUT            "300a300506042b6570030100"
#define NO_POINT       "300f300a06032a030406032b8104030100"

static void keys_are_taken_in_their_usual_form_only(void)
{
    CHECK_EQUAL(of(ED25519, 1), CERTIFICATES_GOOD);
    CHECK_EQUAL(of(RSA, 1), CERTIFICATES_GOOD);
    CHECK_EQUAL(of(RSA_PSS, 1), CERTIFICATES_GOOD);
    CHECK_EQUAL(of(NAMED, 1), CERTIFICATES_GOOD);
    CHECK_EQUAL(of(COMPRESSED, 1), CERTIFICATES_COMPRESSED);
    CHECK_EQUAL(of(INFINITE, 1), CERTIFICATES_COMPRESSED);
    CHECK_EQUAL(of(WRITTEN_OUT, 1), CERTIFICATES_PARAMETERS);
    CHECK_EQUAL(of(WRITTEN_IN_BER, 1), CERTIFICATES_PARAMETERS);
    CHECK_EQUAL(of(LONG_LENGTH, 1), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of(CUT, 1), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of(NO_POINT, 1), CERTIFICATES_MALFORMED);
}

static void so_many_are_looked_at_and_no_more(void)
{
    CHECK_EQUAL(of(ED25519, 0), CERTIFICATES_GOOD);
    CHECK_EQUAL(of(ED25519, CERTIFICATES_MAX), CERTIFICATES_GOOD);
    CHECK_EQUAL(of(ED25519, CERTIFICATES_MAX + 1), CERTIFICATES_TOO_MANY);
    CHECK_EQUAL(of(COMPRESSED, CERTIFICATES_MAX + 1), CERTIFICATES_COMPRESSED);
}

static enum certificates_problem of_words(size_t issuer, size_t subject, size_t extensions, unsigned count)
{
    struct bytes value = {.length = extensions}, only = extension("060100", &value), rest = extensions_of(&only);
    struct bytes one = certificate_with(ED25519, issuer, subject, &rest), new = message(&one, count, true);
    return judged(new.at, new.length, true);
}

static void names_are_taken_up_to_a_length(void)
{
    CHECK_EQUAL(of_words(CERTIFICATE_NAME_MAX, CERTIFICATE_NAME_MAX, 0, 1), CERTIFICATES_GOOD);
    CHECK_EQUAL(of_words(CERTIFICATE_NAME_MAX + 1, 0, 0, 1), CERTIFICATES_LONG_NAME);
    CHECK_EQUAL(of_words(0, CERTIFICATE_NAME_MAX + 1, 0, 1), CERTIFICATES_LONG_NAME);
}

static void names_and_extensions_are_counted_over_all_certificates(void)
{
    enum {
        OTHERS = 5 + 3 + 2 + 2 + 2 + 2 + 2 /* what is around them, and around the key */,
        HEAD_OF_EXTENSIONS = 4 * 4 + 3
    };
    enum { IN_ONE = CERTIFICATES_WORDS_MAX - OTHERS - HEAD_OF_EXTENSIONS };
    CHECK_EQUAL(of_words(0, 0, IN_ONE, 1), CERTIFICATES_GOOD);
    CHECK_EQUAL(of_words(0, 0, IN_ONE + 1, 1), CERTIFICATES_WORDY);
    CHECK_EQUAL(of_words(0, 0, IN_ONE, 2), CERTIFICATES_WORDY);
    CHECK_EQUAL(of_words(0, 0, CERTIFICATES_WORDS_MAX / 16 - OTHERS - HEAD_OF_EXTENSIONS, 16), CERTIFICATES_GOOD);
    CHECK_EQUAL(of_words(0, 0, CERTIFICATES_WORDS_MAX / 16 - OTHERS - HEAD_OF_EXTENSIONS, 17), CERTIFICATES_WORDY);
}

static void every_part_of_a_message_is_refused(void)
{
    struct bytes one = certificate(NAMED);
    for (int tls_1_3 = 0; tls_1_3 <= 1; tls_1_3++) {
        struct bytes whole = message(&one, 2, tls_1_3);
        for (size_t length = 0; length < whole.length; length++)
            CHECK_EQUAL(judged(whole.at, length, tls_1_3), CERTIFICATES_MALFORMED);
        whole.length++;
        CHECK_EQUAL(judged(whole.at, whole.length, tls_1_3), CERTIFICATES_MALFORMED);
    }
}

/* No other byte hides a curve that is written out: what is still good says that it is another kind of key. */
static void no_byte_lets_a_written_curve_through(void)
{
    struct bytes one = certificate(WRITTEN_OUT), whole = message(&one, 1, true);
    const size_t parameters = whole.length - 2 /* extensions */ - 4 /* key */ - 4, object_length = parameters - 4;
    CHECK(whole.at[parameters] == 0x30 && whole.at[parameters + 2] == 0x05);
    for (size_t at = 0; at < whole.length; at++)
        for (unsigned value = 0; value < 256; value++) {
            uint8_t before = whole.at[at];
            whole.at[at] = (uint8_t)value;
            if (judged(whole.at, whole.length, true) == CERTIFICATES_GOOD)
                CHECK(at == parameters || at == object_length);
            whole.at[at] = before;
        }
}

#define DISTRIBUTION_POINTS "0603551d1f"
#define FULL                "3006a004a0028100"
#define RELATIVE            "3004a002a100"

static struct bytes with_points(const char *points)
{
    struct bytes each = from(points), value = element(0x30, &each), only = extension(DISTRIBUTION_POINTS, &value);
    struct bytes rest = extensions_of(&only), one = certificate_with(NAMED, 0, 0, &rest);
    return message(&one, 1, true);
}

static enum certificates_problem of_points(const char *points)
{
    struct bytes whole = with_points(points);
    return judged(whole.at, whole.length, true);
}

static void no_revocation_list_is_named_relative_to_its_issuer(void)
{
    CHECK_EQUAL(of_points(""), CERTIFICATES_GOOD);
    CHECK_EQUAL(of_points(FULL FULL), CERTIFICATES_GOOD);
    CHECK_EQUAL(of_points("300b"
                          "a004a0028100"
                          "81010f"
                          "a200"),
                CERTIFICATES_GOOD);
    CHECK_EQUAL(of_points("3002a200"), CERTIFICATES_GOOD);
    CHECK_EQUAL(of_points(RELATIVE), CERTIFICATES_RELATIVE);
    CHECK_EQUAL(of_points(FULL RELATIVE), CERTIFICATES_RELATIVE);
    CHECK_EQUAL(of_points("3006a002a100a200"), CERTIFICATES_RELATIVE);
    /* As BER has it. */
    CHECK_EQUAL(of_points("3005a003bf0100"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of_points("3005a003a18100"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of_points("3006a080a1000000"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of_points("3006a200a002a100"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of_points("3002a000"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(of_points("3080a002a1000000"), CERTIFICATES_MALFORMED);
}

/* What is still good by another byte is another extension, or none, or another part of a distribution point. */
static void no_byte_lets_a_relative_name_through(void)
{
    struct bytes whole = with_points(RELATIVE);
    const size_t name = whole.length - 2 /* extensions of TLS */ - 2, point = name - 2, object = point - 9;
    const size_t all = object - 8;
    CHECK(whole.at[name] == 0xa1 && whole.at[point] == 0xa0 && whole.at[object] == 0x55 && whole.at[all] == 0xa3);
    for (size_t at = all; at < whole.length; at++)
        for (unsigned value = 0; value < 256; value++) {
            uint8_t before = whole.at[at];
            whole.at[at] = (uint8_t)value;
            if (judged(whole.at, whole.length, true) == CERTIFICATES_GOOD)
                CHECK(at == name || at == point || at == all || (at >= object && at < object + 3));
            whole.at[at] = before;
        }
}

static enum certificates_problem followed_by(const struct bytes *rest)
{
    struct bytes one = certificate_with(NAMED, 0, 0, rest), new = message(&one, 1, true);
    return judged(new.at, new.length, true);
}

static enum certificates_problem followed_by_hex(const char *hex)
{
    struct bytes rest = from(hex);
    return followed_by(&rest);
}

static void extensions_are_taken_in_their_usual_form_only(void)
{
    CHECK_EQUAL(followed_by_hex("a3023000"), CERTIFICATES_GOOD);
    CHECK_EQUAL(followed_by_hex("810100"
                                "820100"
                                "a3023000"),
                CERTIFICATES_GOOD);
    CHECK_EQUAL(followed_by_hex("a30c300a"
                                "3008"
                                "060100"
                                "0101ff"
                                "0400"),
                CERTIFICATES_GOOD);
    CHECK_EQUAL(followed_by_hex("a3023000"
                                "a3023000"),
                CERTIFICATES_MALFORMED);
    CHECK_EQUAL(followed_by_hex("a30430800000"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(followed_by_hex("a3800000"), CERTIFICATES_MALFORMED);
    CHECK_EQUAL(followed_by_hex("a100"
                                "a3023000"),
                CERTIFICATES_MALFORMED);
    CHECK_EQUAL(followed_by_hex("a309"
                                "3007"
                                "3005"
                                "060100"
                                "2400"),
                CERTIFICATES_MALFORMED);
    CHECK_EQUAL(followed_by_hex("a30b"
                                "3009"
                                "3007"
                                "060100"
                                "0400"
                                "0400"),
                CERTIFICATES_MALFORMED);
}

static void so_many_extensions_are_looked_at_and_no_more(void)
{
    struct bytes none = {0}, one = extension("060100", &none), list = {0};
    for (unsigned count = 0; count < CERTIFICATE_EXTENSIONS_MAX; count++)
        append(&list, &one);
    struct bytes rest = extensions_of(&list);
    CHECK_EQUAL(followed_by(&rest), CERTIFICATES_GOOD);
    append(&list, &one);
    rest = extensions_of(&list);
    CHECK_EQUAL(followed_by(&rest), CERTIFICATES_EXTENSIONS);
}

int main(void)
{
    RUN(keys_are_taken_in_their_usual_form_only);
    RUN(so_many_are_looked_at_and_no_more);
    RUN(names_are_taken_up_to_a_length);
    RUN(names_and_extensions_are_counted_over_all_certificates);
    RUN(every_part_of_a_message_is_refused);
    RUN(no_byte_lets_a_written_curve_through);
    RUN(extensions_are_taken_in_their_usual_form_only);
    RUN(so_many_extensions_are_looked_at_and_no_more);
    RUN(no_revocation_list_is_named_relative_to_its_issuer);
    RUN(no_byte_lets_a_relative_name_through);
    return 0;
}
