"""Our daemon and the stock OpenVPN server, alternately in one run, behind the same stock client.

Prints Mbit/s and server CPU seconds per GB of one TCP stream, medians over the rounds, and the ratio. Needs root.
bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from helpers.lab import TARGET_LEG, Lab, LabError
from helpers.netns import Process
from helpers.tunnel import write_pki, write_profile

Transport = Literal["udp", "tcp"]
SERVERS = ("cvpnd", "openvpn")
DIRECTIONS = ("up", "down")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    server: str
    direction: str
    mbit_per_s: float
    cpu_s_per_gb: float
    """User and system time of the server process, all threads, per 10^9 bytes that arrived."""


def cpu_seconds(pid: int) -> float:
    """utime + stime of a process (proc(5)): all its threads, also those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


# -- the two servers -------------------------------------------------------------------------------------------


@contextmanager
def cvpnd(lab: Lab, transport: Transport) -> Iterator[Process]:
    write_pki(lab.directory / "gateway")
    gateway = lab.gateway_process(
        lab.networks_toml()
        + f"""
[[endpoint]]
name = "bench"
client_cidr = "10.100.0.0/22"
listen = ["{transport}://0.0.0.0:1194"]
server_certificate = {{ certificate = "pki/server.crt", private_key = "pki/server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "pki/ca.crt" }}]
split_tunnel = true
associate = ["subnet-a"]
authorize = [{{ network = "10.20.0.0/16", all_groups = true }}]
"""
    )
    try:
        yield gateway.running
    finally:
        gateway.stop()


@contextmanager
def openvpn(lab: Lab, transport: Transport) -> Iterator[Process]:
    """OpenVPN as its manual would have it: user space, AES-256-GCM, SNAT by nftables, defaults otherwise."""
    directory = lab.directory / "openvpn"
    pki = write_pki(directory)
    configuration = directory / "server.conf"
    configuration.write_text(
        f"""dev tun
topology subnet
server 10.101.0.0 255.255.252.0
proto {"udp" if transport == "udp" else "tcp-server"}
port 1194
ca {pki}/ca.crt
cert {pki}/server.crt
key {pki}/server.key
dh none
data-ciphers AES-256-GCM
keepalive 10 60
disable-dco
push "route 10.20.0.0 255.255.0.0"
"""
    )
    snat = f"type nat hook postrouting priority srcnat; oifname {TARGET_LEG.interface} masquerade;"
    lab.gateway.run("nft", f"table ip bench {{ chain postrouting {{ {snat} }}; }}")
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    server = lab.gateway.start("openvpn", "--config", configuration, label="openvpn-server")
    try:
        server.wait_for("Initialization Sequence Completed")
        yield server
    finally:
        server.stop()
        lab.gateway.sysctl("net/ipv4/ip_forward", 0)
        lab.gateway.run("nft", "delete table ip bench")


# -- one visit -------------------------------------------------------------------------------------------------


def measure(lab: Lab, name: str, server: Process, transport: Transport, seconds: float) -> Iterator[Measurement]:
    profile = write_profile(lab.directory, lab.gateway_address, transport=transport)
    client = lab.openvpn(profile, "--disable-dco", verb=3).wait_connected()
    route = lab.client.run("ip", "route", "get", TARGET_LEG.host).stdout
    if f"dev {client.interface} " not in route:
        raise LabError(f"the traffic would not go through the tunnel: {route}")
    try:
        for direction in DIRECTIONS:
            before = cpu_seconds(server.pid)
            report = lab.iperf3(lab.client, TARGET_LEG.host, *(["-R"] if direction == "down" else []), seconds=seconds)
            used = cpu_seconds(server.pid) - before
            received = report["end"]["sum_received"]
            yield Measurement(name, direction, received["bits_per_second"] / 1e6, used / (received["bytes"] / 1e9))
    finally:
        client.stop()


def run(transport: Transport, rounds: int, seconds: float) -> list[Measurement]:
    results = []
    with Lab() as lab:
        for number in range(rounds):
            # who comes first changes, so that a machine that slows down is fair to both
            for name in SERVERS if number % 2 == 0 else reversed(SERVERS):
                start = cvpnd if name == "cvpnd" else openvpn
                with start(lab, transport) as server:
                    for result in measure(lab, name, server, transport, seconds):
                        print(
                            f"round {number + 1}/{rounds}  {name:8} {result.direction:5}"
                            f" {result.mbit_per_s:7.0f} Mbit/s {result.cpu_s_per_gb:7.2f} CPU s/GB",
                            file=sys.stderr,
                        )
                        results.append(result)
    return results


# -- the report ------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    cpus = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    release = platform.freedesktop_os_release()
    return {
        "day": date.today().isoformat(),
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", release["NAME"]),
        "python": platform.python_version(),
        "openvpn": _first_line("openvpn", "--version").partition(" [")[0],
        "openssl": _first_line("openssl", "version").partition(" (")[0],
        "iperf3": _first_line("iperf3", "--version"),
    }


def _first_line(*command: str) -> str:
    # openvpn --version exits with 1
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]


def medians(results: list[Measurement], what: str) -> dict[str, dict[str, float]]:
    """direction -> server -> median."""
    return {
        direction: {
            server: statistics.median(
                getattr(result, what) for result in results if (result.server, result.direction) == (server, direction)
            )
            for server in SERVERS
        }
        for direction in DIRECTIONS
    }


def table(results: list[Measurement]) -> str:
    lines = [f"{'':24}{'cvpnd':>10}{'OpenVPN':>10}{'ratio':>8}"]
    for title, what in (("Mbit/s", "mbit_per_s"), ("server CPU s per GB", "cpu_s_per_gb")):
        for direction, values in medians(results, what).items():
            ours, theirs = values["cvpnd"], values["openvpn"]
            lines.append(f"{title + ', ' + direction:24}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", choices=("udp", "tcp"), default="udp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="length of one iperf3 run")
    parser.add_argument("--json", action="store_true", help="everything measured, for machines")
    arguments = parser.parse_args()

    results = run(arguments.transport, arguments.rounds, arguments.seconds)
    settings = {"transport": arguments.transport, "rounds": arguments.rounds, "seconds": arguments.seconds}
    if arguments.json:
        report = {
            "machine": machine(),
            **settings,
            "medians": {what: medians(results, what) for what in ("mbit_per_s", "cpu_s_per_gb")},
            "measurements": [asdict(result) for result in results],
        }
        print(json.dumps(report, indent=2))
        return
    for key, value in (machine() | settings).items():
        print(f"{key:10} {value}")
    print()
    print(table(results))


if __name__ == "__main__":
    main()
