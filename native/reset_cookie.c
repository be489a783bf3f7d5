#include "reset_cookie.h"

#include <openssl/crypto.h>

#include "wire.h"

bool reset_cookie_init(struct reset_cookie *cookie, const uint8_t *secret, size_t length)
{
    if (!mac_init(&cookie->mac, "SHA256"))
        return false;
    if (mac_set_key(&cookie->mac, secret, length))
        return true;
    mac_destroy(&cookie->mac);
    return false;
}

void reset_cookie_destroy(struct reset_cookie *cookie) { mac_destroy(&cookie->mac); }

bool reset_cookie_make(struct reset_cookie *cookie, const struct socket_address *source,
                       const uint8_t client_sid[static SESSION_ID_SIZE], int64_t slot,
                       uint8_t session_id[static SESSION_ID_SIZE])
{
    static const uint8_t none[SESSION_ID_SIZE];
    bool v4 = ip_is_v4(&source->ip);
    uint8_t family = v4 ? 4 : 6, scope_and_port[6];
    put_u32(scope_and_port, source->scope_id);
    put_u16(scope_and_port + 4, source->port);
    for (;; slot--) { /* a session id is never all zero */
        uint8_t when[8], result[MAC_MAX];
        put_u32(when, (uint32_t)((uint64_t)slot >> 32));
        put_u32(when + 4, (uint32_t)slot);
        const struct part parts[] = {
            {&family, 1},
            {source->ip.bytes + (v4 ? 12 : 0), v4 ? 4 : 16},
            {scope_and_port, sizeof scope_and_port},
            {client_sid, SESSION_ID_SIZE},
            {when, sizeof when},
        };
        if (!mac_compute(&cookie->mac, parts, sizeof parts / sizeof parts[0], result))
            return false;
        memcpy(session_id, result, SESSION_ID_SIZE);
        if (memcmp(session_id, none, SESSION_ID_SIZE) != 0)
            return true;
    }
}

bool reset_cookie_verify(struct reset_cookie *cookie, const struct socket_address *source,
                         const uint8_t client_sid[static SESSION_ID_SIZE], int64_t slot,
                         const uint8_t session_id[static SESSION_ID_SIZE])
{
    bool valid = false;
    for (int age = 0; age < COOKIE_SLOTS; age++) {
        uint8_t expected[SESSION_ID_SIZE];
        bool made = reset_cookie_make(cookie, source, client_sid, slot - age, expected);
        valid |= made && CRYPTO_memcmp(expected, session_id, SESSION_ID_SIZE) == 0;
    }
    return valid;
}
