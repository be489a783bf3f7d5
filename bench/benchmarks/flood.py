"""What a flood of forged first packets (``bench/flood.c``) does to a server, its tunnels and whoever wants in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from helpers.flood import Siege, besiege
from helpers.lab import CLIENT_LEGS, Lab, OpenVpnClient
from helpers.tunnel import write_profile

from benchmarks import servers
from benchmarks.experiment import Experiment, Metric, Sample, Settings, in_turn

PER_S = 100_000
KINDS = {
    "reset": "Resets, as a client begins",
    "echo": "Packets that should bring our cookie back, with a wrong one",
    "garbage": "Garbage",
}


def visit(lab: Lab, name: str, kind: str, seconds: float) -> Siege:
    def start(who: str, client: int) -> OpenVpnClient:
        profile = write_profile(lab.directory, CLIENT_LEGS[client].gateway, name=who)
        return lab.openvpn(profile, "--disable-dco", client=lab.clients[client], verb=3)

    with servers.running(name, lab) as server:
        at_work = start("alice", 1).wait_connected()
        clients = [at_work]
        try:
            return besiege(
                lab,
                server,
                kind=kind,
                per_s=PER_S,
                seconds=seconds,
                at_work=at_work,
                genuine=lambda: clients.append(start("bob", 0)) or clients[-1],
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


def measure(kind: str, settings: Settings, number: int) -> Iterator[Sample]:
    with Lab(clients=2) as lab:
        for name in in_turn(settings, number):
            yield Sample("Flood", name, values_of(visit(lab, name, kind, settings.flood_s)))


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
        f"flood-{kind}",
        f"{title}: {PER_S:,} forged packets a second",
        METRICS,
        partial(measure, kind),
        lambda settings: len(settings.servers) * (settings.flood_s + 5),
        by_default=kind == "reset",
    )
    for kind, title in KINDS.items()
)
