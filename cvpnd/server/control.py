"""The one place where sessions, links, the data plane and login meet.

The journey of a control packet: the doorman lets it through, its connection is found -> ``packet_received`` feeds the
session -> ``pump`` has what the session tells handled (``session_events.py``), sends what it wants sent and re-arms its
timer. When something hangs, ``pump`` is the place to look. What the data plane tells comes by ``plane_events.py``;
whose place a client takes is in ``predecessors.py``, what is counted in ``tally.py``, what a mistake of ours costs in
``faults.py``.
Everything runs on the event loop's thread and nothing here waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cvpnd.auth.kept_passwords import KeptPasswords
from cvpnd.auth.logins import UserLogins
from cvpnd.auth.radius_codes import RadiusCodes
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.tokens import TokenKey
from cvpnd.auth.totp import Totp
from cvpnd.auth.web_logins import WebLogins
from cvpnd.config import StrangersConfig
from cvpnd.dataplane import api as dataplane
from cvpnd.handlers.desk import Handlers
from cvpnd.ops.logs import RateLimited
from cvpnd.policy.push import update_options
from cvpnd.reasons import End, Refusal, of_attempt
from cvpnd.server.admission import FAILED_LOGINS, SourceLimits, TokenBucket, giving_way, prefixes
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.doorman import ControlDatagram, Doorman
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.faults import cannot_be_told, cannot_go_on, stranger_failed
from cvpnd.server.link import TcpLink, UdpLink
from cvpnd.server.memory import Reserve, Share
from cvpnd.server.places import Places
from cvpnd.server.plane_events import plane_told, stray_told
from cvpnd.server.session_events import session_told
from cvpnd.server.session_table import SessionTable
from cvpnd.server.steady_clock import SteadyClock
from cvpnd.server.tally import Tally
from cvpnd.server.texts import why_sent_back
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import Transport, is_data
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.wrap.session_wrap import SessionWrap

log = logging.getLogger(__name__)
_warn = RateLimited(log)

SOON_S = SessionSettings().tls_timeout_s
"""Who is woken up that soon is asked for the next deadline then: nothing that begins now is due earlier, but for a new
key that is to be used at last, which can wait."""
ABSORB_S = 5.0
"""A closed session stays this long to swallow retransmissions, which would else look like strangers."""
STRANGERS_LOGGED_PER_S = 10.0
STRANGERS_LOGGED_AT_ONCE = 200.0
"""Handshakes of strangers that failed are written down no faster, and no faster those of them that wait for a person,
so that nobody outside can fill a disk. All are counted."""

LONGEST_DETAIL = 500
"""In characters: it may quote a directory's answer, or a client."""

Observer = Callable[[Connection], None]


