"""The service layer's seam, filled by a few lists: what the REST API and cvpnctl are tested against."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

from helpers.connections import CONNECTION

from cvpnd.api.rest import build_admin_app
from cvpnd.api.server import HttpServer, bind_unix
from cvpnd.config import SubnetConfig
from cvpnd.endpoints.model import (
    AccessKeyView,
    AssociationView,
    CertificateView,
    ClientKeyView,
    ConnectionView,
    EndpointView,
    Explanation,
    OperationError,
    RouteView,
    RuleView,
)
from cvpnd.endpoints.status import EndpointStatus, StatusView
from cvpnd.ops.connection_log import attempt_entry
from cvpnd.ops.problems import Problem
from cvpnd.ops.recent_log import LogFilter, Recent, RecentLog
from cvpnd.store.actor import Actor, acting

STAFF = EndpointView(
    endpoint_id="cvpn-endpoint-0123456789abcdef0",
    name="staff",
    status="available",
    client_cidr=IPv4Network("10.100.0.0/22"),
    listen=("udp://0.0.0.0:1194", "tcp://0.0.0.0:443"),
    split_tunnel=True,
    connections=2,
    interface="cvpn0",
)
ALICE = replace(
    CONNECTION,
    connection_id="cvpn-connection-0000000000000000a",
    endpoint_id=STAFF.endpoint_id,
    common_name="alice",
    client_ip="10.100.0.2",
    device_ip="198.51.100.7",
    device_type="linux",
    connected_at=1700000000.0,
    ingress_bytes=1_500_000,
    egress_bytes=20,
    ingress_packets=1000,
    egress_packets=2,
)
EVE = replace(
    ALICE,
    connection_id="cvpn-connection-0000000000000000e",
    common_name="eve[bold]\x1b[2J\nforged",
    client_ip="10.100.0.3",
    port=50097,
)


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: bytes
    private_key: bytes


@dataclass
class MemoryOperations:
    """Endpoint ``staff`` with two connections and one rule of the file."""

    connections: list[ConnectionView] = field(default_factory=lambda: [ALICE, EVE])
    rules: list[RuleView] = field(
        default_factory=lambda: [RuleView(STAFF.endpoint_id, IPv4Network("10.20.0.0/16"), None, "everything", "file")]
    )
    certificates: list[CertificateView] = field(
        default_factory=lambda: [CertificateView("alice", "0A1B", 1700000000.0, 1800000000.0, "valid")]
    )
    client_keys: list[ClientKeyView] = field(
        default_factory=lambda: [ClientKeyView(STAFF.endpoint_id, "alice", "0A1B", 1700000000.0, "revoked")]
    )
    access_keys: list[AccessKeyView] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    """On whose behalf each change was made."""
    problems: list[Problem] = field(default_factory=list)
    broken: bool = False
    """Operations fail with an exception that is not a refusal."""
    reloads: int = 0
    started_at: float = 1699999000.0

    def _endpoint(self, endpoint: str | None) -> None:
        if endpoint not in (None, STAFF.name, STAFF.endpoint_id):
            raise OperationError(
                "InvalidClientVpnEndpointId.NotFound", f"no endpoint {endpoint}; `cvpnctl endpoint list` shows them"
            )

    async def list_endpoints(self) -> list[EndpointView]:
        if self.broken:
            raise RuntimeError("secret detail")
        return [STAFF]

    async def list_connections(self, endpoint: str | None = None) -> list[ConnectionView]:
        self._endpoint(endpoint)
        return list(self.connections)

    async def terminate_connections(
        self, *, connection_id: str | None = None, username: str | None = None, endpoint: str | None = None
    ) -> list[str]:
        self._endpoint(endpoint)
        ended = [
            c for c in self.connections if c.connection_id == connection_id or username in (c.common_name, c.username)
        ]
        self.connections = [c for c in self.connections if c not in ended]
        self.actors.append(acting.get())
        return [c.connection_id for c in ended]

    async def list_rules(self, endpoint: str | None = None) -> list[RuleView]:
        self._endpoint(endpoint)
        return list(self.rules)

    async def authorize(self, endpoint: str, network: str, group: str | None, description: str) -> RuleView:
        self._endpoint(endpoint)
        rule = RuleView(STAFF.endpoint_id, ip_network(network), group, description, "store")
        if any((r.network, r.group) == (rule.network, rule.group) for r in self.rules):
            raise OperationError("InvalidClientVpnDuplicateAuthorizationRule", f"{network} has that rule already")
        self.rules.append(rule)
        self.actors.append(acting.get())
        return rule

    async def revoke(self, endpoint: str, network: str, group: str | None) -> RuleView:
        self._endpoint(endpoint)
        for rule in self.rules:
            if (str(rule.network), rule.group) == (network, group):
                if rule.origin == "file":
                    raise OperationError("IncorrectState", "the rule belongs to cvpnd.toml; remove it there")
                self.rules.remove(rule)
                return rule
        raise OperationError("InvalidClientVpnEndpointAuthorizationRuleNotFound", f"no such rule for {network}")

    async def list_routes(self, endpoint: str | None = None) -> list[RouteView]:
        self._endpoint(endpoint)
        return [RouteView(STAFF.endpoint_id, IPv4Network("10.20.0.0/16"), "subnet-a", "associate")]

    async def list_associations(self, endpoint: str | None = None) -> list[AssociationView]:
        self._endpoint(endpoint)
        return [AssociationView("cvpn-assoc-0000000000000000a", STAFF.endpoint_id, "subnet-a", "vpc-main", nat=True)]

    def subnets(self) -> tuple[SubnetConfig, ...]:
        return (SubnetConfig(id="subnet-a", vpc="vpc-main", cidr=IPv4Network("10.20.0.0/24"), interface="lan"),)

    async def list_certificates(self) -> list[CertificateView]:
        return list(self.certificates)

    async def issue_certificate(self, name: str, days: int) -> Issued:
        if any(c.name == name for c in self.certificates):
            raise OperationError("InvalidParameterValue", f"{name} has a certificate; revoke it first")
        self.certificates.append(CertificateView(name, "0C", 1700000000.0, 1700000000.0 + days * 86400, "valid"))
        return Issued(f"certificate of {name}\n".encode(), f"key of {name}\n".encode())

    async def revoke_certificate(self, name: str | None, serial: str | None) -> CertificateView:
        for index, certificate in enumerate(self.certificates):
            if certificate.name == name or certificate.serial == serial:
                self.certificates[index] = replace(certificate, status="revoked")
                return self.certificates[index]
        raise OperationError("ResourceNotFoundException", f"no certificate {name or serial}")

    async def list_client_keys(self, endpoint: str | None = None) -> list[ClientKeyView]:
        self._endpoint(endpoint)
        return list(self.client_keys)

    async def profile(
        self, name: str, *, endpoint: str | None, kind: str, issue: bool, serial: str | None = None
    ) -> str:
        self._endpoint(endpoint)
        if kind not in ("openvpn", "aws"):
            raise OperationError("InvalidParameterValue", f"{kind} is no kind of profile; choose openvpn or aws")
        return f"client\n# {name} {endpoint} {kind} {issue}{'' if serial is None else f' {serial}'}\n"

    async def explain(self, who: str, destination: str, endpoint: str | None, groups: tuple[str, ...]) -> Explanation:
        self._endpoint(endpoint)
        address = ip_address(destination)
        rule = next((r for r in self.rules if address in r.network), None)
        return Explanation(
            allowed=rule is not None,
            endpoint_id=STAFF.endpoint_id,
            destination=destination,
            groups=groups,
            rule=rule,
            deciding_groups=("*",) if rule else (),
            route=(await self.list_routes())[0] if rule else None,
            sentence=f"{who} may reach {destination}" if rule else f"no rule lets {who} reach {destination}",
            connected=True,
        )

    async def list_access_keys(self) -> list[AccessKeyView]:
        return list(self.access_keys)

    async def create_access_key(self, role: str, name: str = "") -> tuple[AccessKeyView, str]:
        self.access_keys.append(AccessKeyView(f"AKIA{len(self.access_keys)}", name, role, 1700000000.0))
        return self.access_keys[-1], "secret"

    async def delete_access_key(self, key_id: str) -> None:
        if all(key.access_key_id != key_id for key in self.access_keys):
            raise OperationError("NoSuchEntity.NotFound", f"there is no access key {key_id}")
        self.access_keys = [key for key in self.access_keys if key.access_key_id != key_id]

    async def status(self) -> StatusView:
        endpoint = EndpointStatus(
            STAFF.name, STAFF.listen, STAFF.interface, 2, 0, 2, 1021, 1_500_000, 20, 3, 1700086400.0, 1699999999.0
        )
        return StatusView(
            "0.1.0", 4711, "/etc/cvpnd/cvpnd.toml", self.started_at, 1700000000.0, 1, 2, "OpenSSL", (endpoint,),
            tuple(self.problems), {"main": 1.0},
        )  # fmt: skip

    async def recent_log(self, after: int, wanted: LogFilter, limit: int) -> Recent:
        recent = RecentLog()
        for connection in self.connections:
            recent.add(attempt_entry(connection, 1700000000.0, failure="crl-expired"))
        return Recent(str(id(self)), recent.newest, recent.after(after, wanted, limit))

    async def reload(self) -> dict[str, object]:
        self.reloads += 1
        return {"revision": self.reloads, "changed": ["staff"]}


@contextmanager
def admin_server(operations: MemoryOperations, path: Path) -> Iterator[None]:
    """The real application on a real Unix socket, in a thread with its own event loop."""
    ready = threading.Event()
    failures: list[BaseException] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        try:
            server = HttpServer(build_admin_app(operations), bind_unix(path))
            await server.start()
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            ready.set()
        await over.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait(10)
    try:
        if failures:
            raise failures[0]
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
