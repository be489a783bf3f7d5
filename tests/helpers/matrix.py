"""Every wrapping with every cipher, transport and address family: a stock client in each cell (``make matrix``).

One gateway holds an endpoint for each protection of the control channel; the clients take turns in a few namespaces.
In each cell a client connects with what the cell names and nothing else, pings over IPv4 and IPv6, moves a file both
ways over both, and leaves; at the end the gateway's connection log has to tell the same story.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from itertools import product

from helpers import certs
from helpers import wire_vectors as v
from helpers.lab import NEW_KEY, TARGET_LEG, GatewayProcess, Lab, LabError, OpenVpnClient, wait_until
from helpers.netns import Namespace
from helpers.wrappings import Case, tls_auth, tls_crypt, tls_crypt_v2

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings
from cvpnd.config import load
from cvpnd.profile import ProfileKind, render_profile
from cvpnd.wire.wrap.key_files import serialise_static_key, serialise_v2_server_key
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import UNPROTECTED

CIPHERS = ("AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305")
TRANSPORTS = ("udp", "tcp")
OUTSIDE = (4, 6)
DIGESTS = ("SHA1", "SHA256", "SHA512")

FIRST_PORT = 2000
ODD_NAME = "Anna O'Müller"
SLOTS = 8
"""Clients at a time. Most of a cell is waiting, for TLS and above all for a leaving client's goodbye (1 to 2 s)."""
FILE_BYTES = 200_000

TLS_CRYPT = 'tls_crypt = { key = "shared.key" }'
TLS_AUTH = 'tls_auth = {{ key = "shared.key", direction = {}, digest = "{}" }}'
TLS_CRYPT_V2 = 'tls_crypt_v2 = { server_key = "v2.key" }'
SHARED_SHA256 = TLS_AUTH.format(0, "SHA256")

WRAPPINGS: dict[str, tuple[str, Case]] = {
    "plain": ("", Case(UNPROTECTED, PLAIN)),
    **{f"tls-auth {d}": (TLS_AUTH.format(0, d), tls_auth(0, d)) for d in DIGESTS},
    **{f"tls-auth {d}, no direction": (TLS_AUTH.format('"none"', d), tls_auth(None, d)) for d in DIGESTS},
    "tls-crypt": (TLS_CRYPT, tls_crypt()),
    "tls-crypt-v2": (TLS_CRYPT_V2, tls_crypt_v2()),
    "tls-crypt-v2 beside tls-crypt": (f"{TLS_CRYPT_V2}, {TLS_CRYPT}", tls_crypt_v2()),
    "tls-crypt beside tls-crypt-v2": (f"{TLS_CRYPT_V2}, {TLS_CRYPT}", tls_crypt()),
    "tls-crypt-v2 beside tls-auth": (f"{TLS_CRYPT_V2}, {SHARED_SHA256}", tls_crypt_v2()),
    "tls-auth beside tls-crypt-v2": (f"{TLS_CRYPT_V2}, {SHARED_SHA256}", tls_auth(0, "SHA256")),
    "tls-crypt-v2 beside plain": (f"{TLS_CRYPT_V2}, plain = true", tls_crypt_v2()),
    "plain beside tls-crypt-v2": (f"{TLS_CRYPT_V2}, plain = true", Case(UNPROTECTED, PLAIN)),
}
"""What the endpoint says in its control_protection, and what the client has."""

PROTECTIONS = tuple(dict.fromkeys(toml for toml, _ in WRAPPINGS.values()))

ENDPOINT = """
[[endpoint]]
name = "e{n}"
client_cidr = "10.{cidr}.0.0/22"
client_cidr_v6 = "fd00:{cidr}::/64"
listen = ["udp://0.0.0.0:{port}", "udp://[::]:{port}", "tcp://0.0.0.0:{port}", "tcp://[::]:{port}"]
server_certificate = {{ certificate = "server.crt", private_key = "server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "ca.crt" }}]
control_protection = {{ {protection} }}
renegotiate_s = {renegotiate_s}
split_tunnel = true
associate = ["subnet-a"]
authorize = [{{ network = "10.20.0.0/16", all_groups = true }}, {{ network = "fd00:20::/48", all_groups = true }}]
"""


@dataclass(frozen=True)
class Cell:
    wrapping: str
    cipher: str
    transport: str
    outside: int

    def __str__(self) -> str:
        return f"{self.wrapping}, {self.cipher}, {self.transport} over IPv{self.outside}"

    @property
    def endpoint(self) -> int:
        return PROTECTIONS.index(WRAPPINGS[self.wrapping][0])


