/* Vector V-13 of openvpn-wire.md section 22, a real packet; what authentic blocks may hold; and that no IV comes twice. */
#include "cbc.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "iv.h"

static const char V13_KEY[] = "ba8c7ce4ddcb9b4c5d57ac19fbf10702bfaaf3cec2d092e52a30b27bbb6c7838";
static const char V13_HMAC_KEY[] = "8ddaf1038345a870d5ddf9e568f5cf87edd444a2ec6f1e66a5672e0c8d0d0e81";
static const char V13_PACKET[] =
    "4800000093713401e08542af0c4e4de76927243d5b6fb6041eaf5d79c60cc5c8dd96905cb655a82ba8c0"
    "e5fece1ffd0ee6d16742eeced205c089ed1e0e555300325a1882c7c75265d58ef1ae0ee08164207611f4";

static const char *const CIPHER_NAMES[] = {"AES-128-CBC", "AES-192-CBC", "AES-256-CBC"};
static const char *const DIGEST_NAMES[] = {"SHA1", "SHA256", "SHA384", "SHA512"};

static struct cbc_suite suite_of(const char *cipher, const char *digest)
{
    struct cbc_suite suite;
    CHECK(cbc_suite_find(&suite, cipher, digest));
    return suite;
}

/* The same keys in both directions. */
static struct cbc_keys *keys_of(const struct cbc_suite *suite, unsigned workers)
{
    static const uint8_t key[32] = "a key of thirty-two bytes, it is";
    static const uint8_t hmac_key[HMAC_MAX] = "a key of sixty-four bytes, which is as many as any digest wants.";
    struct cbc_keys *keys = cbc_keys_new(suite, workers, key, hmac_key, key, hmac_key);
    CHECK(keys != NULL);
    return keys;
}

static void a_real_packet_opens_and_any_other_does_not(void)
{
    uint8_t key[32], hmac_key[32], real[128], copy[128];
    CHECK_EQUAL(from_hex(key, V13_KEY), sizeof key);
    CHECK_EQUAL(from_hex(hmac_key, V13_HMAC_KEY), sizeof hmac_key);
    size_t size = from_hex(real, V13_PACKET);
    CHECK_EQUAL(size, 84);
    struct cbc_suite suite = suite_of("AES-256-CBC", "SHA256");
    struct cbc_keys *keys = cbc_keys_new(&suite, 1, key, hmac_key, key, hmac_key);
    CHECK(keys != NULL);
    uint8_t *text;
    uint32_t length;
    for (size_t bit = 8 * DATA_HEADER; bit < 8 * size; bit++) {
        memcpy(copy, real, size);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        uint8_t before[128];
        memcpy(before, copy, size);
        text = copy + DATA_HEADER;
        length = (uint32_t)size - DATA_HEADER;
        CHECK_EQUAL(cbc_open(keys, &text, &length), DROP_AUTH_FAILED);
        CHECK(memcmp(copy, before, size) == 0); /* nothing was decrypted */
    }
    text = real + DATA_HEADER;
    length = (uint32_t)size - DATA_HEADER;
    CHECK_EQUAL(cbc_open(keys, &text, &length), PACKET_PASSES);
    CHECK_EQUAL(length, PACKET_ID_SIZE + KEEPALIVE_SIZE);
    CHECK_EQUAL(get_u32(text), 1);
    CHECK(memcmp(text + PACKET_ID_SIZE, KEEPALIVE, KEEPALIVE_SIZE) == 0);
    cbc_keys_free(keys);
}

