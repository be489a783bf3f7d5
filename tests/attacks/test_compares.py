"""Every compare that keeps an attacker out, taken out or turned round: then a test must fail.

CVE-2025-13086 was an inverted compare that nobody's tests saw: the cookie was never checked. Each property below holds
for the code as it is, and for none of its mutants.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from helpers.inline_plane import ENDPOINT, LISTENER, InlinePlane, Outlet
from helpers.mutants import CTests, Mutant
from helpers.packets import ClientKey, data_keys, hmac_and_cbc, icmp, udp
from helpers.pair import Pair, pki, tls_context
from helpers.world import World
from helpers.wrappings import CASES, SERVER_KEY

from cvpnd.auth import web_logins
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.web_logins import Waiting, WebLogin, WebLogins
from cvpnd.dataplane import reference_forward, reference_keys
from cvpnd.dataplane.api import PeerSettings, SocketAddress
from cvpnd.reasons import PortalRefusal, Refusal
from cvpnd.server import predecessors
from cvpnd.wire import agreement, channel, negotiation, reliable, reset_cookie
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import SessionClosed
from cvpnd.wire.key_method import parse_peer_info
from cvpnd.wire.negotiation import Negotiated, Unsupported, negotiate
from cvpnd.wire.packet import ControlPacket, Opcode, serialise_packet
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.stateless import Established, check_echo
from cvpnd.wire.wrap import replay, tls_auth, tls_crypt, tls_crypt_v2
from cvpnd.wire.wrap.tls_crypt_v2 import ClientKey as WrappedKey
from cvpnd.wire.wrap.wrapping import ReplayId

ROOT = Path(__file__).parents[2]
HERE, THERE = SocketAddress("192.0.2.7", 40000), SocketAddress("203.0.113.66", 6666)
Property = Callable[[], None]


def echo(cookie: bytes) -> bytes:
    return serialise_packet(ControlPacket(Opcode.CONTROL_V1, 0, b"client-1", (0,), cookie, 1, b"\x16\x03\x01"))


def cookie_lets_in_who_got_it_and_nobody_else() -> None:
    cookie = ResetCookie(bytes(32))
    right = cookie.session_id(HERE, b"client-1", 0.0)
    assert isinstance(check_echo(echo(right), HERE, 0.0, cookie), Established)
    for wrong in (bytes([*right[:7], right[7] ^ 1]), bytes([right[0] ^ 1, *right[1:]]), b"\xff" * 8):
        assert check_echo(echo(wrong), HERE, 0.0, cookie) is DropReason.BAD_COOKIE
    assert check_echo(echo(right), THERE, 0.0, cookie) is DropReason.BAD_COOKIE


def wrapping_opens_what_is_authentic(name: str) -> Property:
    def check() -> None:
        case = CASES[name]
        opener = case.protection.shared
        assert opener is not None
        sealed = case.client.seal(
            ControlPacket(Opcode.CONTROL_V1, 0, b"client-1", (), b"", 1, b"hello"), ReplayId(1, 1)
        )
        assert opener.open(sealed).packet.payload == b"hello"
        for at in range(9, len(sealed)):
            with pytest.raises(PeerError):
                opener.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])

    return check


def client_key_is_one_that_we_wrapped() -> None:
    wkc = SERVER_KEY.wrap(WrappedKey(bytes(range(256)), b"\0who"))
    assert SERVER_KEY.unwrap(wkc).metadata == b"\0who"
    for at in range(len(wkc)):
        with pytest.raises(PeerError):
            SERVER_KEY.unwrap(wkc[:at] + bytes([wkc[at] ^ 1]) + wkc[at + 1 :])


def replay_window_takes_each_id_once() -> None:
    window = replay.ReplayWindow()
    assert [window.accept(ReplayId(n, 5), 0.0) for n in (1, 3, 2, 3, 1)] == [True, True, True, False, False]
    assert not window.accept(ReplayId(9, 4), 0.0), "an earlier run of the sender"


def connected(new_channel: channel.ChannelMaker = channel.native_channel) -> Pair:
    pair = Pair(new_channel=new_channel)
    pair.connect()
    pair.run(seconds=1)
    return pair


def session_hears_its_own_client_only() -> None:
    pair = connected(channel.ReferenceChannel)
    live = pair.session
    assert live is not None
    before = live.drops[DropReason.UNROUTABLE]
    live.receive_packet(serialise_packet(ControlPacket(Opcode.CONTROL_V1, 0, b"stranger", packet_id=5)), pair.now)
    assert live.drops[DropReason.UNROUTABLE] == before + 1
    assert not live.packets_to_send(pair.now), "nobody is answered"


def acknowledgements_of_another_session_count_for_nothing() -> None:
    layer = reliable.ReliableLayer(0, b"server-1", b"client-1", payload_limit=100)
    layer.queue_payload(Opcode.HARD_RESET_SERVER_V2)
    layer.packets_to_send(0.0)
    with pytest.raises(PeerError):
        layer.receive_packet(ControlPacket(Opcode.ACK_V1, 0, b"client-1", (0,), b"another!"))
    assert not layer.all_acknowledged
    layer.receive_packet(ControlPacket(Opcode.ACK_V1, 0, b"client-1", (0,), b"server-1"))
    assert layer.all_acknowledged


def who_renegotiates_is_who_logged_in() -> None:
    pair = connected()
    pair.client._context = tls_context(pki().other_client, server=False)
    pair.client.renegotiate(pair.now)
    pair.run(seconds=30)
    (closed,) = pair.of_server(SessionClosed)
    assert closed.reason is Refusal.IDENTITY_CHANGED


def address_of_another_identity_is_not_taken() -> None:
    with World(CASES["plain"]) as world:
        alice, _, bob = world.devices
        for device in (alice, bob):
            device.start()
        world.pass_time(5)
        (victim,) = (c for c in world.connections() if c.common_name == "bob")
        alice.address, bob.address = bob.address, alice.address
        world.send(alice)
        world.pass_time(0.1)
        assert victim.established, "bob's connection was closed for alice"


def forged_data_passes_nowhere() -> None:
    plane = InlinePlane(Outlet(lambda packet, address: None), lambda: 0.0)
    try:
        plane.set_rules(ENDPOINT, [(ip_network("10.20.0.0/16"), 1)])
        plane.add_peer(5, PeerSettings(ENDPOINT, (ip_address("10.100.0.2"),), 1, 0, 0))
        key = ClientKey(0, data_keys("compares"))
        plane.install_key(5, 0, key.keys)
        plane.set_remote(5, LISTENER, HERE, "")
        good = key.seal(5, udp("10.100.0.2", "10.20.0.7"))
        for at in range(8, len(good)):
            plane.receive(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], HERE)
        assert not plane.delivered, "not authentic"
        for _ in range(2):
            plane.receive(good, HERE)
        assert len(plane.delivered) == 1, "replayed"
        plane.receive(key.seal(5, udp("10.100.0.3", "10.20.0.7")), HERE)
        assert len(plane.delivered) == 1, "another's source address"
        about_another = bytes(4) + udp("10.20.0.7", "10.100.0.3")
        plane.receive(key.seal(5, icmp("10.100.0.2", "10.20.0.7", 3, 3, about_another)), HERE)
        assert len(plane.delivered) == 1, "speaks of another's packet"
        plane.receive(key.seal(5, udp("10.100.0.2", "10.30.0.7")), HERE)
        assert len(plane.delivered) == 1, "not authorized"
    finally:
        plane.close()


def forged_cbc_passes_nowhere() -> None:
    plane = InlinePlane(Outlet(lambda packet, address: None), lambda: 0.0)
    try:
        plane.set_rules(ENDPOINT, [(ip_network("10.20.0.0/16"), 1)])
        plane.add_peer(5, PeerSettings(ENDPOINT, (ip_address("10.100.0.2"),), 1, 0, 0))
        key = ClientKey(0, data_keys("compares", "AES-256-CBC", digest="SHA256"))
        plane.install_key(5, 0, key.keys)
        plane.set_remote(5, LISTENER, HERE, "")
        packet = udp("10.100.0.2", "10.20.0.7", bytes(40))
        good = key.seal(5, packet)
        for at in range(4, len(good)):
            plane.receive(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], HERE)
        assert not plane.delivered, "not authentic"
        for _ in range(2):
            plane.receive(good, HERE)
        assert len(plane.delivered) == 1, "replayed"
        keys = (key.keys.open_key, key.keys.open_iv)
        text = (2).to_bytes(4, "big") + packet
        for padding in (bytes([9]) + bytes([8]) * 7, bytes(8), bytes([17]) * 8):
            plane.receive(hmac_and_cbc(keys, "SHA256", good[:4], text + padding), HERE)
        assert len(plane.delivered) == 1, "padded wrongly"
        plane.receive(hmac_and_cbc(keys, "SHA256", good[:4], text + bytes([8]) * 8), HERE)
        assert len(plane.delivered) == 2
    finally:
        plane.close()


def cbc_is_for_those_alone_who_have_nothing_else() -> None:
    for_all, aead_only = ("AES-256-GCM", "AES-256-CBC"), ("AES-256-GCM",)
    modern, old = parse_peer_info("IV_CIPHERS=AES-256-CBC:AES-256-GCM\n"), parse_peer_info("")
    configured = "V4,cipher AES-256-CBC,auth "
    outcome = negotiate(for_all, modern, configured + "SHA256")
    assert isinstance(outcome, Negotiated)
    assert outcome.cipher == "AES-256-GCM"
    outcome = negotiate(for_all, old, configured + "SHA256")
    assert isinstance(outcome, Negotiated)
    assert (outcome.cipher, outcome.digest) == ("AES-256-CBC", "SHA256")
    assert isinstance(negotiate(aead_only, old, configured + "SHA256"), Unsupported)
    assert isinstance(negotiate(for_all, old, configured + "MD5"), Unsupported)


def only_one_browser_consents_to_a_login() -> None:
    """Whoever has only one of its secrets, or another's, or comes too late, gets nowhere."""
    logins, outcome = WebLogins("https://vpn.example.com", 60), asyncio.Future(loop=asyncio.new_event_loop())
    waiting = Waiting("staff", "Linux", "192.0.2.7", "")
    login = WebLogin("corp", "cvpn-connection-1", waiting, 60.0, outcome, lambda: None)
    logins.offer(login)
    link, own = login.secret, {login.cookie: ""}
    relay_state = logins.open(login)
    own[login.cookie] = login.browser
    logins.ask(login, relay_state, PendingRequest("_r", "https://vpn.example.com/saml/acs", 0.0, 60.0))
    for cookies in ({}, {login.cookie: "x" * 43}):
        assert logins.find(link, cookies, 1.0) is PortalRefusal.BROWSER_MISMATCH
    assert logins.find(relay_state, own, 1.0) is logins.find(link, own, 60.0) is PortalRefusal.LINK_UNKNOWN
    assert logins.check(link, 1.0) is logins.check(relay_state, 60.0) is PortalRefusal.RELAY_STATE_UNKNOWN
    assert logins.check(relay_state, 1.0) is login
    ticket = logins.prove(login, Assertion("_1", "anna", frozenset()))
    assert ticket is not None
    for wrong, now in ((link, 1.0), (relay_state, 1.0), (ticket, 60.0)):
        assert logins.proven(wrong, own, now) is PortalRefusal.LINK_UNKNOWN
    assert logins.proven(ticket, own, 1.0) is login
    assert not logins.decide(login, ticket, True) and not outcome.done()
    assert logins.proven(ticket, {}, 1.0) is PortalRefusal.BROWSER_MISMATCH
    assert outcome.result().refusal is Refusal.BROWSER_MISMATCH


