"""Our daemon and the stock OpenVPN server, alternately in one run, under a flood of forged first packets (``flood.c``).

Prints when a genuine client that starts during the flood is in, what pings of a tunnel that was there before are lost,
and what the flood costs the server. Needs root. bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict

from helpers.flood import Siege, besiege
from helpers.lab import CLIENT_LEGS, Lab, OpenVpnClient
from helpers.tunnel import write_profile
from vs_openvpn import SERVERS, cvpnd, machine, openvpn

KINDS = ("reset", "echo", "garbage")


def visit(lab: Lab, name: str, kind: str, per_s: int, seconds: float) -> Siege:
    """One flood against one server."""

    def start(who: str, client: int, *options: str) -> OpenVpnClient:
        profile = write_profile(lab.directory, CLIENT_LEGS[client].gateway, name=who)
        return lab.openvpn(profile, "--disable-dco", *options, client=lab.clients[client], verb=3)

    with (cvpnd if name == "cvpnd" else openvpn)(lab, "udp") as server:
        at_work = start("alice", 1).wait_connected()
        clients = [at_work]
        try:
            return besiege(
                lab,
                server,
                kind=kind,
                per_s=per_s,
                seconds=seconds,
                at_work=at_work,
                genuine=lambda: clients.append(start("bob", 0)) or clients[-1],
            )
        finally:
            for client in clients:
                client.kill()


def run(kind: str, per_s: int, seconds: float, rounds: int) -> dict[str, list[Siege]]:
    results: dict[str, list[Siege]] = {name: [] for name in SERVERS}
    with Lab(clients=2) as lab:
        for number in range(rounds):
            for name in SERVERS if number % 2 == 0 else reversed(SERVERS):
                siege = visit(lab, name, kind, per_s, seconds)
                print(f"round {number + 1}/{rounds}  {name:8} {siege}", file=sys.stderr)
                results[name].append(siege)
    return results


def table(results: dict[str, list[Siege]]) -> str:
    def cells(name: str) -> Sequence[str]:
        sieges = results[name]
        waits = [siege.connected_after_s for siege in sieges]
        sent, lost = (sum(getattr(siege.ping, what) for siege in sieges) for what in ("sent", "lost"))
        return (
            f"{statistics.median(siege.packets_per_s for siege in sieges):.0f}",
            "never" if None in waits else f"{max(wait for wait in waits if wait is not None):.2f}",
            f"{100 * lost / sent:.2f}",
            f"{100 * statistics.median(siege.cpu_share for siege in sieges):.0f}",
            f"{max(siege.grown_bytes for siege in sieges) / (1 << 20):.1f}",
        )

    titles = (
        "forged packets a second",
        "genuine client in after, s (worst)",
        "pings lost, %",
        "server, % of a core",
        "server grew, MiB (worst)",
    )
    rows = zip(titles, *(cells(name) for name in SERVERS), strict=True)
    return "\n".join(f"{title:38}{ours:>10}{theirs:>10}" for title, ours, theirs in [("", "cvpnd", "OpenVPN"), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="reset")
    parser.add_argument("--rate", type=int, default=100_000, help="packets a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="everything measured, for machines")
    arguments = parser.parse_args()

    results = run(arguments.kind, arguments.rate, arguments.seconds, arguments.rounds)
    settings = {key: value for key, value in vars(arguments).items() if key != "json"}
    if arguments.json:
        measured = {name: [asdict(siege) for siege in sieges] for name, sieges in results.items()}
        print(json.dumps({"machine": machine(), **settings, "sieges": measured}, indent=2))
        return
    for key, value in (machine() | settings).items():
        print(f"{key:10} {value}")
    print()
    print(table(results))


if __name__ == "__main__":
    main()
