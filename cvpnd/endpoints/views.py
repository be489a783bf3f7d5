"""What the outside sees of connections and endpoints: views for people and programs, and the numbers of a scrape."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from itertools import product
from typing import Any, TypeVar

from cvpnd.auth.certificate import revokes_nobody
from cvpnd.auth.logins import UserLogins
from cvpnd.auth.radius_codes import RadiusCodes
from cvpnd.auth.saml.keeper import SamlKeeper
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.config import AuthenticationConfig, Config, EndpointConfig, SocketName
from cvpnd.dataplane.api import NO_STATS, DataPlane, PeerStats, add_counts
from cvpnd.endpoints.model import ConnectionView, EndpointView, RouteView, RuleView
from cvpnd.host.firewall import KeptBack
from cvpnd.ops.client_metrics import ClientMetrics
from cvpnd.ops.directory_metrics import DirectoryMetrics
from cvpnd.ops.endpoint_metrics import LOGIN_RESULTS, EndpointMetrics
from cvpnd.ops.saml_metrics import SamlMetrics
from cvpnd.ops.udp_sockets import UdpSockets, read_udp_sockets
from cvpnd.policy.model import Route, Rule
from cvpnd.server.admission import UNFINISHED
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.control import ControlPlane
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.store import StoredEndpoint

V = TypeVar("V")


def stats_now(plane: DataPlane, connection: Connection) -> PeerStats:
    """Live counters, or those it ended with."""
    if connection.peer_id is None:
        return connection.final_stats
    return plane.peer_stats(connection.peer_id)


def connection_view(plane: DataPlane, connection: Connection) -> ConnectionView:
    stats = stats_now(plane, connection)
    grant = connection.grant
    return ConnectionView(
        connection_id=connection.connection_id,
        endpoint_id=connection.endpoint.id,
        endpoint_name=connection.endpoint.settings.name,
        status="terminated" if connection.phase is Phase.ENDED else "active",
        common_name=connection.common_name,
        username=connection.username,
        method=connection.method,
        client_ip=str(grant.lease.v4) if grant is not None else "",
        device_ip=connection.link.remote.host,
        port=connection.link.remote.port,
        transport=connection.link.transport,
        device_type=connection.device_type,
        cipher=connection.cipher,
        connected_at=connection.started_at,
        ended_at=connection.ended_at,
        end_reason=str(connection.end_reason or ""),
        ingress_bytes=stats.bytes_in,
        egress_bytes=stats.bytes_out,
        ingress_packets=stats.packets_in,
        egress_packets=stats.packets_out,
        denied_packets=stats.packets_denied,
        client_ip_v6="" if grant is None or grant.lease.v6 is None else str(grant.lease.v6),
        posture_compliance_statuses=connection.posture_statuses,
    )


def rule_view(endpoint: ServedEndpoint, rule: Rule) -> RuleView:
    return RuleView(endpoint.id, rule.network, rule.group, rule.description, rule.origin)


def route_view(endpoint: ServedEndpoint, route: Route) -> RouteView:
    return RouteView(endpoint.id, route.destination, route.target, route.origin)


def endpoint_view(
    endpoint: ServedEndpoint,
    connections: int,
    config: Config,
    stored: StoredEndpoint | None,
    tags: Mapping[str, str],
) -> EndpointView:
    """``stored`` is None for one of the file."""
    settings = endpoint.settings
    vpc = stored.vpc if stored is not None else ""
    if not vpc and settings.associate:
        vpc = config.subnet(settings.associate[0].subnet).vpc
    log = settings.connection_log
    return EndpointView(
        endpoint_id=endpoint.id,
        name=settings.name,
        status="available" if settings.associate else "pending-associate",
        client_cidr=settings.client_cidr,
        listen=tuple(str(listen) for listen in settings.listen),
        split_tunnel=settings.split_tunnel,
        connections=connections,
        interface=endpoint.interface,
        origin="file" if stored is None else "store",
        description=settings.description,
        dns_servers=settings.dns_servers,
        remote=settings.remote or "",
        server_certificate=(
            str(settings.server_certificate.certificate) if stored is None else stored.server_certificate
        ),
        client_certificate=_client_authority(settings) if stored is None else stored.client_certificate,
        authentication=tuple(_method(each) for each in settings.authentication),
        security_groups=tuple(group.id for group in config.security_groups_of(settings, vpc)),
        session_timeout_s=settings.session_timeout_s,
        disconnect_on_session_timeout=settings.disconnect_on_session_timeout,
        login_banner=settings.login_banner,
        self_service_url=config.portal.self_service_url(endpoint.id) if settings.self_service_portal else "",
        client_route_enforcement=settings.client_route_enforcement,
        connect_handler=settings.connect_handler or "",
        connection_log=None if log is None else {"group": log.group, "stream": log.stream},
        vpc=vpc,
        created_at=None if stored is None else stored.created_at,
        tags=tags,
        client_cidr_v6=settings.client_cidr_v6,
        settings={} if stored is None else stored.settings,
    )


def _client_authority(settings: EndpointConfig) -> str:
    method = settings.certificate_method
    return "" if method is None else str(method.client_ca)


def _method(method: AuthenticationConfig) -> dict[str, str]:
    shown = {key: getattr(method, key) for key in ("type", "directory", "saml_provider", "portal_saml_provider")}
    shown["mfa"] = None if method.mfa == "off" else method.mfa
    return {key: value for key, value in shown.items() if value is not None}


def directory_metrics(logins: UserLogins) -> list[DirectoryMetrics]:
    pending, servers, unchecked = logins.pending(), logins.servers(), logins.unchecked()
    return [
        DirectoryMetrics(name, pending[name], latency, servers[name], unchecked[name])
        for name, latency in logins.latencies().items()
    ]


def _methods(endpoint: ServedEndpoint) -> list[str]:
    """That may be seen there."""
    own = [endpoint.method()]
    return own if endpoint.settings.user_method is None else [*own, endpoint.method(token=True)]


def radius_metrics(radius: Mapping[str, RadiusCodes]) -> list[DirectoryMetrics]:
    return [
        DirectoryMetrics(name, servers.pending, servers.latency, servers.up())
        for name, servers in ((name, codes.servers) for name, codes in radius.items())
    ]


def saml_metrics(saml: SamlLogins | None, keeper: SamlKeeper, now: float) -> list[SamlMetrics]:
    if saml is None:
        return []
    found = []
    for name, provider in keeper.known().items():
        idp = None if provider is None else provider.idp
        latency, responses = saml.responses(name)
        found.append(
            SamlMetrics(
                name,
                latency,
                responses,
                usable=idp is not None and not idp.expired(now),
                metadata_failures=keeper.failures[name],
                metadata_expires_at=None if idp is None else idp.valid_until,
                certificate_expires_at=None if idp is None else idp.certificates_end_at,
            )
        )
    return found


def file_association_id(endpoint_id: str, subnet: str) -> str:
    """An association of the file has the same id on every gateway with that file."""
    return f"cvpn-assoc-{hashlib.sha256(f'{endpoint_id} {subnet}'.encode()).hexdigest()[:17]}"


def endpoint_metrics(
    control: ControlPlane, endpoints: Sequence[ServedEndpoint], now: float, kept_back: Mapping[KeptBack, int]
) -> list[EndpointMetrics]:
    """``kept_back``: packets by the firewall. ``now``: seconds since the epoch."""
    counted = _Counted(control, endpoints, kept_back)
    return [_metrics_of(endpoint, control, counted, now) for endpoint in endpoints]


class _Counted:
    """By endpoint, in one pass over the connections and over what is counted, whatever the number of endpoints."""

    def __init__(
        self, control: ControlPlane, endpoints: Sequence[ServedEndpoint], kept_back: Mapping[KeptBack, int]
    ) -> None:
        tally = control.tally
        self.active: Counter[str] = Counter()
        self.open_handshakes: Counter[str] = Counter()
        self.traffic = {e.id: tally.traffic.get(e.id, NO_STATS.counts) for e in endpoints}
        for connection in control.table:
            endpoint_id = connection.endpoint.id
            if connection.established:
                self.active[endpoint_id] += 1
                stats = stats_now(control.plane, connection)
                self.traffic[endpoint_id] = add_counts(self.traffic.get(endpoint_id, NO_STATS.counts), stats.counts)
            elif connection.phase is not Phase.ENDED:
                self.open_handshakes[endpoint_id] += 1
        self.refusals, self.ends = _by_endpoint(tally.refusals), _by_endpoint(tally.ends)
        self.logins = _by_endpoint(tally.logins)
        self.stages, self.stage_seconds = _by_endpoint(tally.stages.results), _by_endpoint(tally.stages.times)
        self.kept_back: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """By the endpoint's name."""
        for each, packets in kept_back.items():
            self.kept_back[each.endpoint][each.by] = packets
        self._udp_sockets = read_udp_sockets()

    def udp_sockets(self, endpoint: ServedEndpoint) -> list[UdpSockets]:
        addresses = [(ip_address(e.host), e.port) for e in endpoint.settings.listen if e.transport == "udp"]
        return [self._udp_sockets.get(address, UdpSockets()) for address in addresses]


