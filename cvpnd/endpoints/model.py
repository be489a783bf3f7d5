"""What an endpoint is to everyone who looks at it: plain frozen views, the nouns of DESIGN.md section 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, NamedTuple

from cvpnd.config import SecurityGroupConfig


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """One client connection, live or ended within the last hour. Times are seconds since the epoch."""

    connection_id: str
    endpoint_id: str
    endpoint_name: str
    status: str
    """``active`` or ``terminated``."""
    common_name: str
    username: str
    method: str
    """What it logged in with, or tried to: ``certificate+directory+totp``, say, or ``token`` of an earlier login."""
    client_ip: str
    """The leased address, empty if none was given."""
    device_ip: str
    port: int
    transport: str
    """``udp`` or ``tcp``."""
    device_type: str
    cipher: str
    connected_at: float
    ended_at: float | None
    end_reason: str
    ingress_bytes: int
    egress_bytes: int
    ingress_packets: int
    egress_packets: int
    denied_packets: int = 0
    """From the client, to where no authorization rule lets it."""
    client_ip_v6: str = ""
    posture_compliance_statuses: tuple[str, ...] | None = None
    """As its endpoint's client connect handler has answered; None: it has not."""


@dataclass(frozen=True, slots=True)
class RuleView:
    """One authorization rule. ``group`` None means all users."""

    endpoint_id: str
    network: IPv4Network | IPv6Network
    group: str | None
    description: str
    origin: str
    """``file`` (belongs to the TOML file) or ``store`` (added at run time)."""
    status: str = "active"
    """Or ``revoking``."""


@dataclass(frozen=True, slots=True)
class RouteView:
    endpoint_id: str
    destination: IPv4Network | IPv6Network
    target: str
    """Subnet id, or ``local`` for client-to-client."""
    origin: str
    """``associate`` (came with an association) or ``add-route``."""
    description: str = ""
    status: str = "active"
    """Or ``deleting``."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    endpoint_id: str
    name: str
    status: str
    """``pending-associate``, ``available``, ``deleting`` or ``deleted``."""
    client_cidr: IPv4Network
    listen: tuple[str, ...]
    split_tunnel: bool
    connections: int
    interface: str
    origin: str = "file"
    """``file`` (belongs to the TOML file) or ``store`` (made at run time)."""
    description: str = ""
    dns_servers: tuple[IPv4Address | IPv6Address, ...] = ()
    remote: str = ""
    """The name in profiles; empty: that of the server's certificate."""
    server_certificate: str = ""
    """ARN of an imported certificate, or a file; as the next."""
    client_certificate: str = ""
    """Empty if clients need none."""
    authentication: tuple[Mapping[str, str], ...] = ({"type": "certificate-authentication"},)
    """Its methods, all of which must succeed: ``type``, and ``directory`` where it has one."""
    security_groups: tuple[str, ...] = ()
    """Ids; without any given, the one of its vpc's own."""
    session_timeout_s: int = 0
    """0: none."""
    disconnect_on_session_timeout: bool = True
    login_banner: str = ""
    self_service_url: str = ""
    """Where people download its profile; empty: nowhere."""
    client_route_enforcement: bool = False
    connect_handler: str = ""
    """Its name, or an ARN."""
    connection_log: Mapping[str, str] | None = None
    """``group`` and ``stream``."""
    vpc: str = ""
    created_at: float | None = None
    """None for one of the file."""
    tags: Mapping[str, str] = field(default_factory=dict)
    client_cidr_v6: IPv6Network | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All that was said of one made at run time, as in an ``[[endpoint]]`` table."""


@dataclass(frozen=True, slots=True)
class AssociationView:
    association_id: str
    endpoint_id: str
    subnet: str
    vpc: str
    nat: bool
    status: str = "associated"
    """Or ``disassociating``, or ``disassociated``."""


@dataclass(frozen=True, slots=True)
class SecurityGroupView:
    group: SecurityGroupConfig
    name: str
    """Its id; ``default`` for the one that a vpc has without declaring it."""
    denied: Mapping[str, int]
    """By the name of an endpoint that has it: packets that its groups kept back since the daemon's start."""


