"""A server ``Session`` and a ``LightClient`` over a seeded noisy link, in virtual time.

``Pair.run`` moves the clock from one deadline to the next, so a handshake with losses takes milliseconds of real time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from light_client.protocol import ClientEvent, LightClient
from OpenSSL import SSL, crypto

from cvpnd.wire.channel import ChannelMaker, native_channel
from cvpnd.wire.errors import DropReason
from cvpnd.wire.events import CredentialsReceived, Event, KeysReady
from cvpnd.wire.packet import Transport
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import Established, answer_reset, check_echo, is_reset, open_stream
from cvpnd.wire.wrap.protection import UNPROTECTED, ControlProtection
from cvpnd.wire.wrap.session_wrap import SessionWrap

CLIENT_ADDRESS = ("192.0.2.7", 40000)
# No ping-restart: nobody sends pings here, that is the data plane's.
PUSHED = ["topology subnet", "ifconfig 10.100.0.2 255.255.252.0", "ping 10"]


# -- certificates and contexts ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue(name: str, issuer: Certificate | None = None, *, server: bool = False) -> Certificate:
    """A throw-away certificate; without an issuer, a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH if server else x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(
            x509.KeyUsage(True, False, False, False, True, False, False, False, False), critical=True
        )
    return Certificate(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@dataclass(frozen=True)
class Pki:
    ca: Certificate
    server: Certificate
    client: Certificate
    other_client: Certificate
    stranger: Certificate
    """Named like the client, signed by a CA that nobody trusts."""


@cache
def pki() -> Pki:
    ca = issue("test CA")
    foreign = issue("foreign CA")
    return Pki(
        ca, issue("server", ca, server=True), issue("client1", ca), issue("client2", ca), issue("client1", foreign)
    )


def tls_context(
    own: Certificate | None,
    *,
    server: bool,
    version: int | None = None,
    verify: Callable[[SSL.Connection, crypto.X509, int, int, int], bool] | None = None,
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version or SSL.TLS1_2_VERSION)
    if version:
        context.set_max_proto_version(version)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if own is not None:
        context.use_certificate(own.certificate)
        context.use_privatekey(own.key)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(pki().ca.certificate))
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if server else 0)
    context.set_verify(mode, verify or (lambda connection, certificate, error, depth, ok: bool(ok)))
    return context


@cache
def server_context(version: int | None = None) -> SSL.Context:
    return tls_context(pki().server, server=True, version=version)


@cache
def client_context(version: int | None = None) -> SSL.Context:
    return tls_context(pki().client, server=False, version=version)


# -- the link -----------------------------------------------------------------------------------------------


@dataclass
class NoisyLink:
    """Delays, drops, duplicates and reorders, reproducibly."""

    seed: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay_s: float = 0.01

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def arrivals(self, now: float) -> list[float]:
        """When a packet sent now arrives: never, once or twice."""
        times = []
        for _ in range(2 if self._random.random() < self.duplication else 1):
            if self._random.random() >= self.loss:
                late = self._random.random() * 0.5 if self._random.random() < self.reordering else 0.0
                times.append(now + self.delay_s + late)
        return times