class ControlPlane:
    """Owns the session table. ``on_established`` and ``on_ended`` are told of every connection that was let in,
    and of every one that ended, also before that (for the connection log)."""

    def __init__(
        self,
        plane: dataplane.DataPlane,
        door: Doorman,
        strangers: StrangersConfig | None = None,
        users: UserLogins | None = None,
        *,
        on_established: Observer,
        on_ended: Observer,
    ) -> None:
        self.plane = plane
        self.door = door
        self.table = SessionTable(door)
        self.users = users or UserLogins({})
        self.handlers = Handlers()
        self.totp: Totp | None = None
        """For endpoints that ask codes."""
        self.radius: Mapping[str, RadiusCodes] = {}
        """The same, by directory, where RADIUS servers judge them."""
        self.saml: SamlLogins | None = None
        """There is one as soon as an endpoint sends people to an identity provider."""
        self.on_waiting: Observer = lambda _connection: None
        """Told when a client that goes on waiting was sent to its browser."""
        self.on_assertion: Observer = lambda _connection: None
        """Told when the browser's part of a login is done, which goes on."""
        self.kept_passwords: KeptPasswords | None = None
        self.token_key: TokenKey | None = None
        """There is one as soon as an endpoint has a user method."""
        self.revoked_logins = RevokedLogins()
        self.places = Places()
        self.web_logins: WebLogins | None = None
        """There are some where there is a portal."""
        self.sources = SourceLimits(strangers or StrangersConfig())
        self.answering = SourceLimits(strangers or StrangersConfig())
        """The same for answers of identity providers that nobody's VPN client waits for: any page can make the browsers
        of an office bring some, for which no VPN client there pays."""
        self.drops: Counter[DropReason] = Counter()
        """On this side; ``all_drops`` has the doorman's too."""
        self.tally = Tally()
        self._reserve = Reserve()
        self.on_established = on_established
        self._on_ended = on_ended
        self._listeners: dict[int, Callable[[ControlDatagram], Connection | None]] = {}
        self._strangers_logged = TokenBucket(STRANGERS_LOGGED_PER_S, STRANGERS_LOGGED_AT_ONCE)
        self._waiting_logged = TokenBucket(STRANGERS_LOGGED_PER_S, STRANGERS_LOGGED_AT_ONCE)
        self.loop = asyncio.get_running_loop()
        self.clock = SteadyClock(self.loop.time)
        self._wake_up: asyncio.TimerHandle | None = None
        self._wakes_up_at = math.inf
        self.loop.add_reader(plane.event_fd(), self._plane_events)
        self.loop.add_reader(door.event_fd(), self._control_packets)

    def stop(self) -> None:
        self.loop.remove_reader(self.door.event_fd())
        self.loop.remove_reader(self.plane.event_fd())
        if self._wake_up is not None:
            self._wake_up.cancel()

    def listen(self, listener: int, begin: Callable[[ControlDatagram], Connection | None] | None) -> None:
        """What comes in through this listener and has no session goes to ``begin``; None = no more."""
        if begin is None:
            self._listeners.pop(listener, None)
        else:
            self._listeners[listener] = begin

    def set_limits(self, strangers: StrangersConfig) -> None:
        self.sources.set_limits(strangers)
        self.answering.set_limits(strangers)
        self.door.set_limits(strangers)

    def all_drops(self) -> Counter[DropReason]:
        return self.drops + Counter(self.door.drops())

    # -- in and out ---------------------------------------------------------------------------------------

    def begin(
        self,
        endpoint: ServedEndpoint,
        link: UdpLink | TcpLink,
        *,
        local_session_id: bytes,
        remote_session_id: bytes,
        wrap: SessionWrap,
        cookie_echoed: bool,
    ) -> Connection:
        """From now on a stranger has a session, because it proved its address (over UDP ``cookie_echoed`` says that) or
        cannot do so without one. Hand in the packet that began it next."""
        settings, now = endpoint.session_settings, self.loop.time()
        memory = None
        if settings.max_key_method_bytes > settings.free_key_method_bytes:
            memory = Share(self._reserve, prefixes(link.remote.host)[0])
        session = Session(
            settings,
            now,
            ssl_context=endpoint.ssl_context,
            local_session_id=local_session_id,
            remote_session_id=remote_session_id,
            transport=Transport.UDP if isinstance(link, UdpLink) else Transport.TCP,
            ipv6=":" in link.remote.host,
            cookie_echoed=cookie_echoed,
            wrap=wrap,
            renegotiate_jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
            reserve_peer_id=lambda: self.table.reserve_peer_id(connection),
            hold=None if memory is None else memory.hold,
            drops=self.drops,
        )
        method = endpoint.method()
        connection = Connection(
            endpoint, session, link, remote_session_id, time.time(), self.clock.now(), method=method
        )
        connection.memory = memory
        connection.stage_began_at = now
        connection.unproven = isinstance(link, UdpLink) and not cookie_echoed
        if not connection.unproven:
            self.sources.begins(link.remote.host, now)
        self.table.add(connection)
        return connection

    def _control_packets(self) -> None:
        """What came of one connection is answered together, with one acknowledgement for a whole flight."""
        known: dict[Connection, list[bytes]] = {}
        others = []
        for datagram in self.door.fetch():
            connection = self.table.find(datagram.listener, datagram.source, datagram.packet[1:9])
            if connection is None:
                others.append(datagram)
            else:
                known.setdefault(connection, []).append(datagram.packet)
        for connection, packets in known.items():
            self.packet_received(connection, *packets)
        begun: dict[Connection, list[bytes]] = {}
        for datagram in others:
            if is_data(datagram.packet):
                self.data_received(datagram.listener, datagram.source, datagram.packet)
            elif (connection := self._begun_by(datagram)) is not None:
                begun.setdefault(connection, []).append(datagram.packet)
        for connection, packets in begun.items():
            self.packet_received(connection, *packets)

    def _begun_by(self, datagram: ControlDatagram) -> Connection | None:
        """The connection that a stranger's packet begins, or that the one before began."""
        connection = self.table.find(datagram.listener, datagram.source, datagram.packet[1:9])
        if connection is None and (begin := self._listeners.get(datagram.listener)) is not None:
            try:
                connection = begin(datagram)
            except Exception:
                stranger_failed(self)
        return connection

    def packet_received(self, connection: Connection, *packets: bytes) -> None:
        session, now = connection.session, self.loop.time()
        try:
            for packet in packets:
                session.receive_packet(packet, now)
        except Exception:
            cannot_go_on(self, connection)
        if connection.unproven and session.proven:
            self.table.prove(connection)
            self.sources.begins(connection.link.remote.host, now)
        self.pump(connection, now, may_be_quiet=True)

    def pump(self, connection: Connection, now: float, *, may_be_quiet: bool = False) -> None:
        """Handle, send, re-arm. Call it after every touch of a session.

        ``may_be_quiet``: where nothing happens and nothing is sent, no deadline is new. So it is with packets."""
        session = connection.session
        quiet = True
        try:
            while session.events and (event := session.next_event()) is not None:
                quiet = False
                session_told(self, connection, event, now)
            for packet in session.packets_to_send(now):
                quiet = False
                connection.link.send(packet)
        except Exception:
            cannot_go_on(self, connection)
        if session.ending.closed:
            self._absorb(connection, now)
        elif connection.timer is not None and ((quiet and may_be_quiet) or connection.timer <= now + SOON_S):
            return  # most of the time an acknowledgement, which puts deadlines off
        else:
            self.table.set_timer(connection, session.next_timeout())
        if connection.timer is not None and connection.timer < self._wakes_up_at:
            self._arm()

    def _absorb(self, connection: Connection, now: float) -> None:
        if connection.forget_at is None:
            connection.forget_at = now + ABSORB_S
            if isinstance(connection.link, TcpLink):
                connection.link.close()
        self.table.set_timer(connection, connection.forget_at)

    def _arm(self) -> None:
        deadline = self.table.next_deadline()
        if deadline is None or self._wakes_up_at <= deadline:
            return
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up, self._wakes_up_at = self.loop.call_at(deadline, self._timers_due), deadline

    def _timers_due(self) -> None:
        self._wake_up, self._wakes_up_at = None, math.inf
        now = self.loop.time()
        for connection in self.table.pop_due(now):
            if connection.forget_at is not None and connection.forget_at <= now:
                self._forget(connection)
                continue
            try:
                due = connection.session.next_timeout()
                if due is not None and due > now:  # put off since: what was sent is acknowledged
                    self.table.set_timer(connection, due)
                    continue
                connection.session.handle_timeout(now)
            except Exception:
                cannot_go_on(self, connection)
            self.pump(connection, now)
        self._arm()

    def data_received(self, listener: int, source: dataplane.SocketAddress, packet: bytes) -> None:
        """A data packet that names no peer, like P_DATA_V1: its source tells whose it is (openvpn-wire.md 2.3)."""
        for connection in self.table.at_source(listener, source):
            if connection.established and connection.peer_id is not None:
                self.plane.inject(connection.peer_id, packet)
                return
        self.drops[DropReason.UNROUTABLE] += 1

    # -- decisions ----------------------------------------------------------------------------------------

    def admit(
        self,
        connection: Connection,
        settings: dataplane.PeerSettings,
        options: Sequence[str],
        token: Sequence[str] = (),
    ) -> Refusal | None:
        """Login said yes: make the peer known to the data plane and let the session push ``options`` and ``token``. Its
        first key follows with ``KeysReady``. The session is to be pumped afterwards.

        Returns the refusal if the client turns out not to be servable; it has been told."""
        now = self.loop.time()
        link = connection.link
        peer_id = None
        admitted = False
        try:
            wanted = self.table.assign_peer_id(connection)
            self.plane.add_peer(wanted, settings)
            peer_id = wanted
            if isinstance(link, UdpLink):
                self.plane.set_remote(peer_id, link.listener, link.remote, link.local)
            # The session comes last: once it has accepted, nothing holds the PUSH_REPLY back.
            refusal = connection.session.accept(options, now, peer_id=peer_id, token=token)
            negotiated = connection.session.negotiated
            legacy = negotiated is not None and negotiated.digest  # whoever wants to be rid of CBC has to find them
            level = logging.INFO if legacy else logging.DEBUG
            if log.isEnabledFor(level):
                log.log(level, "%s negotiated: %s", connection.connection_id, connection.session.negotiation)
            admitted = refusal is None
        finally:
            if not admitted:
                if peer_id is not None:
                    self.plane.remove_peer(peer_id)
                self.table.free_peer_id(connection)
        if refusal is not None:
            self._last_words(connection, refusal, connection.session.negotiation)
            return refusal
        self.tally.stages.passed(connection, now)
        self.table.set_phase(connection, Phase.ESTABLISHED)
        self.tally.sessions[connection.endpoint.id] += 1
        return None

    def ask(self, connection: Connection, question: str, wait_s: float) -> float:
        """Login waits for the person at the client: tell it, see ``Session.ask``."""
        now = self.loop.time()
        left_s = connection.session.ask(question, wait_s, now)
        self.pump(connection, now)
        return left_s

    def told_to_wait(self, connection: Connection) -> None:
        """It is sent to its browser and goes on waiting. Strangers may come for that alone, and leave."""
        if not connection.stranger or self._waiting_logged.take(self.loop.time()):
            self.on_waiting(connection)

    def change_options(self, connection: Connection, options: Sequence[str]) -> bool:
        """The configuration would give this client other ``options`` now. Told at once where it can be, else sent away
        to come straight back for them; left in peace (False) if nothing changed that matters to it."""
        grant = connection.grant
        if grant is None or not connection.established:
            return False
        changes = update_options(grant.options, options)
        if not changes:
            return False
        if connection.session.can_change_options:
            connection.session.change_options(options, changes)
            connection.grant = replace(grant, options=tuple(options))
            self.pump(connection, self.loop.time())
        else:
            self.restart(connection, End.CONFIGURATION_CHANGED)
        return True

    def go_on(self, connection: Connection) -> None:
        """Login said yes to a later key, some time after it was asked."""
        try:
            connection.session.accept_renegotiation(self.loop.time())
        except Exception:
            cannot_go_on(self, connection)
        self.pump(connection, self.loop.time())

    def refuse(
        self,
        connection: Connection,
        reason: Refusal,
        client_text: str = "",
        *,
        retry_after_s: int | None = None,
        elsewhere: bool = False,
        detail: str = "",
    ) -> None:
        """Say no: the client hears ``AUTH_FAILED`` with at most ``client_text``, and when to try again if that may
        help; ``elsewhere``, as in ``restart``."""
        now = self.loop.time()
        try:
            connection.session.refuse(client_text, now, reason, retry_after_s=retry_after_s, elsewhere=elsewhere)
        except Exception:
            if reason is Refusal.INTERNAL_ERROR:  # of ours: it is to come back
                cannot_go_on(self, connection)
            else:
                cannot_be_told(connection, reason, detail)
        self._last_words(connection, reason, detail)

    def halt(self, connection: Connection, reason: End, client_text: str) -> None:
        """End it for good: the client is told not to come back by itself."""
        try:
            connection.session.halt(client_text, self.loop.time(), reason)
        except Exception:
            cannot_be_told(connection, reason)
        self._last_words(connection, reason)

    def restart(self, connection: Connection, reason: End, *, elsewhere: bool = False) -> None:
        """End it so that the client comes straight back, keeping what it knows. ``elsewhere``: nobody listens any more
        where it is."""
        try:
            connection.session.restart(why_sent_back(reason), self.loop.time(), reason, elsewhere=elsewhere)
        except Exception:
            cannot_be_told(connection, reason)
        self._last_words(connection, reason)

    def _last_words(self, connection: Connection, reason: Refusal | End, detail: str = "") -> None:
        if connection.session.established:  # there was nothing to answer with a no, so it would just go on
            connection.session.close(reason)
        self.pump(connection, self.loop.time())  # before the end, which closes a TCP connection
        self.end(connection, reason, detail)

    def close(self, connection: Connection, reason: Refusal | End, detail: str = "") -> None:
        """End it without a word."""
        self.end(connection, reason, detail)
        connection.session.close(reason, detail)
        self.pump(connection, self.loop.time())

    def end(self, connection: Connection, reason: Refusal | End, detail: str = "") -> None:
        """No packet passes from here on, whatever the session still says. The lease is free exactly once: here."""
        if connection.phase is Phase.ENDED:
            return
        own_fault = isinstance(reason, Refusal) or reason is End.PROTOCOL_VIOLATION  # else ours
        if not connection.keys_installed:
            reason = of_attempt(reason)
        self.tally.ended(connection, reason)
        if connection.peer_id is not None:
            connection.final_stats = self.plane.peer_stats(connection.peer_id)
            if isinstance(connection.link, TcpLink):
                connection.link.give_up_hand_over()
            self.plane.remove_peer(connection.peer_id)
            self.tally.sessions[connection.endpoint.id] -= 1
            self.tally.carried(connection.endpoint.id, connection.final_stats)
        self.table.free_peer_id(connection)
        if connection.grant is not None:
            connection.endpoint.give_back(connection.grant.lease)
        if connection.login is not None and connection.login is not asyncio.current_task():
            connection.login.cancel()
        connection.login = None
        if connection.memory is not None:
            connection.memory.close()
        connection.end_reason, connection.end_detail = reason, _shortened(detail)
        connection.ended_at = time.time()
        self.table.set_phase(connection, Phase.ENDED)
        if own_fault and reason in FAILED_LOGINS and not connection.keys_installed and connection.session.proven:
            self.sources.failed(connection.link.remote.host, self.loop.time())
        if connection.stranger and not self._strangers_logged.take(self.loop.time()):
            _warn.warning(
                "strangers", "handshakes of strangers fail faster than they are written down, the last: %s", reason
            )
            return
        who = connection.username or connection.common_name
        log.info("%s (%s) ended: %s %s", connection.connection_id, who, reason, connection.end_detail)
        self._on_ended(connection)

    def make_room(self, endpoint: ServedEndpoint, host: str) -> None:
        """For one from there who has proven that, and whom ``may_begin`` lets begin."""
        found = giving_way(self.table, endpoint, host)
        if found is not None:
            self.close(found, Refusal.HANDSHAKE_GAVE_WAY, "its place went to a network that has fewer")
            self._forget(found)

    def drop_endpoint(self, endpoint: ServedEndpoint) -> None:
        """End and forget everybody on it, without another word."""
        for connection in self.table:
            if connection.endpoint is endpoint:
                self.end(connection, End.SHUTDOWN)
                connection.session.close(End.SHUTDOWN)  # who was connected stays visible for an hour; their keys do not
                self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self.table.remove(connection)
        connection.link.close()

    # -- what the data plane tells ------------------------------------------------------------------------

    def _plane_events(self) -> None:
        for event in self.plane.poll_events():
            if isinstance(event, dataplane.StrayControl):
                stray_told(self, event)
                continue
            connection = self.table.by_peer(event.peer_id)
            if connection is None:  # it ended while the event waited
                continue
            if isinstance(event, dataplane.TcpControl):
                self.packet_received(connection, event.packet)
            else:
                try:
                    plane_told(self, connection, event, self.loop.time())
                except Exception:
                    cannot_go_on(self, connection)
                self.pump(connection, self.loop.time())


def _shortened(detail: str) -> str:
    return detail if len(detail) <= LONGEST_DETAIL else f"{detail[:LONGEST_DETAIL]}…"
