"""The data plane in plain Python: what ``native`` does, one packet at a time, and so its specification.

What a packet meets is in ``reference_forward``, how it comes and goes in ``reference_worker``. Here is the door.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import cryptography

from cvpnd.dataplane.api import (
    MAX_PEER_ID,
    DataKeys,
    Drop,
    Event,
    Framing,
    IPNetwork,
    PeerSettings,
    PeerStats,
    SocketAddress,
    TunOffload,
)
from cvpnd.dataplane.reference_forward import LINK_PACKET_MAX, PACKET_MAX, Connection, Endpoint, Listener, Peer
from cvpnd.dataplane.reference_keys import KeyLimits, key_sizes, make_key_slot
from cvpnd.dataplane.reference_path import OUTER_MIN, TUNNEL_MIN
from cvpnd.dataplane.reference_sockets import pass_over_icmp, sockaddr, source_control
from cvpnd.dataplane.reference_worker import TCP_CONTROL_EXTRA, TCP_QUEUE_MAX, TOTALS, ReferenceWorker

WORKERS_MAX = 64
LEASES_MAX = 64


class ReferenceDataPlane(ReferenceWorker):
    """See ``api.DataPlane``. The limits (``KeyLimits``) can be made small for tests."""

    def __init__(self, workers: int, **limits: int) -> None:
        require(1 <= workers <= WORKERS_MAX, "workers out of range")
        require(all(limit > 0 for limit in limits.values()), "limits are positive")
        require(limits.get("last_epoch", 1) <= 0xFFFF, "an epoch has 16 bits")
        super().__init__(workers, KeyLimits(**limits))

    @property
    def crypto_backend(self) -> str:
        return f"Python cryptography {cryptography.__version__}"

    def add_endpoint(self, endpoint: int, tun_fds: Sequence[int], offload: TunOffload = TunOffload.PLAIN) -> None:
        with self._lock, closing_on_error(tun_fds):
            require_new(endpoint, self._endpoints)
            require(offload == TunOffload.PLAIN, "this plane knows no virtio headers")
            require(len(tun_fds) == len(set(tun_fds)) == self.workers, "one TUN queue for each worker")
            added = Endpoint(list(tun_fds))
            for fd in tun_fds:
                os.set_blocking(fd, False)
            self._watch(tun_fds, [partial(self._read_tun, added, worker) for worker in range(self.workers)])
            self._endpoints[endpoint] = added

    def remove_endpoint(self, endpoint: int) -> None:
        with self._lock:
            removed = self._endpoints[endpoint]
            users = {listener.endpoint for listener in self._listeners.values()}
            users |= {peer.settings.endpoint for peer in self._peers.values()}
            require(endpoint not in users, "the endpoint has listeners or peers")
            del self._endpoints[endpoint]
            for fd in removed.tun_fds:
                self._selector.unregister(fd)
                os.close(fd)

    def set_rules(self, endpoint: int, rules: Sequence[tuple[IPNetwork, int]]) -> None:
        with self._lock:
            changed = self._endpoints[endpoint]
            require(len({network for network, _ in rules}) == len(rules), "a prefix appears twice")
            require(all(groups >= 0 for _, groups in rules), "a bit set of groups is negative")
            changed.rules = sorted(rules, key=lambda rule: rule[0].prefixlen, reverse=True)

    def change_rules(self, endpoint: int, changes: Mapping[IPNetwork, int | None]) -> None:
        with self._lock:
            kept = [rule for rule in self._endpoints[endpoint].rules if rule[0] not in changes]
            new = [(network, groups) for network, groups in changes.items() if groups is not None]
            self.set_rules(endpoint, [*kept, *new])

    def add_listener(self, listener: int, endpoint: int, udp_fds: Sequence[int]) -> None:
        with self._lock, closing_on_error(udp_fds):
            require_new(listener, self._listeners)
            self._endpoints[endpoint]
            require(len(udp_fds) == len(set(udp_fds)) == self.workers, "one socket for each worker")
            require_sockets(udp_fds)
            added = Listener(listener, endpoint, [])
            self._watch(udp_fds, [partial(self._read_udp, added, worker) for worker in range(self.workers)])
            for fd in udp_fds:
                added.sockets.append(socket.socket(fileno=fd))
                added.sockets[-1].setblocking(False)
                pass_over_icmp(added.sockets[-1])
            self._listeners[listener] = added

    def remove_listener(self, listener: int) -> None:
        with self._lock:
            removed = self._listeners.pop(listener)
            for peer in self._peers.values():
                if peer.remote is not None and peer.remote[0] is removed:
                    peer.remote = None
            for sock in removed.sockets:
                self._selector.unregister(sock.fileno())
                sock.close()

    def add_peer(self, peer_id: int, settings: PeerSettings) -> None:
        with self._lock:
            require(0 <= peer_id <= MAX_PEER_ID, "peer id out of range")
            require_new(peer_id, self._peers)
            leases = self._endpoints[settings.endpoint].leases
            require(1 <= len(settings.addresses) <= LEASES_MAX, "too few or too many addresses")
            require(len(set(settings.addresses)) == len(settings.addresses), "an address is leased twice")
            require(not leases.keys() & set(settings.addresses), "an address is leased already")
            require(settings.groups >= 0, "the bit set of groups is negative")
            require(0 <= settings.mss_v4 <= 0xFFFF and 0 <= settings.mss_v6 <= 0xFFFF, "MSS out of range")
            require(settings.path_mtu == 0 or OUTER_MIN <= settings.path_mtu <= PACKET_MAX, "path MTU out of range")
            require(settings.tunnel_mtu == 0 or TUNNEL_MIN <= settings.tunnel_mtu <= 0xFFFF, "MTU out of range")
            require(0 <= settings.data_header <= 255, "data header out of range")
            require(settings.ping_interval_s >= 0 and settings.timeout_s >= 0, "an interval is negative")
            require(0 <= (settings.remote_peer_id or 0) <= MAX_PEER_ID, "remote peer id out of range")
            require(settings.framing in list(Framing), "no such framing")
            now = time.monotonic()
            peer = self._peers[peer_id] = Peer(peer_id, settings, settings.groups, now, now, self.forwarder.drops)
            for address in settings.addresses:
                leases[address] = peer

    def remove_peer(self, peer_id: int) -> None:
        with self._lock:
            peer = self._peers.pop(peer_id)
            for address in peer.settings.addresses:
                del self._endpoints[peer.settings.endpoint].leases[address]
            if peer.connection is not None:
                self._flush(peer, peer.connection)
                self._say_goodbye(peer.connection)
                self._close_connection(peer, peer.connection, "removed")
            peer.keys.clear()
            self._events.forget_peer(peer_id)

    def set_remote(self, peer_id: int, listener: int, remote: SocketAddress, local: str) -> None:
        with self._lock:
            peer, via = self._peers[peer_id], self._listeners[listener]
            require(via.endpoint == peer.settings.endpoint, "the listener is of another endpoint")
            require(peer.connection is None, "the peer came by TCP")
            sockaddr(via.sockets[0], remote)
            source_control(via.sockets[0], local)
            peer.remote = (via, remote, local)
            peer.path.moved = True

    def attach_tcp(self, peer_id: int, fd: int, received: bytes) -> None:
        with self._lock, closing_on_error([fd]):
            peer = self._peers[peer_id]
            require(peer.connection is None and peer.remote is None, "the peer has a way out already")
            require_sockets([fd])
            os.set_blocking(fd, False)
            connection = peer.connection = Connection(socket.socket(fileno=fd))
            self._watch([fd], [partial(self._read_tcp, peer, connection)])
            self._receive_stream(peer, connection, received)

    def send_control(self, peer_id: int, packet: bytes) -> None:
        with self._lock:
            peer = self._peers[peer_id]
            require(1 <= len(packet) <= LINK_PACKET_MAX, "packet length out of range")
            require(peer.connection is not None, "the peer has no TCP connection")
            connection = peer.connection
            if (
                connection is not None
                and not connection.closed
                and not self._queue_frame(peer, connection, packet, TCP_QUEUE_MAX + TCP_CONTROL_EXTRA)
            ):
                self._close_connection(peer, connection, "the send queue is full")

    def inject(self, peer_id: int, packet: bytes) -> None:
        """At once: there is no worker whose inbox could be full."""
        with self._lock:
            peer = self._peers[peer_id]
            require(peer.connection is None, "the peer came by TCP")
            require(1 <= len(packet) <= LINK_PACKET_MAX, "packet length out of range")
            self._totals["link_packets_in"] += 1
            verdict = self.forwarder.injected_to_tun(packet, peer, time.monotonic())
            self._write_tun(peer.settings.endpoint, peer.id % self.workers, verdict)

    def set_groups(self, peer_id: int, groups: int) -> None:
        with self._lock:
            peer = self._peers[peer_id]
            require(groups >= 0, "the bit set of groups is negative")
            peer.groups = groups

    def install_key(self, peer_id: int, key_id: int, keys: DataKeys) -> None:
        with self._lock:
            peer = self._peers[peer_id]
            require(0 <= key_id <= 7, "key id out of range")
            sizes = key_sizes(keys)
            require(sizes is not None, f"no cipher {keys.cipher} {keys.digest}")
            require((len(keys.open_key), len(keys.open_iv)) == sizes, "wrong size of a key or IV")
            require((len(keys.seal_key), len(keys.seal_iv)) == sizes, "wrong size of a key or IV")
            require(not (keys.epoch and peer.settings.data_v1), "the epoch format needs peer ids")
            peer.keys_installed += 1
            peer.keys[key_id] = make_key_slot(key_id, keys, peer.keys_installed, self.forwarder.limits)
            self._choose_sending_key(peer)

    def use_key(self, peer_id: int, key_id: int) -> None:
        with self._lock:
            peer = self._peers[peer_id]
            peer.sending = peer.keys[key_id]

    def remove_key(self, peer_id: int, key_id: int) -> None:
        with self._lock:
            peer = self._peers[peer_id]
            del peer.keys[key_id]
            self._choose_sending_key(peer)

    @staticmethod
    def _choose_sending_key(peer: Peer) -> None:
        """The first key, and when the sending key is gone, the newest there is (11.6)."""
        if peer.sending not in peer.keys.values():
            peer.sending = max(peer.keys.values(), key=lambda key: key.generation, default=None)

    def event_fd(self) -> int:
        return self._events.fd

    def poll_events(self) -> list[Event]:
        with self._lock:
            return self._events.take_all()

    def peer_stats(self, peer_id: int) -> PeerStats:
        with self._lock:
            peer = self._peers[peer_id]
            idle_s = time.monotonic() - peer.last_authentic
            return PeerStats(
                peer.bytes_in, peer.packets_in, peer.bytes_out, peer.packets_out, idle_s, peer.packets_denied
            )

    def drops(self) -> Mapping[Drop, int]:
        with self._lock:
            return {drop: self.forwarder.drops[drop] for drop in Drop}

    def totals(self) -> Mapping[str, int]:
        with self._lock:
            return {word: self._totals[word] for word in TOTALS}

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for peer_id in list(self._peers):
                self.remove_peer(peer_id)
            for listener in list(self._listeners):
                self.remove_listener(listener)
            for endpoint in list(self._endpoints):
                self.remove_endpoint(endpoint)
        os.eventfd_write(self._stop_fd, 1)
        self._thread.join()
        self._selector.close()
        os.close(self._stop_fd)
        self._blind.close()
        os.close(self._events.fd)


# -- small parts ---------------------------------------------------------------------------------------------------


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def require_new(number: int, table: Mapping[int, object]) -> None:
    require(0 <= number <= 0xFFFFFF and number not in table, f"{number} is out of range or taken")


def require_sockets(fds: Sequence[int]) -> None:
    require(all(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in fds), "not a socket")


@contextlib.contextmanager
def closing_on_error(fds: Sequence[int]) -> Iterator[None]:
    """Descriptors belong to the plane also when the call raises."""
    try:
        yield
    except BaseException:
        for fd in set(fds):
            with contextlib.suppress(OSError):  # it was none
                os.close(fd)
        raise
