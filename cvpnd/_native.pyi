"""What is written in C: the data plane, whose door is ``dataplane.native.NativeDataPlane``, the doorman, whose door is
``server.doorman.Doorman``, the control channel, whose door is ``wire.channel``, and TLS, whose door is ``wire.tls``.
Nothing else imports it.

Addresses are bytes: 4 for IPv4, 16 for IPv6, none for "not known". Bit sets of groups are little-endian bytes.
Descriptors belong to the callee from the call on, also when it raises. Every call but those of control channel and
TLS releases the GIL; the errors are those of ``dataplane.api``."""

from collections.abc import Iterable, Sequence
from typing import Any

STRAY_CONTROL: int  # (kind, listener, host, port, scope id, local, packet)
TCP_CONTROL: int  # (kind, peer, packet)
TCP_CLOSED: int  # (kind, peer, detail)
FLOAT_SEEN: int  # (kind, peer, listener, host, port, scope id, local)
PEER_TIMEOUT: int  # (kind, peer)
PEER_EXIT: int  # (kind, peer)
KEY_USED: int  # (kind, peer, key id)
REKEY_NEEDED: int  # (kind, peer, key id)

DROP_REASONS: tuple[str, ...]
"""What ``DataPlane.drops`` counts, in its order."""
TOTALS: tuple[str, ...]
"""What ``DataPlane.totals`` counts, in its order."""

WRAP_REFUSED: int
WRAP_PLAIN: int
WRAP_TLS_AUTH: int
WRAP_TLS_CRYPT: int

Protection = tuple[int, bytes, str, int, bytes, bool]
"""What all clients share: kind, key2 (tls-auth, tls-crypt), digest and direction or -1 (tls-auth). Then the server key
of tls-crypt-v2 or nothing, and whether clients may begin without a cookie."""

CONTROL_DROPS: tuple[str, ...]
"""What ``Doorman.drops`` counts, in its order."""
DOOR_TOTALS: tuple[str, ...]
"""What ``Doorman.totals`` counts, in its order."""

class DataPlane:
    def __new__(
        cls,
        workers: int,
        *,
        packet_id_limit: int = 0xFFFFFFFF,  # this id is never sent
        block_limit: int = ...,  # AES-GCM blocks and packets before a renegotiation
        failure_limit: int = ...,  # failed authentications before a key is dead
        epoch_limit: int = ...,  # AES-GCM blocks and packets before the next epoch
        last_epoch: int = 0xFFFF,  # none is sent after this one
        crypto: str = "auto",  # or "openssl", "ipsec-mb"
        pause_us: int = 100,  # longest pause of a busy worker; 0 = none
    ) -> DataPlane: ...
    @property
    def workers(self) -> int: ...
    @property
    def crypto_backend(self) -> str: ...
    def add_endpoint(self, endpoint: int, tun_fds: Sequence[int], offload: int, /) -> None: ...
    def remove_endpoint(self, endpoint: int, /) -> None: ...
    def set_rules(self, endpoint: int, rules: Iterable[tuple[bytes, int, bytes]], /) -> None:
        """Each is (network, prefix length, bit set)."""
    def add_listener(self, listener: int, endpoint: int, udp_fds: Sequence[int], /) -> None: ...
    def remove_listener(self, listener: int, /) -> None: ...
    def add_peer(
        self,
        peer: int,
        endpoint: int,
        addresses: tuple[bytes, ...],
        groups: bytes,
        ping_interval_s: int,
        timeout_s: int,
        mss_v4: int,
        mss_v6: int,
        tunnel_mtu: int,
        path_mtu: int,
        data_header: int,
        answers_occ: bool,
        remote_peer_id: int,
        data_v1: bool,
        framing: int,
        /,
    ) -> None: ...
    def remove_peer(self, peer: int, /) -> None: ...
    def set_remote(self, peer: int, listener: int, host: bytes, port: int, scope_id: int, local: bytes, /) -> None: ...
    def attach_tcp(self, peer: int, fd: int, received: bytes, /) -> None: ...
    def send_control(self, peer: int, packet: bytes, /) -> None: ...
    def set_groups(self, peer: int, groups: bytes, /) -> None: ...
    def inject(self, peer: int, packet: bytes, /) -> None: ...
    def install_key(
        self,
        peer: int,
        key_id: int,
        cipher: str,
        open_key: bytes,
        open_iv: bytes,
        seal_key: bytes,
        seal_iv: bytes,
        epoch: bool,
        digest: str,
        /,
    ) -> None: ...
    def use_key(self, peer: int, key_id: int, /) -> None: ...
    def remove_key(self, peer: int, key_id: int, /) -> None: ...
    def event_fd(self) -> int: ...
    def poll_events(self) -> list[tuple[Any, ...]]: ...
    def peer_stats(self, peer: int, /) -> tuple[int, int, int, int, float, int]:
        """Bytes and packets in, bytes and packets out, idle seconds, packets that the rules denied."""
    def drops(self) -> tuple[int, ...]: ...
    def totals(self) -> tuple[int, ...]: ...
    def close(self) -> None: ...