static void what_is_sealed_opens_in_its_room(void)
{
    for (unsigned variant = 0; variant < 12; variant++) {
        struct cbc_suite suite = suite_of(CIPHER_NAMES[variant / 4], DIGEST_NAMES[variant % 4]);
        CHECK_EQUAL(cbc_key_size(&suite), 16 + 8 * (variant / 4));
        struct cbc_keys *keys = keys_of(&suite, 2);
        const size_t before = suite.digest->size + CBC_BLOCK;
        for (uint32_t length = 0; length <= 70; length++) {
            uint32_t padding = CBC_BLOCK - length % CBC_BLOCK;
            size_t room = before + length + padding;
            uint8_t *heap = malloc(room), *bytes = heap + before; /* no byte to spare on either side */
            CHECK(heap != NULL);
            memset(bytes, 0x5a, length);
            uint32_t sealed = length;
            CHECK(cbc_seal(keys, length % 2, &bytes, &sealed));
            CHECK(bytes == heap && sealed == room);
            CHECK_EQUAL(cbc_open(keys, &bytes, &sealed), PACKET_PASSES);
            CHECK(bytes == heap + before && sealed == length);
            for (uint32_t i = 0; i < length; i++)
                CHECK_EQUAL(bytes[i], 0x5a);
            free(heap);
        }
        cbc_keys_free(keys);
    }
}

static void lengths_that_cannot_be_are_not_looked_at(void)
{
    struct cbc_suite suite = suite_of("AES-128-CBC", "SHA512");
    struct cbc_keys *keys = keys_of(&suite, 1);
    for (uint32_t size = 0; size < 64 + 16 + 64; size++) {
        if (size >= 64 + 16 + 16 && size % 16 == 0)
            continue;
        uint8_t *heap = malloc(size + 1), *bytes = heap + 1;
        CHECK(heap != NULL);
        memset(heap, 0, size + 1);
        uint32_t length = size;
        CHECK_EQUAL(cbc_open(keys, &bytes, &length), DROP_TRUNCATED);
        CHECK(bytes == heap + 1 && length == size);
        free(heap);
    }
    cbc_keys_free(keys);
}

/* HMAC, IV and these blocks, made without the code under test. */
static size_t encrypt(uint8_t *into, const uint8_t *blocks, size_t length)
{
    uint8_t key[32], hmac_key[32], *iv = into + 32;
    from_hex(key, V13_KEY);
    from_hex(hmac_key, V13_HMAC_KEY);
    memset(iv, 0x77, CBC_BLOCK);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int written;
    CHECK(context != NULL && EVP_EncryptInit_ex(context, EVP_aes_256_cbc(), NULL, key, iv) &&
          EVP_CIPHER_CTX_set_padding(context, 0) &&
          EVP_EncryptUpdate(context, iv + CBC_BLOCK, &written, blocks, (int)length) && written == (int)length);
    EVP_CIPHER_CTX_free(context);
    CHECK(HMAC(EVP_sha256(), hmac_key, 32, iv, CBC_BLOCK + length, into, NULL) != NULL);
    return 32 + CBC_BLOCK + length;
}

static void padding_is_what_it_should_be(void)
{
    uint8_t key[32], hmac_key[32];
    from_hex(key, V13_KEY);
    from_hex(hmac_key, V13_HMAC_KEY);
    struct cbc_suite suite = suite_of("AES-256-CBC", "SHA256");
    struct cbc_keys *keys = cbc_keys_new(&suite, 1, key, hmac_key, key, hmac_key);
    CHECK(keys != NULL);
    for (unsigned last = 0; last < 256; last++) {
        for (unsigned wrong = 0; wrong <= 16; wrong++) { /* 0: none; else the byte so far from the end */
            uint8_t blocks[2 * CBC_BLOCK], packet[128], *text = packet;
            memset(blocks, (int)last, sizeof blocks);
            if (wrong > 1)
                blocks[sizeof blocks - wrong] ^= 1;
            uint32_t length = (uint32_t)encrypt(packet, blocks, sizeof blocks);
            bool right = last >= 1 && last <= 16 && (wrong <= 1 || wrong > last);
            CHECK_EQUAL(cbc_open(keys, &text, &length), right ? PACKET_PASSES : DROP_NOT_IP);
            if (right)
                CHECK_EQUAL(length, sizeof blocks - last);
        }
    }
    cbc_keys_free(keys);
}

