"""The whole control side in virtual time: ``ControlPlane``, listener and login as they serve, the reference data plane
without descriptors, a noisy link, and devices that come, roam, crash and come back.

``World.check`` is what must hold at any moment, ``World.check_service`` what must hold once the link is good again,
and ``World.check_empty`` what must be left when everybody is gone: nothing.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from helpers import certs, handshake
from helpers.inline_door import InlineDoor
from helpers.inline_plane import ENDPOINT, LISTENER, InlinePlane, Outlet
from helpers.packets import udp
from helpers.pair import NoisyLink
from helpers.virtual_time import VirtualTimeLoop
from helpers.wrappings import Case
from light_client.data_channel import is_data
from light_client.generations import generation
from light_client.protocol import Connected, KeyInstalled, LightClient, TunnelPacket
from OpenSSL import SSL

from cvpnd.auth.files import CertificateSettings
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import EndpointConfig
from cvpnd.dataplane import reference
from cvpnd.dataplane.api import DataKeys, PeerSettings, SocketAddress
from cvpnd.policy.leases import LeasePool
from cvpnd.policy.model import Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.reasons import End, Refusal
from cvpnd.server import session_events
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.control import ControlPlane
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.listener import UdpListener
from cvpnd.server.login import log_in
from cvpnd.wire.events import CredentialsReceived
from cvpnd.wire.key_material import DataChannelKeys
from cvpnd.wire.packet import Transport

TARGET = "10.20.0.7"
TICK_S = 1.0
"""How often the data plane looks after idle peers."""
RETRY_S = 1.0
RETRY_REFUSED_S = 20.0
"""Where there never was a connection."""
REMEMBERED = 400
"""Packets that an attacker on the path has in mind."""
SETTLING_S = 400.0
"""Longer than everything a client waits for: the negotiation's timeout, ping-restart, and a retry after each."""

DEVICES = ("alice", "alice", "bob")
"""By user: the first two share a certificate."""
SETTINGS = {
    "name": "staff",
    "client_cidr": "10.100.0.0/22",
    "listen": ("udp://0.0.0.0:1194",),
    "server_certificate": {"certificate": "c", "private_key": "k"},
    "authentication": ({"type": "certificate-authentication", "client_ca": "ca"},),
    "split_tunnel": True,
    "renegotiate_s": 300,
    "hand_window_s": 60,
    "ping_s": 10,
    "ping_restart_s": 60,
}


class WatchedControl(ControlPlane):
    """Notes whom login let in, by the session id that the client knows."""

    admitted: set[bytes]
    moves = 0
    """Times that a client roamed and was followed."""

    def admit(
        self, connection: Connection, settings: PeerSettings, options: Sequence[str], token: Sequence[str] = ()
    ) -> Refusal | None:
        refusal = super().admit(connection, settings, options, token)
        if refusal is None:
            self.admitted.add(connection.session.local_session_id)
        return refusal

    def _plane_events(self) -> None:
        before = {connection: connection.link.remote for connection in self.table}
        super()._plane_events()
        self.moves += sum(connection.link.remote != remote for connection, remote in before.items())

    # noted before the PUSH_REPLY can leave: ``admit`` pumps
    def pump(self, connection: Connection, now: float, *, may_be_quiet: bool = False) -> None:
        if connection.phase is Phase.ESTABLISHED:
            self.admitted.add(connection.session.local_session_id)
        super().pump(connection, now, may_be_quiet=may_be_quiet)


