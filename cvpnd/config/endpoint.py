"""The endpoint and what belongs to it.

Only what a table can know by itself is checked here; what takes two tables is in ``crosscheck``."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cvpnd.config.connection_log import ConnectionLogConfig
from cvpnd.config.control_protection import ControlProtectionConfig
from cvpnd.config.handlers import HandlerReference, handler_name
from cvpnd.config.mfa import Mfa
from cvpnd.config.sockets import ListenUrl
from cvpnd.config.table import Table
from cvpnd.config.values import (
    CBC_CIPHERS,
    DATA_CIPHERS,
    Address,
    Banner,
    ClientCidr,
    ClientCidrV6,
    Domain,
    EndpointId,
    FilePath,
    Flag,
    Group,
    Identifier,
    Network,
    Printable,
    Remote,
    whole,
)

TlsVersion = Literal["1.2", "1.3"]

MAX_DNS_SERVERS = 8
"""``dns server N address`` takes no more (openvpn-wire.md section 16)."""
MAX_DNS_DOMAINS = 10
"""OpenVPN 2.x keeps ten DOMAIN-SEARCH entries and drops the rest."""


class ServerCertificateConfig(Table):
    certificate: FilePath
    private_key: FilePath
    chain: FilePath | None = None


_METHOD_WORDS = {
    "certificate-authentication": "certificate",
    "directory-service-authentication": "directory",
    "federated-authentication": "saml",
}
_METHOD_KEYS = {
    "certificate-authentication": ("client_ca", "crl", "crl_expired", "allow_rsa_1024"),
    "directory-service-authentication": ("directory", "username_is_common_name", "mfa"),
    "federated-authentication": (
        "saml_provider", "portal_saml_provider", "login_source", "username_is_common_name",
    ),
}  # fmt: skip
"""What belongs to each type; the first of them has to be there."""


class AuthenticationConfig(Table):
    """One way in which clients prove who they are; the other one's keys do not belong there."""

    type: Literal["certificate-authentication", "directory-service-authentication", "federated-authentication"]
    client_ca: FilePath | None = None
    crl: FilePath | None = None
    crl_expired: Literal["refuse", "allow-known-good"] = "refuse"
    allow_rsa_1024: Flag = False
    directory: Identifier | None = None
    username_is_common_name: Flag = False
    mfa: Mfa = "off"
    saml_provider: Printable | None = None
    """The id of a [[saml_provider]], or the ARN of one made at run time; as the next."""
    portal_saml_provider: Printable | None = None
    """None: the same."""
    login_source: Literal["address", "network", "any"] = "address"

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        ours = _METHOD_KEYS[self.type]
        if getattr(self, ours[0]) is None:
            raise ValueError(f'"{self.type}" needs {ours[0]}; add {ours[0]} = … (conf/cvpnd.toml explains it)')
        if misplaced := sorted(self.model_fields_set - {"type", *ours}):
            raise ValueError(f'"{self.type}" has no {misplaced[0]}; leave it away')
        return self

    @property
    def is_certificate(self) -> bool:
        return self.type == "certificate-authentication"

    @property
    def is_federated(self) -> bool:
        return self.type == "federated-authentication"

    @property
    def provider_of_pages(self) -> str | None:
        """Where the portal sends people."""
        return self.portal_saml_provider or self.saml_provider

    @property
    def word(self) -> str:
        """In the log and in metrics, for instance ``directory+totp``."""
        word = _METHOD_WORDS[self.type]
        return word if self.mfa == "off" else f"{word}+{self.mfa}"


class AssociationConfig(Table):
    """A target network. In the file a bare subnet id will do."""

    subnet: str
    nat: Flag = True
    """False: routed mode, the target network sees client addresses and must know the way back."""


class RouteConfig(Table):
    destination: Network
    target: str
    """The id of an associated subnet, or ``local``."""
    description: Printable = ""


class RuleConfig(Table):
    network: Network
    group: Group | None = None
    """None: everybody (``all_groups`` is True then)."""
    all_groups: Flag = False
    description: Printable = ""

    @model_validator(mode="after")
    def _check_whom(self) -> Self:
        if self.group is not None and self.all_groups:
            raise ValueError("names a group and all_groups; keep one of them")
        if self.group is None and not self.all_groups:
            raise ValueError('names nobody; add group = "…", or all_groups = true for everybody')
        return self


