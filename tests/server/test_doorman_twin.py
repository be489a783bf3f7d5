"""The doorman's judgement in C and the plain Python (``wire.stateless``) say the same of the same packets: the reply
byte for byte, the reason of every drop, and who may begin a session."""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpnd import _native
from cvpnd.dataplane.api import SocketAddress
from cvpnd.server.doorman import describe
from cvpnd.wire import stateless
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import ControlPacket, Opcode
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import ControlProtection
from cvpnd.wire.wrap.tls_auth import TlsAuth
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import ClientKey, ServerKey, TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import ReplayId, Wrapping

SECRET = b"the secret of one process, thirty-two bytes or more"
COOKIE = ResetCookie(SECRET, 60)
KEY2 = random.Random(1).randbytes(256)
KC = random.Random(2).randbytes(256)
SERVER_KEY = ServerKey(random.Random(3).randbytes(128))
WALL = 1_700_000_000
NOW = 12_345.6
CLIENT_SID = b"clientid"

SOURCES = [
    SocketAddress("192.0.2.7", 40000),
    SocketAddress("2001:db8::7", 1),
    SocketAddress("fe80::7", 65535, 3),
]


def protection(shared: Wrapping | None, *, v2: bool = False, stateful: bool = True) -> ControlProtection:
    return ControlProtection(shared, SERVER_KEY if v2 else None, allow_stateful=stateful, clock=lambda: float(WALL))


def v2_client(metadata: bytes = b"\x00whose") -> TlsCryptV2Client:
    return TlsCryptV2Client(KC, SERVER_KEY.wrap(ClientKey(KC, metadata)))


# name -> what the server accepts, what the client wraps with, and the client's first replay id
CASES: dict[str, tuple[ControlProtection, Any, int]] = {
    "plain": (protection(PLAIN), PLAIN, 1),
    "tls-auth 0": (protection(TlsAuth(KEY2, 0)), TlsAuth(KEY2, 1), 1),
    "tls-auth 1 SHA256": (protection(TlsAuth(KEY2, 1, "SHA256")), TlsAuth(KEY2, 0, "SHA256"), 1),
    "tls-auth none SHA384": (protection(TlsAuth(KEY2, None, "SHA384")), TlsAuth(KEY2, None, "SHA384"), 1),
    "tls-auth 0 SHA512": (protection(TlsAuth(KEY2, 0, "SHA512")), TlsAuth(KEY2, 1, "SHA512"), 1),
    "tls-crypt": (protection(TlsCrypt(KEY2, server=True)), TlsCrypt(KEY2, server=False), 1),
    "tls-crypt-v2": (protection(None, v2=True), v2_client(), 0x0F000001),
    "tls-crypt-v2 of 2.5": (protection(None, v2=True), v2_client(), 1),
    "tls-crypt-v2 of 2.5, refused": (protection(PLAIN, v2=True, stateful=False), v2_client(), 1),
    "tls-crypt-v2 beside tls-auth": (protection(TlsAuth(KEY2, 0), v2=True), TlsAuth(KEY2, 1), 1),
    "with the longest metadata": (protection(PLAIN, v2=True), v2_client(bytes(734)), 0x0F000001),
}


def in_python(packet: bytes, source: SocketAddress, accepted: ControlProtection, now: float = NOW) -> object:
    if stateless.is_reset(packet):
        return stateless.answer_reset(packet, source, now, COOKIE, accepted)
    return stateless.check_echo(packet, source, now, COOKIE, accepted)


def in_c(packet: bytes, source: SocketAddress, accepted: ControlProtection, now: float = NOW) -> tuple[int, str, bytes]:
    host = ip_address(source.host).packed
    return _native.judge_stranger(
        SECRET, COOKIE.slot_s, int(now), WALL, host, source.port, source.scope_id, packet, describe(accepted)
    )


def agree(
    packet: bytes, source: SocketAddress, accepted: ControlProtection, now: float = NOW
) -> tuple[int, str, bytes]:
    """What both say."""
    specified = in_python(packet, source, accepted, now)
    said = in_c(packet, source, accepted, now)
    match specified:
        case bytes():
            assert said == (_native.WISH_ANSWER, "", specified)
            assert len(specified) <= len(packet) + 12
        case stateless.Opening():
            assert said == (_native.WISH_BEGIN_UNPROVEN, "", b"")
        case stateless.Established():
            assert said == (_native.WISH_BEGIN, "", b"")
        case DropReason():
            assert said == (_native.WISH_NOTHING, specified, b"")
        case _:
            pytest.fail(f"{specified!r}")
    return said


def reset(case: str, **changes: Any) -> bytes:
    _, client, first_id = CASES[case]
    v3 = isinstance(client, TlsCryptV2Client)
    opcode = Opcode.HARD_RESET_CLIENT_V3 if v3 else Opcode.HARD_RESET_CLIENT_V2
    fields = {"opcode": opcode, "key_id": 0, "session_id": CLIENT_SID, "packet_id": 0} | changes
    return bytes(client.seal(ControlPacket(**fields), ReplayId(first_id, WALL)))


