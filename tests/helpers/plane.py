"""A data plane between sockets that the test holds: socket pairs are the TUN queues, loopback the link.

A test never sleeps to see whether something happened. What must come is waited for; what must not come is shown by
``Gateway.barrier``: a packet of a bystander that goes the same way behind it and arrives.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import TypeVar

from helpers import offload
from helpers.packets import ClientKey, Opened, data_keys, udp

from cvpnd.dataplane.api import DataPlane, Drop, Event, Framing, IPNetwork, PeerSettings, SocketAddress, TunOffload

T = TypeVar("T")
PlaneMaker = Callable[..., DataPlane]

PATIENCE_S = 5.0
"""How long to wait for what must come. The native plane looks after idle peers once a second."""

EVERYBODY = 0b1
TARGET, TARGET_V6 = "10.20.0.7", "fd20::7"
OPEN_TARGETS = {"10.20.0.0/16": EVERYBODY, "fd20::/32": EVERYBODY}
"""Of an endpoint whose rules no test has set."""
BYSTANDER = 900
BYSTANDER_TARGET = "198.51.100.99"
"""Every rule set of a test gets this one address for the bystanders."""
BYSTANDER_GROUP = 1 << 300
"""No group of a test: far out, where bit sets have many words."""
IP_PKTINFO = 8


def wait_for(probe: Callable[[], T], why: str = "nothing came") -> T:
    """The first true value of ``probe``."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, why
        time.sleep(0.001)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


def readable(sock: socket.socket | int, timeout_s: float = PATIENCE_S) -> bool:
    return bool(select.select([sock], [], [], timeout_s)[0])


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with contextlib.suppress(PermissionError):  # bursts of a test must not get lost in the kernel
        sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    sock.bind((host, 0))
    return sock


def address_of(sock: socket.socket) -> SocketAddress:
    host, port, *_ = sock.getsockname()
    return SocketAddress(host, port)