def _metrics_of(endpoint: ServedEndpoint, control: ControlPlane, counted: _Counted, now: float) -> EndpointMetrics:
    tally, trust = control.tally, endpoint.trust
    refusals, sockets = counted.refusals[endpoint.id], counted.udp_sockets(endpoint)
    abandoned = sum(refusals.get(reason, 0) for reason in UNFINISHED)
    bytes_in, bytes_out, packets_in, packets_out, packets_denied = counted.traffic[endpoint.id]
    expires_at = {what: now + days * 86400 for what, days in trust.days_to_expiry().items()}
    return EndpointMetrics(
        name=endpoint.settings.name,
        active_connections=counted.active[endpoint.id],
        handshakes_in_progress=counted.open_handshakes[endpoint.id],
        waiting_logins=control.places.waiting(endpoint.id),
        authentication_failures=refusals,
        handshakes={
            "completed": tally.established[endpoint.id],
            "refused": sum(refusals.values()) - abandoned,
            "abandoned": abandoned,
        },
        logins=dict.fromkeys(product(_methods(endpoint), LOGIN_RESULTS), 0) | counted.logins[endpoint.id],
        stages=counted.stages[endpoint.id],
        stage_seconds=counted.stage_seconds[endpoint.id],
        ends=counted.ends[endpoint.id],
        renegotiations=tally.renegotiations[endpoint.id],
        ingress_bytes=bytes_in,
        egress_bytes=bytes_out,
        ingress_packets=packets_in,
        egress_packets=packets_out,
        denied={"rules": packets_denied, **counted.kept_back[endpoint.settings.name]},
        lease_pool_size=endpoint.leases.capacity,
        lease_pool_used=endpoint.leases.capacity - endpoint.leases.free,
        authorization_rules=len(endpoint.rules),
        rules_in_force=endpoint.narrowed_to is None,
        crl_expires_at=expires_at.get("crl"),
        server_certificate_expires_at=expires_at.get("server"),
        client_ca_expires_at=expires_at.get("ca"),
        files_problem=str(endpoint.trust_keeper.last_error or trust.crl_problem),
        crl_problem=trust.crl_problem,
        crl_gap=revokes_nobody(trust.without_list) if trust.without_list else "",
        waiting_bytes=sum(each.waiting_bytes for each in sockets),
        socket_drops=sum(each.dropped for each in sockets),
    )


