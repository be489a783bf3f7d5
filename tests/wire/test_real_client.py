"""The installed ``openvpn`` 2.6 against a ``Session`` on loopback, without a tunnel device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.openvpn_client import needs_openvpn, openvpn
from helpers.other_releases import generation
from helpers.pair import PUSHED, pki, server_context, tls_context
from helpers.pump import Pump
from light_client.data_channel import PING
from OpenSSL import SSL

from cvpnd.reasons import End, Refusal
from cvpnd.wire import agreement
from cvpnd.wire.events import KeysReady, PeerExit, RenegotiationStarted, SessionClosed, TlsEstablished, UseKey
from cvpnd.wire.key_method import PeerInfo
from cvpnd.wire.negotiation import KeyDerivation, Negotiated, Unsupported, negotiate
from cvpnd.wire.packet import Transport
from cvpnd.wire.settings import SessionSettings

pytestmark = needs_openvpn


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize(
    ("version", "name"), [(SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")], ids=["tls1.2", "tls1.3"]
)
def test_connects_and_takes_the_push(tmp_path: Path, transport: Transport, version: int, name: str) -> None:
    with (
        Pump(server_context(version), transport=transport, push=[*PUSHED[:2], "ping 1", "ping-restart 30"]) as pump,
        openvpn(tmp_path, pump, transport=transport) as client,
    ):
        assert pump.run(client.completed), client.log
        assert [event.tls_version for event in pump.of(TlsEstablished)] == [name]
        assert pump.session is not None
        assert pump.session.negotiated is not None
        assert pump.session.negotiated.push_options(5) == [
            "peer-id 5",
            "cipher AES-256-GCM",
            "protocol-flags cc-exit tls-ekm dyn-tls-crypt" + (" aead-epoch" if generation() >= (2, 7) else ""),
        ]
        assert pump.run(lambda: (0, PING) in pump.opened), "its ping must open with our keys"
        assert "WARNING: 'link-mtu'" not in client.log, "our options string mirrors the client's"


def test_prf_keys_are_the_same_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.6 derives by the PRF, as 2.4 and 2.5 always do, when it is not told to use the exporter."""

    def without_exporter(ciphers: Sequence[str], peer_info: PeerInfo, options: str) -> Negotiated | Unsupported:
        outcome = negotiate(ciphers, peer_info, options)
        assert isinstance(outcome, Negotiated)
        return replace(outcome, derivation=KeyDerivation.PRF)

    monkeypatch.setattr(agreement, "negotiate", without_exporter)
    with Pump(server_context(), push=["ping 1"]) as pump, openvpn(tmp_path, pump) as client:
        assert pump.run(client.completed), client.log
        assert pump.run(lambda: (0, PING) in pump.opened), "its ping must open with our keys"


@pytest.mark.parametrize("transport", Transport)
def test_renegotiation_by_the_server(tmp_path: Path, transport: Transport) -> None:
    settings = SessionSettings(renegotiate_s=2.0)
    with (
        Pump(server_context(), transport=transport, settings=settings, push=["ping 1"]) as pump,
        openvpn(tmp_path, pump, transport=transport) as client,
    ):
        assert pump.run(lambda: len(pump.of(KeysReady)) >= 3 and len(pump.of(UseKey)) >= 1), client.log
        assert {event.by_peer for event in pump.of(RenegotiationStarted)} == {False}
        assert [event.key_id for event in pump.of(KeysReady)][:3] == [0, 1, 2]
        assert client.process.poll() is None


def test_renegotiation_by_the_client(tmp_path: Path) -> None:
    settings = SessionSettings(renegotiate_s=0, soft_reset_interval_s=1.0)
    with (
        Pump(server_context(), settings=settings, push=["ping 1"]) as pump,
        openvpn(tmp_path, pump, "--reneg-sec", "3") as client,
    ):
        assert pump.run(lambda: len(pump.of(KeysReady)) >= 3), client.log
        assert {event.by_peer for event in pump.of(RenegotiationStarted)} == {True}
        assert pump.run(lambda: any(key_id > 0 for key_id, _ in pump.opened)), "data arrives under a new key"


def test_refused_client_is_told_after_the_key_exchange(tmp_path: Path) -> None:
    with Pump(server_context(), refuse="no such user here") as pump, openvpn(tmp_path, pump) as client:
        assert pump.run(lambda: "AUTH: Received control message: AUTH_FAILED,no such user here" in client.log)


def test_certificate_of_a_stranger_closes_the_session_with_the_reason(tmp_path: Path) -> None:
    def verify(connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int) -> bool:
        if not ok:
            connection.get_app_data().refusal = Refusal.CERTIFICATE_UNKNOWN_CA
        return bool(ok)

    context = tls_context(pki().server, server=True, verify=verify)
    with Pump(context) as pump, openvpn(tmp_path, pump, certificate=pki().stranger) as client:
        assert pump.run(lambda: bool(pump.of(SessionClosed)))
        assert pump.of(SessionClosed)[0].reason is Refusal.CERTIFICATE_UNKNOWN_CA
        assert pump.run(lambda: "Received fatal SSL alert: unknown CA" in client.log), "our alert reaches the client"


def test_client_that_leaves_says_so(tmp_path: Path) -> None:
    with Pump(server_context()) as pump, openvpn(tmp_path, pump) as client:
        assert pump.run(client.completed), client.log
        client.process.terminate()
        assert pump.run(lambda: bool(pump.of(PeerExit)))
        assert pump.run(lambda: bool(pump.of(SessionClosed)), 7.0)
        assert pump.of(SessionClosed)[0].reason is End.CLIENT_EXIT


def test_halted_client_ends(tmp_path: Path) -> None:
    with Pump(server_context()) as pump, openvpn(tmp_path, pump) as client:
        assert pump.run(client.completed), client.log
        assert pump.session is not None
        pump.session.halt("closing time", time.monotonic(), End.TERMINATED)
        assert pump.run(lambda: client.process.poll() is not None), client.log
        assert "closing time" in client.log
