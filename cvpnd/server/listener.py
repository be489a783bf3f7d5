"""Listeners of an endpoint: control packets in, strangers kept out.

UDP: the doorman reads the socket. Packets of known sessions go straight to their connection (``control``); a listener
gets the packet of a stranger that echoed a cookie, or that of one who cannot, and decides whether a session begins.
TCP: the handshake of the kernel proves the address, so the first packet does.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from ipaddress import IPv6Address, ip_address

from cvpnd.dataplane.api import SocketAddress
from cvpnd.ops.logs import RateLimited
from cvpnd.reasons import End, Refusal
from cvpnd.server.admission import may_begin
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.control import ControlPlane
from cvpnd.server.doorman import ControlDatagram
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.faults import stranger_failed
from cvpnd.server.link import TcpLink, UdpLink
from cvpnd.server.predecessors import lives
from cvpnd.server.sockets import FILES_KEPT_FREE, open_tcp_socket, open_udp_group, takes_one_of_the_last_files
from cvpnd.wire import stateless
from cvpnd.wire.errors import DropReason

log = logging.getLogger(__name__)
_warn = RateLimited(log)

ACCEPTS_PER_WAKE_UP = 64
"""Then the loop serves the others."""
ACCEPT_PAUSE_S = 1.0
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
    """Owns the control socket and sends through it; the doorman reads it. The data sockets belong to the data plane
    from ``open`` on."""

    def __init__(self, index: int, endpoint: ServedEndpoint, control: ControlPlane) -> None:
        self.index = index
        self._endpoint = endpoint
        self._control = control
        self._cookie = control.door.cookie(endpoint.settings.hand_window_s)
        self._socket: socket.socket | None = None
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
        self._socket = group.control
        self._control.listen(self.index, self._stranger)
        self._control.door.add_listener(self.index, group.control, self._cookie, self._endpoint.protection)

    def protection_changed(self) -> None:
        """The endpoint has another one; sessions keep theirs."""
        if self._socket is not None:
            self._control.door.set_protection(self.index, self._endpoint.protection)

    def stop_accepting(self) -> None:
        """Serve who is connected, and let nobody else in: a client that is sent away must not come back to us."""
        self._accepting = False
        if self._socket is not None:
            self._control.door.stop_accepting(self.index)

    def close(self) -> None:
        """The endpoint's connections must have ended."""
        if self._socket is not None:
            self._control.door.remove_listener(self.index)
            self._control.listen(self.index, None)
            self._control.plane.remove_listener(self.index)
            self._socket.close()
            self._socket = None

    def _stranger(self, datagram: ControlDatagram) -> Connection | None:
        """The connection that begins with this packet, and has to be handed it next. The doorman takes the session for
        begun until it is told otherwise."""
        begun: Connection | DropReason | None = DropReason.INTERNAL_ERROR
        try:
            begun = self._begin(datagram)
        finally:
            if isinstance(begun, DropReason):
                self._control.door.forget(self.index, datagram.source, datagram.packet[1:9])
        return None if isinstance(begun, DropReason) else begun

    def _begin(self, datagram: ControlDatagram) -> Connection | DropReason | None:
        """None: it has been answered."""
        packet, source = datagram.packet, datagram.source
        if self._socket is None or not self._accepting:
            return self._drop(DropReason.CLOSED)
        now, protection = self._loop.time(), self._endpoint.protection
        is_reset = stateless.is_reset(packet)
        refused = may_begin(self._control.table, self._endpoint, source.host)
        if refused is None and not is_reset:
            refused = self._control.sources.may_try(source.host, now)
        if refused is not None:
            return self._drop(refused)
        link = UdpLink(self._socket, self.index, source, datagram.local)
        first: stateless.Opening | stateless.Established | DropReason | bytes
        if is_reset:
            if self._has_living_client(source):
                return self._drop(DropReason.LIVE_CLIENT)
            first = stateless.answer_reset(packet, source, now, self._cookie, protection)
        else:
            first = stateless.check_echo(packet, source, now, None if datagram.proven else self._cookie, protection)
        match first:
            case stateless.Established():
                self._abandon_unfinished(source)
                self._control.make_room(self._endpoint, source.host)
                local_session_id = first.local_session_id
            case stateless.Opening():
                # A tls-crypt-v2 client that cannot echo a cookie. Whoever has a client key, or has seen such a packet,
                # can send it with a forged source: so these handshakes have a limit of their own, each reset gets one
                # answer and no repeats, and whoever is under way at that address stays.
                table, limits = self._control.table, self._endpoint.settings.limits
                if (refused := self._control.sources.may_try(source.host, now)) is not None:
                    return self._drop(refused)
                if table.unproven >= limits.unproven_handshakes or table.handshakes >= limits.handshakes:
                    return self._drop(DropReason.HANDSHAKE_LIMIT)
                local_session_id = secrets.token_bytes(8)
            case bytes():  # from the address of a session that has fallen silent: the doorman leaves the answer to us
                link.send(first)
                return None  # that session may have begun by the time we told it of this packet
            case DropReason():
                return self._drop(first)
        return self._control.begin(
            self._endpoint,
            link,
            local_session_id=local_session_id,
            remote_session_id=first.remote_session_id,
            wrap=first.wrap,
            cookie_echoed=isinstance(first, stateless.Established),
        )

    def _abandon_unfinished(self, source: SocketAddress) -> None:
        """One pending beside the established one (openvpn-wire.md 2.5): the newer process is the live one."""
        for other in self._control.table.at_source(self.index, source):
            if other.phase is Phase.HANDSHAKE or other.phase is Phase.LOGIN:
                self._control.close(other, Refusal.HANDSHAKE_ABANDONED)

    def _has_living_client(self, source: SocketAddress) -> bool:
        """To answer a reset that was forged in a client's name would do it harm: it takes the answer for a server that
        restarted, starts over and loses its tunnel. So the session it has is asked first. A client that really starts
        anew on its old port cannot answer for its old session, and repeats its reset (after 2 s)."""
        return any(
            lives(self._control, other)
            for other in self._control.table.at_source(self.index, source)
            if other.established
        )

    def _drop(self, reason: DropReason) -> DropReason:
        self._control.drops[reason] += 1
        return reason


