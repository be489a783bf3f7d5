"""The network that end-to-end tests play in, on one machine and invisible outside it.

    client1 ──veth── wan1 ┐                   ┌ lan ──veth── target   10.20.0.10   what clients may reach
    client2 ──veth── wan2 ┤  gateway (cvpnd)  ┤
    client3 ──veth── wan3 ┘                   └ lan2 ─veth── other    10.30.0.10   what they may not

Nothing is forwarded by the gateway to begin with: whatever a test sees pass, cvpnd switched on. `Lab` removes
everything at its end, also what an earlier, killed run left behind.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any

from helpers import canaries, netns, networks, other_releases
from helpers.gateway_process import GatewayProcess
from helpers.netns import LabError, Namespace, Process
from helpers.relay import Weather
from helpers.target_server import content, sha256_of

HELPERS = Path(__file__).resolve().parent
REPOSITORY = HELPERS.parent.parent

HTTP_PORT = 8000
ECHO_PORT = 7
IPERF_PORT = 5201


@dataclass(frozen=True)
class Leg:
    """One veth: an interface of the gateway, and the namespace at its other end."""

    interface: str
    namespace: str
    network: str
    """Always a /24: the gateway is .1."""
    network_v6: str
    """Always a /64: the gateway is ::1."""
    host_number: int = 2

    def _address(self, network: str, number: int) -> str:
        return str(ip_network(network)[number])

    @property
    def gateway(self) -> str:
        return self._address(self.network, 1)

    @property
    def host(self) -> str:
        return self._address(self.network, self.host_number)

    @property
    def gateway_v6(self) -> str:
        return self._address(self.network_v6, 1)

    @property
    def host_v6(self) -> str:
        return self._address(self.network_v6, self.host_number)


# the three documentation networks of RFC 5737 stand for the Internet
CLIENT_LEGS = (
    Leg("wan1", "client1", "192.0.2.0/24", "2001:db8:1::/64"),
    Leg("wan2", "client2", "198.51.100.0/24", "2001:db8:2::/64"),
    Leg("wan3", "client3", "203.0.113.0/24", "2001:db8:3::/64"),
    # and where more are needed, a part of the network for benchmarks (RFC 2544)
    *(Leg(f"wan{n}", f"client{n}", f"198.19.{n}.0/24", f"2001:db8:{n}::/64") for n in range(4, 10)),
)
TARGET_LEG = Leg("lan", "target", "10.20.0.0/24", "fd00:20::/64", 10)
OTHER_LEG = Leg("lan2", "other", "10.30.0.0/24", "fd00:30::/64", 10)


class Lab:
    """``with Lab() as lab:`` gives the namespaces ``gateway``, ``target``, ``other`` and ``client(s)``."""

    def __init__(self, clients: int = 1) -> None:
        self._client_legs = CLIENT_LEGS[:clients]
        self._namespaces: dict[str, Namespace] = {}
        self._prefix = ""
        self.directory = Path()
        """Logs and configuration of this lab; short enough for unix sockets."""

    def __enter__(self) -> Lab:
        missing = [tool for tool in ("ip", "setpriv", "ping") if not shutil.which(tool)]
        if missing or os.geteuid() != 0:
            raise LabError(f"the network lab needs root and {', '.join(missing) or 'its tools'}")
        netns.remove_leftovers()
        self._prefix = netns.unique_prefix()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self._prefix}-"))
        (self.directory / "witness").mkdir()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        legs = (*self._client_legs, TARGET_LEG, OTHER_LEG)
        for name in ("gateway", *(leg.namespace for leg in legs)):
            self._namespaces[name] = Namespace(f"{self._prefix}-{name}", self.directory)
        gateway = self.gateway
        for namespace in self._namespaces.values():
            namespace.sysctl("net/ipv6/conf/default/accept_dad", 0)  # addresses are usable at once
        for family in ("ipv4", "ipv6"):
            gateway.sysctl(f"net/{family}/conf/all/forwarding", 0)
        for name in ("all", "default"):
            gateway.sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
        # Both ends of a veth with one index are taken for a device without a peer, and the kernel then
        # takes a second to notice the carrier, until which there is no IPv6
        for index, leg in enumerate(legs, 100):
            end = self._namespaces[leg.namespace]
            gateway.ip_batch(
                f"link add {leg.interface} index {index} type veth peer name eth0 netns {end.name}",
                f"address add {leg.gateway}/24 dev {leg.interface}",
                f"address add {leg.gateway_v6}/64 dev {leg.interface} nodad",
                f"link set {leg.interface} up",
            )
            end.ip_batch(
                f"address add {leg.host}/24 dev eth0",
                f"address add {leg.host_v6}/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {leg.gateway}",
                f"route add ::/0 via {leg.gateway_v6}",
            )

    def close(self) -> None:
        for namespace in self._namespaces.values():
            namespace.close()
        self._namespaces.clear()
        if self.directory != Path():
            try:
                canaries.look_below(self.directory)
            finally:
                shutil.rmtree(self.directory, ignore_errors=True)

    # -- the machines --------------------------------------------------------------------------------------

    @property
    def gateway(self) -> Namespace:
        return self._namespaces["gateway"]

    @property
    def target(self) -> Namespace:
        return self._namespaces["target"]

    @property
    def other(self) -> Namespace:
        return self._namespaces["other"]

    @property
    def clients(self) -> list[Namespace]:
        return [self._namespaces[leg.namespace] for leg in self._client_legs]

    @property
    def client(self) -> Namespace:
        return self.clients[0]

    @property
    def gateway_address(self) -> str:
        """Where the first client reaches the gateway, outside the tunnel."""
        return CLIENT_LEGS[0].gateway

    @property
    def gateway_address_v6(self) -> str:
        return CLIENT_LEGS[0].gateway_v6

    def gateway_address_of(self, client: int, family: int) -> str:
        """Where the client with this index reaches the gateway over IPv4 or IPv6 (4 or 6)."""
        leg = self._client_legs[client]
        return leg.gateway if family == 4 else leg.gateway_v6

    def link_local_of(self, namespace: Namespace, interface: str) -> str:
        """The address that an interface has given itself, without a zone."""
        shown = json.loads(namespace.run("ip", "-6", "-json", "address", "show", "dev", interface).stdout)
        return next(a["local"] for a in shown[0]["addr_info"] if ip_address(a["local"]).is_link_local)

    # -- servers behind the gateway ------------------------------------------------------------------------

    def start_servers(self, namespace: Namespace | None = None) -> Process:
        """HTTP on port 8000 and echo on port 7 (TCP and UDP), in the target network unless told otherwise."""
        script = HELPERS / "target_server.py"
        place = namespace or self.target
        server = place.start(
            sys.executable, script, "--http", str(HTTP_PORT), "--echo", str(ECHO_PORT), label="servers"
        )
        server.wait_for("^ready")
        return server

    def download(self, client: Namespace, host: str, length: int, timeout_s: float = 60) -> float:
        """Fetch ``length`` bytes from the HTTP server and compare the SHA-256. Returns the seconds it took."""
        connection, digest, begun = _http(client, host, timeout_s), hashlib.sha256(), time.monotonic()
        connection.request("GET", f"/bytes/{length}")
        response = connection.getresponse()
        while data := response.read(1 << 18):
            digest.update(data)
        connection.close()
        if digest.hexdigest() != sha256_of(length):
            raise LabError(f"download of {length} bytes from {host} arrived changed")
        return time.monotonic() - begun

    def upload(self, client: Namespace, host: str, length: int, timeout_s: float = 60) -> float:
        """Send ``length`` bytes to the HTTP server and compare its SHA-256 with ours. Returns the seconds it took."""
        connection, begun = _http(client, host, timeout_s), time.monotonic()
        connection.request("PUT", "/", body=content(length), headers={"Content-Length": str(length)})
        answer = connection.getresponse().read().decode()
        connection.close()
        if answer != sha256_of(length):
            raise LabError(f"upload of {length} bytes to {host} arrived changed")
        return time.monotonic() - begun

    def get(self, client: Namespace, host: str, path: str = "/", timeout_s: float = 5) -> str:
        """One small HTTP answer; OSError if nothing answers."""
        connection = _http(client, host, timeout_s)
        connection.request("GET", path)
        answer = connection.getresponse().read().decode()
        connection.close()
        return answer

    def iperf3(
        self,
        client: Namespace,
        host: str = TARGET_LEG.host,
        *options: str,
        seconds: float = 2,
        server: Namespace | None = None,
    ) -> dict[str, Any]:
        """One run against a server of its own in the target network; iperf3's JSON (``["end"]["sum_received"]…``)."""
        listening = (server or self.target).start("iperf3", "-s", "-1", "-p", str(IPERF_PORT), "--forceflush")
        listening.wait_for("listening")
        try:
            run = ["iperf3", "-c", host, "-p", str(IPERF_PORT), "-t", str(seconds), "-J", *options]
            done = client.run(*run, timeout_s=seconds + 30, check=False)
            report = netns.json_of(done)
            if "error" in report:
                raise LabError(f"iperf3 to {host}: {report['error']}")
            return dict(report)
        finally:
            listening.kill()

    def start_iperf3(
        self, client: Namespace, port: int, *options: str, seconds: float, host: str = TARGET_LEG.host
    ) -> Iperf3:
        """The same in the background, several at once on ports of their own."""
        server = self.target.start("iperf3", "-s", "-1", "-p", str(port), "--forceflush", label=f"iperf3-{port}")
        server.wait_for("listening")
        command = ["iperf3", "-c", host, "-p", str(port), "-t", str(seconds), "-J", *options]
        return Iperf3(client.start(*command, label=f"iperf3-to-{port}"), server, seconds)

    def relay(
        self, target: str, port: int, weather: Weather, *, client: Namespace | None = None, seed: int = 1
    ) -> RelayProcess:
        """A lossy path in the client's namespace: whoever sends to 127.0.0.1:``relay.port`` reaches ``target:port``."""
        place = client or self.client
        host = f"[{target}]" if ":" in target else target
        options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(weather).items()]
        process = place.start(
            sys.executable, HELPERS / "relay.py", "--listen=127.0.0.1:0", f"--target={host}:{port}", f"--seed={seed}",
            *options, label="relay", env={"PYTHONPATH": str(HELPERS.parent)},
        )  # fmt: skip
        return RelayProcess(process, int(process.wait_for(r"^ready on port (\d+)")[1]))

    # -- the two ends of the tunnel ------------------------------------------------------------------------

    def openvpn(
        self,
        profile: Path,
        *options: str,
        client: Namespace | None = None,
        verb: int = 4,
    ) -> OpenVpnClient:
        """Start the stock client with a profile; ``options`` come after it on the command line and win."""
        place = client or self.client
        process = place.start(
            *other_releases.chosen().program, "--config", profile, "--verb", str(verb), "--suppress-timestamps",
            *options, label="openvpn", cwd=profile.parent,
        )  # fmt: skip
        return OpenVpnClient(process, place)

    def networks_toml(self, *, ipv6: bool = False) -> str:
        """The ``[[vpc]]`` and ``[[subnet]]`` sections: vpc-main/subnet-a is target, vpc-other/subnet-b other."""

        def of(vpc: str, cidr: str, cidr_v6: str, leg: Leg, subnet: str) -> str:
            v6 = {"cidr_v6": str(leg.network_v6)} if ipv6 else {}
            both = "\n" + networks.vpc(vpc, *([cidr, cidr_v6] if ipv6 else [cidr]))
            return both + networks.subnet(subnet, vpc, str(leg.network), leg.interface, **v6)

        return of("vpc-main", "10.20.0.0/16", "fd00:20::/48", TARGET_LEG, "subnet-a") + of(
            "vpc-other", "10.30.0.0/16", "fd00:30::/48", OTHER_LEG, "subnet-b"
        )

    def gateway_process(self, toml: str, name: str = "gateway", *, wait: bool = True, **env: str) -> GatewayProcess:
        """Run ``cvpnd run`` in the gateway. What ``[daemon]`` needs and ``[metrics]`` are written for it if missing."""
        process = GatewayProcess(self.gateway, self.directory / name, toml, env)
        process.start(wait=wait)
        return process


