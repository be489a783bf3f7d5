"""A server ``Session`` on a real loopback socket, for one real client. Data packets are opened and collected."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path

from helpers.pair import PUSHED, Certificate, pki
from light_client.data_channel import DataKey, is_data
from OpenSSL import SSL

from cvpnd.reasons import Refusal
from cvpnd.wire.errors import DropReason
from cvpnd.wire.events import CredentialsReceived, Event, KeysReady
from cvpnd.wire.packet import Transport
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import Established, answer_reset, check_echo, is_reset, open_stream
from cvpnd.wire.stream import FrameReader, frame
from cvpnd.wire.wrap.protection import UNPROTECTED, ControlProtection
from cvpnd.wire.wrap.session_wrap import SessionWrap


class Pump:
    """``run`` is the event loop; what happened is in ``events`` and ``opened`` (payloads of data packets)."""

    def __init__(
        self,
        context: SSL.Context,
        *,
        transport: Transport = Transport.UDP,
        settings: SessionSettings | None = None,
        push: list[str] | None = None,
        refuse: str | None = None,
        protection: ControlProtection = UNPROTECTED,
    ) -> None:
        self._context = context
        self._transport = transport
        self._settings = settings or SessionSettings()
        self._push = PUSHED if push is None else push
        self._refuse = refuse
        self._protection = protection
        self.refused: list[DropReason] = []
        """Strangers' packets."""
        self.received: list[bytes] = []
        self.sent: list[bytes] = []
        self._cookie = ResetCookie(bytes(range(32)))
        self._frames = FrameReader()
        self._peer: tuple[str, int] = ("", 0)
        self._connection: socket.socket | None = None
        kind = socket.SOCK_DGRAM if transport is Transport.UDP else socket.SOCK_STREAM
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.bind(("127.0.0.1", 0))
        if transport is Transport.TCP:
            self._socket.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self.port: int = self._socket.getsockname()[1]
        self.session: Session | None = None
        self.events: list[Event] = []
        self.keys: dict[int, DataKey] = {}
        self.opened: list[tuple[int, bytes]] = []

    def __enter__(self) -> Pump:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._socket.close()
        if self._connection is not None:
            self._connection.close()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def run(self, until: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        end = time.monotonic() + timeout_s
        while not until():
            now = time.monotonic()
            if now >= end:
                return False
            due = self.session.next_timeout() if self.session is not None else None
            wait = min(end, now + 0.1, due if due is not None else end) - now
            for key, _ in self._selector.select(max(0.0, wait)):
                self._readable(key.fileobj)
            if self.session is not None:
                self.session.handle_timeout(time.monotonic())
                self._pump()
        return True

    def _readable(self, sock: object) -> None:
        if self._transport is Transport.UDP:
            packet, self._peer = self._socket.recvfrom(4096)
            self._packet(packet)
        elif sock is self._socket:
            self._connection, self._peer = self._socket.accept()
            self._selector.register(self._connection, selectors.EVENT_READ)
        elif self._connection is not None:
            data = self._connection.recv(16384)
            if not data:
                self._selector.unregister(self._connection)
            for packet in self._frames.feed(data):
                self._packet(packet)

    def _packet(self, packet: bytes) -> None:
        now = time.monotonic()
        self.received.append(packet)
        if is_data(packet):
            key = self.keys.get(packet[0] & 7)
            payload = key.open(packet) if key is not None else None
            if payload is not None:
                self.opened.append((packet[0] & 7, payload))
                assert self.session is not None
                self.session.key_confirmed(packet[0] & 7, now)
            return
        if self.session is None:
            if self._transport is Transport.TCP:
                outcome = open_stream(packet, self._protection)
            elif is_reset(packet):
                outcome = answer_reset(packet, self._peer, now, self._cookie, self._protection)
            else:
                outcome = check_echo(packet, self._peer, now, self._cookie, self._protection)
            if isinstance(outcome, bytes):
                self._send(outcome)
                return
            if isinstance(outcome, DropReason):
                self.refused.append(outcome)
                return
            cookie = outcome.local_session_id if isinstance(outcome, Established) else None
            self._begin(outcome.remote_session_id, cookie, outcome.wrap)
        assert self.session is not None
        self.session.receive_packet(packet, now)
        self._pump()

    def _begin(self, remote: bytes, cookie: bytes | None, wrap: SessionWrap) -> None:
        self.session = Session(
            self._settings,
            time.monotonic(),
            ssl_context=lambda: self._context,
            remote_session_id=remote,
            local_session_id=cookie or b"\x5a" * 8,
            transport=self._transport,
            cookie_echoed=cookie is not None,
            wrap=wrap,
        )

    def _pump(self) -> None:
        session, now = self.session, time.monotonic()
        assert session is not None
        while (event := session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, KeysReady):
                self.keys[event.key_id] = DataKey(event.key_id, 5, event.keys)
            if isinstance(event, CredentialsReceived):
                self.decide(event)
        for packet in session.packets_to_send(now):
            self._send(packet)

    def decide(self, event: CredentialsReceived) -> None:
        session, now = self.session, time.monotonic()
        assert session is not None
        if self._refuse is not None:
            session.refuse(self._refuse, now, Refusal.UNSUPPORTED_CLIENT)
        elif event.key_id == 0:
            session.accept(self._push, now, peer_id=5)
        else:
            session.accept_renegotiation(now)

    def _send(self, packet: bytes) -> None:
        self.sent.append(packet)
        if self._transport is Transport.UDP:
            self._socket.sendto(packet, self._peer)
        elif self._connection is not None:
            self._connection.sendall(frame(packet))


def write_client_files(directory: Path, certificate: Certificate | None = None) -> list[str]:
    """PEM files of the test PKI and the ``openvpn`` options that name them."""
    own = certificate or pki().client
    options = []
    for name, content in (("ca", pki().ca.pem), ("cert", own.pem), ("key", own.key_pem)):
        path = directory / f"{name}.pem"
        path.write_bytes(content)
        options += [f"--{name}", str(path)]
    return options