class TcpListener:
    """Accepts connections; each is a connection from its first valid reset on."""

    def __init__(self, endpoint: ServedEndpoint, control: ControlPlane) -> None:
        self._endpoint = endpoint
        self._control = control
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
        for _ in range(ACCEPTS_PER_WAKE_UP):
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
            self._accepted(sock, canonical(address))

    def _accept_again(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._acceptable)

    def _accepted(self, sock: socket.socket, source: SocketAddress) -> None:
        refused = self._refused(source.host)
        if refused is not None:
            self._control.drops[refused] += 1
            sock.close()
            return
        files_short = takes_one_of_the_last_files(sock, FILES_KEPT_FREE)
        if self._waiting and (files_short or len(self._waiting) >= self._endpoint.settings.limits.handshakes):
            # A client speaks at once: who has been silent for longest makes room, or silence would keep others out.
            self._silent(next(iter(self._waiting)))
            if files_short:
                sock = self._renumbered(sock)
        elif files_short:
            self._control.drops[DropReason.NO_FILES] += 1
            _warn.warning(
                "no-files", "no room for connections over TCP: the limit of open files is reached (LimitNOFILE)"
            )
            sock.close()
            return
        sock.setblocking(False)
        try:
            link = TcpLink(sock, source, self._control.drops)
        except OSError:  # gone again
            sock.close()
            return
        self._control.table.count_stranger(source.host)
        self._waiting[link] = self._loop.call_later(self._endpoint.settings.limits.first_packet_s, self._silent, link)
        link.serve(lambda packet: self._first_packet(link, packet), lambda _detail: self._stop_waiting(link))

    @staticmethod
    def _renumbered(sock: socket.socket) -> socket.socket:
        """Under the number that has just become free: else each two of them would take one of the last files."""
        with sock:
            return sock.dup()

    def _refused(self, host: str) -> DropReason | None:
        limited = may_begin(self._control.table, self._endpoint, host)
        return limited or self._control.sources.may_try(host, self._loop.time())

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
        try:
            self._begin(link, packet)
        except Exception:
            stranger_failed(self._control)
            link.close()

    def _begin(self, link: TcpLink, packet: bytes) -> None:
        opening = stateless.open_stream(packet, self._endpoint.protection)
        if isinstance(opening, DropReason):  # nothing but a reset may begin a connection; on TCP an error is final
            self._control.drops[opening] += 1
            link.close()
            return
        refused = self._refused(link.remote.host)
        if refused is not None:  # not yet when it was accepted
            self._control.drops[refused] += 1
            link.close()
            return
        self._control.make_room(self._endpoint, link.remote.host)
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
        violated = isinstance(connection.link, TcpLink) and connection.link.frames_lost
        self._control.close(connection, End.PROTOCOL_VIOLATION if violated else End.TCP_CLOSED, detail)


Listener = UdpListener | TcpListener