def _http(client: Namespace, host: str, timeout_s: float) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(host, HTTP_PORT)
    connection.sock = client.connect((host, HTTP_PORT), timeout_s)
    return connection


@dataclass
class Iperf3:
    """A run under way, and the server that it has for itself."""

    client: Process
    server: Process
    seconds: float

    def report(self) -> dict[str, Any]:
        """What the receiver saw in sum, at the end: bytes, for UDP also packets, lost_packets, out_of_order."""
        self.client.wait(self.seconds + 30)
        report = json.loads(self.client.log())
        if "error" in report:
            raise LabError(f"iperf3: {report['error']}")
        end = report["end"]
        if "udp" not in end["streams"][0]:
            return dict(end["sum_received"])
        return {**end["sum"], "out_of_order": sum(stream["udp"]["out_of_order"] for stream in end["streams"])}

    def stop(self) -> None:
        self.client.kill()
        self.server.kill()


@dataclass
class RelayProcess:
    process: Process
    port: int

    def rebind(self) -> None:
        """New upstream ports for everybody, as after a NAT lost its mappings."""
        self.process.signal(signal.SIGHUP)


NEW_KEY = r"Outgoing (?:Data Channel|Epoch Data key 1): Cipher '([^']*)'"
"""Once in the log of a client for each key that it got; the group is the cipher."""


