"""``_native.Doorman``: the thread that reads the control sockets of all UDP listeners (``native/doorman.h``).

It answers the resets of strangers and drops what leads nowhere; here arrive packets of sessions it was told of, and
first packets that echo a cookie, which it alone verifies. Whether those may begin a session is decided again on this
side, where the rest of ``wire.stateless`` is asked: the doorman lets nothing through that would be refused there for
its bytes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from cvpnd import _native
from cvpnd.config import StrangersConfig
from cvpnd.dataplane.api import HOSTS_REMEMBERED, SocketAddress, host_bytes, host_text
from cvpnd.wire import channel
from cvpnd.wire.errors import DropReason
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.wrap.protection import ControlProtection

DROPS = tuple(DropReason(word) for word in _native.CONTROL_DROPS)

PER_FETCH = (16, 8, 4, 16)
"""Of established sessions, handshakes, strangers, and data. Then the loop serves the others: a packet of a handshake
may cost a millisecond. While 500 clients connect at once, no turn takes longer than 12 ms so."""


class ControlDatagram(NamedTuple):
    listener: int
    source: SocketAddress
    local: str
    """The gateway's own address it was sent to; empty = not known."""
    packet: bytes
    proven: bool = False
    """It echoes our cookie: the doorman has verified that."""


_datagram = partial(tuple.__new__, ControlDatagram)
"""Past the class's own ``__new__``, which is written in Python: there is one for each packet."""


class Doorman:
    """Calls come from one thread; each waits for a batch of packets at most. ``KeyError`` for a listener that does not
    exist, ``ValueError`` for one that does already."""

    def __init__(self, cookie_secret: bytes, limits: StrangersConfig) -> None:
        self._cookie_secret = cookie_secret
        self._native = _native.Doorman(cookie_secret, *_limits(limits))

    def cookie(self, hand_window_s: float) -> ResetCookie:
        """The one that a listener with this hand-window gives out."""
        return ResetCookie(self._cookie_secret, hand_window_s)

    def set_limits(self, limits: StrangersConfig) -> None:
        self._native.set_limits(*_limits(limits))

    # -- listeners ----------------------------------------------------------------------------------------

    def add_listener(
        self, listener: int, control: socket.socket, cookie: ResetCookie, protection: ControlProtection
    ) -> None:
        """From now on nobody else may read ``control``. It stays the caller's, for sending and to be closed."""
        self._native.add_listener(listener, os.dup(control.fileno()), cookie.slot_s, describe(protection))

    def set_protection(self, listener: int, protection: ControlProtection) -> None:
        self._native.set_protection(listener, describe(protection))

    def stop_accepting(self, listener: int) -> None:
        """Strangers get nowhere any more."""
        self._native.stop_accepting(listener)

    def remove_listener(self, listener: int) -> None:
        self._native.remove_listener(listener)

    # -- sessions -----------------------------------------------------------------------------------------

    def know(self, listener: int, source: SocketAddress, client_session_id: bytes, *, established: bool) -> None:
        """Packets of this session come through from now on; those of established ones come first."""
        self._native.know(listener, *_packed(source), client_session_id, established)

    def forget(self, listener: int, source: SocketAddress, client_session_id: bytes) -> None:
        """It is a stranger again. Due for every first packet that began no session. Idempotent."""
        self._native.forget(listener, *_packed(source), client_session_id)

    # -- what came ----------------------------------------------------------------------------------------

    def event_fd(self) -> int:
        """Readable while packets wait."""
        return self._native.event_fd()

    def fetch(self) -> list[ControlDatagram]:
        """Some of those that wait: of established sessions first, then of handshakes, then of strangers, then data
        packets that name no peer and came from where an established session is."""
        return [
            _datagram((listener, _source(host, port, scope_id), host_text(local), packet, proven))
            for listener, host, port, scope_id, local, packet, proven in self._native.fetch(*PER_FETCH)
        ]

    def drops(self) -> Mapping[DropReason, int]:
        return dict(zip(DROPS, self._native.drops(), strict=True))

    def totals(self) -> Mapping[str, int]:
        return dict(zip(_native.DOOR_TOTALS, self._native.totals(), strict=True))

    def close(self) -> None:
        """Idempotent."""
        self._native.close()


def describe(protection: ControlProtection) -> _native.Protection:
    """What C has to know of it. Metadata of client keys is not part of that: it is judged on this side."""
    shared = (_native.WRAP_REFUSED, b"", "", -1) if protection.shared is None else channel.describe(protection.shared)
    server_key = b"" if protection.server_key is None else protection.server_key.key
    return *shared, server_key, protection.allow_stateful


def _limits(limits: StrangersConfig) -> tuple[int, int, int, int, int]:
    return (
        limits.resets_per_s,
        limits.resets_per_source_per_s,
        limits.sessions_per_s,
        limits.sessions_per_source_per_s,
        limits.unproven_sessions_per_s,
    )


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _source(host: bytes, port: int, scope_id: int) -> SocketAddress:
    """A client's packets come from one."""
    return SocketAddress(host_text(host), port, scope_id)


def _packed(source: SocketAddress) -> tuple[bytes, int, int]:
    return host_bytes(source.host), source.port, source.scope_id
