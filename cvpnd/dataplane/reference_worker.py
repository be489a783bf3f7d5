"""The descriptors of the plain Python data plane: one thread with a selector stands for all workers, and still reads
and writes each worker's own. One lock covers everything; the thread holds it while it handles what was ready, a call
(``reference``) while it runs. Section numbers are those of openvpn-wire.md."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from cvpnd.dataplane.api import Drop, PeerTimeout, TcpClosed
from cvpnd.dataplane.reference_blind import Blind, is_secret
from cvpnd.dataplane.reference_events import EVENTS_MAX, EventQueue
from cvpnd.dataplane.reference_forward import (
    KEEPALIVE,
    LINK_PACKET_MAX,
    OCC_MAGIC,
    OCC_MTU_LOAD_REQUEST,
    PACKET_MAX,
    Connection,
    Endpoint,
    Forwarder,
    Listener,
    Peer,
)
from cvpnd.dataplane.reference_keys import P_DATA_V2, KeyLimits
from cvpnd.dataplane.reference_path import UDP_OVER_IPV4, UDP_OVER_IPV6
from cvpnd.dataplane.reference_sockets import (
    IP_PMTUDISC_OMIT,
    IP_PMTUDISC_PROBE,
    IP_PMTUDISC_WANT,
    canonical,
    local_address,
    path_discovery,
    sockaddr,
    source_control,
)

PATH_LOOKS_PER_S = 500
"""Each at most two packets: also when everybody comes at once."""
TICK_S = 0.05
BATCH = 64
TCP_QUEUE_MAX = 256 << 10
"""What waits for a slow TCP client, frames and all."""
TCP_CONTROL_EXTRA = 64 << 10
"""Control packets may use what data may not."""
TOTALS = (
    "link_packets_in",
    "link_packets_out",
    "tun_packets_in",
    "tun_packets_out",
    "receive_calls",
    "receive_messages",
    "send_calls",
    "send_messages",
    "tun_read_calls",
    "tun_write_calls",
    "acks_superseded",
    "too_big_told",
    "packets_cut",
    "path_probes",
    "wakeups",
    "pauses",
)


class ReferenceWorker:
    """Reads, decides, writes."""

    _path_looks = 0.0
    """How many paths may be looked at now …"""
    _looked_at = 0.0
    """… as counted at this time."""

    def __init__(self, workers: int, limits: KeyLimits) -> None:
        self._make_tables(workers, limits)
        self._blind = Blind()
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stop_fd, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="cvpnd-reference", daemon=True)
        self._thread.start()

    def _make_tables(self, workers: int, limits: KeyLimits) -> None:
        """All that there is without descriptors and thread."""
        self._events = EventQueue(EVENTS_MAX)
        self.forwarder = Forwarder(workers, limits, self._events)
        self._endpoints = self.forwarder.endpoints
        self._listeners = self.forwarder.listeners
        self._peers = self.forwarder.peers
        self._totals: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._closed = False

    @property
    def workers(self) -> int:
        return self.forwarder.workers

    def _run(self) -> None:
        while True:
            ready = self._selector.select(TICK_S)
            with self._lock:
                if self._closed:
                    return
                self._totals["wakeups"] += 1
                for key, _ in ready:
                    # A call may have taken the descriptor out, and even given its number to another, since.
                    if self._selector.get_map().get(key.fd) is key:
                        key.data()
                self._handle_timers(time.monotonic())

    def _watch(self, fds: Sequence[int], readers: Sequence[Callable[[], None]]) -> None:
        """All or none."""
        for at, (fd, read) in enumerate(zip(fds, readers, strict=True)):
            try:
                self._selector.register(fd, selectors.EVENT_READ, read)
            except OSError:
                for registered in fds[:at]:
                    self._selector.unregister(registered)
                raise

    def _drop(self, drop: Drop) -> None:
        self.forwarder.drops[drop] += 1

    def _read_udp(self, listener: Listener, worker: int) -> None:
        for _ in range(BATCH):
            try:
                packet, ancillary, flags, address = listener.sockets[worker].recvmsg(LINK_PACKET_MAX, 256)
            except OSError:  # nothing more, or an ICMP error of an earlier datagram
                return
            self._totals["receive_calls"] += 1
            self._totals["receive_messages"] += 1
            self._totals["link_packets_in"] += 1
            if flags & socket.MSG_TRUNC:
                self._drop(Drop.TRUNCATED)
                continue
            verdict = self.forwarder.link_to_tun(
                packet, listener, worker, canonical(address), local_address(ancillary), time.monotonic()
            )
            self._write_tun(listener.endpoint, worker, verdict)

    def _read_tun(self, endpoint: Endpoint, worker: int) -> None:
        for _ in range(BATCH):
            try:
                packet = os.read(endpoint.tun_fds[worker], PACKET_MAX)
            except OSError:
                return
            self._totals["tun_read_calls"] += 1
            self._totals["tun_packets_out"] += 1
            self._forward(packet, endpoint, worker, time.monotonic())

    def _forward(self, packet: bytes, endpoint: Endpoint, worker: int, now: float) -> Drop | None:
        verdict = self.forwarder.tun_to_link(packet, endpoint, now)
        if isinstance(verdict, Drop):
            self._drop(verdict)
            self._answer_sender(endpoint, worker)
            return verdict
        self._totals["packets_cut"] += len(verdict.packets) > 1
        for sealed, unproven in zip(verdict.packets, verdict.unproven, strict=True):
            self._send(verdict.peer, sealed, worker, unproven=unproven)
        return None

    def _answer_sender(self, endpoint: Endpoint, worker: int) -> None:
        answers, self.forwarder.answers = self.forwarder.answers, []
        for answer in answers:
            self._totals["too_big_told"] += 1
            self._write_to(endpoint, worker, answer)

    def _write_tun(self, endpoint: int, worker: int, verdict: bytes | Drop | None) -> None:
        if isinstance(verdict, Drop):
            self._drop(verdict)
        elif verdict is not None:
            self._write_to(self._endpoints[endpoint], worker, verdict)
        whole, self.forwarder.whole = self.forwarder.whole, []
        for fragment in whole:
            self._write_to(self._endpoints[endpoint], worker, fragment)

    def _write_to(self, endpoint: Endpoint, worker: int, packet: bytes) -> None:
        self._totals["tun_write_calls"] += 1
        try:
            os.write(endpoint.tun_fds[worker], packet)
            self._totals["tun_packets_in"] += 1
        except OSError:
            self._drop(Drop.TUN_FULL)

    def _send(self, peer: Peer, packet: bytes, worker: int, *, unproven: bool = False) -> None:
        """A sealed packet to the peer, which has exactly one way out. Routers of IPv6 cut nothing, so what is not known
        to pass whole is cut by the kernel, to what it has been told."""
        if peer.connection is not None:
            self._queue_frame(peer, peer.connection, packet, TCP_QUEUE_MAX)
        elif peer.remote is not None:
            listener, remote, local = peer.remote
            sock = listener.sockets[worker]
            self._totals["send_calls"] += 1
            cut = unproven and ":" in remote.host
            try:
                with path_discovery(sock, IP_PMTUDISC_OMIT, IP_PMTUDISC_WANT if cut else IP_PMTUDISC_PROBE):
                    sock.sendmsg([packet], source_control(sock, local), 0, sockaddr(sock, remote))
                self._totals["send_messages"] += 1
                self._totals["link_packets_out"] += 1
            except OSError:
                self._drop(Drop.LINK_FULL)

    def _handle_timers(self, now: float) -> None:
        waited, self._looked_at = now - self._looked_at, now
        self._path_looks = min(PATH_LOOKS_PER_S, self._path_looks + waited * PATH_LOOKS_PER_S)
        self._hear_routers()
        for peer in self._peers.values():
            settings = peer.settings
            if settings.timeout_s and not peer.timeout_reported and now - peer.last_authentic >= settings.timeout_s:
                peer.timeout_reported = True
                self._events.put(PeerTimeout(peer.id), surely=True)
            peer.unfinished.expire(now)
            self._look_after_path(peer, now)
            if settings.ping_interval_s and now - peer.last_sent >= settings.ping_interval_s:
                sealed = self.forwarder.seal_for(peer, KEEPALIVE, now)
                if not isinstance(sealed, Drop):
                    self._send(peer, sealed, peer.id % self.workers)

    # -- the path ------------------------------------------------------------------------------------------------

    def _look_after_path(self, peer: Peer, now: float) -> None:
        if peer.remote is None or peer.sending is None or not peer.path.due(now) or self._path_looks < 1:
            return
        self._path_looks -= 1
        remote = peer.remote[1]
        headers = UDP_OVER_IPV4 if ip_address(remote.host).version == 4 else UDP_OVER_IPV6
        wish = peer.path.look(headers, now)
        for length, load in ((wish.request, wish.request_load), (0, wish.small_load)):
            if load:
                request = OCC_MAGIC + bytes([OCC_MTU_LOAD_REQUEST]) + load.to_bytes(2, "big")
                sealed = self.forwarder.seal_for(peer, request.ljust(length, b"\x00"), now)
                if not isinstance(sealed, Drop):
                    self._totals["path_probes"] += 1
                    if length:
                        self._probe(peer, sealed)
                    else:
                        self._send(peer, sealed, peer.id % self.workers)
        if wish.blind:
            self._send_blind(peer, wish.blind + peer.settings.data_header)

    def _probe(self, peer: Peer, packet: bytes) -> None:
        """Alone, and not to be fragmented on its way."""
        if peer.remote is not None:
            sock = peer.remote[0].sockets[peer.id % self.workers]
            whole = path_discovery(sock, IP_PMTUDISC_PROBE, IP_PMTUDISC_PROBE)
            self._totals["send_calls"] += 1
            with contextlib.suppress(OSError), whole:  # what is refused at once does not pass either
                sock.sendmsg([packet], source_control(sock, peer.remote[2]), 0, sockaddr(sock, peer.remote[1]))
                self._totals["send_messages"] += 1
                self._totals["link_packets_out"] += 1

    def _send_blind(self, peer: Peer, length: int) -> None:
        """Under a key that there is not: whoever gets it drops it before anything is done with it."""
        if peer.remote is not None:
            unused = max({0} | set(range(8)) - set(peer.keys))
            peer_id = peer.id if peer.settings.remote_peer_id is None else peer.settings.remote_peer_id
            header = ((P_DATA_V2 << 3 | unused) << 24 | peer_id).to_bytes(4, "big")
            refused = self._blind.send(header, peer.id, peer.path.secret, length, *peer.remote[1:])
            if refused:
                peer.path.told(refused)
            self._totals["path_probes"] += 1

    def _hear_routers(self) -> None:
        for peer_id, secret, outer_mtu in self._blind.heard():
            peer = self._peers.get(peer_id)
            if peer is not None and is_secret(peer.path.secret, secret):
                peer.path.told(outer_mtu)

    # -- TCP: u16 length before each packet (2.1) ---------------------------------------------------------------

    def _read_tcp(self, peer: Peer, connection: Connection) -> None:
        self._flush(peer, connection)
        try:
            received = connection.sock.recv(64 << 10)
        except BlockingIOError:
            return
        except OSError as error:
            self._close_connection(peer, connection, error.strerror or str(error))
            return
        self._totals["receive_calls"] += 1
        if received:
            self._receive_stream(peer, connection, received)
        else:
            self._close_connection(peer, connection, "end of file")

    def _receive_stream(self, peer: Peer, connection: Connection, received: bytes) -> None:
        connection.received += received
        while not connection.closed and len(connection.received) >= 2:
            length = int.from_bytes(connection.received[:2], "big")
            if not 1 <= length <= LINK_PACKET_MAX:
                self._close_connection(peer, connection, f"frame of {length} bytes")
                return
            if len(connection.received) < 2 + length:
                return
            packet = bytes(connection.received[2 : 2 + length])
            del connection.received[: 2 + length]
            self._totals["link_packets_in"] += 1
            self._totals["receive_messages"] += 1
            verdict = self.forwarder.frame_to_tun(packet, peer, time.monotonic())
            self._write_tun(peer.settings.endpoint, peer.id % self.workers, verdict)
            if verdict is Drop.AUTH_FAILED:
                # TCP delivers exactly what was sent: this stream is not OpenVPN's any more.
                self._close_connection(peer, connection, "a packet does not authenticate")

    def _queue_frame(self, peer: Peer, connection: Connection, packet: bytes, bound: int) -> bool:
        """False when the client does not read fast enough and there is no room."""
        frame = len(packet).to_bytes(2, "big") + packet
        if len(connection.queue) + len(frame) > bound:
            self._drop(Drop.TCP_QUEUE_FULL)
            return False
        connection.queue += frame
        self._totals["link_packets_out"] += 1
        self._flush(peer, connection)
        return True

    def _flush(self, peer: Peer, connection: Connection) -> None:
        """Send what the kernel takes; ask to be woken for the rest."""
        if connection.queue and not connection.closed:
            self._totals["send_calls"] += 1
            try:
                del connection.queue[: connection.sock.send(connection.queue, socket.MSG_NOSIGNAL)]
            except BlockingIOError:
                pass
            except OSError as error:
                self._close_connection(peer, connection, error.strerror or str(error))
                return
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.queue else 0)
            key = self._selector.get_key(connection.sock.fileno())
            if key.events != events:
                self._selector.modify(key.fd, events, key.data)

    @staticmethod
    def _say_goodbye(connection: Connection) -> None:
        """Closing with bytes unread would reset the connection, and the client would lose what was said last."""
        if not connection.closed:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
                for _ in range(16):
                    connection.sock.recv(16 << 10)

    def _close_connection(self, peer: Peer, connection: Connection, detail: str) -> None:
        if not connection.closed:
            connection.closed = detail
            self._selector.unregister(connection.sock.fileno())
            connection.sock.close()
            self._events.put(TcpClosed(peer.id, detail), surely=True)