@dataclass(frozen=True, slots=True)
class ImportedCertificateView:
    """A certificate that was imported with its private key, which nobody gets to see again."""

    arn: str
    certificate: str
    """PEM, as the chain, which is empty if there is none."""
    chain: str
    created_at: float
    imported_at: float
    in_use_by: tuple[str, ...] = ()
    """Ids of endpoints."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccessKeyView:
    access_key_id: str
    name: str
    role: str
    """``admin`` or ``read-only``."""
    created_at: float


@dataclass(frozen=True, slots=True)
class UserView:
    """Of the directory "local"."""

    name: str
    groups: tuple[str, ...]
    status: str
    """``enabled`` or ``disabled``."""
    origin: str
    """``file`` or ``store``."""


@dataclass(frozen=True, slots=True)
class AuthenticatorView:
    directory: str
    username: str
    recovery_codes: int
    """How many are left."""
    created_at: float


@dataclass(frozen=True, slots=True)
class EnrolmentView:
    directory: str
    username: str
    uri: str = field(repr=False)
    """``otpauth://…``, for the app; the secret is in it."""
    recovery_codes: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogStreamView:
    group: str
    name: str
    created_at: float


@dataclass(frozen=True, slots=True)
class LogGroupView:
    name: str
    created_at: float
    streams: tuple[LogStreamView, ...]


@dataclass(frozen=True, slots=True)
class LogEvent:
    stream: str
    timestamp: float
    number: int
    """Of its line in the stream."""
    message: str

    def place(self, *, as_written: bool = False) -> Place:
        """``as_written``: of one stream alone."""
        return Place(0 if as_written else int(self.timestamp), self.stream, self.number)


class Place(NamedTuple):
    """Among the events of several streams: by time, and then as nothing that is written later changes. Of one stream
    alone, where a clock that is set back shall put nothing before what was read already, ``second`` is 0."""

    second: int
    stream: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class LogPage:
    events: list[LogEvent]
    more: bool
    """There are others beyond."""


@dataclass(frozen=True, slots=True)
class SamlProviderView:
    arn: str
    metadata: str
    """Empty where it has not been fetched yet."""
    valid_until: float | None
    created_at: float | None
    """None for one of the file."""
    origin: str = "store"
    """``file`` (belongs to the TOML file) or ``store`` (made at run time)."""


@dataclass(frozen=True, slots=True)
class CertificateView:
    name: str
    serial: str
    """Hex, as openssl prints it."""
    not_before: float
    not_after: float
    status: str
    """``valid``, ``expired`` or ``revoked``."""


@dataclass(frozen=True, slots=True)
class ClientKeyView:
    """A tls-crypt-v2 key that a profile was made with."""

    endpoint_id: str
    name: str
    serial: str
    """Hex, of the certificate it belongs to."""
    created_at: float
    status: str
    """``valid``, ``revoked`` or ``too-old``; ``unused`` where the endpoint takes none any more."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Answer to "may this user reach that address, and why"."""

    allowed: bool
    """And gets there: a route leads there, security groups let something of it through. Of the gateway's own
    addresses only the endpoint's, which answers pings."""
    endpoint_id: str
    destination: str
    groups: tuple[str, ...]
    rule: RuleView | None
    """The rule that decides (one of those on the longest matching prefix), None if no rule matches."""
    deciding_groups: tuple[str, ...]
    """Groups named on that prefix; ``*`` for all users."""
    route: RouteView | None
    """The route that would carry it, None if there is none (then it is unreachable, whatever rules say)."""
    sentence: str
    """The answer in words."""
    connected: bool
    """Somebody of that name, at that endpoint. Without, whether they are let in at all has not been asked."""
    let_through: tuple[str, ...] | None = None
    """What of it the security groups let through, as ``tcp/10.20.0.0/16:443``; None: they keep nothing back."""


class OperationError(Exception):
    """An operation was refused. ``code`` is AWS's word for it where AWS has one (``InvalidParameterValue``,
    ``IncorrectState``, ``InvalidClientVpnEndpointId.NotFound`` …); the text tells the operator the fix."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
