"""Sockets and a clock for ``LightClient``: many clients in one process, one coroutine each.

Each connects, pings an inner target, stays for a while and says goodbye; what happened is its ``ClientResult``.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from typing import Protocol

import asyncio_dgram
from OpenSSL import SSL

from cvpnd.wire.errors import PeerError
from cvpnd.wire.packet import Transport
from cvpnd.wire.stream import FrameReader, frame
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.wrapping import Wrapping
from light_client.datagrams import content, datagram, parse_datagram, sequence_of
from light_client.generations import Generation, Habits
from light_client.icmp import echo_request, parse_echo_reply
from light_client.protocol import Connected, Failed, KeyInstalled, LightClient, Told, TunnelPacket

PING_INTERVAL_S = 1.0
EXIT_LINGER_S = 0.2
"""So that the server's acknowledgement of the goodbye meets an open socket."""


class Gathering:
    """Of so many clients, each of which has connected or failed in the end, however long that takes."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._complete = asyncio.Event()

    def arrive(self) -> None:
        self._left -= 1
        if not self._left:
            self._complete.set()

    async def wait(self) -> None:
        await self._complete.wait()


@dataclass(frozen=True)
class Plan:
    """What every client does."""

    host: str
    port: int
    transport: Transport = Transport.UDP
    ping: IPv4Address | None = None
    pings: int = 1
    hold_s: float = 0.0
    """Stay connected this long after the pings, pinging once a second."""
    timeout_s: float = 60.0
    """For the connection and for each first answer."""
    wrapping: Wrapping = PLAIN
    early_negotiation: bool = True
    spread_s: float = 0.0
    """Start the clients evenly over this time; 0 = all at once."""
    at_once: int = 0
    """No more than these are under way, the others wait; 0 = all."""
    generation: Generation | None = None
    """Which client to play; None: OpenVPN 2.6, more or less."""
    renegotiate: bool = False
    """Renew the keys after the pings, and ping as often again."""
    logins: tuple[tuple[str, str], ...] = ()
    """User names and passwords, for one client each and then from the start again."""
    ping_interval_s: float = 1.0
    """While it stays."""
    transfer: tuple[IPv4Address, int] | None = None
    """While it stays: datagrams of known content to an echo server, one every ``transfer_interval_s``."""
    transfer_interval_s: float = 0.1
    rounds: int = 1
    """Connect so many times from one local port, each time without a word to the server about the end of the last, and
    from the second time on with the token that was pushed, if any."""
    goodbyes: bool = False
    """Between rounds there is a word, and each has a port of its own."""
    on_connected: Callable[[], object] | None = None
    gathering: Gathering | None = None
    """Stay connected until it is complete, too."""


@dataclass
class ClientResult:
    """Milliseconds; None for what did not happen."""

    index: int
    address: str = ""
    connect_ms: float | None = None
    refused_ms: float | None = None
    """Until it was known that the connection fails."""
    round_trips_ms: list[float] = field(default_factory=list)
    pings_sent: int = 0
    datagrams_sent: int = 0
    datagrams_back: int = 0
    """Each once, with the content that it was sent with."""
    datagrams_wrong: int = 0
    """Changed, doubled, or never sent."""
    keys: int = 0
    generation: str = ""
    cipher: str = ""
    derivation: str = ""
    data_format: str = ""
    options: tuple[str, ...] = ()
    """All that was pushed, with later updates."""
    push_replies: int = 0
    updates: int = 0
    undecryptable: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    """Control packets that this client did not understand."""
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error


class _Wire(Protocol):
    async def receive(self) -> list[bytes]: ...

    async def send(self, packet: bytes) -> None: ...

    def close(self) -> None: ...


class _UdpWire:
    def __init__(self, stream: asyncio_dgram.DatagramClient) -> None:
        self._stream = stream

    async def receive(self) -> list[bytes]:
        packet, _ = await self._stream.recv()
        return [packet]

    async def send(self, packet: bytes) -> None:
        await self._stream.send(packet)

    def close(self) -> None:
        self._stream.close()


class TcpWire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()

    async def receive(self) -> list[bytes]:
        data = await self._reader.read(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return self._frames.feed(data)

    async def send(self, packet: bytes) -> None:
        self._writer.write(frame(packet))
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


async def _open(plan: Plan, local_port: int) -> _Wire:
    if plan.transport is Transport.TCP:
        return TcpWire(*await asyncio.open_connection(plan.host, plan.port))
    if not local_port:
        return _UdpWire(await asyncio_dgram.connect((plan.host, plan.port)))
    made = socket.socket(socket.AF_INET6 if ":" in plan.host else socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind(("", local_port))
    made.connect((plan.host, plan.port))
    return _UdpWire(await asyncio_dgram.from_socket(made))


def free_port() -> int:
    """A UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


