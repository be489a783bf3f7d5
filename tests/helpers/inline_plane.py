"""The reference data plane without its thread and its descriptors: packets are handed in and out by calls."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from cvpnd.dataplane.api import DataKeys, Drop, SocketAddress
from cvpnd.dataplane.reference import ReferenceDataPlane
from cvpnd.dataplane.reference_forward import Endpoint, Listener, Peer
from cvpnd.dataplane.reference_keys import KeyLimits

ENDPOINT = LISTENER = 1


@dataclass
class Outlet:
    """In place of a UDP socket: what is sent through it goes to ``carry``."""

    carry: Callable[[bytes, SocketAddress], None]
    family: int = socket.AF_INET

    def sendmsg(
        self, buffers: list[bytes], ancillary: object = (), flags: int = 0, address: tuple[str, int] = ("", 0)
    ) -> int:
        self.carry(b"".join(buffers), SocketAddress(address[0], address[1]))
        return sum(map(len, buffers))

    def fileno(self) -> int:
        return -1

    def setsockopt(self, level: int, option: int, value: int) -> None:
        pass

    def close(self) -> None:
        pass


class InlinePlane(ReferenceDataPlane):
    """One worker, endpoint 1, listener 1. ``keys`` is what the control side installed, by peer and key id."""

    def __init__(self, outlet: Outlet, clock: Callable[[], float], **limits: int) -> None:
        self._make_tables(1, KeyLimits(**limits))
        self._clock = clock
        self._endpoints[ENDPOINT] = Endpoint([-1])
        self._listeners[LISTENER] = Listener(LISTENER, ENDPOINT, [outlet])  # type: ignore[list-item]
        self.delivered: list[bytes] = []
        """What reached the TUN and nobody has looked at yet."""
        self.keys: dict[tuple[int, int], DataKeys] = {}

    def receive(self, packet: bytes, source: SocketAddress) -> None:
        verdict = self.forwarder.link_to_tun(packet, self._listeners[LISTENER], 0, source, "", self._clock())
        self._write_tun(ENDPOINT, 0, verdict)

    def from_target(self, packet: bytes) -> Drop | None:
        """As if the kernel had routed it into the TUN."""
        return self._forward(packet, self._endpoints[ENDPOINT], 0, self._clock())

    def look_after_peers(self) -> None:
        self._handle_timers(self._clock())

    def _write_tun(self, endpoint: int, worker: int, verdict: bytes | Drop | None) -> None:
        if isinstance(verdict, Drop):
            self._drop(verdict)
        elif verdict is not None:
            self.delivered.append(verdict)

    def _write_to(self, endpoint: Endpoint, worker: int, packet: bytes) -> None:
        self.delivered.append(packet)

    def _send_blind(self, peer: Peer, length: int) -> None:
        pass  # there are no routers

    def _hear_routers(self) -> None:
        pass

    def install_key(self, peer_id: int, key_id: int, keys: DataKeys) -> None:
        super().install_key(peer_id, key_id, keys)
        self.keys[peer_id, key_id] = keys

    def remove_key(self, peer_id: int, key_id: int) -> None:
        super().remove_key(peer_id, key_id)
        del self.keys[peer_id, key_id]

    def remove_peer(self, peer_id: int) -> None:
        super().remove_peer(peer_id)
        self.keys = {slot: keys for slot, keys in self.keys.items() if slot[0] != peer_id}

    def close(self) -> None:
        import os

        os.close(self._events.fd)
