"""New key states: each with a TLS connection of its own, and its place in the session's channel.

Later keys may have a wrapping of their own (dynamic tls-crypt, openvpn-wire.md 6.4), whose key is exported from the
first one's TLS. That is done with the first packet of a later key, or of who says that it is one: most sessions end
before, and the export takes longer than most steps of a login do.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL

from cvpnd.wire.channel import Channel
from cvpnd.wire.key_state import KeyState, NegotiationInput
from cvpnd.wire.packet import Opcode
from cvpnd.wire.reliable import payload_limit
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.tls import TlsConnection
from cvpnd.wire.wrap.session_wrap import SessionWrap
from cvpnd.wire.wrap.tls_crypt import DYNAMIC_LABEL, dynamic_key2
from cvpnd.wire.wrap.wrapping import KEY2_BYTES


class KeyMaker:
    __slots__ = ("_channel", "_hold", "_ipv6", "_settings", "_ssl_context", "_wrap", "dynamic_due")

    def __init__(
        self,
        settings: SessionSettings,
        channel: Channel,
        wrap: SessionWrap,
        ssl_context: Callable[[], SSL.Context],
        hold: Callable[[int], bool] | None,
        *,
        ipv6: bool,
    ) -> None:
        """``ssl_context`` and ``hold``: see ``Session``."""
        self._settings = settings
        self._channel = channel
        self._wrap = wrap
        self._ssl_context = ssl_context
        self._hold = hold
        self._ipv6 = ipv6
        self.dynamic_due = False
        """Later keys have a wrapping of their own, whose key is not exported yet."""

    def make(self, key_id: int, now: float, first_id: int = 0) -> KeyState:
        limit = payload_limit(
            self._settings.max_packet_bytes, ipv6=self._ipv6, wrap_overhead=self._channel.overhead(key_id)
        )
        self._channel.open_key(key_id, limit, first_id, self._settings.tls_timeout_s)
        return KeyState(key_id, self._channel, TlsConnection(self._ssl_context(), server=True), now, self._hold)

    def send_reset(self, state: KeyState, opcode: Opcode) -> None:
        self._channel.queue(state.key_id, opcode)
        state.negotiate(NegotiationInput.RESET_SENT)

    def go_dynamic(self, first: KeyState | None) -> None:
        """``first``: the key that is primary while it is due."""
        self.dynamic_due = False
        if first is not None and first.tls is not None:
            key2 = dynamic_key2(first.tls.export(DYNAMIC_LABEL, KEY2_BYTES), self._wrap.wrapping.key2)
            self._channel.go_dynamic(key2, int(self._wrap.clock()))
