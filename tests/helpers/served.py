"""One endpoint's server side in the test's own event loop: real sockets on loopback, the plane in plain Python."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import certs
from helpers.handshake import client_context
from light_client.protocol import LightClient
from OpenSSL import SSL

from cvpnd.auth.files import CertificateSettings
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import EndpointConfig, StrangersConfig
from cvpnd.dataplane.reference import ReferenceDataPlane
from cvpnd.policy.leases import LeasePool
from cvpnd.server.connection import Connection
from cvpnd.server.control import ControlPlane
from cvpnd.server.doorman import Doorman
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.listener import TcpListener, UdpListener
from cvpnd.wire.packet import Transport
from cvpnd.wire.stream import FrameReader, frame

PATIENCE_S = 5.0
CERTIFICATES = {"type": "certificate-authentication", "client_ca": "ca.crt", "crl": "crl.pem"}


class FaultyPlane(ReferenceDataPlane):
    """The plane, and verbs of it that the kernel or a bug makes fail."""

    def __init__(self) -> None:
        super().__init__(1)
        self.broken: set[str] = set()

    def _meet(self, verb: str) -> None:
        if verb in self.broken:
            raise OSError(f"{verb} is broken")

    def add_peer(self, *arguments: Any) -> None:
        self._meet("add_peer")
        super().add_peer(*arguments)

    def set_remote(self, *arguments: Any) -> None:
        self._meet("set_remote")
        super().set_remote(*arguments)

    def install_key(self, *arguments: Any) -> None:
        self._meet("install_key")
        super().install_key(*arguments)

    def attach_tcp(self, peer_id: int, fd: int, received: bytes) -> None:
        if "attach_tcp" in self.broken:
            socket.socket(fileno=fd).close()  # what is handed in belongs to the plane, also when it raises
        self._meet("attach_tcp")
        super().attach_tcp(peer_id, fd, received)


class Served:
    """``udp`` and ``tcp`` are addresses to connect to; who was let in is in ``established``, who ended in ``ended``."""

    def __init__(
        self,
        directory: Path,
        strangers: StrangersConfig | None = None,
        user_method: dict[str, Any] | None = None,
        certificates: bool = True,
        **limits: int | str,
    ) -> None:
        """``user_method``: as in the file. ``certificates`` False: there is nothing beside it."""
        self.directory = directory
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        self.write_crl()
        self.settings = EndpointConfig.model_validate(
            {
                "name": "staff",
                "client_cidr": "10.100.0.0/22",
                "listen": ["udp://127.0.0.1:1194"],  # not used: the kernel chooses
                "server_certificate": {"certificate": "server.crt", "private_key": "server.key"},
                "authentication": [
                    *([CERTIFICATES] if certificates else []),
                    *([] if user_method is None else [user_method]),
                ],
                "limits": limits,
            },
            context={"directory": directory},
        )
        self.keeper = TrustKeeper(CertificateSettings.of_endpoint(self.settings))
        self.plane = FaultyPlane()
        theirs, self._tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        self.plane.add_endpoint(1, [theirs.detach()])
        self.endpoint = ServedEndpoint(1, "cvpn0", self.settings, self.keeper, (), LeasePool(self.settings.client_cidr))
        self.established: list[Connection] = []
        self.ended: list[Connection] = []
        self.errors: list[dict[str, Any]] = []
        """What reached the event loop: a callback that raised, a task nobody asked."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.door = Doorman(bytes(32), strangers or StrangersConfig())
        self.control = ControlPlane(
            self.plane, self.door, strangers, on_established=self.established.append, on_ended=self.ended.append
        )
        self.udp_listener = UdpListener(1, self.endpoint, self.control)
        self.udp_listener.open("127.0.0.1", 0)
        self.tcp_listener = TcpListener(self.endpoint, self.control)
        self.tcp_listener.open("127.0.0.1", 0)

    @property
    def udp(self) -> tuple[str, int]:
        assert self.udp_listener._socket is not None
        return self.udp_listener._socket.getsockname()

    @property
    def tcp(self) -> tuple[str, int]:
        assert self.tcp_listener._socket is not None
        return self.tcp_listener._socket.getsockname()

    def write_crl(self, *revoked: certs.TestCertificate) -> None:
        path = self.directory / "crl.new"
        path.write_bytes(certs.crl_pem(certs.certificate_revocation_list(revoked=list(revoked))))
        path.rename(self.directory / "crl.pem")

    @property
    def leases_used(self) -> int:
        return self.endpoint.leases.capacity - self.endpoint.leases.free

    def close(self) -> None:
        self.control.drop_endpoint(self.endpoint)
        self.udp_listener.close()
        self.tcp_listener.close()
        self.control.stop()
        self.door.close()
        self.plane.close()
        self._tun.close()


class Client:
    """A ``LightClient`` on a socket, stepped by hand: ``until`` moves it along as far as a test wants."""

    def __init__(
        self,
        address: tuple[str, int],
        transport: Transport = Transport.UDP,
        certificate: certs.TestCertificate | None = None,
        context: SSL.Context | None = None,
        source: str = "127.0.0.1",
        **options: Any,
    ) -> None:
        context = context or client_context(certificate or certs.client())
        self.light = LightClient(context, time.monotonic(), transport=transport, **options)
        self.transport = transport
        kind = socket.SOCK_DGRAM if transport is Transport.UDP else socket.SOCK_STREAM
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.bind((source, 0))
        self.socket.connect(address)
        self.socket.setblocking(False)
        self._frames = FrameReader()
        self.closed = False
        """The server closed the connection."""

    def send(self, packet: bytes) -> None:
        try:
            self.socket.send(packet if self.transport is Transport.UDP else frame(packet))
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def step(self) -> None:
        now = time.monotonic()
        for packet in self._received():
            self.light.receive_packet(packet, now)
        self.light.handle_timeout(now)
        for packet in self.light.packets_to_send(now):
            self.send(packet)

    def _received(self) -> list[bytes]:
        packets: list[bytes] = []
        while not self.closed:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except ConnectionError:
                self.closed = True
                break
            if self.transport is Transport.UDP:
                packets.append(data)
            elif data:
                packets += self._frames.feed(data)
            else:
                self.closed = True
        return packets

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.step()
            await asyncio.sleep(0.002)
        return True

    async def connect(self) -> Client:
        assert await self.until(lambda: self.light.connected), (self.light.failed, self.light.drops)
        return self

    def close(self) -> None:
        self.socket.close()


async def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.002)
    return True
