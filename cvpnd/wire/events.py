"""What a ``Session`` tells its owner: the protocol's table of contents. In order of a session's life."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from OpenSSL import SSL

from cvpnd.reasons import End, Refusal
from cvpnd.secret import Secret
from cvpnd.wire.key_material import DataChannelKeys
from cvpnd.wire.key_method import PeerInfo
from cvpnd.wire.presented import CertificationPath


@dataclass(frozen=True, slots=True)
class TlsEstablished:
    key_id: int
    tls_version: str
    cipher: str
    common_name: str
    """Of the client's certificate, which the verify callback has let through; for the log."""


@dataclass(frozen=True, slots=True)
class CredentialsReceived:
    """Decide: ``accept`` or ``refuse`` on the first key, ``accept_renegotiation`` or ``refuse`` on later ones.

    Its certificate passed the context's verify callback; username and password are still to be checked."""

    key_id: int
    username: str
    password: Secret
    """The receiver's, who wipes it."""
    peer_info: PeerInfo
    options: str
    certificate: x509.Certificate | None
    path: CertificationPath
    """From it to an authority."""
    context: SSL.Context
    """Which let it pass: there may be another by now."""


@dataclass(frozen=True, slots=True)
class QuestionAnswered:
    """To the last ``Session.ask`` that had an answer coming; at most one for each."""

    answer: Secret


@dataclass(frozen=True, slots=True)
class KeysReady:
    """Install before calling ``packets_to_send``: the client's first data packet follows its PUSH_REPLY at once."""

    key_id: int
    keys: DataChannelKeys


@dataclass(frozen=True, slots=True)
class UseKey:
    """The grace time is over: send with this key from now on."""

    key_id: int


@dataclass(frozen=True, slots=True)
class KeyRetired:
    """Remove this key: it expired, gave way to a newer one, or the session is ending."""

    key_id: int


@dataclass(frozen=True, slots=True)
class RenegotiationStarted:
    key_id: int
    by_peer: bool


@dataclass(frozen=True, slots=True)
class RenegotiationFailed:
    """The attempt is forgotten and the old key goes on; another follows."""

    key_id: int
    detail: str


@dataclass(frozen=True, slots=True)
class PeerExit:
    """The client said goodbye. ``SessionClosed`` follows after the time in which its repeats are acknowledged."""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A text message that the session itself has no use for."""

    text: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The last event. Send what ``packets_to_send`` still has (a TLS alert), then forget the session."""

    reason: Refusal | End
    detail: str


Event = (
    TlsEstablished
    | CredentialsReceived
    | QuestionAnswered
    | KeysReady
    | UseKey
    | KeyRetired
    | RenegotiationStarted
    | RenegotiationFailed
    | PeerExit
    | MessageReceived
    | SessionClosed
)