class Runner:
    """One client on one socket. ``pump`` is where everything meets, as in the gateway."""

    def __init__(self, client: LightClient, wire: _Wire, result: ClientResult) -> None:
        self.client = client
        self.result = result
        self._wire = wire
        self.leaving = False
        """The goodbye is said: a server that closes the connection now only answers it."""
        self._changed = asyncio.Event()
        self._outstanding: dict[int, float] = {}
        self._under_way: set[int] = set()
        """Datagrams, by their numbers."""
        self._echo_port = 0

    async def serve(self) -> None:
        """Receive until cancelled; deadlines are looked after by ``_timers``."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive())
            group.create_task(self._timers())

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for ``condition``; False after the timeout or when the client has failed."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    if self.client.failed is not None:
                        return False
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def ping(self, source: IPv4Address, target: IPv4Address, sequence: int) -> None:
        self._outstanding[sequence] = time.perf_counter()
        self.result.pings_sent += 1
        self.client.send_tunnel_packet(
            echo_request(source, target, self.result.index & 0xFFFF, sequence, b"cvpnd light client")
        )
        await self.pump()

    async def transfer(self, source: IPv4Address, target: tuple[IPv4Address, int], sequence: int) -> None:
        host, self._echo_port = target
        self._under_way.add(sequence)
        self.result.datagrams_sent += 1
        payload = content(self.result.index, sequence)
        self.client.send_tunnel_packet(datagram(source, host, self._echo_port, payload))
        await self.pump()

    def answered(self, sequence: int) -> bool:
        return sequence not in self._outstanding

    def all_answered(self) -> bool:
        return not self._outstanding and not self._under_way

    async def pump(self) -> None:
        """Whoever calls it: that the server has closed the connection is this client's failure, and nobody else's."""
        self._tell()
        try:
            for packet in self.client.packets_to_send(time.monotonic()):
                await self._wire.send(packet)
        except OSError as error:
            self.client.transport_failed(str(error))
            self._tell()
        self._changed.set()

    def _tell(self) -> None:
        """What has happened to the client, to its result."""
        while (event := self.client.next_event()) is not None:
            if isinstance(event, TunnelPacket):
                self._tunnel_packet(event.payload)
            elif isinstance(event, KeyInstalled):
                self.result.keys += 1
            elif isinstance(event, Failed) and not self.result.error and not self.leaving:
                self.result.error = event.reason
            elif isinstance(event, Told):
                self.result.updates += event.text == "PUSH_UPDATE"
            elif isinstance(event, Connected):
                self.result.address = (self.client.option("ifconfig") or "").split(" ")[0]

    def _tunnel_packet(self, payload: bytes) -> None:
        echoed = parse_datagram(payload, self._echo_port)
        if echoed is not None:
            sequence = sequence_of(echoed, self.result.index)
            if sequence in self._under_way:
                self._under_way.remove(sequence)
                self.result.datagrams_back += 1
            else:
                self.result.datagrams_wrong += 1
            return
        reply = parse_echo_reply(payload)
        if reply is not None and reply[1] == self.result.index & 0xFFFF:
            sent = self._outstanding.pop(reply[2], None)
            if sent is not None:
                self.result.round_trips_ms.append((time.perf_counter() - sent) * 1000)

    async def _receive(self) -> None:
        while True:
            try:
                packets = await self._wire.receive()
            except (OSError, PeerError) as error:  # a refused datagram of a server that is not up yet, too
                self.client.transport_failed(str(error))
                packets = []
            for packet in packets:
                self.client.receive_packet(packet, time.monotonic())
            self.client.handle_timeout(time.monotonic())  # a packet may make something due at once
            await self.pump()
            if self.client.failed is not None:
                return

    async def _timers(self) -> None:
        while self.client.failed is None:
            deadline = self.client.next_timeout()
            wait = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            await asyncio.sleep(wait or 0.001)
            self.client.handle_timeout(time.monotonic())
            await self.pump()


async def run_client(context: SSL.Context, plan: Plan, index: int) -> ClientResult:
    """Never raises for what the network or the server did: it is in ``error``. Of several rounds, the last one or the
    first that failed."""
    local_port = free_port() if plan.rounds > 1 and not plan.goodbyes else 0
    username, password = plan.logins[index % len(plan.logins)] if plan.logins else ("", "")
    for left in reversed(range(plan.rounds)):
        client = _client(context, plan, username, password)
        result = await _run_once(client, plan, index, local_port, vanish=left > 0 and not plan.goodbyes)
        if not result.ok:
            break
        password = client.password
    return result


def _client(context: SSL.Context, plan: Plan, username: str, password: str) -> LightClient:
    playing = plan.generation
    habits = playing.habits if playing else Habits()
    return LightClient(
        context,
        time.monotonic(),
        transport=plan.transport,
        ipv6=":" in plan.host,
        peer_info=playing.peer_info if playing else None,
        options=playing.options(plan.transport) if playing else None,
        username=username,
        password=password,
        hand_window_s=plan.timeout_s,
        wrapping=plan.wrapping,
        early_negotiation=plan.early_negotiation and habits.early_negotiation,
        habits=habits,
    )


async def _run_once(client: LightClient, plan: Plan, index: int, local_port: int, *, vanish: bool) -> ClientResult:
    result = ClientResult(index, generation=plan.generation.name if plan.generation else "")
    started = time.perf_counter()
    try:
        wire = await asyncio.wait_for(_open(plan, local_port), plan.timeout_s)
    except (OSError, TimeoutError) as error:
        result.error = f"cannot connect: {error or 'timed out'}"
        if plan.gathering is not None:
            plan.gathering.arrive()
        return result
    runner = Runner(client, wire, result)
    serving = asyncio.create_task(runner.serve())
    try:
        await runner.pump()
        connected = await runner.until(lambda: client.connected, plan.timeout_s)
        if plan.gathering is not None:
            plan.gathering.arrive()
        if not connected:
            result.error = result.error or "timed out while connecting"
            result.refused_ms = (time.perf_counter() - started) * 1000
            return result
        result.connect_ms = (time.perf_counter() - started) * 1000
        if plan.on_connected is not None:
            plan.on_connected()
        if not await _use_tunnel(runner, plan):
            result.error = result.error or f"no answer from {plan.ping}"
        if client.failed is None and not vanish and plan.transport is Transport.UDP:  # TCP clients just close
            client.exit()
            await runner.pump()
            runner.leaving = True
            await asyncio.sleep(EXIT_LINGER_S)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        wire.close()
        result.options, result.push_replies = client.options, client.push_replies
        result.cipher, result.undecryptable = client.option("cipher") or client.configured_cipher, client.undecryptable
        result.drops = {str(reason): count for reason, count in client.drops.items()}
        result.data_format = client.data_format
        result.derivation = "EKM" if client.exports_keys else "PRF"
    return result


async def _use_tunnel(runner: Runner, plan: Plan) -> bool:
    """Ping until each answer came, then stay. A lost ping is repeated within the timeout, as a person would."""
    sequence = await _ping(runner, plan, 0, plan.pings)
    if sequence is not None and plan.renegotiate:
        if not await _renegotiate(runner, plan.timeout_s):
            return False
        sequence = await _ping(runner, plan, sequence, plan.pings)
    if sequence is None:
        return False
    interval_s = plan.ping_interval_s if plan.transfer is None else plan.transfer_interval_s
    end = time.monotonic() + plan.hold_s
    while (left := end - time.monotonic()) > 0:
        sequence += 1
        source = IPv4Address(runner.result.address)
        if plan.transfer is not None:
            await runner.transfer(source, plan.transfer, sequence)
        elif plan.ping is not None:
            await runner.ping(source, plan.ping, sequence & 0xFFFF)
        await runner.until(lambda: False, min(interval_s, left))
        if runner.client.failed is not None:
            return False
    if not await runner.until(runner.all_answered, PING_INTERVAL_S):
        await _ping(runner, plan, sequence, 1)  # late is not lost: lost is what a later one overtakes
    if plan.gathering is not None:
        await plan.gathering.wait()
    return runner.client.failed is None


async def _ping(runner: Runner, plan: Plan, sequence: int, count: int) -> int | None:
    """The last sequence number, or None if not all were answered."""
    if plan.ping is None:
        return sequence
    source = IPv4Address(runner.result.address)
    for _ in range(count):
        end = time.monotonic() + plan.timeout_s
        answered = False
        while not answered:
            if time.monotonic() >= end or runner.client.failed is not None:
                return None
            sequence += 1
            number = sequence & 0xFFFF
            await runner.ping(source, plan.ping, number)
            answered = await runner.until(partial(runner.answered, number), PING_INTERVAL_S)
    return sequence


async def _renegotiate(runner: Runner, timeout_s: float) -> bool:
    """Both ways of it count: this client's, and one that the server begins at the same moment."""
    client, before = runner.client, runner.result.keys
    client.renegotiate(time.monotonic())
    await runner.pump()
    if await runner.until(lambda: runner.result.keys > before, timeout_s):
        return True
    runner.result.error = runner.result.error or "the renegotiation did not end"
    return False


async def run_clients(context: SSL.Context, plan: Plan, count: int) -> list[ClientResult]:
    """All of them at once, or spread over ``plan.spread_s``, or ``plan.at_once``."""
    places = asyncio.Semaphore(plan.at_once or count)

    async def later(index: int) -> ClientResult:
        await asyncio.sleep(plan.spread_s * index / count)
        async with places:
            return await run_client(context, plan, index)

    starts: list[Awaitable[ClientResult]] = [later(index) for index in range(count)]
    return list(await asyncio.gather(*starts))