class Doorman:
    def __new__(
        cls,
        cookie_secret: bytes,
        resets: int,
        resets_per_source: int,
        sessions: int,
        sessions_per_source: int,
        unproven_sessions: int,
        /,
    ) -> Doorman:
        """Limits are in a second."""
    def add_listener(self, listener: int, fd: int, slot_s: int, protection: Protection, /) -> None: ...
    def set_protection(self, listener: int, protection: Protection, /) -> None: ...
    def stop_accepting(self, listener: int, /) -> None: ...
    def remove_listener(self, listener: int, /) -> None: ...
    def set_limits(
        self,
        resets: int,
        resets_per_source: int,
        sessions: int,
        sessions_per_source: int,
        unproven_sessions: int,
        /,
    ) -> None: ...
    def know(
        self, listener: int, host: bytes, port: int, scope_id: int, session_id: bytes, established: bool, /
    ) -> None: ...
    def forget(self, listener: int, host: bytes, port: int, scope_id: int, session_id: bytes, /) -> None: ...
    def event_fd(self) -> int: ...
    def fetch(
        self, established: int, handshakes: int, strangers: int, data: int, /
    ) -> list[tuple[int, bytes, int, int, bytes, bytes, bool]]:
        """At most so many of each class; (listener, host, port, scope id, local, packet, proven)."""
    def drops(self) -> tuple[int, ...]: ...
    def totals(self) -> tuple[int, ...]: ...
    def close(self) -> None: ...

WISH_NOTHING: int
WISH_ANSWER: int
WISH_BEGIN: int
WISH_BEGIN_UNPROVEN: int

def judge_stranger(
    cookie_secret: bytes,
    slot_s: int,
    monotonic_s: int,
    wall_s: int,
    host: bytes,
    port: int,
    scope_id: int,
    packet: bytes,
    protection: Protection,
    /,
) -> tuple[int, str, bytes]:
    """The doorman's judgement without limits, for tests: the wish, why there is none, and the reply."""

class ControlKeys:
    """The server's side of one wrapping, for any number of channels."""

    def __new__(cls, kind: int, key2: bytes, digest: str, direction: int, brings_key: bool, /) -> ControlKeys:
        """As in ``Protection``. ``brings_key``: a client's own, as with tls-crypt-v2."""

class ControlChannel:
    """See ``wire.channel.Channel``."""

    def __new__(
        cls, local_session_id: bytes, remote_session_id: bytes, keys: ControlKeys, first_id: int, wall_s: int, /
    ) -> ControlChannel: ...
    def open_key(self, key_id: int, payload_limit: int, first_id: int, first_timeout_s: float, /) -> None: ...
    def close_key(self, key_id: int, /) -> None: ...
    def go_dynamic(self, key2: bytes, wall_s: int, /) -> None: ...
    def overhead(self, key_id: int, /) -> int: ...
    def receive(self, packet: bytes, now: float, /) -> bytes | str | None: ...
    def take_reset(self) -> bytes | str: ...
    def take_duplicates(self) -> int: ...
    def all_acknowledged(self, key_id: int, /) -> bool: ...
    def heard(self, key_id: int, /) -> bool: ...
    def restart(self, key_id: int, now: float, /) -> None: ...
    def set_retransmits(self, key_id: int, on: bool, /) -> None: ...
    def queue(self, key_id: int, opcode: int, /) -> None: ...
    def queue_stream(self, key_id: int, data: bytes, /) -> None: ...
    def stop_sending(self, key_id: int, /) -> None: ...
    def packets_to_send(self, now: float, key_id: int = ..., /) -> list[bytes]: ...
    def next_timeout(self) -> float | None: ...
    def backlog_bytes(self) -> int: ...
    def inspect(
        self,
    ) -> tuple[
        tuple[int, int, int],
        tuple[int, int, int],
        list[tuple[int, int, int, list[tuple[int, float, int]], list[int], list[int], list[int], int]],
    ]: ...

def judge_certificate(der: bytes, /) -> str:
    """What a client is refused for that sends this certificate, its own or an authority's; empty: nothing."""

TLS_CALLS: tuple[tuple[str, str], ...]
"""Functions of OpenSSL, and their types in the words of cffi."""

class TlsCalls:
    def __new__(cls, *addresses: int) -> TlsCalls:
        """Of ``TLS_CALLS``, in their order."""

    def judge_certificates(self, context: int, /) -> None:
        """Address of an ``SSL_CTX``: those that are made of it from now on refuse certificates that are more work to
        decode than a client's are."""

class TlsPipe:
    """See ``wire.tls.TlsConnection``. Where OpenSSL failed there is its answer, 0 or less, in place of a result."""

    def __new__(cls, calls: TlsCalls, owner: object, ssl: int, reads: int, writes: int, server: bool, /) -> TlsPipe:
        """Addresses of an ``SSL``, which ``owner`` keeps alive, and of its two memory BIOs, which nobody else uses."""

    def start(self) -> int: ...
    def receive(self, data: bytes, /) -> list[bytearray] | int: ...
    def send(self, plaintext: bytes, /) -> int: ...
    def output(self) -> bytes: ...
    @property
    def certificates_problem(self) -> str:
        """Why the peer's certificates were not looked at; empty: they were."""

    @property
    def established(self) -> bool: ...
    @property
    def handshake_too_long(self) -> bool: ...
    @property
    def silent_records(self) -> int: ...