class TlsConfig(Table):
    minimum_version: TlsVersion = "1.2"
    maximum_version: TlsVersion | None = None
    """None: the newest that OpenSSL knows."""
    ciphers: Printable | None = None
    """OpenSSL names joined by colons, for TLS 1.2 and 1.3 together; None: our own choice."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.maximum_version is not None and self.maximum_version < self.minimum_version:
            raise ValueError(
                f"maximum_version {self.maximum_version} is below minimum_version {self.minimum_version}; swap them"
            )
        return self


class LimitsConfig(Table):
    sessions: int = whole(20_000, 1, 1_000_000)
    sessions_per_identity: int = whole(1000, 1, 1_000_000)
    too_many_of_identity: Literal["refuse-new", "replace-oldest"] = "refuse-new"
    handshakes: int = whole(1000, 1, 100_000)
    handshakes_per_source: int = whole(300, 1, 100_000)
    unproven_handshakes: int = whole(100, 0, 100_000)
    waiting_logins: int = whole(500, 1, 100_000)
    waiting_logins_per_source: int = whole(100, 1, 100_000)
    first_packet_s: int = whole(10, 1, 300)
    flows_per_client: int = whole(4096, 0, 1_000_000)


def _spell_out(value: object) -> object:
    return {"subnet": value} if isinstance(value, str) else value


Association = Annotated[AssociationConfig, BeforeValidator(_spell_out)]


def _known_ciphers(value: tuple[str, ...], known: tuple[str, ...], kind: str) -> tuple[str, ...]:
    for name in value:
        if name not in known:
            raise ValueError(f"{name!r} is not a {kind} known here; choose from {', '.join(known)}")
    if len(set(value)) < len(value):
        raise ValueError("names a cipher twice; keep one of each")
    return value


class EndpointConfig(Table):
    name: Identifier
    id: EndpointId = ""
    description: Printable = ""
    client_cidr: ClientCidr
    client_cidr_v6: ClientCidrV6 | None = None
    listen: tuple[ListenUrl, ...] = Field(min_length=1)
    remote: Remote | None = None
    """The name in profiles; None: the profile's maker has to know."""
    connection_log: ConnectionLogConfig | None = None
    security_groups: tuple[str, ...] = ()
    """Empty: ``default``, the vpc's own, which lets through all that routes and rules allow."""
    server_certificate: ServerCertificateConfig
    authentication: tuple[AuthenticationConfig, ...] = Field(min_length=1, max_length=2)
    """At most one of each type; all of them must succeed."""
    split_tunnel: Flag = False
    dns_servers: tuple[Address, ...] = Field(default=(), max_length=MAX_DNS_SERVERS)
    dns_domains: tuple[Domain, ...] = Field(default=(), max_length=MAX_DNS_DOMAINS)
    block_local: Literal["auto", "always", "never"] = "auto"
    client_route_enforcement: Flag = False
    associate: tuple[Association, ...] = ()
    route: tuple[RouteConfig, ...] = ()
    authorize: tuple[RuleConfig, ...] = ()
    tls: TlsConfig = TlsConfig()
    control_protection: ControlProtectionConfig = ControlProtectionConfig()
    data_ciphers: tuple[str, ...] = Field(default=DATA_CIPHERS, min_length=1)
    legacy_cbc_ciphers: tuple[str, ...] = ()
    renegotiate_s: int = whole(3600, 0, 86_400)
    hand_window_s: int = whole(60, 2, 300)
    session_timeout_s: int = whole(0, 0, 30 * 86_400)
    """0: a session may last for ever."""
    disconnect_on_session_timeout: Flag = True
    idle_timeout_s: int = whole(0, 0, 30 * 86_400)
    """0: never."""
    idle_bytes: int = whole(1, 1, 1 << 40)
    login_banner: Banner = ""
    self_service_portal: Flag = False
    """People download its profile from the portal."""
    connect_handler: HandlerReference | None = None
    """By its name, or as the ARN of a Lambda function with that name."""
    ping_s: int = whole(10, 1, 600)
    ping_restart_s: int = whole(60, 2, 3600)
    path_mtu: int = whole(1500, 1280, 1500)
    path_discovery: Flag = True
    limits: LimitsConfig = LimitsConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_id(cls, data: Any) -> Any:
        """From the name, so that it survives restarts and is the same on every gateway with this file."""
        if isinstance(data, dict) and "id" not in data and isinstance(data.get("name"), str):
            return {**data, "id": f"cvpn-endpoint-{hashlib.sha256(data['name'].encode()).hexdigest()[:17]}"}
        return data

    @field_validator("renegotiate_s")
    @classmethod
    def _check_renegotiation(cls, value: int) -> int:
        if 0 < value < 5:
            raise ValueError(f"{value} leaves no time for a handshake; choose at least 5, or 0 for never")
        return value

    @field_validator("authentication")
    @classmethod
    def _check_methods(cls, value: tuple[AuthenticationConfig, ...]) -> tuple[AuthenticationConfig, ...]:
        if len({method.type for method in value}) < len(value):
            raise ValueError(f'names "{value[0].type}" twice; keep one of them')
        if sum(not method.is_certificate for method in value) > 1:
            raise ValueError("asks for a user twice; keep one method beside the certificate")
        if len(value) == 1 and value[0].username_is_common_name:
            raise ValueError('username_is_common_name needs a "certificate-authentication" beside it; add that')
        return value

    @field_validator("data_ciphers")
    @classmethod
    def _check_ciphers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name in CBC_CIPHERS:
                raise ValueError(f"{name} is for old clients only; leave it away, or move it to legacy_cbc_ciphers")
        return _known_ciphers(value, DATA_CIPHERS, "data cipher")

    @field_validator("legacy_cbc_ciphers")
    @classmethod
    def _check_cbc_ciphers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _known_ciphers(value, CBC_CIPHERS, "CBC cipher")

    @model_validator(mode="after")
    def _check_self_service(self) -> Self:
        if not self.self_service_portal:
            return self
        if self.user_method is None:
            raise ValueError(
                'self_service_portal needs people who log in; add "directory-service-authentication" or '
                '"federated-authentication", or leave it away'
            )
        protection = self.control_protection
        if protection.tls_auth is None and protection.tls_crypt is None and not protection.allows_plain:
            raise ValueError(
                "self_service_portal has no tls-crypt-v2 keys to hand out; add tls_crypt, or leave it away"
            )
        return self

    @model_validator(mode="after")
    def _check_timers(self) -> Self:
        if self.ping_restart_s < 2 * self.ping_s:
            raise ValueError(
                f"ping_restart_s {self.ping_restart_s} gives up after less than two pings; "
                f"choose at least {2 * self.ping_s} (twice ping_s)"
            )
        return self

    @property
    def certificate_method(self) -> AuthenticationConfig | None:
        return next((method for method in self.authentication if method.is_certificate), None)

    @property
    def user_method(self) -> AuthenticationConfig | None:
        return next((method for method in self.authentication if not method.is_certificate), None)

    @property
    def methods(self) -> tuple[tuple[str, str | None, bool, str], ...]:
        """What a login consists of, whatever files it looks into."""
        return tuple(
            sorted(
                (m.type, m.directory or m.saml_provider, m.username_is_common_name, m.mfa) for m in self.authentication
            )
        )

    @property
    def handler(self) -> str | None:
        """The name of its client connect handler."""
        return None if self.connect_handler is None else handler_name(self.connect_handler)

    @property
    def gateway(self) -> IPv4Address:
        """The gateway's own address in the client CIDR: the first host."""
        return self.client_cidr.network_address + 1

    @property
    def gateway_v6(self) -> IPv6Address | None:
        return None if self.client_cidr_v6 is None else self.client_cidr_v6.network_address + 1

    @property
    def server_timeout_s(self) -> int:
        """Twice the client's own, so that a client which restarts is still known (openvpn-wire.md section 16)."""
        return 2 * self.ping_restart_s
