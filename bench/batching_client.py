"""A client that batches as the gateway does: the load that a stock client is too slow to make.

It logs in like the light client; then the gateway's own native data plane carries the packets, in the client's
role: with the same keys the other way round, the target's address for a lease, and a TUN device here. So its packets
go out as runs (UDP_SEGMENT) and come in as such (UDP_GRO). Runs until SIGTERM, and prints what the data plane counted.

    python bench/batching_client.py --remote 192.0.2.1:1194 --target 10.20.0.10 --ca … --cert … --key …
"""

from __future__ import annotations

import argparse
import json
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from light_client.__main__ import client_context
from light_client.protocol import KeyInstalled, LightClient

from cvpnd.dataplane.api import (
    DataKeys,
    PeerExit,
    PeerSettings,
    PeerTimeout,
    SocketAddress,
    StrayControl,
    TcpClosed,
    TcpControl,
    TunOffload,
)
from cvpnd.dataplane.native import NativeDataPlane
from cvpnd.host.tun import Offload, open_tun
from cvpnd.wire.packet import Transport
from cvpnd.wire.stream import FrameReader, frame

ENDPOINT, LISTENER = 1, 1
LOGIN_S = 30.0
RECEIVE_BYTES = 65536


class Login:
    """From the socket to the keys, before there is a data plane."""

    def __init__(self, client: LightClient, sock: socket.socket, transport: Transport) -> None:
        self.client = client
        self._sock = sock
        self._frames = FrameReader() if transport is Transport.TCP else None

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            while not self.client.connected:
                for packet in self.client.packets_to_send(time.monotonic()):
                    self._sock.sendall(frame(packet) if self._frames else packet)
                if selector.select(wait_s(self.client)):
                    received = self._sock.recv(RECEIVE_BYTES)
                    if self._frames and not received:
                        sys.exit("the server closed the connection")
                    for packet in self._frames.feed(received) if self._frames else [received]:
                        self.client.receive_packet(packet, time.monotonic())
                self.client.handle_timeout(time.monotonic())
                if self.client.failed is not None:
                    sys.exit(f"cannot log in: {self.client.failed}")

    def rest(self) -> bytes:
        """Of a TCP stream: the beginning of a frame."""
        return self._frames.rest() if self._frames else b""


def wait_s(client: LightClient) -> float:
    deadline = client.next_timeout()
    return 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))


def run_ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


class Tunnel:
    """The data plane in the client's role, and the control channel beside it."""

    def __init__(
        self, login: Login, sock: socket.socket, transport: Transport, device: str, targets: Iterable[IPv4Address]
    ) -> None:
        self._client = client = login.client
        self._peer_id = int(client.option("peer-id") or 0)
        address = IPv4Address((client.option("ifconfig") or "").partition(" ")[0])
        self.plane = NativeDataPlane(1)
        with open_tun(device, 1, Offload.TCP_UDP) as tun:
            run_ip(
                f"link set {device} mtu 1500 txqueuelen 1000 up",
                f"address add {address}/32 dev {device}",
                *(f"route replace {target}/32 dev {device} src {address}" for target in targets),
            )
            self.plane.add_endpoint(ENDPOINT, tun.queues(), TunOffload[tun.offload.name])
        self.plane.set_rules(ENDPOINT, [(ip_network("0.0.0.0/0"), 1)])
        silence = (int(client.option(name) or 0) for name in ("ping", "ping-restart"))
        self.plane.add_peer(self._peer_id, PeerSettings(ENDPOINT, tuple(targets), 1, *silence))
        self._send = self._attach(sock, transport, login.rest())
        client.give_away_data()
        self._serve_client()
        self.description = f"{device} {address} {tun.offload.name} {self.plane.crypto_backend}"

    def _attach(self, sock: socket.socket, transport: Transport, rest: bytes) -> Callable[[bytes], object]:
        """How control packets are sent from now on."""
        if transport is Transport.TCP:
            self.plane.attach_tcp(self._peer_id, sock.detach(), rest)
            return lambda packet: self.plane.send_control(self._peer_id, packet)
        host, port = sock.getpeername()[:2]
        copy = sock.dup()
        self.plane.add_listener(LISTENER, ENDPOINT, [sock.detach()])
        self.plane.set_remote(self._peer_id, LISTENER, SocketAddress(host, port), "")
        return copy.send

    def _serve_client(self) -> None:
        self._client.handle_timeout(time.monotonic())
        while (event := self._client.next_event()) is not None:
            if isinstance(event, KeyInstalled):
                keys = event.keys
                material = (keys.open_key, keys.open_iv, keys.seal_key, keys.seal_iv)
                self.plane.install_key(self._peer_id, event.key_id, DataKeys(keys.cipher, *material, epoch=keys.epoch))
                self.plane.use_key(self._peer_id, event.key_id)
        for packet in self._client.packets_to_send(time.monotonic()):
            self._send(packet)
        if self._client.failed is not None:
            sys.exit(f"the tunnel ended: {self._client.failed}")

    def run(self, stop: socket.socket) -> None:
        """Until ``stop`` can be read."""
        with selectors.DefaultSelector() as selector:
            selector.register(stop, selectors.EVENT_READ)
            selector.register(self.plane.event_fd(), selectors.EVENT_READ)
            while True:
                ready = selector.select(wait_s(self._client))
                if any(key.fileobj is stop for key, _ in ready):
                    return
                for event in self.plane.poll_events():
                    if isinstance(event, StrayControl | TcpControl):
                        self._client.receive_packet(event.packet, time.monotonic())
                    elif isinstance(event, TcpClosed | PeerTimeout | PeerExit):
                        sys.exit(f"the tunnel ended: {event}")
                self._serve_client()

    def close(self) -> None:
        self._client.exit()
        for packet in self._client.packets_to_send(time.monotonic()):
            self._send(packet)
        self.plane.close()

    def counted(self) -> dict[str, dict[str, int]]:
        drops = {str(reason): count for reason, count in self.plane.drops().items() if count}
        return {"totals": dict(self.plane.totals()), "drops": drops}


def stop_socket() -> socket.socket:
    """Readable after SIGTERM or SIGINT."""
    readable, writable = socket.socketpair()
    for each in (readable, writable):
        each.setblocking(False)
    signal.set_wakeup_fd(writable.fileno())
    writable.detach()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remote", required=True, metavar="HOST:PORT")
    parser.add_argument("--tcp", action="store_true", help="TCP instead of UDP")
    parser.add_argument("--target", type=ip_address, action="append", required=True, help="reached through the tunnel")
    parser.add_argument("--device", default="tun0")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    host, _, port = options.remote.rpartition(":")
    transport = Transport.TCP if options.tcp else Transport.UDP
    stop = stop_socket()
    sock = socket.socket(type=socket.SOCK_STREAM if options.tcp else socket.SOCK_DGRAM)
    sock.connect((host, int(port)))
    context = client_context(options.ca, options.cert, options.key)
    client = LightClient(context, time.monotonic(), transport=transport, hand_window_s=LOGIN_S)
    login = Login(client, sock, transport)
    login.run()
    tunnel = Tunnel(login, sock, transport, options.device, options.target)
    print("ready", tunnel.description, flush=True)
    tunnel.run(stop)
    counted = tunnel.counted()
    tunnel.close()
    print(json.dumps(counted), flush=True)


if __name__ == "__main__":
    main()