def echo(case: str, cookie: bytes, **changes: Any) -> bytes:
    _, client, first_id = CASES[case]
    v2 = isinstance(client, TlsCryptV2Client)
    fields = {
        "opcode": Opcode.CONTROL_WKC_V1 if v2 else Opcode.CONTROL_V1, "key_id": 0, "session_id": CLIENT_SID,
        "acks": (0,), "remote_session_id": cookie, "packet_id": 1, "payload": b"\x16\x03\x01" + bytes(200),
    } | changes  # fmt: skip
    return bytes(client.seal(ControlPacket(**fields), ReplayId(first_id + 1, WALL)))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.host)
@pytest.mark.parametrize("case", CASES)
def test_first_exchange(case, source):
    accepted, _, _ = CASES[case]
    wish, _, _ = agree(reset(case), source, accepted)
    expected = {
        "tls-crypt-v2 of 2.5": _native.WISH_BEGIN_UNPROVEN,
        "tls-crypt-v2 of 2.5, refused": _native.WISH_NOTHING,
    }.get(case, _native.WISH_ANSWER)
    assert wish == expected
    cookie = COOKIE.session_id(source, CLIENT_SID, NOW)
    assert agree(echo(case, cookie), source, accepted)[0] == _native.WISH_BEGIN
    bare = echo(case, cookie, opcode=Opcode.ACK_V1, packet_id=None, payload=b"")
    agree(bare, source, accepted)  # with tls-crypt-v2 no key comes along: whoever that is, both say the same


@pytest.mark.parametrize("case", CASES)
def test_cookie_of_another_time_address_or_client(case):
    """CVE-2025-13086: an inverted compare let every cookie pass."""
    accepted, _, _ = CASES[case]
    here = SOURCES[0]
    cookie = COOKIE.session_id(here, CLIENT_SID, NOW)
    for later, alive in ((0, True), (59, True), (60, True), (119, False), (-31, False)):
        wish = agree(echo(case, cookie), here, accepted, NOW + later)[0]
        assert (wish == _native.WISH_BEGIN) == alive, later
    for elsewhere in (
        here._replace(port=40001),
        here._replace(host="192.0.2.8"),
        here._replace(scope_id=1),
        SOURCES[1],
    ):
        assert agree(echo(case, cookie), elsewhere, accepted)[1] == DropReason.BAD_COOKIE
    other = echo(case, cookie, session_id=b"clientiX")
    assert agree(other, here, accepted)[1] == DropReason.BAD_COOKIE
    for bit in range(64):
        wrong = (int.from_bytes(cookie, "big") ^ 1 << bit).to_bytes(8, "big")
        assert agree(echo(case, wrong), here, accepted)[1] == DropReason.BAD_COOKIE


@pytest.mark.parametrize("case", CASES)
def test_every_prefix_and_every_changed_bit(case):
    accepted, _, _ = CASES[case]
    source = SOURCES[0]
    for packet in (reset(case), echo(case, COOKIE.session_id(source, CLIENT_SID, NOW))):
        for length in range(len(packet) + 1):
            agree(packet[:length], source, accepted)
        agree(packet + b"\x00", source, accepted)
        for position in range(len(packet)):
            changed = bytearray(packet)
            changed[position] ^= 1 << position % 8
            agree(bytes(changed), source, accepted)


@pytest.mark.parametrize("case", CASES)
def test_what_only_late_packets_have(case):
    accepted, _, _ = CASES[case]
    source = SOURCES[0]
    cookie = COOKIE.session_id(source, CLIENT_SID, NOW)
    agree(reset(case, packet_id=1), source, accepted)
    agree(reset(case, acks=(0,), remote_session_id=cookie), source, accepted)
    agree(reset(case, payload=bytes(1601)), source, accepted)
    for changes in (
        {"packet_id": 2}, {"acks": (0, 2)}, {"acks": (1, 0)}, {"acks": ()}, {"key_id": 1}, {"acks": (0,) * 8},
        {"payload": bytes(1600)}, {"payload": bytes(1601)}, {"opcode": Opcode.SOFT_RESET_V1},
    ):  # fmt: skip
        agree(echo(case, cookie, **changes), source, accepted)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.binary(max_size=80), st.integers(0, 255), st.sampled_from(SOURCES))
def test_any_bytes(case, packet, first, source):
    agree(bytes((first,)) + packet, source, CASES[case][0])


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(sorted(CASES)))
def test_any_authentic_body(data, case):
    """What lies behind the MAC is parsed alike too."""
    accepted, client, first_id = CASES[case]
    source = SOURCES[0]
    cookie = COOKIE.session_id(source, CLIENT_SID, NOW)
    packet = ControlPacket(
        data.draw(st.sampled_from(sorted(set(Opcode) - {Opcode.DATA_V1, Opcode.DATA_V2}))),
        data.draw(st.integers(0, 7)),
        data.draw(st.sampled_from([CLIENT_SID, bytes(8)])),
        tuple(data.draw(st.lists(st.integers(0, 3) | st.just(0xFFFFFFFF), max_size=12))),
        data.draw(st.sampled_from([cookie, cookie[::-1], b""])),
        data.draw(st.none() | st.integers(0, 3)),
        data.draw(st.binary(max_size=30)),
    )
    agree(bytes(client.seal(packet, ReplayId(first_id, WALL))), source, accepted)
