"""What an operator may set of the control channel, with the reference's defaults (openvpn-wire.md section 18)."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Shared by all sessions of an endpoint."""

    data_ciphers: tuple[str, ...] = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
    """In our order of preference, which wins. CBC ciphers, if they are allowed at all, come last."""
    hand_window_s: float = 60.0
    """A negotiation that takes longer has failed. Clients give up after the same time."""
    renegotiate_s: float = 3600.0
    """Renew the data keys this often; 0 leaves it to the client."""
    tran_window_s: float = 3600.0
    """How long the previous key still opens packets. OpenVPN 3 goes on sending with it for up to a minute."""
    tls_timeout_s: float = 2.0
    """First retransmission of a control packet; doubles each time."""
    exit_delay_s: float = 5.0
    """How long a session that has ended still acknowledges and repeats, so that AUTH_FAILED, HALT or RESTART arrives:
    longer than the first retransmission takes (``tls_timeout_s``)."""
    last_ack_s: float = 15.0
    """How long one that ends before the client has acknowledged our key message waits for that, to be able to say so:
    a few repetitions. No limit of sessions counts it meanwhile."""
    push_repeat_s: float = 30.0
    """A PUSH_REQUEST this soon after a PUSH_REPLY crossed it on the way and gets no second one."""
    soft_reset_interval_s: float = 4.0
    """A client may start renegotiations no faster: each costs us a TLS handshake. It repeats a dropped one. OpenVPN
    counts whole seconds, so that 4 may pass between two where its ``reneg-sec`` is 5."""
    max_packet_bytes: int = 1250
    """Control packets with their IP and UDP header; the reference's default, small enough for every path."""
    max_packets_before_login: int = 500
    """A handshake takes 10 to 30; a slow login is kept company by one PUSH_REQUEST every 5 s."""
    max_bytes_before_login: int = 256 * 1024
    max_tls_bytes: int = 128 * 1024
    """Received until the key method 2 message is complete, per key id. Of the handshake itself TLS takes less:
    TLS_HANDSHAKE_MAX (native/tls_pipe.h)."""
    max_backlog_bytes: int = 256 * 1024
    """Of answers that wait for acknowledgements of earlier ones. A thousand pushed routes are 40 kB."""
    max_key_method_bytes: int = 64 * 1024
    """The strings in it are counted with 16 bits; real ones are below 2 kB."""
    free_key_method_bytes: int = 64 * 1024
    """What is longer has to be held out of what the session's owner has for all of them."""

    def for_assertions(self) -> SessionSettings:
        """Where AWS's client may bring 128 kB from an identity provider: with all that is around it 131 kB and, as each
        character may be written as three, sometimes more (openvpn-wire.md section 17)."""
        return replace(
            self,
            max_key_method_bytes=256 * 1024,
            free_key_method_bytes=8 * 1024,
            max_tls_bytes=320 * 1024,
            max_bytes_before_login=512 * 1024,
            max_packets_before_login=1000,
        )
