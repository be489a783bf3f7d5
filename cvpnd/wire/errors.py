"""Whose fault it was, and the name of every silent drop.

``PeerError`` is the peer's doing: raised deep inside, caught once in ``Session.receive_packet`` (or by the caller
of a stateless function). ``UsageError`` is our own bug and is not caught in this room.
"""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Why a control packet, a message or a handshake went no further; the same words label the metric."""

    TRUNCATED = "truncated"  # ends inside one of its fields
    BAD_FRAME = "bad_frame"  # TCP length prefix of 0 or beyond the limit
    BAD_OPCODE = "bad_opcode"  # unknown, obsolete, or not for a server
    BAD_KEY_ID = "bad_key_id"  # a hard reset or a first packet under another key id than 0
    BAD_SESSION_ID = "bad_session_id"  # all zero, which means "undefined"
    TOO_MANY_ACKS = "too_many_acks"  # more than 8 in one packet
    TOO_LONG = "too_long"  # payload beyond any receive buffer of the protocol
    NO_ACK = "no_ack"  # a first packet without the cookie it should echo
    LATE_PACKET = "late_packet"  # a packet id above 1 where only a first packet may come
    BAD_COOKIE = "bad_cookie"  # forged, expired, or from another address
    RATE_LIMITED = "rate_limited"  # too many resets, new sessions, packets of one session, or soft resets
    QUEUE_FULL = "queue_full"  # more of its kind wait for the event loop than may
    LIVE_CLIENT = "live_client"  # a reset from the address of a client that has just been heard from
    HANDSHAKE_LIMIT = "handshake_limit"  # as many unfinished handshakes as the endpoint allows
    SOURCE_LIMIT = "source_limit"  # as many of them as one address may have
    HANDSHAKE_RATE = "handshake_rate"  # as many handshakes in a minute as one address or network may begin
    FAILED_LOGINS = "failed_logins"  # as many of them failed in a minute as may of one address or network
    TCP_SILENT = "tcp_silent"  # connected, but sent no packet
    NO_FILES = "no_files"  # connected when hardly a file descriptor was left
    FOREIGN_ACK = "foreign_ack"  # acknowledges packets of another session
    UNROUTABLE = "unroutable"  # sender's session id is not the one of this session
    UNKNOWN_KEY_ID = "unknown_key_id"  # no key state under that key id
    EARLY_SOFT_RESET = "early_soft_reset"  # before the data keys of the current key state exist
    BEYOND_WINDOW = "beyond_window"  # further ahead than we can keep in order; not acknowledged
    DUPLICATE = "duplicate"  # already received; acknowledged again
    NOT_AUTHENTIC = "not_authentic"  # the wrapping's MAC does not match, or there is no wrapping where one must be
    REPLAYED = "replayed"  # authentic, and it has been here before
    BAD_CLIENT_KEY = "bad_client_key"  # a tls-crypt-v2 key that our server key did not wrap
    CLIENT_KEY_REVOKED = "client_key_revoked"  # a genuine one, whose certificate is revoked
    CLIENT_KEY_TOO_OLD = "client_key_too_old"  # beyond its age limit, or of unknown age where there is a limit
    STATE_NEEDED = "state_needed"  # cannot echo a cookie (tls-crypt-v2 of OpenVPN 2.5), and may not have state for it
    UNACKNOWLEDGED = "unacknowledged"  # it makes us answer, and acknowledges nothing of it
    INTERNAL_ERROR = "internal_error"  # our mistake; the log has it
    CLOSED = "closed"  # the session has ended
    LIMIT_BEFORE_LOGIN = "limit_before_login"  # more packets or bytes than a handshake needs
    TLS_FAILURE = "tls_failure"  # the TLS engine gave up
    TLS_CLOSED = "tls_closed"  # the peer closed its TLS connection
    BAD_KEY_METHOD = "bad_key_method"  # the key method 2 message does not parse
    KEY_METHOD_TOO_LONG = "key_method_too_long"
    BAD_MESSAGE = "bad_message"  # control characters in a text message
    MESSAGE_TOO_LONG = "message_too_long"  # no NUL where one must have come
    OUT_OF_ORDER = "out_of_order"  # not possible in this state (key_state.py)


FATAL_REASONS = frozenset(
    {
        DropReason.LIMIT_BEFORE_LOGIN,
        DropReason.UNACKNOWLEDGED,
        DropReason.TLS_FAILURE,
        DropReason.TLS_CLOSED,
        DropReason.BAD_KEY_METHOD,
        DropReason.KEY_METHOD_TOO_LONG,
        DropReason.MESSAGE_TOO_LONG,
        DropReason.OUT_OF_ORDER,
    }
)
"""These end the key state, whatever the transport. All others cost one packet on UDP and the connection on TCP."""
MALFORMED = frozenset(
    {
        DropReason.TRUNCATED,
        DropReason.BAD_SESSION_ID,
        DropReason.TOO_MANY_ACKS,
        DropReason.TOO_LONG,
        DropReason.NOT_AUTHENTIC,
        DropReason.REPLAYED,
        DropReason.BAD_CLIENT_KEY,
    }
)
"""On UDP anybody can send these in the peer's name; on TCP they are its own and end the connection."""
ITS_OWN = frozenset(
    {DropReason.LATE_PACKET, DropReason.UNKNOWN_KEY_ID, DropReason.FOREIGN_ACK, DropReason.BEYOND_WINDOW}
)
"""What is wrong with packets of the client's own."""


class PeerError(Exception):
    """What the peer sent cannot be used."""

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    @property
    def fatal(self) -> bool:
        return self.reason in FATAL_REASONS


class UsageError(Exception):
    """A caller of this room did something out of order: a bug on our side."""
