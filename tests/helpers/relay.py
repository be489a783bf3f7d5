"""A bad network for UDP, made reproducible: loss, duplication, reordering, delay and a rate limit from one seed.

    client ──▶ listen address ─┤ Impairment ├─▶ target        (and back, with dice of its own)

Every client address gets an upstream socket of its own, so the target sees as many sources as there are clients.
As a program it is one thread around `selectors` and a heap of what is due; SIGHUP gives every client a new upstream
port, which is what a NAT that forgot its mappings looks like.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import selectors
import signal
import socket
import time
from dataclasses import dataclass

RECEIVE_BUFFER = 4 << 20


@dataclass(frozen=True)
class Weather:
    """What happens to packets of one direction. Probabilities are 0..1."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of packets that are held back by ``reorder_ms``, so that later ones overtake them."""
    reorder_ms: float = 5.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_mbit: float = 0.0
    """0 = unlimited."""
    queue_ms: float = 100.0
    """With a rate: a packet that would wait longer than this is lost."""


class Impairment:
    """One direction. Pure: the caller's clock, a seeded generator, the same decisions on every run."""

    def __init__(self, weather: Weather, seed: int) -> None:
        self._weather = weather
        self._random = random.Random(seed)
        self._line_free_at = 0.0

    def delivery_times(self, size: int, now: float) -> list[float]:
        """When to deliver a packet that arrives now: empty = lost, two = duplicated."""
        weather, dice = self._weather, self._random
        # always four throws, so that changing one probability does not reshuffle the others
        lost, doubled, late, jitter = (dice.random() for _ in range(4))
        if lost < weather.loss:
            return []
        at = now + (weather.delay_ms + weather.jitter_ms * jitter) / 1000
        if weather.rate_mbit:
            start = max(now, self._line_free_at)
            if (start - now) * 1000 > weather.queue_ms:
                return []
            self._line_free_at = start + size * 8 / (weather.rate_mbit * 1e6)
            at += self._line_free_at - now
        if late < weather.reorder:
            at += weather.reorder_ms / 1000
        return [at, at] if doubled < weather.duplicate else [at]


def _udp_socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    made.setblocking(False)
    return made


class Relay:
    def __init__(self, listen: tuple[str, int], target: tuple[str, int], weather: Weather, seed: int) -> None:
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._front = _udp_socket(listen[0])
        self._front.bind(listen)
        self._selector.register(self._front, selectors.EVENT_READ, None)
        self._upstream: dict[tuple[str, int], socket.socket] = {}
        self._up, self._down = Impairment(weather, seed), Impairment(weather, seed + 1)
        self._due: list[tuple[float, int, socket.socket, bytes, tuple[str, int]]] = []
        self._order = itertools.count()  # ties leave in the order of arrival
        self.received = self.delivered = 0

    @property
    def port(self) -> int:
        return int(self._front.getsockname()[1])

    def rebind(self) -> None:
        for old in self._upstream.values():
            self._selector.unregister(old)
            old.close()
        self._upstream.clear()

    def step(self) -> None:
        """Wait for the next packet or the next due time, and handle whatever is there."""
        wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
        for key, _ in self._selector.select(wait_s):
            self._receive(key.fileobj, key.data)  # type: ignore[arg-type]
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, out, data, address = heapq.heappop(self._due)
            try:
                out.sendto(data, address)
                self.delivered += 1
            except OSError:
                pass  # nobody listens, the buffer is full, or rebound meanwhile: a lost datagram

    def _receive(self, source: socket.socket, client: tuple[str, int] | None) -> None:
        for _ in range(64):  # then let due packets leave
            try:
                data, address = source.recvfrom(65536)
            except OSError:  # drained, or an ICMP error of an earlier send
                return
            self.received += 1
            now = time.monotonic()
            if client is None:
                times, out, to = self._up.delivery_times(len(data), now), self._upstream_of(address), self._target
            else:
                times, out, to = self._down.delivery_times(len(data), now), self._front, client
            for at in times:
                heapq.heappush(self._due, (at, next(self._order), out, data, to))

    def _upstream_of(self, client: tuple[str, int]) -> socket.socket:
        made = self._upstream.get(client)
        if made is None:
            made = self._upstream[client] = _udp_socket(self._target[0])
            self._selector.register(made, selectors.EVENT_READ, client)
        return made


def parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=parse_address, required=True)
    parser.add_argument("--target", type=parse_address, required=True)
    parser.add_argument("--seed", type=int, default=1)
    for field, default in Weather().__dict__.items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=float, default=default)
    arguments = vars(parser.parse_args())
    listen, target, seed = (arguments.pop(name) for name in ("listen", "target", "seed"))
    relay = Relay(listen, target, Weather(**arguments), seed)
    wanted = {"stop": False}
    signal.signal(signal.SIGHUP, lambda *_: relay.rebind())  # now: a flag would wait for the next packet
    signal.signal(signal.SIGTERM, lambda *_: wanted.update(stop=True))
    print(f"ready on port {relay.port}", flush=True)
    while not wanted["stop"]:
        relay.step()
    print(f"received {relay.received} delivered {relay.delivered}", flush=True)


if __name__ == "__main__":
    main()
