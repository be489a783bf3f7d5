"""What one packet costs in a data plane alone: CPU time of its threads by packets through, without a client.

In a network namespace of its own: loopback is the link, a real TUN device the inside. Packets are sealed beforehand and
come in bursts (UDP_SEGMENT), as from a batching client, so that the plane and not this script is what is measured.
The kernel's share of each read and write, the far socket's included, is in the figure.
Needs root: ``sudo python bench/dataplane.py``.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import platform
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytun
from helpers.packets import ClientKey, data_keys, udp

from cvpnd.dataplane.api import DataKeys, DataPlane, PeerSettings, SocketAddress
from cvpnd.dataplane.native import NativeDataPlane
from cvpnd.dataplane.reference import ReferenceDataPlane

PLANES = {"native": NativeDataPlane, "reference": ReferenceDataPlane}
CLONE_NEWNET = 0x40000000
UDP_SEGMENT = 103
SO_RCVBUFFORCE = 33
PEER = 1
LEASE, INSIDE = "10.100.0.2", "10.100.0.1"
BURST = 32
IN_FLIGHT = 256
"""Fewer than the TUN's queue and every socket's buffer hold: nothing is lost, and nobody waits long."""


def enter_namespace() -> None:
    """This thread's, and so of every thread and device made from here on."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        sys.exit(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}; run it with sudo")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def open_tun() -> int:
    tun = pytun.TunTapDevice(name="bench0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
    fd = fcntl.fcntl(tun.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)
    tun.close()
    # no router solicitations of the kernel's between our packets
    subprocess.run(["ip", "link", "set", "bench0", "addrgenmode", "none"], check=True)
    subprocess.run(["ip", "address", "add", f"{INSIDE}/24", "dev", "bench0"], check=True)
    subprocess.run(["ip", "link", "set", "bench0", "up", "mtu", "1500", "txqueuelen", "1000"], check=True)
    return fd


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    sock.bind((host, 0))
    return sock


def thread_cpu_ns() -> int:
    """Of every thread but this one: the plane's."""
    ours = str(threading.get_native_id())
    return sum(
        int((task / "schedstat").read_text().split()[0])
        for task in Path("/proc/self/task").iterdir()
        if task.name != ours
    )


@dataclass
class Setup:
    plane: DataPlane
    client: socket.socket
    address: tuple[str, int]
    key: ClientKey


def set_up(name: str, cipher: str) -> Setup:
    plane = PLANES[name](1)
    plane.add_endpoint(1, [open_tun()])
    plane.set_rules(1, [(ip_network("10.0.0.0/8"), 1)])
    link, client = udp_socket(), udp_socket()
    address = link.getsockname()
    plane.add_listener(1, 1, [link.detach()])
    keys: DataKeys = data_keys("bench", cipher)
    plane.add_peer(PEER, PeerSettings(1, (ip_address(LEASE),), 1, 0, 0))
    plane.install_key(PEER, 0, keys)
    plane.set_remote(PEER, 1, SocketAddress(*client.getsockname()), "")
    return Setup(plane, client, address, ClientKey(0, keys))


def send_burst(sock: socket.socket, packets: list[bytes], address: tuple[str, int]) -> None:
    """Packets of one size in one call."""
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(packets[0])))]
    sock.sendmsg(packets, segment, 0, address)


def upload(setup: Setup, size: int) -> Iterator[Callable[[], None]]:
    """Each call sends a burst from the client; a socket on the TUN's own address takes what comes out."""
    sink = udp_socket(INSIDE)
    inner = udp(LEASE, INSIDE, bytes(size - 28), port=sink.getsockname()[1])
    while True:
        sealed = [setup.key.seal(PEER, inner) for _ in range(BURST)]
        yield lambda packets=sealed: send_burst(setup.client, packets, setup.address)  # type: ignore[misc]


def download(_: Setup, size: int) -> Iterator[Callable[[], None]]:
    """Each call sends a burst through the TUN to the lease; the client's socket takes what comes out."""
    source = udp_socket(INSIDE)
    payloads = [bytes(size - 28)] * BURST
    while True:
        yield lambda: send_burst(source, payloads, (LEASE, 9))


DIRECTIONS = {"up": (upload, "tun_packets_in"), "down": (download, "link_packets_out")}


@dataclass
class Round:
    cpu_ns: float
    packets_per_s: float
    per_call: float


def measure(setup: Setup, direction: str, size: int, bursts: int, rounds: int) -> list[Round]:
    make, counted = DIRECTIONS[direction]
    calls = "receive_calls" if direction == "up" else "send_calls"
    source = make(setup, size)
    results = []
    for _ in range(rounds):
        ready = [next(source) for _ in range(bursts)]
        before, started = setup.plane.totals(), time.perf_counter()
        cpu = thread_cpu_ns()
        for number, send in enumerate(ready, 1):
            send()
            wait_until(setup.plane, counted, before[counted] + number * BURST - IN_FLIGHT)
        wait_until(setup.plane, counted, before[counted] + bursts * BURST)
        elapsed, cpu = time.perf_counter() - started, thread_cpu_ns() - cpu
        packets, after = bursts * BURST, setup.plane.totals()
        results.append(Round(cpu / packets, packets / elapsed, packets / (after[calls] - before[calls])))
        drain(setup.client)
    return results


def wait_until(plane: DataPlane, counted: str, value: int) -> None:
    deadline = time.monotonic() + 10
    while plane.totals()[counted] < value:
        if time.monotonic() > deadline:
            sys.exit(f"packets were lost: {counted} stays below {value}; drops {dict(plane.drops())}")
        time.sleep(0.00005)


def drain(sock: socket.socket) -> None:
    try:
        while sock.recv(2048, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        pass


def describe_machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    versions = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{date.today()}, {model}, {os.cpu_count()} cores, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", nargs="+", choices=PLANES, default=list(PLANES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 1400], help="inner packets, in bytes")
    parser.add_argument("--cipher", default="AES-256-GCM")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=16384, help="in a round; the reference plane gets 1/8")
    arguments = parser.parse_args()
    enter_namespace()
    print(describe_machine())
    for name in arguments.planes:
        setup = set_up(name, arguments.cipher)
        print(f"{name}: {setup.plane.crypto_backend}, {arguments.cipher}, medians of {arguments.rounds} rounds")
        packets = arguments.packets if name == "native" else arguments.packets // 8
        for size in arguments.sizes:
            for direction in DIRECTIONS:
                rounds = measure(setup, direction, size, max(1, packets // BURST), arguments.rounds)
                cpu_ns = statistics.median(one.cpu_ns for one in rounds)
                packets_per_s = statistics.median(one.packets_per_s for one in rounds)
                per_call = statistics.median(one.per_call for one in rounds)
                print(
                    f"  {size:5} bytes {direction:4}  {cpu_ns:8.0f} ns CPU a packet  {cpu_ns / size:6.2f} s/GB"
                    f"  {packets_per_s / 1000:8.1f} kpps  {per_call:5.1f} packets a call"
                )
        drops = {str(drop): count for drop, count in setup.plane.drops().items() if count}
        if drops:
            print(f"  dropped: {drops}")
        setup.plane.close()
        setup.client.close()


if __name__ == "__main__":
    main()