@dataclass
class Device:
    """A client program that tries again until somebody tells it not to."""

    world: World
    number: int
    user: str
    address: SocketAddress
    generation: str = "2.6"
    running: bool = False
    client: LightClient | None = None
    attempt: int = 0
    received: set[bytes] = field(default_factory=set)
    """Payloads out of the tunnel."""
    keys: dict[int, DataChannelKeys] = field(default_factory=dict)
    former: list[tuple[bytes, str, list]] = field(default_factory=list)
    """Of attempts that are over: the client's session id, its lease and its data keys."""
    timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Also instead of the attempt under way: the program crashed and is back at the same address."""
        self.forget()
        self.running = True
        self.attempt += 1
        world = self.world
        plays = generation(self.generation)
        habits = plays.habits  # who acknowledges apart from its key cannot show that key again with it
        early = world.early_negotiation and habits.early_negotiation and not habits.bare_first_ack
        self.client = LightClient(
            world.client_context(self.user, version=plays.tls or "1.3"),
            world.now,
            wrapping=world.case.client,
            early_negotiation=early,
            peer_info=plays.peer_info,
            options=plays.options(Transport.UDP),
            habits=habits,
        )
        self.pump()

    def forget(self) -> None:
        if self.client is not None:
            self.former.append((self.client.session_id, self.lease, self.data_keys()))
            del self.former[:-3]
        self.client = None
        self.keys = {}
        if self.timer is not None:
            self.timer.cancel()

    def vanish(self) -> None:
        self.running = False
        self.forget()

    def data_keys(self) -> list:
        return [] if self.client is None else [k.data for k in self.client._keys.values() if k.data is not None]

    @property
    def connected(self) -> bool:
        return self.client is not None and self.client.connected and self.client.failed is None

    @property
    def lease(self) -> str:
        assert self.client is not None
        return (self.client.option("ifconfig") or "").split(" ")[0]

    def receive(self, packet: bytes) -> None:
        if self.client is not None:
            self.client.receive_packet(packet, self.world.now)
            self.pump()

    def pump(self) -> None:
        client = self.client
        if client is None:
            return
        while (event := client.next_event()) is not None:
            if isinstance(event, TunnelPacket):
                self.world.check_recipient(self, event.payload)
                self.received.add(event.payload)
            elif isinstance(event, KeyInstalled):
                self.keys[event.key_id] = event.keys
            elif isinstance(event, Connected):
                assert client.options
        for packet in client.packets_to_send(self.world.now):
            self.world.to_server(packet, self.address)
        if self.timer is not None:
            self.timer.cancel()
        loop = self.world.loop
        if client.failed is not None:
            if client.failed.startswith(("AUTH_FAILED", "HALT")):
                self.running = False
            self.timer = loop.call_later(RETRY_S if client.connected else RETRY_REFUSED_S, self._again)
        elif (due := client.next_timeout()) is not None:
            self.timer = loop.call_at(max(due, self.world.now + 0.001), self._due)

    def _again(self) -> None:
        self.start() if self.running else self.forget()

    def _due(self) -> None:
        assert self.client is not None
        self.client.handle_timeout(self.world.now)
        self.pump()


@dataclass
class Rival:
    """Another program at a device's address, which hears what the device hears, has the control channel's key, and a
    certificate that nobody trusts."""

    world: World
    address: SocketAddress
    client: LightClient = field(init=False)

    def __post_init__(self) -> None:
        context = self.world.client_context("mallory", certs.client_of_another_authority)
        self.client = LightClient(context, self.world.now, wrapping=self.world.case.client)
        self.pump()

    def receive(self, packet: bytes) -> None:
        if not is_data(packet):
            self.client.receive_packet(packet, self.world.now)
            self.pump()

    def pump(self) -> None:
        assert not self.client.options, "a stranger was told"
        for packet in self.client.packets_to_send(self.world.now):
            self.world.loop.call_later(0.01, self._say, packet)

    def _say(self, packet: bytes) -> None:
        with self.world.undisturbed():
            self.world.deliver(packet, self.address)


class World:
    """Use it as a context manager. ``case``: the control channel's protection."""

    def __init__(
        self,
        case: Case,
        *,
        seed: int = 0,
        early_negotiation: bool = True,
        generations: tuple[str, ...] = ("2.6", "2.6", "2.6"),
        **limits: int,
    ) -> None:
        self.case = case
        self.early_negotiation = early_negotiation
        random.seed(seed)  # the jitter of renegotiations
        self.loop = VirtualTimeLoop()
        self.link = NoisyLink(seed)
        self.login_s = 0.0
        self.seen: list[tuple[bytes, SocketAddress]] = []
        """Delivered to the gateway, so that whoever repeats it is too late to be first."""
        self.told: list[tuple[bytes, SocketAddress]] = []
        """Sent by the gateway."""
        self.revoked: set[str] = set()
        self.rivals: list[Rival] = []
        self._marks = 0
        self._senders: dict[bytes, bytes] = {}
        """Payload sent into the tunnel: by which client, by its session id."""
        self._recipients: dict[bytes, bytes] = {}
        """Payload injected from the target network: for which client, as the gateway had it then."""
        self._ports = iter(range(41000, 65535))
        self._outside = ExitStack()
        self._directory = Path(self._outside.enter_context(tempfile.TemporaryDirectory()))
        outlet = Outlet(self.to_client)
        self.plane = InlinePlane(outlet, self.loop.time, **limits)
        clock = SimpleNamespace(monotonic=self.loop.time)
        self._outside.enter_context(mock.patch.object(reference, "time", clock))
        self._outside.enter_context(mock.patch.object(session_events, "log_in", self._log_in))
        self._outside.enter_context(mock.patch.object(session_events, "takes_time", lambda _endpoint: self.login_s > 0))
        self.devices = [
            Device(self, n, user, SocketAddress(f"192.0.2.{n + 1}", 40000), generations[n])
            for n, user in enumerate(DEVICES)
        ]
        self.loop.run_until_complete(self._open(outlet))
        self._tick()

    async def _open(self, outlet: Outlet) -> None:
        self.endpoint = ServedEndpoint(
            index=ENDPOINT,
            interface="tun0",
            settings=EndpointConfig.model_validate(SETTINGS),
            trust_keeper=TrustKeeper(self._certificate_files()),
            protection=self.case.protection,
            routes=(),
            leases=LeasePool(EndpointConfig.model_validate(SETTINGS).client_cidr),
        )
        self.door = InlineDoor(LISTENER, outlet.carry, self.loop.time)
        self.control = WatchedControl(self.plane, self.door, on_established=lambda _: None, on_ended=lambda _: None)
        self.control.admitted = set()
        self.endpoint.set_rules(self.plane, RuleTable([Rule(ip_network("10.20.0.0/16"), None, "", "test")]), ())
        self.listener = UdpListener(LISTENER, self.endpoint, self.control)
        self.listener._socket = outlet  # type: ignore[assignment] - in place of open()
        self.control.listen(LISTENER, self.listener._stranger)

    def _certificate_files(self) -> CertificateSettings:
        certificate, private_key = certs.server().write(self._directory, "server")
        (self._directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        self._write_crl()
        return CertificateSettings(
            certificate=certificate,
            private_key=private_key,
            client_ca=self._directory / "ca.crt",
            crl=self._directory / "crl.pem",
        )

    def _write_crl(self) -> None:
        crl = certs.certificate_revocation_list(revoked=[certs.client(user) for user in sorted(self.revoked)])
        (self._directory / "crl.pem").write_bytes(certs.crl_pem(crl))

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.control.stop()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        self.plane.close()
        self.door.close()
        self._outside.close()

    # -- the parts

    @property
    def now(self) -> float:
        return self.loop.time()

    _contexts: dict[tuple[str, str], SSL.Context] = {}  # noqa: RUF012 - of all worlds, as making one takes a while

    def client_context(
        self, user: str, issued: Callable[[str], certs.TestCertificate] = certs.client, version: str = "1.3"
    ) -> SSL.Context:
        if (user, version) not in self._contexts:
            self._contexts[user, version] = handshake.client_context(issued(user), version)
        return self._contexts[user, version]

    async def _log_in(self, control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
        """A login that takes its time, then the real one."""
        if self.login_s:
            await asyncio.sleep(self.login_s)
        await log_in(control, connection, credentials)

    def _tick(self) -> None:
        self.plane.look_after_peers()
        self.loop.call_later(TICK_S, self._tick)

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds, self.check)

    # -- the link

    def to_server(self, packet: bytes, source: SocketAddress) -> None:
        for arrival in self.link.arrivals(self.now):
            self.loop.call_at(arrival, self._genuine, packet, source)

    def _genuine(self, packet: bytes, source: SocketAddress) -> None:
        self.seen.append((packet, source))
        del self.seen[:-REMEMBERED]
        self.deliver(packet, source)

    def deliver(self, packet: bytes, source: SocketAddress) -> None:
        """As the kernel would: data packets with a peer id to the data plane, all else to the doorman."""
        if len(packet) >= 4 and packet[0] >> 3 == 9 and packet[1:4] != b"\xff\xff\xff":
            self.plane.receive(packet, source)
        else:
            self.door.receive(packet, source, self.listener._cookie, self.endpoint.protection)
            self.control._control_packets()
        self._look_at_the_tun()

    def to_client(self, packet: bytes, address: SocketAddress) -> None:
        self.told.append((packet, address))
        del self.told[:-REMEMBERED]
        for arrival in self.link.arrivals(self.now):
            self.loop.call_at(arrival, self._arrive, packet, address)

    def _arrive(self, packet: bytes, address: SocketAddress) -> None:
        for program in (*self.devices, *self.rivals):
            if program.address == address:
                program.receive(packet)

    def _look_at_the_tun(self) -> None:
        delivered, self.plane.delivered = self.plane.delivered, []
        for packet in delivered:
            sender = self._senders[packet]
            connection = self.connection_of(sender)
            assert connection is not None, "a packet passed although its connection is over"
            assert connection.phase is Phase.ESTABLISHED, "a packet passed although nobody was let in"

    # -- what devices and the target network do

    def send(self, device: Device, key: object = None) -> bytes:
        """A packet into the tunnel, under the newest key or ``key``; what the target network would see."""
        assert device.client is not None
        self._marks += 1
        payload = udp(device.lease, TARGET, b"out %d" % self._marks)
        self._senders[payload] = device.client.session_id
        if key is None:
            device.client.send_tunnel_packet(payload)
        else:
            self.to_server(key.seal(payload), device.address)  # type: ignore[attr-defined]
        device.pump()
        return payload

    def send_former(self, device: Device) -> None:
        """Under the keys of earlier attempts, from where the device is now."""
        for session_id, lease, keys in device.former:
            for key in keys:
                self._marks += 1
                payload = udp(lease, TARGET, b"late %d" % self._marks)
                self._senders[payload] = session_id
                self.to_server(key.seal(payload), device.address)

    def inject(self, lease: str) -> bytes:
        """A packet of the target network for whoever has this address."""
        self._marks += 1
        payload = udp(TARGET, lease, b"in %d" % self._marks)
        holder = self.plane.forwarder.endpoints[ENDPOINT].leases.get(ip_address(lease))
        connection = None if holder is None else self.control.table.by_peer(holder.id)
        if connection is not None:
            self._recipients[payload] = connection.client_session_id
        self.plane.from_target(payload)
        return payload

    def check_recipient(self, device: Device, payload: bytes) -> None:
        assert device.client is not None
        assert self._recipients[payload] == device.client.session_id, "somebody else's packet"

    def new_address(self, device: Device) -> SocketAddress:
        return SocketAddress(device.address.host, next(self._ports))

    def connection_of(self, client_session_id: bytes) -> Connection | None:
        found = [c for c in self.control.table if c.client_session_id == client_session_id and c.peer_id is not None]
        assert len(found) <= 1
        return found[0] if found else None

    def connections(self) -> list[Connection]:
        return [connection for connection in self.control.table if connection.phase is Phase.ESTABLISHED]

    # -- what the operator does

    def terminate(self, device: Device) -> None:
        """As ``Operations.terminate_connections``: all of the user."""
        for connection in self.connections():
            if connection.common_name == device.user:
                self.control.halt(connection, End.TERMINATED, "Terminated")
                assert connection.peer_id is None

    def restart(self) -> None:
        for connection in self.connections():
            self.control.restart(connection, End.SHUTDOWN)

    def set_revoked(self, user: str, revoked: bool) -> None:
        """As the gateway does when a CRL changes."""
        (self.revoked.add if revoked else self.revoked.discard)(user)
        self._write_crl()
        assert self.endpoint.trust_keeper.reload() is not None
        for connection in self.connections():
            if (end := self.endpoint.lost_trust(connection, None)) is not None:
                self.control.halt(connection, end, "Certificate revoked")

    # -- what strangers do

    @contextmanager
    def undisturbed(self, *, pending_may_change: bool = False) -> Iterator[None]:
        """What arrives inside changes no live session, and nobody at an unknown address gets more than it sent and
        twelve bytes (openvpn-wire.md section 19)."""
        before = {c.connection_id: self._state(c, pending_may_change) for c in self.connections()}
        leases, peers = dict(self.endpoint.leases.leases()), set(self.plane.forwarder.peers)
        yield
        after = {c.connection_id: self._state(c, pending_may_change) for c in self.connections()}
        assert before == after, "a stranger disturbed a live session"
        assert leases == dict(self.endpoint.leases.leases()) and peers == set(self.plane.forwarder.peers)

    def _state(self, connection: Connection, pending_may_change: bool) -> tuple:
        session = connection.session
        assert connection.peer_id is not None
        peer = self.plane.forwarder.peers[connection.peer_id]
        expected = {layer[0]: layer[1] for layer in session._channel.inspect()[2]}
        states = [s for s in session._keys.states if not (pending_may_change and s is session._keys.pending)]
        return (
            connection.peer_id,
            connection.link.remote,
            session.closed,
            session.established,
            [(s.key_id, s.negotiation, s.authentication, s.slot, expected[s.key_id]) for s in states],
            peer.remote and peer.remote[1],
            peer.last_authentic,
            None if peer.sending is None else peer.sending.key_id,
            {k: (slot.generation, slot.replay.highest) for k, slot in peer.keys.items()},
            peer.packets_in,
        )

    # -- what must hold

    def check(self) -> None:
        """At any moment."""
        table, plane = self.control.table, self.plane.forwarder
        live = self.connections()
        assert set(plane.peers) == {c.peer_id for c in live}, "peers are established connections and no others"
        granted: list[object] = []
        for connection in live:
            assert connection.peer_id is not None and table.by_peer(connection.peer_id) is connection
            assert connection.session.local_session_id in self.control.admitted
            assert connection.grant is not None and connection.identity is not None
            assert connection.identity.common_name == connection.common_name
            assert plane.peers[connection.peer_id].remote[1] == connection.link.remote  # type: ignore[index]
            owner = next((d for d in self.devices if self._was(d, connection.client_session_id)), None)
            assert owner is None or owner.user == connection.common_name, "somebody has another's name"
            granted += connection.grant.lease.addresses
        assert len(granted) == len(set(granted)), "an address has two owners"
        assert set(granted) == set(plane.endpoints[ENDPOINT].leases) == {a for a, _ in self.endpoint.leases.leases()}
        assert self.control.tally.sessions[self.endpoint.id] == len(live)
        waiting = [c for c in table if c.stranger]
        assert all(c.stranger for c in table if c.phase is Phase.HANDSHAKE), "a stranger does not count"
        assert table.handshakes == len(waiting) and table.unproven == sum(c.unproven for c in waiting)
        may_give_way = {c for c in waiting if not c.unproven and c.phase is Phase.HANDSHAKE}
        assert may_give_way <= set(table.strangers._places) <= set(waiting)
        assert self.door.known == {(LISTENER, c.link.remote, c.client_session_id): c.established for c in table}, (
            "the doorman lets through whom the table can find, and established sessions first"
        )
        for slot, keys in self.plane.keys.items():
            assert slot[1] in plane.peers[slot[0]].keys and keys
        for device in self.devices:
            if device.client is not None and (device.client.options or device.client.connected):
                assert device.client.remote_session_id in self.control.admitted, "told before login said yes"

    @staticmethod
    def _was(device: Device, session_id: bytes) -> bool:
        current = device.client is not None and device.client.session_id == session_id
        return current or any(former == session_id for former, *_ in device.former)

    def settle(self) -> None:
        """The link is good and everybody has time; then whoever may be served is served."""
        self.link = NoisyLink()
        self.login_s = 0.0
        self.pass_time(SETTLING_S)
        self.check_service()

    def check_service(self) -> None:
        outgoing, incoming = {}, {}
        for device in self.devices:
            if not device.running or device.user in self.revoked:
                assert not device.connected
                continue
            assert device.connected, (device.number, device.client and device.client.failed)
            self._check_keys(device)
            outgoing[device.number] = [self.send(device, key) for key in self._common_keys(device)]
            incoming[device.number] = self.inject(device.lease)
        reached = self.plane.forwarder.peers
        before = {n: reached[self._peer_of(self.devices[n])].packets_in for n in outgoing}
        self.pass_time(1.0)
        for number, packets in outgoing.items():
            device = self.devices[number]
            assert packets
            assert reached[self._peer_of(device)].packets_in == before[number] + len(packets), "data was lost"
            assert incoming[number] in device.received, "data was lost"

    def _peer_of(self, device: Device) -> int:
        assert device.client is not None
        connection = self.connection_of(device.client.session_id)
        assert connection is not None and connection.peer_id is not None
        return connection.peer_id

    def _common_keys(self, device: Device) -> list:
        installed = {key_id for peer_id, key_id in self.plane.keys if peer_id == self._peer_of(device)}
        return [key for key in device.data_keys() if key.key_id in installed]

    def _check_keys(self, device: Device) -> None:
        """Both sides have the same bytes under the key that each sends with."""
        peer_id = self._peer_of(device)
        sending = self.plane.forwarder.peers[peer_id].sending
        assert sending is not None and device.client is not None
        for key_id in {sending.key_id, device.client.sending_key_id}:
            assert key_id is not None
            ours, theirs = self.plane.keys[peer_id, key_id], device.keys[key_id]
            assert _mirrored(ours, theirs), f"the sides disagree on key {key_id}"

    def check_empty(self) -> None:
        """Everybody leaves without a word; after their timeouts nothing is left of them."""
        for device in self.devices:
            device.vanish()
        self.pass_time(SETTLING_S)
        table, plane = self.control.table, self.plane.forwarder
        left = {
            "connections": len(table),
            "sources": table._by_source,
            "peer ids": table._by_peer,
            "identities": table._by_identity,
            "handshakes": table.handshakes + table.unproven + len(table._handshakes_from) + len(table.strangers),
            "timers": table.next_deadline(),
            "leases": list(self.endpoint.leases.leases()),
            "peers": plane.peers,
            "leases of the data plane": plane.endpoints[ENDPOINT].leases,
            "keys": self.plane.keys,
            "sessions": self.control.tally.sessions[self.endpoint.id],
        }
        assert not {what: value for what, value in left.items() if value}

    def happened(self) -> Counter[str]:
        """How often what, for the fuzzer to tell a new story from a known one."""
        control = self.control
        counted: Counter[str] = Counter({f"drop {reason}": n for reason, n in control.all_drops().items()})
        counted += Counter({f"data {drop}": n for drop, n in self.plane.drops().items()})
        counted += Counter({f"refused {reason}": n for (_, reason), n in control.tally.refusals.items()})
        counted += Counter({f"ended {reason}": n for (_, reason), n in control.tally.ends.items()})
        counted["renegotiated"] = sum(control.tally.renegotiations.values())
        counted["established"] = sum(control.tally.established.values())
        counted["moved"] = self.control.moves
        return counted


def _mirrored(ours: DataKeys, theirs: DataChannelKeys) -> bool:
    return (ours.cipher, ours.open_key, ours.open_iv, ours.seal_key, ours.seal_iv) == (
        theirs.cipher,
        theirs.seal_key,
        theirs.seal_iv,
        theirs.open_key,
        theirs.open_iv,
    )