@dataclass
class Pair:
    """Drive both ends. ``decide`` is the server's login; by default it lets everyone in."""

    client: LightClient = field(default_factory=lambda: LightClient(client_context(), 0.0))
    settings: SessionSettings = field(default_factory=SessionSettings)
    link: NoisyLink = field(default_factory=NoisyLink)
    context: SSL.Context = field(default_factory=server_context)
    transport: Transport = Transport.UDP
    protection: ControlProtection = UNPROTECTED
    push: list[str] = field(default_factory=lambda: list(PUSHED))
    decide: Callable[[Pair, CredentialsReceived], None] | None = None
    reserve_peer_id: Callable[[], int] | None = None
    new_channel: ChannelMaker = native_channel
    now: float = 0.0
    session: Session | None = None
    server_events: list[Event] = field(default_factory=list)
    client_events: list[ClientEvent] = field(default_factory=list)
    refused: list[DropReason] = field(default_factory=list)
    """Strangers' packets."""
    to_client: list[bytes] = field(default_factory=list)
    """Everything the server sent."""
    to_server: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cookie = ResetCookie(bytes(range(32)), self.settings.hand_window_s)
        self._wire: list[tuple[float, int, bool, bytes]] = []
        self._sent = 0

    def of_server(self, kind: type) -> list:
        return [event for event in self.server_events if isinstance(event, kind)]

    def of_client(self, kind: type) -> list:
        return [event for event in self.client_events if isinstance(event, kind)]

    def run(self, until: Callable[[Pair], bool] | None = None, *, seconds: float = 120.0) -> bool:
        """Let time pass until ``until`` is true (then True) or the seconds are over (then False)."""
        end = self.now + seconds
        while True:
            self._pump()
            if until is not None and until(self):
                return True
            times = [self.client.next_timeout(), self.session.next_timeout() if self.session else None]
            if self._wire:
                times.append(self._wire[0][0])
            upcoming = min((time for time in times if time is not None), default=None)
            if upcoming is None or upcoming > end:
                self.now = end
                return False
            self.now = max(self.now, upcoming)
            while self._wire and self._wire[0][0] <= self.now:
                _, _, for_server, packet = heapq.heappop(self._wire)
                if for_server:
                    self._server_receives(packet)
                else:
                    self.client.receive_packet(packet, self.now)
                self._pump()
            self.client.handle_timeout(self.now)
            if self.session is not None:
                self.session.handle_timeout(self.now)

    def connect(self, **kwargs: float) -> None:
        assert self.run(lambda pair: pair.client.connected, **kwargs), (
            self.client.failed,
            self.server_events,
            self.session and self.session.drops,
        )

    def _server_receives(self, packet: bytes) -> None:
        if self.session is None:
            if self.transport is Transport.TCP:
                outcome = open_stream(packet, self.protection)
            elif is_reset(packet):
                outcome = answer_reset(packet, CLIENT_ADDRESS, self.now, self._cookie, self.protection)
            else:
                outcome = check_echo(packet, CLIENT_ADDRESS, self.now, self._cookie, self.protection)
            if isinstance(outcome, bytes):
                self._send(outcome, for_server=False)
                return
            if isinstance(outcome, DropReason):
                self.refused.append(outcome)
                return
            cookie = outcome.local_session_id if isinstance(outcome, Established) else None
            self._make_session(outcome.remote_session_id, cookie, outcome.wrap)
        assert self.session is not None
        self.session.receive_packet(packet, self.now)

    def _make_session(self, remote: bytes, cookie: bytes | None, wrap: SessionWrap) -> None:
        self.session = Session(
            self.settings,
            self.now,
            ssl_context=lambda: self.context,
            remote_session_id=remote,
            local_session_id=cookie or b"\x5a" * 8,
            transport=self.transport,
            cookie_echoed=cookie is not None,
            wrap=wrap,
            reserve_peer_id=self.reserve_peer_id,
            new_channel=self.new_channel,
        )

    def _pump(self) -> None:
        if self.session is not None:
            while (event := self.session.next_event()) is not None:
                self.server_events.append(event)
                if isinstance(event, CredentialsReceived):
                    (self.decide or accept_everyone)(self, event)
            for packet in self.session.packets_to_send(self.now):
                self._send(packet, for_server=False)
        while (told := self.client.next_event()) is not None:
            self.client_events.append(told)
        for packet in self.client.packets_to_send(self.now):
            self._send(packet, for_server=True)

    def _send(self, packet: bytes, *, for_server: bool) -> None:
        (self.to_server if for_server else self.to_client).append(packet)
        for arrival in self.link.arrivals(self.now):
            self._sent += 1
            heapq.heappush(self._wire, (arrival, self._sent, for_server, packet))


def accept_everyone(pair: Pair, event: CredentialsReceived) -> None:
    assert pair.session is not None
    if event.key_id == 0:
        pair.session.accept(pair.push, pair.now, peer_id=5)
    else:
        pair.session.accept_renegotiation(pair.now)


def same_keys(pair: Pair) -> bool:
    """Whether both sides derived the same data keys for every key id so far."""
    from light_client.protocol import KeyInstalled

    server = {event.key_id: event.keys for event in pair.of_server(KeysReady)}
    client = {event.key_id: event.keys for event in pair.of_client(KeyInstalled)}
    return server.keys() == client.keys() and all(
        (server[i].open_key, server[i].open_iv, server[i].seal_key, server[i].seal_iv)
        == (client[i].seal_key, client[i].seal_iv, client[i].open_key, client[i].open_iv)
        for i in server
    )
