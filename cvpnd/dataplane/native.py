"""``api.DataPlane`` on the C module: Python's addresses, bit sets and dataclasses on this side, bytes on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cvpnd import _native
from cvpnd.dataplane.api import (
    DataKeys,
    Drop,
    Event,
    FloatSeen,
    IPNetwork,
    KeyUsed,
    PeerExit,
    PeerSettings,
    PeerStats,
    PeerTimeout,
    RekeyNeeded,
    SocketAddress,
    StrayControl,
    TcpClosed,
    TcpControl,
    TunOffload,
    host_bytes,
    host_text,
)

_PackedRule = tuple[bytes, int, bytes]

DROPS = tuple(Drop(word) for word in _native.DROP_REASONS)


class NativeDataPlane:
    """See ``api.DataPlane``. ``packet_id_limit`` and the other limits can be made small for tests; ``pause_us`` is the
    longest pause of a busy worker, 0 for none; ``link_offload`` false is for sockets without segments, UDP_SEGMENT and
    UDP_GRO; ``crypto`` is "auto", "openssl" or "ipsec-mb"."""

    def __init__(self, workers: int, crypto: str = "auto", **settings: int) -> None:
        self._plane = _native.DataPlane(workers, crypto=crypto, **settings)
        self._rules: dict[int, dict[tuple[bytes, int], _PackedRule]] = {}
        """Of each endpoint, as they were given to C: packing 10,000 takes 10 ms, building its table of them 4."""

    @property
    def workers(self) -> int:
        return self._plane.workers

    @property
    def crypto_backend(self) -> str:
        return self._plane.crypto_backend

    def add_endpoint(self, endpoint: int, tun_fds: Sequence[int], offload: TunOffload = TunOffload.PLAIN) -> None:
        self._plane.add_endpoint(endpoint, tun_fds, offload)
        self._rules[endpoint] = {}

    def remove_endpoint(self, endpoint: int) -> None:
        self._plane.remove_endpoint(endpoint)
        self._rules.pop(endpoint, None)

    def set_rules(self, endpoint: int, rules: Sequence[tuple[IPNetwork, int]]) -> None:
        # by bytes, which are hashed ten times as fast as networks: 26 ms for 10,000 of those
        packed = {_key(network): (*_key(network), bit_set(groups)) for network, groups in rules}
        if len(packed) != len(rules):
            raise ValueError("a prefix appears twice")
        self._put_rules(endpoint, packed)

    def change_rules(self, endpoint: int, changes: Mapping[IPNetwork, int | None]) -> None:
        packed = self._rules.get(endpoint, {}).copy()
        for network, groups in changes.items():
            key = _key(network)
            if groups is None:
                packed.pop(key, None)
            else:
                packed[key] = (*key, bit_set(groups))
        self._put_rules(endpoint, packed)

    def _put_rules(self, endpoint: int, packed: dict[tuple[bytes, int], _PackedRule]) -> None:
        self._plane.set_rules(endpoint, packed.values())
        self._rules[endpoint] = packed

    def add_listener(self, listener: int, endpoint: int, udp_fds: Sequence[int]) -> None:
        self._plane.add_listener(listener, endpoint, udp_fds)

    def remove_listener(self, listener: int) -> None:
        self._plane.remove_listener(listener)

    def add_peer(self, peer_id: int, settings: PeerSettings) -> None:
        self._plane.add_peer(
            peer_id,
            settings.endpoint,
            tuple(address.packed for address in settings.addresses),
            bit_set(settings.groups),
            settings.ping_interval_s,
            settings.timeout_s,
            settings.mss_v4,
            settings.mss_v6,
            settings.tunnel_mtu,
            settings.path_mtu,
            settings.data_header,
            settings.answers_occ,
            peer_id if settings.remote_peer_id is None else settings.remote_peer_id,
            settings.data_v1,
            settings.framing,
        )

    def remove_peer(self, peer_id: int) -> None:
        self._plane.remove_peer(peer_id)

    def set_remote(self, peer_id: int, listener: int, remote: SocketAddress, local: str) -> None:
        host, port, scope_id = remote
        self._plane.set_remote(peer_id, listener, host_bytes(host), port, scope_id, host_bytes(local))

    def attach_tcp(self, peer_id: int, fd: int, received: bytes) -> None:
        self._plane.attach_tcp(peer_id, fd, received)

    def send_control(self, peer_id: int, packet: bytes) -> None:
        self._plane.send_control(peer_id, packet)

    def inject(self, peer_id: int, packet: bytes) -> None:
        self._plane.inject(peer_id, packet)

    def set_groups(self, peer_id: int, groups: int) -> None:
        self._plane.set_groups(peer_id, bit_set(groups))

    def install_key(self, peer_id: int, key_id: int, keys: DataKeys) -> None:
        self._plane.install_key(
            peer_id,
            key_id,
            keys.cipher,
            keys.open_key,
            keys.open_iv,
            keys.seal_key,
            keys.seal_iv,
            keys.epoch,
            keys.digest,
        )

    def use_key(self, peer_id: int, key_id: int) -> None:
        self._plane.use_key(peer_id, key_id)

    def remove_key(self, peer_id: int, key_id: int) -> None:
        self._plane.remove_key(peer_id, key_id)

    def event_fd(self) -> int:
        return self._plane.event_fd()

    def poll_events(self) -> list[Event]:
        return [EVENTS[kind](*fields) for kind, *fields in self._plane.poll_events()]

    def peer_stats(self, peer_id: int) -> PeerStats:
        return PeerStats(*self._plane.peer_stats(peer_id))

    def drops(self) -> Mapping[Drop, int]:
        return dict(zip(DROPS, self._plane.drops(), strict=True))

    def totals(self) -> Mapping[str, int]:
        return dict(zip(_native.TOTALS, self._plane.totals(), strict=True))

    def close(self) -> None:
        self._plane.close()


def _key(network: IPNetwork) -> tuple[bytes, int]:
    return network.network_address.packed, network.prefixlen


def bit_set(groups: int) -> bytes:
    if groups < 0:
        raise ValueError("a bit set of groups is negative")
    return groups.to_bytes((groups.bit_length() + 7) // 8, "little")


def _stray_control(listener: int, host: bytes, port: int, scope_id: int, local: bytes, packet: bytes) -> Event:
    return StrayControl(listener, SocketAddress(host_text(host), port, scope_id), host_text(local), packet)


def _float_seen(peer_id: int, listener: int, host: bytes, port: int, scope_id: int, local: bytes) -> Event:
    return FloatSeen(peer_id, listener, SocketAddress(host_text(host), port, scope_id), host_text(local))


EVENTS: Mapping[int, Callable[..., Event]] = {
    _native.STRAY_CONTROL: _stray_control,
    _native.TCP_CONTROL: TcpControl,
    _native.TCP_CLOSED: TcpClosed,
    _native.FLOAT_SEEN: _float_seen,
    _native.PEER_TIMEOUT: PeerTimeout,
    _native.PEER_EXIT: PeerExit,
    _native.KEY_USED: KeyUsed,
    _native.REKEY_NEEDED: RekeyNeeded,
}
