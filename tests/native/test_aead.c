/* Vectors V-9, V-10 and V-11 of openvpn-wire.md: real packets, and the ones in OpenVPN's own unit tests. */
#include "aead.h"
#include "check.h"

static const struct aead_backend *backend; /* the one being tested */

static void open_ping(enum aead_cipher_id cipher, const char *key_hex, const char *iv_hex, const char *packet_hex)
{
    uint8_t key[AEAD_KEY_MAX], nonce[NONCE_SIZE], packet[64];
    from_hex(key, key_hex);
    size_t length = from_hex(packet, packet_hex);
    memcpy(nonce, packet + DATA_HEADER, PACKET_ID_SIZE);
    from_hex(nonce + PACKET_ID_SIZE, iv_hex);
    struct aead_context *context = backend->context_new(cipher, AEAD_OPEN, key);
    CHECK(context != NULL);
    uint8_t *text = packet + DATA_OVERHEAD;
    size_t text_length = length - DATA_OVERHEAD;

    uint8_t damaged[64];
    for (size_t i = 0; i < length; i++) { /* any bit of header, tag and text */
        memcpy(damaged, packet, length);
        damaged[i] ^= (uint8_t)(1u << (i % 8));
        CHECK(!backend->open(context, nonce, damaged, DATA_AD, damaged + DATA_OVERHEAD, text_length,
                             damaged + DATA_AD));
    }
    CHECK(backend->open(context, nonce, packet, DATA_AD, text, text_length, packet + DATA_AD));
    CHECK_EQUAL(text_length, KEEPALIVE_SIZE);
    CHECK(memcmp(text, KEEPALIVE, KEEPALIVE_SIZE) == 0);
    backend->context_free(context);
}

static void real_aes_256_gcm_ping_opens(void) /* V-9 */
{
    open_ping(AES_256_GCM, "f70a3b63522a3d53f3a41fb879154317f542742d933719cd973b01891d49d540", "1b2dd8ec6aa439e1",
              "480000000000000201b13cc0239f3bd6afc6af9d04d0023d88b78916a4124c686b007c69736b45a6");
}

static void real_chacha20_poly1305_ping_opens(void) /* V-10 */
{
    open_ping(CHACHA20_POLY1305, "5a26d1f28f9d4c7039c89cfc37a11899138f41b21d6a9b5c2ec2afd5a9827cc1",
              "2bf69205ddc5306c", "4800000000000002fe95ac62163d7c666ca051af10758c620164c38a0e237969ff7181bed80ae857");
}

static void known_answer_of_openvpn_seals(void) /* V-11 */
{
    static const char pattern[] = "abcdefgh01234567ABCDEFGHjkuchenl";
    static const char quick[] = "The quick little fox jumps over the bureaucratic hurdles";
    uint8_t key2[256], packet[128], expected[128];
    for (unsigned i = 0; i < sizeof key2; i++)
        key2[i] = (uint8_t)((uint8_t)pattern[i % 32] ^ i);
    size_t length = from_hex(expected, "07000017000000011fdd908f0e9dc25e79d832020d58e73f2262f977d6bb2118"
                                       "fa0ea82e6b1706d949aefcb5efcbbacd5c09a9ab45f4d391d3f68794cb0b82c3"
                                       "d33389b61622b3281598e2ff6d5cc38b");
    from_hex(packet, "0700001700000001");
    memcpy(packet + DATA_OVERHEAD, quick, sizeof quick - 1);
    CHECK_EQUAL(length, DATA_OVERHEAD + sizeof quick - 1);

    uint8_t nonce[NONCE_SIZE];
    memcpy(nonce, packet + DATA_HEADER, PACKET_ID_SIZE);
    memcpy(nonce + PACKET_ID_SIZE, key2 + 64, IMPLICIT_IV_SIZE);
    struct aead_context *context = backend->context_new(AES_256_GCM, AEAD_SEAL, key2);
    CHECK(context != NULL);
    CHECK(backend->seal(context, nonce, packet, DATA_AD, packet + DATA_OVERHEAD, sizeof quick - 1, packet + DATA_AD));
    CHECK(memcmp(packet, expected, length) == 0);
    backend->context_free(context);
}

