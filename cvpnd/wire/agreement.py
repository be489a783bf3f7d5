"""What the client said of itself with its first key, and what was agreed on for as long as the session lives.

Later keys bring the same message again. Who it is must not change then, and what was negotiated does not: ciphers and
features of a session are fixed with its first data keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cryptography import x509

from cvpnd.wire import messages
from cvpnd.wire.errors import UsageError
from cvpnd.wire.key_method import TEXTS_REMEMBERED, Capability, KeyMessage, PeerInfo
from cvpnd.wire.negotiation import Negotiated, Unsupported, negotiate
from cvpnd.wire.tls import fingerprint

NO_NAME = "N/A"
"""What clients without a user name write once they have a token, and AWS's always (openvpn-wire.md section 17)."""


class Agreement:
    __slots__ = (
        "_data_ciphers",
        "_identity",
        "_options",
        "_outcome",
        "_pushed",
        "_pushed_peer_id",
        "_reserve_peer_id",
        "_told_peer_id",
        "negotiated",
        "peer_info",
    )

    def __init__(self, data_ciphers: tuple[str, ...], reserve_peer_id: Callable[[], int] | None) -> None:
        self._data_ciphers = data_ciphers
        self._reserve_peer_id = reserve_peer_id
        self._told_peer_id: int | None = None
        """The one that the client was told in the key exchange; then none is pushed."""
        self._identity: tuple[bytes, str] | None = None
        self._options = ""
        self._outcome: Negotiated | Unsupported | None = None
        self._pushed: list[str] = []
        self._pushed_peer_id: int | None = None
        self.peer_info = PeerInfo()
        self.negotiated: Negotiated | None = None

    # -- what the client says

    @property
    def identified(self) -> bool:
        return self._identity is not None

    @property
    def remote_peer_id(self) -> int | None:
        """What the client wants to see in packets to it; None: the same id in both directions."""
        return self.peer_info.peer_id if self._told_peer_id is not None else None

    def answer_peer_info(self, theirs: PeerInfo) -> str:
        """``ID=`` to a client that sent one, the same on every key (openvpn-wire.md 9.3)."""
        if theirs.peer_id is None or Capability.DATA_V2 not in theirs.capabilities:
            return ""
        if self._identity is None and self._reserve_peer_id is not None:
            self._told_peer_id = self._reserve_peer_id()
        return "" if self._told_peer_id is None else f"ID={self._told_peer_id:x}\n"

    def identify(self, certificate: x509.Certificate | None, message: KeyMessage, peer_info: PeerInfo) -> bool:
        """Keep what the first key said; False if a later one comes from somebody else."""
        shown = fingerprint(certificate) if certificate is not None else b""
        identity = (shown, "" if message.username == NO_NAME else message.username)
        if self._identity is None:
            self._identity = identity
            self.peer_info = peer_info
            self._options = message.options
            self._outcome = None
        return identity == self._identity

    def close(self) -> None:
        """Nothing is asked any more. Who is asked for a peer id knows the session: each would keep the other in memory
        until the garbage collector looks there, minutes later."""
        self._reserve_peer_id = None

    # -- what follows from it

    @property
    def explanation(self) -> str:
        """How cipher and features were found, and what was pushed for them; once decided."""
        if self.negotiated is not None:
            return self.negotiated.explain(self._pushed_peer_id)
        return self._outcome.rule if isinstance(self._outcome, Unsupported) else ""

    @property
    def dynamic_tls_crypt(self) -> bool:
        return self.negotiated is not None and self.negotiated.dynamic_tls_crypt

    def negotiate(self) -> Negotiated | Unsupported:
        """Of what the first key said; login asks several times."""
        if self._outcome is None:
            self._outcome = _negotiated(negotiate, self._data_ciphers, self.peer_info, self._options)
        return self._outcome

    def fix(self, negotiated: Negotiated, peer_id: int | None, token: Sequence[str]) -> None:
        """``peer_id``: the data plane's for this client. ``token``: the options that bring one."""
        if self._told_peer_id is not None and peer_id != self._told_peer_id:
            raise UsageError("another peer id than the one that the client was told")
        self._pushed_peer_id = peer_id if self._told_peer_id is None else None
        self.negotiated = negotiated
        self._pushed = [*token, *negotiated.push_options(self._pushed_peer_id)]

    def push_reply(self, options: Sequence[str]) -> list[str]:
        """The messages that push ``options``, the token and what was negotiated."""
        return messages.push_reply([*options, *self._pushed])


@lru_cache(maxsize=TEXTS_REMEMBERED)
def _negotiated(
    decide: Callable[[tuple[str, ...], PeerInfo, str], Negotiated | Unsupported],
    data_ciphers: tuple[str, ...],
    peer_info: PeerInfo,
    options: str,
) -> Negotiated | Unsupported:
    """Clients that say the same get the same."""
    return decide(data_ciphers, peer_info, options)