static void only_known_names_are_found(void)
{
    struct cbc_suite suite;
    CHECK(!cbc_suite_find(&suite, "BF-CBC", "SHA1"));
    CHECK(!cbc_suite_find(&suite, "AES-256-GCM", "SHA1"));
    CHECK(!cbc_suite_find(&suite, "aes-256-cbc", "SHA1"));
    CHECK(!cbc_suite_find(&suite, "AES-256-CBC", ""));
    CHECK(!cbc_suite_find(&suite, "AES-256-CBC", "MD5"));
    CHECK(!cbc_suite_find(&suite, "AES-256-CBC", "none"));
}

/* -- IVs ---------------------------------------------------------------------------------------------------------- */

enum { TAKEN = 300, TAKERS = 4 };
typedef uint8_t ivs[TAKEN][IV_SIZE];

static int compare_ivs(const void *left, const void *right) { return memcmp(left, right, IV_SIZE); }

static void check_distinct(uint8_t (*all)[IV_SIZE], size_t count)
{
    qsort(all, count, IV_SIZE, compare_ivs);
    for (size_t i = 1; i < count; i++)
        CHECK(memcmp(all[i - 1], all[i], IV_SIZE) != 0);
}

static void *take_ivs(void *into)
{
    for (unsigned i = 0; i < TAKEN; i++)
        CHECK(iv_take(((uint8_t(*)[IV_SIZE])into)[i]));
    return NULL;
}

static void no_iv_comes_twice_in_any_thread(void)
{
    static ivs all[TAKERS];
    pthread_t threads[TAKERS];
    for (unsigned i = 0; i < TAKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, take_ivs, all[i]) == 0);
    for (unsigned i = 0; i < TAKERS; i++)
        pthread_join(threads[i], NULL);
    check_distinct(all[0], TAKERS * TAKEN);
}

/* The pool is half full when the process splits. */
static void no_iv_comes_twice_across_a_fork(void)
{
    static ivs all[2];
    int ends[2];
    CHECK(iv_take(all[0][0]));
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    take_ivs(all[0]);
    if (child == 0) {
        for (size_t at = 0; at < sizeof all[0];) {
            ssize_t written = write(ends[1], (uint8_t *)all[0] + at, sizeof all[0] - at);
            CHECK(written > 0);
            at += (size_t)written;
        }
        _exit(0);
    }
    for (size_t at = 0; at < sizeof all[1];) {
        ssize_t length = read(ends[0], (uint8_t *)all[1] + at, sizeof all[1] - at);
        CHECK(length > 0);
        at += (size_t)length;
    }
    CHECK(waitpid(child, NULL, 0) == child);
    close(ends[0]);
    close(ends[1]);
    check_distinct(all[0], 2 * TAKEN);
}

/* Two workers, a key taken away and given again: a new start with the same key and the same text. */
static void every_packet_has_an_iv_of_its_own(void)
{
    static uint8_t seen[2 * 2 * TAKEN][IV_SIZE];
    struct cbc_suite suite = suite_of("AES-256-CBC", "SHA1");
    unsigned count = 0;
    for (unsigned start = 0; start < 2; start++) {
        struct cbc_keys *keys = keys_of(&suite, 2);
        for (unsigned i = 0; i < 2 * TAKEN; i++) {
            uint8_t packet[128] = {0}, *bytes = packet + SEAL_HEADROOM;
            uint32_t length = 4;
            CHECK(cbc_seal(keys, i % 2, &bytes, &length));
            memcpy(seen[count++], bytes + suite.digest->size, IV_SIZE);
        }
        cbc_keys_free(keys);
    }
    check_distinct(seen, count);
}

int main(void)
{
    RUN(a_real_packet_opens_and_any_other_does_not);
    RUN(what_is_sealed_opens_in_its_room);
    RUN(lengths_that_cannot_be_are_not_looked_at);
    RUN(padding_is_what_it_should_be);
    RUN(only_known_names_are_found);
    RUN(no_iv_comes_twice_in_any_thread);
    RUN(no_iv_comes_twice_across_a_fork);
    RUN(every_packet_has_an_iv_of_its_own);
    return 0;
}
