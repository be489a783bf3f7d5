"""Listeners of an endpoint: control packets in, strangers kept out.

UDP: a packet whose source and session id are known goes to its connection. All else is a stranger's and meets pure
functions only (``wire.stateless``): a reset is answered with a cookie and forgotten, and only the packet that brings
the cookie back makes a connection. TCP: the handshake of the kernel proves the address, so the first packet does.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from ipaddress import IPv6Address, ip_address

from cvpnd.dataplane.api import SocketAddress, StrayControl
from cvpnd.reasons import End, Refusal
from cvpnd.server.admission import Admission
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.control import ControlPlane
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.link import TcpLink, UdpLink, send_datagram
from cvpnd.server.sockets import UdpGroup, local_from_ancillary, open_tcp_socket, open_udp_group
from cvpnd.wire import stateless
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import is_data
from cvpnd.wire.reset_cookie import ResetCookie

log = logging.getLogger(__name__)

READS_PER_WAKE_UP = 64
"""Then the loop serves the others; a flood must not starve timers and logins."""
DATAGRAM_BYTES = 2048
"""Largest control packet any client may be configured to send (openvpn-wire.md section 1)."""
ANCILLARY_BYTES = socket.CMSG_SPACE(20)
ACCEPT_PAUSE_S = 1.0
PING_DELAY_S = 1.0
"""So late may a client's ping come and still be in time."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def canonical(address: tuple[str, int] | tuple[str, int, int, int]) -> SocketAddress:
    """A kernel's address as the one spelling used for look-ups: IPv4-mapped IPv6 folded, and the zone that Python adds
    to link-local addresses left to the scope id."""
    host, port = address[0].partition("%")[0], address[1]
    if ":" in host:
        ip = ip_address(host)
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            return SocketAddress(str(ip.ipv4_mapped), port)
    scope_id = address[3] if len(address) == 4 else 0
    return SocketAddress(host, port, scope_id)


