"""The installed ``openvpn`` client under every wrapping, over UDP and TCP, with renegotiations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.openvpn_client import needs_openvpn, openvpn
from helpers.pair import server_context
from helpers.pump import Pump
from helpers.wrappings import CASES, NAMES, Case, tls_auth, tls_crypt, tls_crypt_v2
from light_client.data_channel import PING

from cvpnd.wire.errors import DropReason
from cvpnd.wire.events import KeysReady
from cvpnd.wire.packet import Opcode, Transport
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import ControlProtection

pytestmark = needs_openvpn
STATIC_WRAPPING = {
    "tls-auth": r"Outgoing Control Channel Authentication: Using \d+ bit message hash '{digest}'",
    "tls-crypt": "Outgoing Control Channel Encryption: Cipher 'AES-256-CTR' initialized with 256 bit key",
    "tls-crypt-v2": "Outgoing Control Channel Encryption: Cipher 'AES-256-CTR' initialized with 256 bit key",
}
DYNAMIC_WRAPPING = "Incoming dynamic tls-crypt: Cipher 'AES-256-CTR' initialized with 256 bit key"


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("name", NAMES)
def test_connects_and_renegotiates(tmp_path: Path, name: str, transport: Transport) -> None:
    case = CASES[name]
    settings = SessionSettings(renegotiate_s=1.5)
    push = ["ping 1"]
    with (
        Pump(server_context(), transport=transport, settings=settings, push=push, protection=case.protection) as pump,
        openvpn(tmp_path, pump, "--verb", "4", *case.real_client_options(tmp_path), transport=transport) as client,
    ):
        assert pump.run(lambda: len(pump.of(KeysReady)) >= 3), client.log
        assert pump.run(lambda: any(key_id == 1 and opened == PING for key_id, opened in pump.opened)), client.log
        assert client.process.poll() is None
        assert pump.session is not None
        assert not pump.session.drops
        assert not pump.refused
    kind, *_ = name.split(" ")
    if name != "plain":
        assert re.search(STATIC_WRAPPING[kind].format(digest=name.split(" ")[-1]), client.log)
    assert DYNAMIC_WRAPPING in client.log
    assert pump.session._channel.overhead(0) == case.client.overhead
    assert pump.session._channel.overhead(1) == 40


@pytest.mark.parametrize("name", ["tls-auth 0 SHA1", "tls-crypt", "tls-crypt-v2"])
def test_renegotiation_by_the_client(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    settings = SessionSettings(renegotiate_s=0, soft_reset_interval_s=1.0)
    with (
        Pump(server_context(), settings=settings, push=["ping 1"], protection=case.protection) as pump,
        openvpn(tmp_path, pump, "--reneg-sec", "2", *case.real_client_options(tmp_path)) as client,
    ):
        assert pump.run(lambda: len(pump.of(KeysReady)) >= 3), client.log


def test_the_real_client_negotiates_early_and_brings_its_key_twice(tmp_path: Path) -> None:
    case = tls_crypt_v2(allow_stateful=False)
    with (
        Pump(server_context(), protection=case.protection) as pump,
        openvpn(tmp_path, pump, *case.real_client_options(tmp_path)) as client,
    ):
        assert pump.run(client.completed), client.log
        opcodes = [packet[0] >> 3 for packet in pump.received]
        assert opcodes[:2] == [Opcode.HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1]


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (tls_auth(0, "SHA256"), tls_auth(0, "SHA1")),
        (tls_auth(0, "SHA1"), tls_auth(1, "SHA1")),
        (tls_auth(0, "SHA1"), tls_crypt()),
        (tls_crypt(), Case(ControlProtection(), PLAIN)),
        (Case(ControlProtection(), PLAIN), tls_crypt()),
        (tls_crypt(), tls_crypt_v2()),
        (tls_crypt_v2(), tls_crypt()),
    ],
    ids=["digest", "direction", "auth-crypt", "crypt-plain", "plain-crypt", "crypt-v2", "v2-crypt"],
)
def test_a_client_with_another_wrapping_hears_nothing(
    tmp_path: Path, theirs: Case, ours: Case, transport: Transport
) -> None:
    with (
        Pump(server_context(), transport=transport, protection=ours.protection) as pump,
        openvpn(tmp_path, pump, *theirs.real_client_options(tmp_path), transport=transport) as client,
    ):
        assert pump.run(lambda: len(pump.refused) >= 2), client.log
        assert pump.session is None
        assert pump.sent == []


@pytest.mark.parametrize("transport", Transport)
def test_a_revoked_client_key_gets_no_further_than_its_cookie(tmp_path: Path, transport: Transport) -> None:
    judged: list[bytes] = []

    def revoked(metadata: bytes) -> DropReason:
        judged.append(metadata)
        return DropReason.CLIENT_KEY_REVOKED

    case = tls_crypt_v2(b"\0alice", check=revoked)
    with (
        Pump(server_context(), transport=transport, protection=case.protection) as pump,
        openvpn(tmp_path, pump, *case.real_client_options(tmp_path), transport=transport) as client,
    ):
        assert pump.run(lambda: len(pump.refused) >= 1), client.log
        assert set(pump.refused) == {DropReason.CLIENT_KEY_REVOKED}
        assert set(judged) == {b"\0alice"}
        assert pump.session is None
        assert len(pump.sent) == (1 if transport is Transport.UDP else 0)


def test_shared_and_own_keys_side_by_side(tmp_path: Path) -> None:
    """One endpoint, first with a client of one kind, then of the other."""
    both = tls_crypt_v2(shared=tls_crypt().protection.shared)
    for case in (both, replace(tls_crypt(), protection=both.protection)):
        with (
            Pump(server_context(), protection=both.protection) as pump,
            openvpn(tmp_path, pump, *case.real_client_options(tmp_path)) as client,
        ):
            assert pump.run(client.completed), client.log