class OpenVpnClient:
    """The stock client. ``log()`` is its whole output, at verb 4 unless told otherwise."""

    COMPLETED = "Initialization Sequence Completed"

    def __init__(self, process: Process, namespace: Namespace) -> None:
        self.process = process
        self.namespace = namespace

    def log(self) -> str:
        return self.process.log()

    @property
    def connected_count(self) -> int:
        return self.log().count(self.COMPLETED)

    def wait_connected(self, timeout_s: float = 15, *, times: int = 1) -> OpenVpnClient:
        """Wait for the first (or ``times``-th) completed connection; a refusal by the server is an error at once."""
        self.process.wait_for(
            rf"\A(?s:.*?{self.COMPLETED}){{{times}}}|^AUTH: Received control message: AUTH_FAILED", timeout_s
        )
        if self.connected_count < times:
            raise LabError(f"refused:\n{self.process.tail()}")
        return self

    def wait_for(self, pattern: str, timeout_s: float = 15) -> re.Match[str]:
        return self.process.wait_for(pattern, timeout_s)

    @property
    def interface(self) -> str:
        """The client's TUN device, e.g. ``tun0``."""
        return re.findall(r"TUN/TAP device (\S+) opened", self.log())[-1]

    def addresses(self) -> list[str]:
        """What the client's TUN device has been given, IPv4 first, without link-local ones."""
        shown = json.loads(self.namespace.run("ip", "-json", "address", "show", "dev", self.interface).stdout)
        return [entry["local"] for entry in shown[0]["addr_info"] if not ip_address(entry["local"]).is_link_local]

    @property
    def address(self) -> str:
        return self.addresses()[0]

    @property
    def port(self) -> int:
        """Its UDP port on the outside; it must be the only program of its machine that has one."""
        (line,) = self.namespace.run("ss", "-Huan").stdout.splitlines()
        return int(line.split()[3].rpartition(":")[2])

    def stop(self) -> None:
        """A clean end: the client says goodbye to the server (explicit-exit-notify) before it goes."""
        self.process.stop()

    def kill(self) -> None:
        """The client vanishes without a word."""
        self.process.kill()


def wait_until(condition: Any, timeout_s: float = 10, what: str = "") -> Any:
    """Call until the answer is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.02)
    return answer


__all__: Iterable[str] = [
    "CLIENT_LEGS",
    "NEW_KEY",
    "OTHER_LEG",
    "TARGET_LEG",
    "GatewayProcess",
    "Lab",
    "LabError",
    "OpenVpnClient",
    "RelayProcess",
    "Weather",
    "wait_until",
]