class Gateway:
    """The plane with endpoint 1 and UDP listener 1, and the far ends of everything that the plane holds."""

    def __init__(self, plane: DataPlane, host: str = "127.0.0.1", speaks: TunOffload = TunOffload.PLAIN) -> None:
        self.plane = plane
        self.speaks = speaks
        self._split: dict[tuple[int, int], list[bytes]] = {}  # by endpoint and worker: rest of the last super-packet
        self.host = host
        self.tuns: dict[int, list[socket.socket]] = {}
        self.ports: dict[int, list[tuple[str, int]]] = {}
        self.clients: list[Client] = []
        self._early: list[Event] = []
        self._marks = 0
        self.add_endpoint(1)
        self.add_listener(1, 1, host)

    # -- the plane's surroundings

    def add_endpoint(self, endpoint: int) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(self.plane.workers)]
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.setblocking(False)
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.tuns[endpoint] = [ours for ours, _ in pairs]
        self.plane.add_endpoint(endpoint, [theirs.detach() for _, theirs in pairs], self.speaks)
        self.set_rules(endpoint, OPEN_TARGETS)

    def add_listener(self, listener: int, endpoint: int, host: str = "127.0.0.1") -> None:
        """Each worker's socket on a port of its own, so that a test sees and chooses which worker it is."""
        sockets = [udp_socket(host) for _ in range(self.plane.workers)]
        for sock in sockets:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.ports[listener] = [(host, sock.getsockname()[1]) for sock in sockets]
        self.plane.add_listener(listener, endpoint, [sock.detach() for sock in sockets])

    def set_rules(self, endpoint: int, rules: Mapping[str, int]) -> None:
        compiled: list[tuple[IPNetwork, int]] = [(ip_network(network), groups) for network, groups in rules.items()]
        self.plane.set_rules(endpoint, [*compiled, (ip_network(BYSTANDER_TARGET), BYSTANDER_GROUP)])

    def client(
        self, peer_id: int = 1, addresses: tuple[str, ...] = ("10.100.0.2", "fd64::2"), **settings: int | str
    ) -> Client:
        """A peer with its first key and, unless ``connect=0``, its remote."""
        return Client(self, peer_id, addresses, **settings)  # type: ignore[arg-type]

    def close(self) -> None:
        self.plane.close()
        for tuns in self.tuns.values():
            for tun in tuns:
                tun.close()
        for client in self.clients:
            client.close()

    # -- the target network's side

    def inject(self, packet: bytes, *, endpoint: int = 1, worker: int = 0) -> None:
        """As if the kernel had routed this packet into the TUN."""
        self.inject_frame(packet if self.speaks is TunOffload.PLAIN else offload.bare(packet), endpoint, worker)

    def inject_frame(self, frame: bytes, endpoint: int = 1, worker: int = 0) -> None:
        """The same with a virtio header, where there is offload."""
        tun = self.tuns[endpoint][worker]
        while True:
            try:
                tun.send(frame)
                return
            except (BlockingIOError, OSError):
                assert select.select([], [tun], [], PATIENCE_S)[1], "the plane does not read its TUN"

    def delivered(self, *, endpoint: int = 1, worker: int = 0) -> bytes:
        """The next packet that the plane wrote to the TUN, which may have been part of a super-packet."""
        if self.speaks is TunOffload.PLAIN:
            return self.delivered_frame(endpoint, worker)
        waiting = self._split.setdefault((endpoint, worker), [])
        if not waiting:
            waiting += offload.split(self.delivered_frame(endpoint, worker))
        return waiting.pop(0)

    def delivered_frame(self, endpoint: int = 1, worker: int = 0) -> bytes:
        """What one write of the plane brought to the TUN."""
        tun = self.tuns[endpoint][worker]
        assert readable(tun), f"nothing reached the TUN; drops: {self.drops()}"
        return tun.recv(1 << 17)

    def barrier(self, listener: int = 1, worker: int = 0) -> list[bytes]:
        """Returns when everything sent to this worker before has been dealt with: what reached the TUN of it."""
        endpoint = 1
        bystander = self._bystander(worker, listener)
        self._marks += 1
        mark = self._marks.to_bytes(4, "big")
        bystander.send(udp(bystander.address, BYSTANDER_TARGET, mark))
        before = []
        while True:
            packet = self.delivered(endpoint=endpoint, worker=worker)
            if packet[16:20] == ip_address(BYSTANDER_TARGET).packed and packet.endswith(mark):
                return before
            before.append(packet)

    def _bystander(self, worker: int, listener: int) -> Client:
        peer_id = BYSTANDER - BYSTANDER % self.plane.workers + worker
        for client in self.clients:
            if client.peer_id == peer_id:
                return client
        address = f"10.254.0.{worker + 1}"
        return self.client(peer_id, (address,), groups=BYSTANDER_GROUP, listener=listener)

    # -- what the plane tells

    def drops(self) -> Counter[Drop]:
        return Counter({drop: count for drop, count in self.plane.drops().items() if count})

    @contextlib.contextmanager
    def dropping(self, **expected: int) -> Iterator[None]:
        """What happens inside makes exactly these drops: ``dropping(denied=2)``."""
        before = self.drops()
        yield
        wanted = Counter({Drop(word): count for word, count in expected.items()})
        with contextlib.suppress(AssertionError):  # the comparison below says more
            wait_for(lambda: (self.drops() - before).total() >= wanted.total())
        assert self.drops() - before == wanted

    def event(self, kind: type[T], within_s: float = PATIENCE_S) -> T:
        """The next event of this kind; others stay."""
        deadline = time.monotonic() + within_s
        while True:
            for event in self._early:
                if isinstance(event, kind):
                    self._early.remove(event)
                    return event
            ready = select.select([self.plane.event_fd()], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"no {kind.__name__}; waiting: {self._early}"
            self._early += self.plane.poll_events()

    def events(self) -> list[Event]:
        """Everything that waits now."""
        waiting = self._early + list(self.plane.poll_events())
        self._early = []
        return waiting


class Client:
    """The far end of one peer over UDP: seals and opens with the same keys."""

    def __init__(
        self,
        gateway: Gateway,
        peer_id: int,
        addresses: tuple[str, ...],
        *,
        endpoint: int = 1,
        groups: int = EVERYBODY,
        ping_interval_s: int = 0,
        timeout_s: int = 0,
        mss_v4: int = 0,
        mss_v6: int = 0,
        tunnel_mtu: int = 0,
        path_mtu: int = 0,
        data_header: int = 24,
        answers_occ: bool = False,
        listener: int = 1,
        cipher: str = "AES-256-GCM",
        connect: bool = True,
        key: bool = True,
        epoch: bool = False,
        digest: str = "",
        remote_peer_id: int | None = None,
        data_v1: bool = False,
        framing: Framing = Framing.NONE,
    ) -> None:
        self.gateway = gateway
        self.plane = gateway.plane
        self.peer_id = peer_id
        self.address = addresses[0]
        self.address_v6 = addresses[-1]
        self.listener = listener
        self.cipher = cipher
        self.epoch = epoch
        self.digest = digest
        self.data_v1 = data_v1
        self.worker = peer_id % self.plane.workers
        self.host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
        self.socket = udp_socket(self.host)
        self._left: list[socket.socket] = []
        self.keys: dict[int, ClientKey] = {}
        self.key_id = 0
        leases = tuple(ip_address(address) for address in addresses)
        self.plane.add_peer(
            peer_id,
            PeerSettings(
                endpoint,
                leases,
                groups,
                ping_interval_s,
                timeout_s,
                mss_v4,
                mss_v6,
                tunnel_mtu,
                path_mtu,
                data_header,
                answers_occ,
                remote_peer_id,
                data_v1,
                framing,
            ),
        )
        gateway.clients.append(self)
        if key:
            self.install_key(0)
        if connect:
            self.plane.set_remote(peer_id, listener, address_of(self.socket), "")

    def install_key(self, key_id: int, *, epoch: bool | None = None) -> None:
        """A fresh key under this id, on both sides; of the client's usual format unless told otherwise."""
        epoch = self.epoch if epoch is None else epoch
        seed = f"{self.peer_id} {key_id} {os.urandom(8).hex()}"
        keys = data_keys(seed, self.cipher, epoch=epoch, digest=self.digest)
        self.keys[key_id] = ClientKey(key_id, keys)
        self.plane.install_key(self.peer_id, key_id, keys)

    def seal(self, payload: bytes, *, key_id: int | None = None, packet_id: int | None = None) -> bytes:
        key = self.keys[self.key_id if key_id is None else key_id]
        return key.seal(None if self.data_v1 else self.peer_id, payload, packet_id=packet_id)

    def send(self, payload: bytes, *, key_id: int | None = None, packet_id: int | None = None) -> None:
        """P_DATA_V1 goes the way of the control side, which finds the peer by its address."""
        packet = self.seal(payload, key_id=key_id, packet_id=packet_id)
        if self.data_v1:
            self.plane.inject(self.peer_id, packet)
        else:
            self.send_raw(packet)

    def send_raw(self, datagram: bytes, *, worker: int | None = None) -> None:
        _, port = self.gateway.ports[self.listener][self.worker if worker is None else worker]
        self.socket.sendto(datagram, (self.host, port))

    def receive_raw(self) -> tuple[bytes, tuple[str, int]]:
        assert readable(self.socket), f"nothing reached the client; drops: {self.gateway.drops()}"
        datagram, source = self.socket.recvfrom(65536)
        return datagram, source[:2]

    def receive(self) -> Opened:
        datagram, _ = self.receive_raw()
        return self.keys[datagram[0] & 7].open(datagram)

    def received_nothing(self) -> bool:
        """To be asked behind something that shows that the plane is done."""
        return not readable(self.socket, 0)

    def own_address(self) -> SocketAddress:
        return address_of(self.socket)

    def use_host(self, host: str) -> None:
        """Speak from, and to, this address instead of the listener's."""
        self.socket.close()
        self.socket = udp_socket(host)
        self.host = host

    def move(self) -> None:
        """To another port, as a roaming client does, and to none that it has had: it would be at home there."""
        self._left.append(self.socket)
        self.socket = udp_socket(self.host)

    def close(self) -> None:
        for each in (*self._left, self.socket):
            each.close()
