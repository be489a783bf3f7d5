"""The native data plane alone: what a packet costs its one thread, without clients, handshakes and other processes.

In a namespace of its own, loopback is the link and a TUN device the inside. Packets are sealed beforehand and come in
bursts (UDP_SEGMENT), as from a client that batches. The kernel's share of each read and write is in the figure, up to
the queue of whoever would receive it: there a filter drops everything, so that no reader is measured too.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from itertools import cycle, islice
from pathlib import Path

from helpers.netns import Namespace, remove_leftovers, unique_prefix
from helpers.packets import ClientKey, data_keys, udp

from cvpnd.dataplane.api import IPNetwork, PeerSettings, SocketAddress, TunOffload
from cvpnd.dataplane.native import NativeDataPlane
from cvpnd.host.tun import Offload, open_tun

SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
UDP_SEGMENT, UDP_GRO = 103, 104
DONT_FRAGMENT = 0x4000
ENDPOINT, LISTENER, EVERYBODY = 1, 1, 1
DEVICE = "bench0"
INSIDE = IPv4Address("10.100.0.1")
BURST = 32
IN_FLIGHT = 256
"""Fewer than the TUN's queue and every socket's buffer hold: nothing is lost, and nobody waits long."""
WARM_UP_PACKETS = 16_384
COUNTED = {"up": "tun_packets_in", "down": "link_packets_out"}


class Plane:
    """A data plane with ``peers`` installed, all of them reachable at one address, and with ``rules``."""

    def __init__(self, place: Namespace, peers: int, rules: list[tuple[IPNetwork, int]]) -> None:
        self._plane = NativeDataPlane(1)
        with place.entered():
            tun = open_tun(DEVICE, 1, Offload.TCP_UDP)
            link, self._client = _socket("127.0.0.1"), _socket("127.0.0.1")
        place.ip_batch(
            f"link set {DEVICE} addrgenmode none",  # no router solicitations of the kernel's between our packets
            f"link set {DEVICE} up mtu 1500 txqueuelen 1000",
            f"address add {INSIDE}/15 dev {DEVICE}",
        )
        with place.entered():
            self._inside = _socket(str(INSIDE))
        for sock in (self._client, self._inside):
            _drop_all(sock)
        self._address = link.getsockname()
        self._plane.add_endpoint(ENDPOINT, tun.queues(), TunOffload[tun.offload.name])
        tun.close()
        self._plane.set_rules(ENDPOINT, rules)
        self._plane.add_listener(LISTENER, ENDPOINT, [link.detach()])
        remote = SocketAddress(*self._client.getsockname())
        self._keys = {}
        for peer in range(1, peers + 1):
            keys = data_keys(str(peer))
            self._plane.add_peer(peer, PeerSettings(ENDPOINT, (INSIDE + peer,), EVERYBODY, 0, 0))
            self._plane.install_key(peer, 0, keys)
            self._plane.set_remote(peer, LISTENER, remote, "")
            self._keys[peer] = ClientKey(0, keys)

    def close(self) -> None:
        self._plane.close()
        self._client.close()
        self._inside.close()

    def warm_up(self) -> None:
        """The first packets are dearer than all others."""
        for direction in COUNTED:
            self.ns_per_packet(direction, 64, WARM_UP_PACKETS)

    def ns_per_packet(self, direction: str, size: int, packets: int, talkers: int = 1) -> float:
        """CPU time of the plane's thread; ``talkers`` peers take turns, a burst each."""
        counted = COUNTED[direction]
        make = self._upload if direction == "up" else self._download
        bursts = list(islice(make(size, talkers), max(1, packets // BURST)))
        before, cpu = self._plane.totals()[counted], _others_cpu_ns()
        for number, send in enumerate(bursts, 1):
            send()
            self._wait_until(counted, before + number * BURST - IN_FLIGHT)
        self._wait_until(counted, before + len(bursts) * BURST)
        return (_others_cpu_ns() - cpu) / (len(bursts) * BURST)

    def _upload(self, size: int, talkers: int) -> Iterator[Callable[[], None]]:
        port = self._inside.getsockname()[1]
        for peer in cycle(range(1, talkers + 1)):
            inner = udp(INSIDE + peer, INSIDE, bytes(size - 28), port=port, fragment=DONT_FRAGMENT)
            sealed = [self._keys[peer].seal(peer, inner) for _ in range(BURST)]
            yield lambda packets=sealed: _send_burst(self._client, packets, self._address)  # type: ignore[misc]

    def _download(self, size: int, talkers: int) -> Iterator[Callable[[], None]]:
        payloads = [bytes(size - 28)] * BURST
        for peer in cycle(range(1, talkers + 1)):
            to = (str(INSIDE + peer), 9)
            yield lambda to=to: _send_burst(self._inside, payloads, to)  # type: ignore[misc]

    def _wait_until(self, counted: str, value: int) -> None:
        deadline = time.monotonic() + 10
        while self._plane.totals()[counted] < value:
            if time.monotonic() > deadline:
                drops = {str(reason): count for reason, count in self._plane.drops().items() if count}
                raise RuntimeError(f"packets were lost: {counted} stays below {value}; drops {drops}")
            time.sleep(0.00005)


@contextmanager
def namespace() -> Iterator[Namespace]:
    remove_leftovers()
    prefix = unique_prefix()
    with tempfile.TemporaryDirectory(prefix=f"{prefix}-") as directory:
        place = Namespace(f"{prefix}-plane", Path(directory))
        try:
            yield place
        finally:
            place.close()


@contextmanager
def plane(peers: int = 1, rules: list[tuple[IPNetwork, int]] | None = None) -> Iterator[Plane]:
    with namespace() as place:
        made = Plane(place, peers, rules or [(ip_network("10.0.0.0/8"), EVERYBODY)])
        try:
            yield made
        finally:
            made.close()


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    sock.bind((host, 0))
    return sock


def _drop_all(sock: socket.socket) -> None:
    """By a filter of one instruction, "return 0"; whole runs at once, as a reader that can would take them."""
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))


def _send_burst(sock: socket.socket, packets: list[bytes], address: tuple[str, int]) -> None:
    """Packets of one size in one call."""
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(packets[0])))]
    sock.sendmsg(packets, segment, 0, address)


def _others_cpu_ns() -> int:
    """Of every thread of this process but the calling one: the plane's."""
    ours = str(threading.get_native_id())
    tasks = Path("/proc/self/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks if task.name != ours)
