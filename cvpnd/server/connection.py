"""One client's connection: its session, the link that carries it, and what login decided about it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509

from cvpnd.auth.tokens import Token
from cvpnd.dataplane.api import NO_STATS, PeerStats
from cvpnd.policy.model import ClientFacts, Grant, Identity
from cvpnd.reasons import End, Refusal
from cvpnd.secret import Secret
from cvpnd.server.admission import TokenBucket
from cvpnd.server.link import Link
from cvpnd.server.memory import Share
from cvpnd.wire.presented import NO_PATH, CertificationPath
from cvpnd.wire.session import Session

if TYPE_CHECKING:
    from cvpnd.auth.saml.provider import SamlProvider
    from cvpnd.server.endpoint import ServedEndpoint


MOVE_LOGGED_EVERY_S = 60.0
MOVES_LOGGED_AT_ONCE = 5.0
"""Of one connection. A client with two ways out, or that means ill, moves five times a second without end."""


class DeviceKey(NamedTuple):
    """One device of one user, or of one certificate's holder."""

    endpoint: int
    certificate_fingerprint: str
    username: str
    device_id: str
    """As the device says, hence only ever compared within one user and certificate; empty if it says nothing."""


class Phase(Enum):
    __hash__ = object.__hash__  # an enumeration's own is written in Python
    HANDSHAKE = "handshake"
    """Until the credentials are here."""
    LOGIN = "login"
    ESTABLISHED = "established"
    """Let in: has a lease, and a peer in the data plane."""
    ENDED = "ended"
    """Refused or over. The session may still repeat its last words; nothing it hears can bring it back."""


def new_connection_id() -> str:
    return f"cvpn-connection-{os.urandom(9).hex()[:17]}"


@dataclass(slots=True, eq=False)
class Connection:
    """Owned by the ``SessionTable``; changed only by ``ControlPlane`` and the login it starts."""

    endpoint: ServedEndpoint
    session: Session
    link: Link
    client_session_id: bytes
    started_at: float
    """Seconds since the epoch, for people."""
    logged_in_at: float
    """On the steady clock: from here a session timeout counts, however often its client has reconnected."""
    connection_id: str = field(default_factory=new_connection_id)
    phase: Phase = Phase.HANDSHAKE
    """Changed by ``SessionTable.set_phase`` alone, with the next."""
    established: bool = False
    stranger: bool = True
    """Has never come as far as its credentials: counts against the limits until it is forgotten."""
    certified: bool = True
    """A certificate says who it is. If only a password will, it stays a stranger until login has said yes."""
    unproven: bool = False
    """It began over UDP without a cookie, so its source address may be forged until it acknowledges what we sent there.
    Changed by ``SessionTable.prove`` alone."""
    login: asyncio.Task[None] | None = None
    answer: asyncio.Future[Secret] | None = None
    """Set while login waits for what the person at the client answers in text."""
    common_name: str = ""
    """From the verified certificate; for a refused one, what it claimed."""
    username: str = ""
    method: str = ""
    """What it logs in with, right or wrong: ``ServedEndpoint.method``."""
    device_type: str = ""
    device: DeviceKey | None = None
    """Under which the table finds it from login to end."""
    moves: TokenBucket = field(default_factory=lambda: TokenBucket(1 / MOVE_LOGGED_EVERY_S, MOVES_LOGGED_AT_ONCE))
    """To other addresses, as far as they are written down."""
    facts: ClientFacts | None = None
    """What its options were made from."""
    token: Token | None = None
    """Of the login that it goes back to, where a user method was asked; pushed to the client."""
    certificate: x509.Certificate | None = None
    """That it shows, proven."""
    path: CertificationPath = NO_PATH
    """From it to an authority, as it was last proven."""
    vouched_by: SamlProvider | None = None
    """The identity provider that let it in, as it was then."""
    person: bytes = b""
    """``Account.person`` of whom it was let in for."""
    assertion_digest: bytes = b""
    """Of what AWS's client brought from its browser: it may say it again with a later key, if it takes no token."""
    memory: Share | None = None
    """Of the reserve for long key exchanges; given back at the end."""
    identity: Identity | None = None
    grant: Grant | None = None
    posture_statuses: tuple[str, ...] | None = None
    """As the client connect handler has answered; None: it was not asked, or gave no answer."""
    peer_id: int | None = None
    """Set while the data plane knows the peer."""
    reserved_peer_id: int | None = None
    """The same, from when it is kept for this connection: a client may be told its id before login has decided."""
    keys_installed: bool = False
    """Its first keys are in the data plane: from here on it is a connection to whoever counts them."""
    asked_alive_at: float | None = None
    """When it was last asked whether it still lives, because somebody wants to start over at its address."""
    stage_began_at: float = 0.0
    """In the event loop's time; see ``handshakes.HandshakeStages``."""
    timer: float | None = None
    """The deadline this connection last put on the timer heap."""
    forget_at: float | None = None
    """When a closed session has absorbed the retransmissions under way."""
    ended_at: float | None = None
    end_reason: Refusal | End | None = None
    end_detail: str = ""
    """The sentence behind the reason, for the log."""
    final_stats: PeerStats = NO_STATS

    @property
    def cipher(self) -> str:
        """Of the data channel; empty before it was negotiated."""
        negotiated = self.session.negotiated
        return negotiated.cipher if negotiated is not None else ""