/* A kept context gives the same as a fresh one, whatever it did before: lengths change, an open fails between. */
static void contexts_can_be_kept(void)
{
    static const uint8_t key[AEAD_KEY_MAX] = "some key";
    for (int cipher = 0; cipher < AEAD_CIPHERS; cipher++) {
        struct aead_context *seal = backend->context_new((enum aead_cipher_id)cipher, AEAD_SEAL, key);
        struct aead_context *open = backend->context_new((enum aead_cipher_id)cipher, AEAD_OPEN, key);
        CHECK(seal != NULL && open != NULL);
        for (unsigned i = 0; i < 200; i++) {
            uint8_t text[1500], plain[1500], tag[TAG_SIZE], nonce[NONCE_SIZE] = {(uint8_t)i};
            const uint8_t ad[DATA_AD] = {(uint8_t)i, 1};
            size_t length = 1 + i * 7;
            memset(plain, (int)i, length);
            memcpy(text, plain, length);
            CHECK(backend->seal(seal, nonce, ad, DATA_AD, text, length, tag));
            CHECK(length < 16 || memcmp(text, plain, length) != 0);
            uint8_t damaged[1500];
            memcpy(damaged, text, length);
            damaged[length - 1] ^= 1;
            CHECK(!backend->open(open, nonce, ad, DATA_AD, damaged, length, tag));
            CHECK(backend->open(open, nonce, ad, DATA_AD, text, length, tag));
            CHECK(memcmp(text, plain, length) == 0);
        }
        backend->context_free(seal);
        backend->context_free(open);
    }
}

static void ciphers_are_found_by_name(void)
{
    CHECK_EQUAL(aead_cipher_find("AES-256-GCM"), AES_256_GCM);
    CHECK_EQUAL(aead_cipher_find("CHACHA20-POLY1305"), CHACHA20_POLY1305);
    CHECK_EQUAL(aead_cipher_find("BF-CBC"), AEAD_CIPHERS);
}

static void choices_are_found_by_word(void)
{
    CHECK_EQUAL(aead_choice_find("auto"), AEAD_CHOOSE_FASTEST);
    CHECK_EQUAL(aead_choice_find("ipsec-mb"), AEAD_CHOOSE_IPSEC_MB);
    CHECK_EQUAL(aead_choice_find("rot13"), AEAD_CHOICES);
    CHECK(aead_backend_of(AEAD_CHOOSE_OPENSSL) != NULL);
    const struct aead_backend *faster = aead_backend_of(AEAD_CHOOSE_IPSEC_MB);
    CHECK(aead_backend_of(AEAD_CHOOSE_FASTEST) == (faster == NULL ? aead_backend_of(AEAD_CHOOSE_OPENSSL) : faster));
}

/* Whatever seals, the other opens, and the bytes are the same. */
static void backends_agree(void)
{
    const struct aead_backend *faster = aead_backend_of(AEAD_CHOOSE_IPSEC_MB),
                              *plain = aead_backend_of(AEAD_CHOOSE_OPENSSL);
    static const uint8_t key[AEAD_KEY_MAX] = "the key of both, 32 bytes of it.";
    uint64_t random = 88172645463325252;
    for (int cipher = 0; faster != NULL && cipher < AEAD_CIPHERS; cipher++) {
        struct aead_context *seal[2], *open[2];
        for (int i = 0; i < 2; i++) {
            seal[i] = (i ? faster : plain)->context_new((enum aead_cipher_id)cipher, AEAD_SEAL, key);
            open[i] = (i ? faster : plain)->context_new((enum aead_cipher_id)cipher, AEAD_OPEN, key);
            CHECK(seal[i] != NULL && open[i] != NULL);
        }
        for (size_t length = 1; length <= 1600; length += length < 300 ? 1 : 37) {
            uint8_t text[2][1600], tag[2][TAG_SIZE], nonce[NONCE_SIZE], ad[20];
            for (size_t i = 0; i < length; i++)
                text[0][i] = text[1][i] = (uint8_t)next_random(&random);
            for (size_t i = 0; i < sizeof ad; i++)
                ad[i] = (uint8_t)next_random(&random);
            memcpy(nonce, ad, NONCE_SIZE);
            size_t ad_length = length % (sizeof ad + 1); /* P_DATA_V1 covers nothing but the packet id */
            CHECK(plain->seal(seal[0], nonce, ad, ad_length, text[0], length, tag[0]));
            CHECK(faster->seal(seal[1], nonce, ad, ad_length, text[1], length, tag[1]));
            CHECK(memcmp(text[0], text[1], length) == 0 && memcmp(tag[0], tag[1], TAG_SIZE) == 0);
            CHECK(plain->open(open[0], nonce, ad, ad_length, text[1], length, tag[1]));
            CHECK(faster->open(open[1], nonce, ad, ad_length, text[0], length, tag[0]));
            CHECK(memcmp(text[0], text[1], length) == 0);
        }
        for (int i = 0; i < 2; i++) {
            (i ? faster : plain)->context_free(seal[i]);
            (i ? faster : plain)->context_free(open[i]);
        }
    }
}

int main(void)
{
    for (enum aead_choice choice = AEAD_CHOOSE_OPENSSL; choice < AEAD_CHOICES; choice++) {
        backend = aead_backend_of(choice);
        if (backend == NULL)
            continue;
        printf("%s\n", backend->describe());
        RUN(real_aes_256_gcm_ping_opens);
        RUN(real_chacha20_poly1305_ping_opens);
        RUN(known_answer_of_openvpn_seals);
        RUN(contexts_can_be_kept);
    }
    RUN(backends_agree);
    RUN(choices_are_found_by_word);
    RUN(ciphers_are_found_by_name);
    return 0;
}
