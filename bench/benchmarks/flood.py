"""What a flood of forged first packets (``bench/flood.c``) does to a server, its tunnels and whoever wants in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

from helpers.flood import FORGED_SOURCE, Siege, address_of, besiege
from helpers.lab import CLIENT_LEGS, Lab, OpenVpnClient
from helpers.tunnel import write_profile

from benchmarks import servers
from benchmarks.experiment import Experiment, Metric, Sample, Settings, in_turn

PER_S = 100_000


class Flood(NamedTuple):
    title: str
    kind: str
    """Of ``bench/flood.c``."""
    source: Literal["nobody", "newcomer", "session"] = "nobody"
    """Whose address is forged: nobody's, that of the client that wants in, or that of the tunnel with its port."""


FLOODS = {
    "reset": Flood("Resets, as a client begins", "reset"),
    "own-address": Flood("Resets in the name of the client that wants in", "reset", "newcomer"),
    "session": Flood("Resets from the address and port of the tunnel", "reset", "session"),
    "echo": Flood("Packets that should bring our cookie back, with a wrong one", "echo"),
    "control": Flood("Control packets from the address and port of the tunnel", "control", "session"),
    "data": Flood("Data of peers that nobody is", "data"),
    "peer": Flood("Data of live peers that does not authenticate", "peer"),
    "garbage": Flood("Garbage", "garbage"),
}


def visit(lab: Lab, name: str, sent: Flood, seconds: float) -> Siege:
    def start(who: str, client: int) -> OpenVpnClient:
        profile = write_profile(lab.directory, CLIENT_LEGS[client].gateway, name=who)
        return lab.openvpn(profile, "--disable-dco", client=lab.clients[client], verb=3)

    with servers.running(name, lab) as server:
        at_work = start("alice", 1).wait_connected()
        clients = [at_work]
        addresses = {"newcomer": address_of(lab.client), "session": address_of(at_work.namespace)}
        try:
            return besiege(
                lab,
                server,
                kind=sent.kind,
                per_s=PER_S,
                seconds=seconds,
                at_work=at_work,
                genuine=lambda: clients.append(start("bob", 0)) or clients[-1],
                source=addresses.get(sent.source, FORGED_SOURCE),
                port=at_work.port if sent.source == "session" else None,
            )
        finally:
            for client in clients:
                client.kill()


def values_of(siege: Siege) -> dict[str, float]:
    values = {
        "packets_per_s": siege.packets_per_s,
        "got_in": 100.0 * (siege.connected_after_s is not None),
        "pings_lost": 100 * siege.ping.lost / siege.ping.sent,
        "cpu_share": 100 * siege.cpu_share,
        "grown_mib": siege.grown_bytes / (1 << 20),
    }
    if siege.connected_after_s is not None:
        values["connected_after_s"] = siege.connected_after_s
    return values


def measure(sent: Flood, settings: Settings, number: int) -> Iterator[Sample]:
    with Lab(clients=2) as lab:
        for name in in_turn(settings, number):
            yield Sample("Flood", name, values_of(visit(lab, name, sent, settings.flood_s)))


METRICS = (
    Metric("packets_per_s", "forged packets a second", 0),
    Metric("got_in", "genuine client gets in, %", 0, more_is_better=True),
    Metric("connected_after_s", "if so, after s"),
    Metric("pings_lost", "pings lost, %"),
    Metric("cpu_share", "server, % of a core", 0),
    Metric("grown_mib", "server grew, MiB", 1),
)

EXPERIMENTS = tuple(
    Experiment(
        f"flood-{name}",
        f"{sent.title}: {PER_S:,} forged packets a second",
        METRICS,
        partial(measure, sent),
        lambda settings: len(settings.servers) * (settings.flood_s + 5),
        by_default=name == "reset",
    )
    for name, sent in FLOODS.items()
)