AEAD_REPLAY = "return payload if self.replay.accept(self._last_opened) else Drop.REPLAYED"
CBC_REPLAY = "return text[PACKET_ID:-padding] if self.replay.accept(self._last_opened) else Drop.REPLAYED"
CBC_HMAC = "if not hmac.compare_digest(tag, hmac.digest(self._open_hmac_key, covered, self._digest)):"
CBC_PADDING = "if not 1 <= padding <= CBC_BLOCK or text[-padding:] != bytes([padding]) * padding:"
COOKIE = "hmac.compare_digest(session_id, self._for_slot(place, slot - age))"
TLS_AUTH = "if not hmac.compare_digest(packet[HEADER_BYTES:count_at], expected):"
SIV = 'if not hmac.compare_digest(tag, hmac.digest(self._hmac_key, ad + plaintext, "sha256")):'
FOREIGN_ACK = "packet.remote_session_id != self._local_session_id"
INVALID_TAG = "        except InvalidTag:\n            return Drop.AUTH_FAILED\n        self._last_opened"
AS_IF_VALID = """        except InvalidTag:
            payload = self._opener.encrypt(packet_id + self._open_iv, text, b"")[:-16]
        self._last_opened"""
ENDED = "if False:\n            self.end"
COMPARES: dict[str, tuple[Property, list[Mutant]]] = {
    "cookie": (
        cookie_lets_in_who_got_it_and_nobody_else,
        [
            Mutant(reset_cookie, "ResetCookie.verify", COOKIE, "True"),
            Mutant(reset_cookie, "ResetCookie.verify", COOKIE, f"not {COOKIE}"),
            Mutant(reset_cookie, "ResetCookie.verify", "return any(", "return not any("),
        ],
    ),
    "tls-auth": (
        wrapping_opens_what_is_authentic("tls-auth 0 SHA1"),
        [
            Mutant(tls_auth, "TlsAuth.open", TLS_AUTH, "if False:"),
            Mutant(tls_auth, "TlsAuth.open", TLS_AUTH, TLS_AUTH.replace("not ", "")),
        ],
    ),
    "tls-crypt": (
        wrapping_opens_what_is_authentic("tls-crypt"),
        [
            Mutant(tls_crypt, "SivKey.open", SIV, "if False:"),
            Mutant(tls_crypt, "SivKey.open", SIV, SIV.replace("not ", "")),
            Mutant(tls_crypt, "TlsCrypt._open", "if body is None:", "if False:"),
        ],
    ),
    "client key": (
        client_key_is_one_that_we_wrapped,
        [
            Mutant(tls_crypt, "SivKey.open", SIV, "if False:"),
            Mutant(tls_crypt_v2, "ServerKey.unwrap", "if plaintext is None:", "if False:"),
        ],
    ),
    "replay": (
        replay_window_takes_each_id_once,
        [
            Mutant(replay, "ReplayWindow.accept", "number == 0 or time < self._time", "number == 0"),
            Mutant(replay, "ReplayWindow._fits_behind", " or number in self._arrivals", ""),
        ],
    ),
    "session id": (
        session_hears_its_own_client_only,
        [Mutant(channel, "ReferenceChannel._unwrap", "packet[1:HEADER_BYTES] != self._remote_session_id", "False")],
    ),
    "acknowledged session id": (
        acknowledgements_of_another_session_count_for_nothing,
        [
            Mutant(
                reliable, "ReliableLayer.receive_packet", "packet.remote_session_id != self._local_session_id", "False"
            )
        ],
    ),
    "identity": (
        who_renegotiates_is_who_logged_in,
        [Mutant(agreement, "Agreement.identify", "return identity == self._identity", "return True")],
    ),
    "browser": (
        only_one_browser_consents_to_a_login,
        [
            Mutant(web_logins, "WebLogin.is_browser", "return bool(self.browser) and", "return True or"),
            Mutant(web_logins, "WebLogins._find", "and now < login.until", ""),
            Mutant(web_logins, "WebLogins.find", "login is None or not _same(login.secret, secret)", "login is None"),
            Mutant(web_logins, "WebLogins.check", "or not _same(login.relay_state, relay_state)", ""),
            Mutant(web_logins, "WebLogins.proven", "or not _same(login.ticket, ticket)", ""),
            Mutant(web_logins, "WebLogins.proven", "if not login.is_browser(cookies):\n            self.end", ENDED),
            Mutant(web_logins, "WebLogins.decide", "or not _same(login.consent, consent)", ""),
        ],
    ),
    "floating": (
        address_of_another_identity_is_not_taken,
        [Mutant(predecessors, "follow", "if other.identity != connection.identity:", "if False:")],
    ),
    "data": (
        forged_data_passes_nowhere,
        [
            Mutant(reference_keys, "PacketIdKeySlot.open", INVALID_TAG, AS_IF_VALID),
            Mutant(reference_keys, "PacketIdKeySlot.open", AEAD_REPLAY, "return payload"),
            Mutant(reference_forward, "Forwarder._admit", "inner.source not in peer.settings.addresses", "False"),
            Mutant(reference_forward, "Forwarder._admit", "about not in (None, *peer.settings.addresses)", "False"),
        ],
    ),
    "data under CBC": (
        forged_cbc_passes_nowhere,
        [
            Mutant(reference_keys, "CbcKeySlot.open", CBC_HMAC, "if False:"),
            Mutant(reference_keys, "CbcKeySlot.open", CBC_HMAC, CBC_HMAC.replace("not ", "")),
            Mutant(reference_keys, "CbcKeySlot.open", CBC_PADDING, "if False:"),
            Mutant(reference_keys, "CbcKeySlot.open", CBC_REPLAY, "return payload"),
        ],
    ),
    "legacy ciphers": (
        cbc_is_for_those_alone_who_have_nothing_else,
        [
            Mutant(negotiation, "choose_cipher", "if cipher in accepted", "if cipher in server_ciphers"),
            Mutant(negotiation, "choose_cipher", "for cipher in server_ciphers if", "for cipher in accepted if"),
            Mutant(negotiation, "choose_digest", "return name if name in CBC_DIGESTS else None", "return name"),
        ],
    ),
}


