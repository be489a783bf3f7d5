"""All that an endpoint accepts around the first packets of strangers.

A packet with a client key of its own (opcodes 10 and 11) is tls-crypt-v2, and it alone; every other is wrapped with the
key that all clients share, or with none where no wrapping was asked for. So tls-crypt-v2 may stand beside one of the
others, and the others exclude each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import ControlPacket
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.replay import SendCounter
from cvpnd.wire.wrap.session_wrap import SessionWrap
from cvpnd.wire.wrap.tls_crypt_v2 import EARLY_NEGOTIATION, ServerKey, TlsCryptV2, split_client_key
from cvpnd.wire.wrap.wrapping import WITH_CLIENT_KEY, Wrapping

ClientKeyCheck = Callable[[bytes], DropReason | None]
"""From a client key's metadata to why it is not accepted. Asked only once the client's address is proven, or state is
made for it anyway; it must not wait for anything."""


class FirstPacket(NamedTuple):
    """An authentic packet of a stranger. Whether it is a replay is for the session to say, which is not there yet."""

    packet: ControlPacket
    wrapping: Wrapping
    metadata: bytes | None
    """Of the client key it brought along."""
    early_negotiation: bool
    """Understands the demand to bring its client key again."""


@dataclass(frozen=True, slots=True)
class ControlProtection:
    """Immutable; sessions keep the wrapping they began with when an endpoint gets another protection."""

    shared: Wrapping | None = PLAIN
    """For clients without a key of their own; None: there are none."""
    server_key: ServerKey | None = field(default=None, repr=False)
    """Of tls-crypt-v2; None: not accepted."""
    check_client_key: ClientKeyCheck = field(default=lambda _metadata: None, repr=False)
    allow_stateful: bool = True
    """Let clients in that do not bring their key twice (OpenVPN 2.5). Over UDP each costs memory before its address is
    proven."""
    clock: Callable[[], float] = field(default=time.time, repr=False)
    """Wall clock, for replay ids and the age of keys."""

    def open(self, packet: bytes) -> FirstPacket:
        """Raises ``PeerError``. Its header is known to be in order. What is not authentic costs one decryption of it at
        most and leaves no trace."""
        if packet[0] >> 3 in WITH_CLIENT_KEY:
            return self._open_with_client_key(packet)
        if self.shared is None:
            raise PeerError(DropReason.NOT_AUTHENTIC, "no wrapping without a client key")
        return FirstPacket(self.shared.open(packet).packet, self.shared, None, early_negotiation=False)

    def _open_with_client_key(self, packet: bytes) -> FirstPacket:
        if self.server_key is None:
            raise PeerError(DropReason.BAD_OPCODE)
        inner, wkc = split_client_key(packet)
        kc, metadata = self.server_key.unwrap(wkc)
        wrapping = TlsCryptV2(kc)
        opened, replay_id = wrapping.open_inner(inner)
        early = replay_id is not None and replay_id.id >> 24 == EARLY_NEGOTIATION
        return FirstPacket(opened, wrapping, metadata, early)

    def seal_first(self, first: FirstPacket, reply: ControlPacket) -> bytes:
        """The stateless reply, number 1 of ours."""
        return first.wrapping.seal(reply, SendCounter(self.clock).next())

    def session_wrap(self, first: FirstPacket, *, replied: bool) -> SessionWrap:
        """For the session of ``first``. ``replied``: ``seal_first`` was the first of our packets."""
        return SessionWrap(first.wrapping, self.clock, first_id=2 if replied else 1)

    def judge(self, first: FirstPacket) -> DropReason | None:
        """Why its client key may not be used although it is genuine."""
        return None if first.metadata is None else self.check_client_key(first.metadata)


UNPROTECTED = ControlProtection()
