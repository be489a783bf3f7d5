/* Known answers of the key schedule and the format, and what the sender's one number promises. */
#include <pthread.h>

#include "check.h"
#include "epoch.h"
#include "peer.h"

static const struct epoch_limits NO_LIMITS = {.use = UINT64_MAX / 2, .last = EPOCH_LAST, .rekey = EPOCH_LAST};

static struct epoch_keys *new_keys(const char *open_hex, const char *seal_hex, unsigned workers,
                                   const struct epoch_limits *limits)
{
    uint8_t open_secret[EPOCH_SECRET_SIZE], seal_secret[EPOCH_SECRET_SIZE];
    CHECK_EQUAL(from_hex(open_secret, open_hex), EPOCH_SECRET_SIZE);
    CHECK_EQUAL(from_hex(seal_secret, seal_hex), EPOCH_SECRET_SIZE);
    struct epoch_keys *keys = epoch_keys_new(aead_backend(), AES_256_GCM, workers, limits, open_secret, seal_secret);
    CHECK(keys != NULL);
    return keys;
}

static const char V12_E1[] = "8c7a96cc62909c5d4bb2d2bcce22cccee5003e0baacbd0612c4d1427962f26d8";

/* V-12 and, for epoch 4, V-11 of openvpn-wire.md section 22. */
static void secrets_and_keys_follow_the_known_chain(void)
{
    static const struct {
        const char *secret, *label, *answer;
    } table[] = {
        {V12_E1, "data_key", "c6a23a41981bba89050b81a17330e383c82112072e562fae8b6150ed4ddbb065"},
        {V12_E1, "data_iv", "bf9bed1084275b9e9278f7f3"},
        {V12_E1, "datakey upd", "0a4dd21793b89ff8775920cd7cb50a512f9c5cb3ab0cdee05229ec56d7613943"},
        {"10f7f2bf8543e6492f6915fa82457fae6144709679d5dfbd219c495f75e717b5", "data_key",
         "137f8871a9f6a8b1688128ac5e82f2d87d611e4b3aab98180bb9fcdd9e2a223b"},
        {"10f7f2bf8543e6492f6915fa82457fae6144709679d5dfbd219c495f75e717b5", "data_iv", "b2e7dce36da8d32f22b97da8"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint8_t secret[32], answer[32], made[32];
        from_hex(secret, table[i].secret);
        size_t length = from_hex(answer, table[i].answer);
        epoch_expand(secret, table[i].label, made, length);
        CHECK(memcmp(made, answer, length) == 0);
    }
}

static void a_real_packet_opens_and_is_made(void)
{
    uint8_t real[64], made[64];
    size_t length =
        from_hex(real, "4877f71e00010000000000019a07f4891ccc1afecd0ba4d0ca3e488e97bdae716a2b661d5edde0ec19b17d9f");
    struct epoch_keys *keys = new_keys(V12_E1, V12_E1, 1, &NO_LIMITS);
    memcpy(made, real, DATA_HEADER);
    memcpy(made + EPOCH_AD, KEEPALIVE, KEEPALIVE_SIZE);
    CHECK_EQUAL(epoch_seal(keys, 0, &NO_LIMITS, made, KEEPALIVE_SIZE), PACKET_PASSES);
    CHECK(memcmp(made, real, length) == 0);
    CHECK_EQUAL(epoch_open(keys, &NO_LIMITS, made, (uint32_t)length), PACKET_PASSES);
    CHECK(memcmp(made + EPOCH_AD, KEEPALIVE, KEEPALIVE_SIZE) == 0);
    CHECK_EQUAL(epoch_open(keys, &NO_LIMITS, real, (uint32_t)length), DROP_REPLAYED);
    epoch_keys_free(keys);
}

/* V-11: the chain as far as epoch 4, walked by a sender that was told so. */
static void the_fourth_epoch_has_its_known_packet(void)
{
    static const char fox[] = "The quick little fox jumps over the bureaucratic hurdles";
    static const char text[] = "abcdefgh01234567ABCDEFGHjkuchenl";
    uint8_t e1[32], answer[128], made[128] = {7, 0, 0, 0x17};
    for (unsigned i = 0; i < sizeof e1; i++)
        e1[i] = (uint8_t)text[i] ^ (uint8_t)i;
    size_t length = from_hex(answer, "0700001700040000000000016eacea349ca836aab4d49ce685399a9bab964526"
                                     "e9cd11ece8cb7d77bdbc5c6ac4f49f36ea02e9c1f5d97644afa9118ba9f9a892"
                                     "623f1a130ffff5913d39d75b18573b5748589a7d");
    struct epoch_keys *keys = epoch_keys_new(aead_backend(), AES_256_GCM, 1, &NO_LIMITS, e1, e1);
    CHECK(keys != NULL);
    atomic_store(&keys->last_id, UINT64_C(4) << 48);
    memcpy(made + EPOCH_AD, fox, sizeof fox - 1);
    CHECK_EQUAL(epoch_seal(keys, 0, &NO_LIMITS, made, sizeof fox - 1), PACKET_PASSES);
    CHECK(memcmp(made, answer, length) == 0);
    CHECK_EQUAL(epoch_open(keys, &NO_LIMITS, made, (uint32_t)length), PACKET_PASSES); /* three epochs ahead */
    CHECK_EQUAL(keys->openers[0].epoch, 4);
    CHECK_EQUAL(keys->retiring.epoch, 1);
    epoch_keys_free(keys);
}

static uint64_t sealed_id(struct epoch_keys *keys, const struct epoch_limits *limits)
{
    uint8_t packet[64] = {P_DATA_V2 << 3};
    enum drop_reason reason = epoch_seal(keys, 0, limits, packet, 16);
    CHECK(reason == PACKET_PASSES || reason == DROP_KEY_EXHAUSTED);
    return reason == PACKET_PASSES ? get_u64(packet + DATA_HEADER) : 0;
}

/* A counter that runs over moves on to the next epoch, and never to counter 0. */
static void a_full_counter_ends_the_epoch(void)
{
    struct epoch_keys *keys = new_keys(V12_E1, V12_E1, 1, &NO_LIMITS);
    atomic_store(&keys->last_id, UINT64_C(3) << 48 | (EPOCH_COUNTER_MASK - 1));
    CHECK_EQUAL(sealed_id(keys, &NO_LIMITS), UINT64_C(3) << 48 | EPOCH_COUNTER_MASK);
    CHECK_EQUAL(sealed_id(keys, &NO_LIMITS), UINT64_C(4) << 48 | 1);
    epoch_keys_free(keys);
}

static void behind_the_last_epoch_there_is_nothing(void)
{
    const struct epoch_limits tight = {.use = 1, .last = EPOCH_LAST, .rekey = EPOCH_LAST};
    struct epoch_keys *keys = new_keys(V12_E1, V12_E1, 1, &tight);
    atomic_store(&keys->last_id, UINT64_C(0xFFFE) << 48);
    CHECK_EQUAL(sealed_id(keys, &tight), UINT64_C(0xFFFE) << 48 | 1);
    CHECK_EQUAL(sealed_id(keys, &tight), (long long)(UINT64_C(0xFFFF) << 48 | 1));
    uint64_t end = atomic_load(&keys->last_id);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQUAL(sealed_id(keys, &tight), 0);
    CHECK(atomic_load(&keys->last_id) == end && end >> 48 == 0xFFFF);
    epoch_keys_free(keys);
}

/* Workers that seal and rotate at once: every id once, and each packet opens. */
enum { THREADS = 3, EACH = 20000 };
static const struct epoch_limits SHORT_EPOCHS = {.use = 1000, .last = EPOCH_LAST, .rekey = EPOCH_LAST};
static struct epoch_keys *shared;
static uint64_t ids[THREADS * EACH];

static void *seal_many(void *argument)
{
    unsigned worker = *(const unsigned *)argument;
    for (unsigned i = 0; i < EACH; i++) {
        uint8_t packet[64] = {P_DATA_V2 << 3};
        CHECK_EQUAL(epoch_seal(shared, worker, &SHORT_EPOCHS, packet, 16), PACKET_PASSES);
        ids[worker * EACH + i] = get_u64(packet + DATA_HEADER);
    }
    return argument;
}

static int by_value(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
    return (first > second) - (first < second);
}

static void no_id_is_given_out_twice(void)
{
    pthread_t threads[THREADS];
    unsigned workers[THREADS];
    shared = new_keys(V12_E1, V12_E1, THREADS, &SHORT_EPOCHS);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, seal_many, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < THREADS; i++)
        for (unsigned at = 1; at < EACH; at++)
            CHECK(ids[i * EACH + at] > ids[i * EACH + at - 1]);
    qsort(ids, THREADS * EACH, sizeof ids[0], by_value);
    for (unsigned i = 1; i < THREADS * EACH; i++)
        CHECK(ids[i] != ids[i - 1]);
    uint32_t epochs = epoch_sending(shared);
    CHECK(epochs > THREADS * EACH * 4 / 1000 * 9 / 10 && epochs <= THREADS * EACH * 4 / 1000 + 1);
    epoch_keys_free(shared);
}

int main(void)
{
    RUN(secrets_and_keys_follow_the_known_chain);
    RUN(a_real_packet_opens_and_is_made);
    RUN(the_fourth_epoch_has_its_known_packet);
    RUN(a_full_counter_ends_the_epoch);
    RUN(behind_the_last_epoch_there_is_nothing);
    RUN(no_id_is_given_out_twice);
    return 0;
}