@dataclass(frozen=True)
class Outcome:
    cell: Cell
    connect_ms: int | None = None
    error: str = ""


def all_cells(wrappings: Iterable[str] = WRAPPINGS) -> list[Cell]:
    return [Cell(*cell) for cell in product(wrappings, CIPHERS, TRANSPORTS, OUTSIDE)]


class Matrix:
    """A started gateway for all cells in a ``Lab`` of at least one client."""

    def __init__(self, lab: Lab, renegotiate_s: int = 3600, more: str = "") -> None:
        """``more``: of the configuration, such as endpoints for something else."""
        self.lab = lab
        directory = lab.directory / "gateway"
        directory.mkdir()
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        (directory / "shared.key").write_bytes(serialise_static_key(v.V0_STATIC_KEY))
        (directory / "v2.key").write_bytes(serialise_v2_server_key(v.V3_SERVER_KEY))
        endpoints = (
            ENDPOINT.format(n=n, cidr=100 + n, port=FIRST_PORT + n, protection=protection, renegotiate_s=renegotiate_s)
            for n, protection in enumerate(PROTECTIONS)
        )
        self.gateway: GatewayProcess = lab.gateway_process(lab.networks_toml(ipv6=True) + "".join(endpoints) + more)
        lab.start_servers()

    def play(self, cells: Sequence[Cell]) -> list[Outcome]:
        """All of them, and what the gateway says of them."""
        outcomes = self._side_by_side(cells, self._connect_and_leave)
        sessions = self._sessions(outcomes)
        return [self._confirmed(outcome, sessions) for outcome in outcomes]

    def play_longer(self, cells: Sequence[Cell]) -> list[Outcome]:
        """In each cell two renegotiations under a running ping, and a reconnection. Needs a short ``renegotiate_s``."""
        return self._side_by_side(cells, self._stay_and_come_back)

    def _side_by_side(self, cells: Sequence[Cell], story: Callable[[OpenVpnClient, Namespace], None]) -> list[Outcome]:
        """As many at a time as the lab has clients, in any order."""
        places: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(len(self.lab.clients)):
            places.put(number)

        def one(cell: Cell) -> Outcome:
            place = places.get()
            try:
                return self._play(cell, place, story)
            finally:
                places.put(place)

        with ThreadPoolExecutor(len(self.lab.clients)) as pool:
            return list(pool.map(one, cells))

    def _play(self, cell: Cell, place: int, story: Callable[[OpenVpnClient, Namespace], None]) -> Outcome:
        begun = time.monotonic()
        client = self.start_client(cell, place)
        try:
            client.wait_connected(30)
            connect_ms = round((time.monotonic() - begun) * 1000)
            used = client.wait_for(NEW_KEY)[1]
            if used != cell.cipher:
                raise LabError(f"uses {used}")
            story(client, self.lab.clients[place])
        except (LabError, OSError) as error:
            return Outcome(cell, error=f"{error}\n-- the whole log: --\n{client.log()}")
        finally:
            client.kill()
        return Outcome(cell, connect_ms)

    def _connect_and_leave(self, client: OpenVpnClient, place: Namespace) -> None:
        self.check_traffic(place)
        client.stop()

    def _stay_and_come_back(self, client: OpenVpnClient, place: Namespace) -> None:
        pings = place.start_ping(TARGET_LEG.host, 0.1)
        wait_until(lambda: len(re.findall(NEW_KEY, client.log())) >= 3, 30, "two renegotiations")
        statistics = pings.finish()
        if statistics.lost > 1:
            raise LabError(f"{statistics.lost} of {statistics.sent} pings were lost over two renegotiations")
        client.process.signal(signal.SIGUSR1)
        client.wait_connected(30, times=2)
        self.check_traffic(place)
        client.stop()

    def start_client(self, cell: Cell, place: int, *options: str) -> OpenVpnClient:
        _, case = WRAPPINGS[cell.wrapping]
        directory = self.lab.directory / f"cell-{place}-{time.monotonic_ns()}"
        directory.mkdir()
        certs.client().write(directory, "client")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        host = self.lab.gateway_address_of(place, cell.outside)
        profile = directory / "client.ovpn"
        profile.write_text(
            f"client\ndev tun\nproto {cell.transport}{cell.outside}\nremote {host} {FIRST_PORT + cell.endpoint}\n"
            "nobind\nca ca.crt\ncert client.crt\nkey client.key\nremote-cert-tls server\nconnect-retry 1 1\n"
            f"data-ciphers {cell.cipher}\n"
        )
        more = [*case.real_client_options(directory), *options]
        return self.lab.openvpn(profile, *more, client=self.lab.clients[place])

    def written_profile(self, cell: Cell, host: str, kind: ProfileKind) -> str:
        """As the gateway writes it, for somebody whose name says something of files and quotes, with one transport."""
        endpoint = load(self.gateway.config_path).endpoints[cell.endpoint]
        listen = tuple(each for each in endpoint.listen if each.transport == cell.transport)
        endpoint = endpoint.model_copy(update={"remote": host, "listen": listen})
        _, case = WRAPPINGS[cell.wrapping]
        client = certs.client(ODD_NAME)
        return render_profile(
            endpoint,
            CertificateTrust.load(CertificateSettings.of_endpoint(endpoint)),
            ODD_NAME,
            certificate=client.certificate_pem,
            private_key=client.private_key_pem,
            client_key=dict(case.client_files).get("tls-crypt-v2"),
            kind=kind,
        )

    def check_traffic(self, client: Namespace) -> None:
        """Raises LabError."""
        for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
            # until two are answered: ping's own patience after the last one is two round trips, short beside others
            client.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "5", host)
            self.lab.download(client, host, FILE_BYTES, 20)
            self.lab.upload(client, host, FILE_BYTES, 20)

    # -- what the gateway has seen ---------------------------------------------------------------------------------

    def _sessions(self, outcomes: Sequence[Outcome]) -> Counter[tuple[str, ...]]:
        """How many sessions there were of each kind that a cell can ask for, and that ended as they should."""
        expected = sum(not outcome.error for outcome in outcomes)

        def ended() -> list[dict[str, str]]:
            entries = self.gateway.connection_log()
            return [entry for entry in entries if entry["connection-log-type"] == "connection-reset"]

        wait_until(lambda: len(ended()) >= expected, 20, "the end of each session in the connection log")
        return Counter(
            (
                entry["endpoint-name"],
                entry["cipher"],
                entry["transport-protocol"],
                str(ip_address(entry["device-ip"]).version),
                entry["connection-end-reason"],
            )
            for entry in ended()
        )

    @staticmethod
    def _confirmed(outcome: Outcome, sessions: Counter[tuple[str, ...]]) -> Outcome:
        if outcome.error:
            return outcome
        cell = outcome.cell
        seen = (f"e{cell.endpoint}", cell.cipher, cell.transport, str(cell.outside))
        reasons = {key[4]: count for key, count in sessions.items() if key[:4] == seen}
        wanted = {"udp": {"client-exit"}, "tcp": {"client-exit", "tcp-closed"}}[cell.transport]
        if not reasons or not set(reasons) <= wanted:
            return Outcome(cell, outcome.connect_ms, f"the gateway's log says of it: {reasons or 'nothing'}")
        return outcome