class UdpListener:
    """Owns the control socket; the data sockets belong to the data plane from ``open`` on."""

    def __init__(
        self, index: int, endpoint: ServedEndpoint, control: ControlPlane, admission: Admission, cookie: ResetCookie
    ) -> None:
        self.index = index
        self._endpoint = endpoint
        self._control = control
        self._admission = admission
        self._cookie = cookie
        self._group: UdpGroup | None = None
        self._accepting = True
        self._loop = asyncio.get_running_loop()

    def open(self, host: str, port: int) -> None:
        plane = self._control.plane
        group = open_udp_group(host, port, plane.workers)
        try:
            plane.add_listener(self.index, self._endpoint.index, [sock.detach() for sock in group.data])
        except BaseException:
            group.control.close()
            raise
        self._group = group
        self._control.listen_for_strays(self.index, self._stray)
        self._loop.add_reader(group.control, self._readable)

    def stop_accepting(self) -> None:
        """Serve who is connected, and let nobody else in: a client that is sent away must not come back to us."""
        self._accepting = False

    def close(self) -> None:
        """The endpoint's connections must have ended."""
        if self._group is not None:
            self._loop.remove_reader(self._group.control)
            self._control.listen_for_strays(self.index, None)
            self._control.plane.remove_listener(self.index)
            self._group.control.close()
            self._group = None

    def _readable(self) -> None:
        for _ in range(READS_PER_WAKE_UP):
            if self._group is None:
                return
            try:
                packet, ancillary, flags, address = self._group.control.recvmsg(DATAGRAM_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # e.g. a pending ICMP error of an earlier send
                log.debug("listener %d: %s", self.index, error)
                continue
            if flags & socket.MSG_TRUNC:
                self._control.drops[DropReason.TOO_LONG] += 1
                continue
            self._receive(packet, canonical(address), local_from_ancillary(ancillary))

    def _stray(self, event: StrayControl) -> None:
        self._receive(event.packet, event.source, event.local)

    def _receive(self, packet: bytes, source: SocketAddress, local: str) -> None:
        if is_data(packet):
            self._control.data_received(self.index, source, packet)
            return
        connection = self._control.table.find(self.index, source, packet[1:9])
        if connection is not None:
            self._control.packet_received(connection, packet)
        else:
            self._stranger(packet, source, local)

    def _stranger(self, packet: bytes, source: SocketAddress, local: str) -> None:
        """Nothing is kept and nothing is logged for one packet until its cookie verifies."""
        if self._group is None or not self._accepting:
            self._control.drops[DropReason.CLOSED] += 1
            return
        now = self._loop.time()
        if stateless.is_reset(packet):
            if self._is_heard_from(source):
                self._control.drops[DropReason.LIVE_CLIENT] += 1
            elif self._admission.may_answer_reset(source.host, now):
                self._reset(packet, source, local, now)
            else:
                self._control.drops[DropReason.RATE_LIMITED] += 1
            return
        echo = stateless.check_echo(packet, source, now, self._cookie, self._endpoint.protection)
        if isinstance(echo, DropReason):
            self._control.drops[echo] += 1
            return
        link = self._admit(source, local)
        if link is None:
            return
        for other in self._control.table.at_source(self.index, source):
            if other.phase is Phase.HANDSHAKE or other.phase is Phase.LOGIN:
                # One pending beside the established one (openvpn-wire.md 2.5): the newer process is the live one.
                self._control.close(other, Refusal.HANDSHAKE_ABANDONED)
        connection = self._control.begin(
            self._endpoint,
            link,
            local_session_id=echo.local_session_id,
            remote_session_id=echo.remote_session_id,
            wrap=echo.wrap,
            cookie_echoed=True,
        )
        self._control.packet_received(connection, packet)

    def _is_heard_from(self, source: SocketAddress) -> bool:
        """Whether a client at this address has been pinging or sending until now. To answer a reset that was forged in
        its name would do it harm: it takes the answer for a server that restarted, starts over and loses its tunnel. A
        client that really starts anew on its old port is silent under its old keys, and repeats its reset."""
        return any(
            other.peer_id is not None
            and self._control.plane.peer_stats(other.peer_id).idle_s < self._endpoint.settings.ping_s + PING_DELAY_S
            for other in self._control.table.at_source(self.index, source)
        )

    def _reset(self, packet: bytes, source: SocketAddress, local: str, now: float) -> None:
        assert self._group is not None  # noqa: S101 - looked at by the caller
        reply = stateless.answer_reset(packet, source, now, self._cookie, self._endpoint.protection)
        if isinstance(reply, DropReason):
            self._control.drops[reply] += 1
        elif isinstance(reply, stateless.Opening):
            self._begin_unproven(reply, packet, source, local)
        else:
            send_datagram(self._group.control, reply, source, local)

    def _begin_unproven(self, opening: stateless.Opening, packet: bytes, source: SocketAddress, local: str) -> None:
        """A tls-crypt-v2 client that cannot echo a cookie. Whoever has a client key, or has seen such a packet, can
        send it with a forged source: so these handshakes have a limit of their own, each reset gets one answer and no
        repeats, and whoever is under way at that address stays."""
        if self._control.table.unproven >= self._endpoint.settings.limits.unproven_handshakes:
            self._control.drops[DropReason.HANDSHAKE_LIMIT] += 1
            return
        link = self._admit(source, local)
        if link is None:
            return
        connection = self._control.begin(
            self._endpoint,
            link,
            local_session_id=secrets.token_bytes(8),
            remote_session_id=opening.remote_session_id,
            wrap=opening.wrap,
            cookie_echoed=False,
        )
        self._control.packet_received(connection, packet)

    def _admit(self, source: SocketAddress, local: str) -> UdpLink | None:
        """Whether a session may be made for this stranger."""
        assert self._group is not None  # noqa: S101 - looked at by the caller
        refused = self._admission.may_begin(self._control.table, self._endpoint, source.host)
        if refused is not None:
            self._control.drops[refused] += 1
            return None
        return UdpLink(self._group.control, self.index, source, local)


class TcpListener:
    """Accepts connections; each is a connection from its first valid reset on."""

    def __init__(self, endpoint: ServedEndpoint, control: ControlPlane, admission: Admission) -> None:
        self._endpoint = endpoint
        self._control = control
        self._admission = admission
        self._socket: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[TcpLink, asyncio.TimerHandle] = {}

    def open(self, host: str, port: int) -> None:
        self._socket = open_tcp_socket(host, port)
        self._loop.add_reader(self._socket, self._acceptable)

    def stop_accepting(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for link in list(self._waiting):
            self._send_away(link)

    def close(self) -> None:
        """The endpoint's connections must have ended."""
        self.stop_accepting()

    def _acceptable(self) -> None:
        for _ in range(READS_PER_WAKE_UP):
            if self._socket is None:
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:  # the client is gone again
                    continue
                log.warning("no new connections over TCP for %g s: %s", ACCEPT_PAUSE_S, error)
                self._loop.remove_reader(self._socket)  # which stays readable and would wake us without end
                self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again)
                return
            sock.setblocking(False)
            self._accepted(sock, canonical(address))

    def _accept_again(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._acceptable)

    def _accepted(self, sock: socket.socket, source: SocketAddress) -> None:
        refused = self._admission.may_begin(self._control.table, self._endpoint, source.host)
        if refused is not None:
            self._control.drops[refused] += 1
            sock.close()
            return
        if len(self._waiting) >= self._endpoint.settings.limits.handshakes:
            # A client speaks at once: who has been silent for longest makes room, or silence would keep others out.
            self._silent(next(iter(self._waiting)))
        try:
            link = TcpLink(sock, source)
        except OSError:  # gone again
            sock.close()
            return
        self._control.table.count_stranger(source.host)
        self._waiting[link] = self._loop.call_later(self._endpoint.settings.limits.first_packet_s, self._silent, link)
        link.serve(lambda packet: self._first_packet(link, packet), lambda _detail: self._stop_waiting(link))

    def _silent(self, link: TcpLink) -> None:
        self._control.drops[DropReason.TCP_SILENT] += 1
        self._send_away(link)

    def _send_away(self, link: TcpLink) -> None:
        self._stop_waiting(link)
        link.close()

    def _stop_waiting(self, link: TcpLink) -> None:
        timer = self._waiting.pop(link, None)
        if timer is not None:
            timer.cancel()
            self._control.table.discount_stranger(link.remote.host)

    def _first_packet(self, link: TcpLink, packet: bytes) -> None:
        self._stop_waiting(link)
        opening = stateless.open_stream(packet, self._endpoint.protection)
        if isinstance(opening, DropReason):  # nothing but a reset may begin a connection; on TCP an error is final
            self._control.drops[opening] += 1
            link.close()
            return
        refused = self._admission.may_begin(self._control.table, self._endpoint, link.remote.host)
        if refused is not None:  # not yet when it was accepted
            self._control.drops[refused] += 1
            link.close()
            return
        connection = self._control.begin(
            self._endpoint,
            link,
            local_session_id=secrets.token_bytes(8),
            remote_session_id=opening.remote_session_id,
            wrap=opening.wrap,
            cookie_echoed=False,
        )
        link.serve(
            lambda packet: self._control.packet_received(connection, packet),
            lambda detail: self._tcp_closed(connection, detail),
        )
        self._control.packet_received(connection, packet)

    def _tcp_closed(self, connection: Connection, detail: str) -> None:
        established = connection.phase is Phase.ESTABLISHED
        self._control.close(connection, End.TCP_CLOSED if established else Refusal.HANDSHAKE_ABANDONED, detail)


Listener = UdpListener | TcpListener