def _by_endpoint(counted: Mapping[Any, V]) -> defaultdict[str, dict[Any, V]]:
    """What is counted by an endpoint's id and more words: by the id, and then by the word or the tuple of them."""
    found: defaultdict[str, dict[Any, V]] = defaultdict(dict)
    for (endpoint_id, *words), value in counted.items():
        found[endpoint_id][words[0] if len(words) == 1 else tuple(words)] = value
    return found


def client_metrics(control: ControlPlane) -> list[ClientMetrics]:
    """Everybody who is connected now, oldest first."""
    found = []
    for connection in control.table:
        grant = connection.grant
        if not connection.established or connection.peer_id is None or grant is None:
            continue
        stats, remote = control.plane.peer_stats(connection.peer_id), connection.link.remote
        found.append(
            ClientMetrics(
                endpoint=connection.endpoint.settings.name,
                common_name=connection.common_name,
                username=connection.username,
                address=str(grant.lease.v4),
                address_v6="" if grant.lease.v6 is None else str(grant.lease.v6),
                remote=str(SocketName(remote.host, remote.port)),
                bytes_in=stats.bytes_in,
                bytes_out=stats.bytes_out,
                connected_at=connection.started_at,
                idle_s=stats.idle_s,
                peer_id=connection.peer_id,
                cipher=connection.cipher,
            )
        )
    return sorted(found, key=lambda client: client.connected_at)