def holds(check: Property) -> bool:
    try:
        check()
    except (Exception, pytest.fail.Exception):
        return False
    return True


@pytest.mark.parametrize("name", COMPARES)
def test_compare_keeps_strangers_out(name: str) -> None:
    check, mutants = COMPARES[name]
    check()
    for mutant in mutants:
        with mutant.in_place():
            assert not holds(check), f"nobody notices: {mutant.old!r} as {mutant.new!r}"


def test_wrong_cookie_allocates_nothing() -> None:
    with World(CASES["plain"]) as world:
        wrong = [echo(n.to_bytes(8, "big")) for n in range(1, 3001)]
        for packet in wrong:  # Python keeps up to 2000 tuples of each length for later use
            world.deliver(packet, THERE)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number, packet in enumerate(wrong):
            world.deliver(packet, SocketAddress("203.0.113.66", 1 + number))
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(world.control.table) == 0 and not world.told
        assert world.control.all_drops()[DropReason.BAD_COOKIE] == 2 * len(wrong)
        assert grown < 2000, "bytes are kept for strangers"


# -- the same in C ------------------------------------------------------------------------------------------

C_MUTANTS = [
    ("test_aead", "aead_evp.c", "EVP_DecryptFinal_ex(ctx, text + length, &written)", "true"),
    ("test_aead", "aead_evp.c", "EVP_DecryptUpdate(ctx, NULL, &written, ad, (int)ad_length)", "true"),
    ("test_replay", "replay.c", "if (*seen & bit)", "if (false)"),
    ("test_replay", "replay.c", "} else if (window->highest - id >= REPLAY_WINDOW) {", "} else if (false) {"),
    ("test_forward", "forward.c", "!peer_has_lease(peer, &inner.source)", "false"),
    ("test_forward", "forward.c", "!peer_has_lease(peer, &about)", "false"),
    ("test_forward", "data_packet.c", "if (!accept_id(slot, get_u32(id)))", "if (false)"),
    ("test_forward", "data_packet.c", "if (!accept_id(slot, get_u32(text)))", "if (false)"),
    ("test_forward", "data_packet.c", "if (length <= PACKET_ID_SIZE)", "if (false)"),
    ("test_forward", "data_packet.c", "return id < limits->packet_ids ? (uint32_t)id : 0;", "return (uint32_t)id;"),
    ("test_cbc", "cbc.c", "if (!mac_matches(&keys->open.mac, &authentic, 1, hmac, hmac_size))", "if (false)"),
    (
        "test_cbc",
        "cbc.c",
        "const struct part authentic = {iv, *length - hmac_size};",
        "const struct part authentic = {iv + CBC_BLOCK, *length - hmac_size - CBC_BLOCK};",
    ),
    ("test_cbc", "cbc.c", "*length < before + CBC_BLOCK || ", ""),
    ("test_cbc", "cbc.c", " || (*length - before) % CBC_BLOCK != 0", ""),
    ("test_cbc", "cbc.c", "if (padding < 1 || padding > CBC_BLOCK)", "if (padding < 1)"),
    ("test_cbc", "cbc.c", "if (padding < 1 || padding > CBC_BLOCK)", "if (padding > CBC_BLOCK)"),
    ("test_cbc", "cbc.c", "if (text[*length - i] != padding)", "if (false)"),
    ("test_cbc", "iv.c", "static void begin_anew(void) { pool.left = 0; }", "static void begin_anew(void) {}"),
    ("test_cbc", "iv.c", "pool.bytes + --pool.left * IV_SIZE", "pool.bytes + (pool.left-- / 2) * IV_SIZE"),
    ("test_stranger", "reset_cookie.c", "CRYPTO_memcmp(expected, session_id, SESSION_ID_SIZE) == 0", "true"),
    ("test_stranger", "reset_cookie.c", "CRYPTO_memcmp(expected, session_id, SESSION_ID_SIZE) == 0", "false"),
    ("test_stranger", "mac.c", "CRYPTO_memcmp(result, expected, length) == 0", "true"),
    ("test_stranger", "control_keys.c", "if (!mac_matches(mac, parts, 3, hmac, mac->size))", "if (false)"),
    ("test_stranger", "siv.c", "&& mac_matches(&siv->mac, parts, 2, tag, SIV_TAG_SIZE)", ""),
    ("test_stranger", "protection.c", " && memcmp(client->wrapped, tag, wkc_length) == 0", ""),
    ("test_channel", "control_keys.c", "if (!mac_matches(mac, parts, 3, hmac, mac->size))", "if (false)"),
    ("test_channel", "siv.c", "&& mac_matches(&siv->mac, parts, 2, tag, SIV_TAG_SIZE)", ""),
    ("test_channel", "control_channel.c", "memcmp(packet + 1, channel->remote_id, SESSION_ID_SIZE) != 0", "false"),
    (
        "test_channel",
        "control_channel.c",
        "memcmp(body->remote_session_id, channel->local_id, SESSION_ID_SIZE) != 0",
        "false",
    ),
    ("test_channel", "control_channel.c", "if (!wrap->brings_key)", "if (false)"),
    (
        "test_channel",
        "control_channel.c",
        "wrap->seen != NULL && control_replay_accept(wrap->seen,",
        "true || control_replay_accept(wrap->seen,",
    ),
    ("test_channel", "control_replay.c", "if (id == 0 || (window->begun && time < window->time))", "if (id == 0)"),
    ("test_channel", "control_replay.c", " || window->ids[id % CONTROL_REPLAY_IDS] == id", ""),
    ("test_channel", "control_replay.c", "window->highest - id >= CONTROL_REPLAY_IDS || ", ""),
    ("test_channel", "control_replay.c", "window->arrived[i] < now - CONTROL_REPLAY_S", "false"),
    ("test_channel", "reliable.c", "if (!before && ahead >= RECEIVE_WINDOW)", "if (false)"),
    ("test_channel", "reliable.c", "bool duplicate = before || ", "bool duplicate = "),
    ("test_channel", "reliable.c", "layer->next_id - layer->in_flight[0].packet_id < SEND_WINDOW", "true"),
    ("test_stranger", "stranger.c", "body->highest_ack > LAST_FIRST_ID || ", ""),
    ("test_stranger", "stranger.c", " || body->packet_id > LAST_FIRST_ID", ""),
    ("test_stranger", "stranger.c", "length <= request_length + REPLY_GROWTH ? length : 0", "length"),
    ("test_door", "door_queue.c", "DOOR_PREFIX_WAITING : DOOR_PREFIX_HANDSHAKES", "9999 : DOOR_PREFIX_HANDSHAKES"),
    ("test_door", "door_queue.c", "DOOR_PREFIX_WAITING : DOOR_PREFIX_HANDSHAKES", "DOOR_PREFIX_WAITING : 9999"),
    (
        "test_door",
        "door_queue.c",
        "session->waiting >= (crowded ? DOOR_SESSION_WAITING_CROWDED : DOOR_SESSION_WAITING) ||",
        "",
    ),
    (
        "test_door",
        "door_queue.c",
        "crowded ? DOOR_SESSION_WAITING_CROWDED : DOOR_SESSION_WAITING",
        "DOOR_SESSION_WAITING",
    ),
    ("test_door", "door_queue.c", "if (session->proven && ", "if ("),
    ("test_door", "door_queue.c", "now_ms - session->heard_ms < DOOR_BUSY_MS", "true"),
    ("test_tables", "events.c", " ||\n        share->waiting >= most", ""),
    ("test_tables", "events.c", "events->count >= EVENTS_OF_CLIENTS || ", ""),
    (
        "test_forward",
        "forward.c",
        "if (remote == NULL || remote->listener != listener || ",
        "if (remote == NULL || false && ",
    ),
    ("test_forward", "forward.c", "if (!bucket_take(&peer->control, CONTROL_PACKETS_PER_S, ", "if (false && ("),
    ("test_door", "door_queue.c", "session->standing != DOOR_ESTABLISHED || ", ""),
    ("test_door", "door_queue.c", "item->standing == DOOR_DATA ? NULL : ", ""),
    ("test_epoch", "epoch.c", "    if (!replay_accept(&keys->replay, counter))", "    if (false)"),
]


@pytest.fixture(scope="module")
def c_tests(tmp_path_factory: pytest.TempPathFactory) -> CTests:
    return CTests(ROOT, tmp_path_factory.mktemp("core"))


@pytest.mark.parametrize("mutant", C_MUTANTS, ids=lambda mutant: f"{mutant[1]}: {mutant[2].strip()}")
def test_compare_in_c_keeps_strangers_out(c_tests: CTests, mutant: tuple[str, str, str, str]) -> None:
    test, file, old, new = mutant
    assert c_tests.passes(test)
    assert not c_tests.passes(test, file, old, new), "no C test notices"