# -- output ------------------------------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each wrapping; a number is the milliseconds until the client was connected."""
    found = {outcome.cell: outcome for outcome in outcomes}
    columns = [column for column in product(TRANSPORTS, OUTSIDE, CIPHERS)]
    rows = list(dict.fromkeys(outcome.cell.wrapping for outcome in outcomes))
    width = max(map(len, rows)) + 2
    short = {"AES-128-GCM": "128", "AES-256-GCM": "256", "CHACHA20-POLY1305": "chacha"}
    lines = [
        " " * width + "".join(f"{f'{t} IPv{o}':24}" for t in TRANSPORTS for o in OUTSIDE).rstrip(),
        " " * width + "".join(f"{short[cipher]:8}" for *_, cipher in columns).rstrip(),
    ]
    for wrapping in rows:
        line = f"{wrapping:{width}}"
        for transport, outside, cipher in columns:
            outcome = found.get(Cell(wrapping, cipher, transport, outside))
            line += f"{'' if outcome is None else 'FAILED' if outcome.error else outcome.connect_ms:<8}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{outcome.cell}: {outcome.error}" for outcome in outcomes if outcome.error]


def main() -> int:
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of the table")
    options = parser.parse_args()
    begun = time.monotonic()
    with Lab(clients=SLOTS) as lab:
        outcomes = Matrix(lab).play(all_cells())
    failed = failures(outcomes)
    if options.json:
        print(json.dumps([{**asdict(o.cell), "connect_ms": o.connect_ms, "error": o.error} for o in outcomes]))
    else:
        print(table(outcomes))
        print(f"{len(outcomes)} cells in {time.monotonic() - begun:.0f} s, {len(failed)} failed", *failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
