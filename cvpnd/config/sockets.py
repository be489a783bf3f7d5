"""Where this host listens, and the servers it asks: URLs of the file, and addresses with a port."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, InstanceOf

from cvpnd.config.values import parse_address, parse_host, show, text_of

METRICS_LISTEN = "127.0.0.1:9176"
"""The port that dashboards for OpenVPN exporters expect."""
RADIUS_PORT = 1812


@dataclass(frozen=True, slots=True)
class SocketName:
    """An address and a port of this host. ``host`` is canonical text without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """One listener of an endpoint. ``host`` is canonical text without brackets."""

    transport: Literal["udp", "tcp"]
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.transport}://{SocketName(self.host, self.port)}"

    def hears(self, transport: str, local: str, port: int) -> bool:
        """What is sent to that address and port of this host. ``local`` empty: it is not known to which address."""
        whole_family = "::" if ":" in local else "0.0.0.0"  # noqa: S104 - compared with
        return (self.transport, self.port) == (transport, port) and (not local or self.host in (local, whole_family))


def parse_socket_name(netloc: str, example: str) -> SocketName:
    if "@" in netloc:
        raise ValueError(f"{show(netloc)} names a user; write {example}")
    if netloc.count(":") > 1 and not netloc.startswith("["):
        raise ValueError(f"{show(netloc)}: an IPv6 address needs brackets; write {example}")
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{show(netloc)}: {error}; write {example}") from None
    if not host:
        raise ValueError(f"{show(netloc)} has no address; write 0.0.0.0 for all of IPv4, [::] for all of IPv6")
    try:
        address = parse_address(host)
    except ValueError:
        raise ValueError(
            f"{show(host)} is not an address of this host; write 0.0.0.0 for all of IPv4, [::] for all of IPv6"
        ) from None
    if port is None:
        raise ValueError(f"{show(netloc)} has no port; write {example}")
    if port == 0:
        raise ValueError("0 is not a port; choose one from 1 to 65535")
    return SocketName(str(address), port)


def parse_listen(value: object) -> Listen:
    if isinstance(value, Listen):
        return value
    text = text_of(value, "a URL like udp://0.0.0.0:1194")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("udp", "tcp"):
        raise ValueError(f"{show(text)} begins with neither udp:// nor tcp://; write a URL like udp://0.0.0.0:1194")
    if "/" in rest or "?" in rest or "#" in rest:
        raise ValueError(f"{show(text)} has something after the port; write a URL like udp://0.0.0.0:1194")
    name = parse_socket_name(rest, f"{scheme}://[::]:1194" if rest.count(":") > 1 else f"{scheme}://0.0.0.0:1194")
    return Listen(cast(Literal["udp", "tcp"], scheme), name.host, name.port)


def _parse_metrics_listen(value: object) -> SocketName | None:
    if value is None or isinstance(value, SocketName):
        return value
    text = text_of(value, "an address and port like 127.0.0.1:9176, or off")
    if text == "off":
        return None
    return parse_socket_name(text or METRICS_LISTEN, METRICS_LISTEN)


class LdapUrl(NamedTuple):
    """``ldaps``: TLS from the first byte. Else StartTLS before anything else is said."""

    ldaps: bool
    host: str
    port: int

    def __str__(self) -> str:
        return f"{'ldaps' if self.ldaps else 'ldap'}://{SocketName(self.host, self.port)}"


def parse_ldap_url(value: object) -> LdapUrl:
    if isinstance(value, LdapUrl):
        return value
    text = text_of(value, "a URL like ldaps://dc1.example.com")
    found = _split_server(text, "ldap", "ldaps")
    if found is None:
        raise ValueError(
            f"{show(text)} is no directory server; write ldaps://dc1.example.com, or ldap://dc1.example.com, which "
            "begins with StartTLS"
        )
    scheme, host, port = found
    ldaps = scheme == "ldaps"
    return LdapUrl(ldaps, host, port or (636 if ldaps else 389))


class RadiusUrl(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"radius://{SocketName(self.host, self.port)}"


def _parse_radius_url(value: object) -> RadiusUrl:
    if isinstance(value, RadiusUrl):
        return value
    text = text_of(value, "a URL like radius://otp.example.com")
    found = _split_server(text, "radius")
    if found is None:
        raise ValueError(
            f"{show(text)} is no RADIUS server; write radius://otp.example.com, or one with :port behind it"
        )
    _, host, port = found
    return RadiusUrl(parse_host(host), port or RADIUS_PORT)


def _split_server(text: str, *schemes: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of a URL that names a server and nothing on it; None if it is no such one."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in schemes or not host or parts.path.strip("/") or parts.query or parts.username:
        return None
    return parts.scheme, host, port


@dataclass(frozen=True, slots=True)
class ApiListen:
    """Where the API answers: TLS, or plain HTTP on loopback."""

    tls: bool
    host: str
    port: int

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{SocketName(self.host, self.port)}"


def _parse_api_listen(value: object) -> ApiListen | None:
    if value is None or isinstance(value, ApiListen):
        return value
    text = text_of(value, "a URL like https://127.0.0.1:8443, or off")
    if text == "off":
        return None
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("https", "http") or "/" in rest.removesuffix("/"):
        raise ValueError(f"{show(text)} is no place for an API; write a URL like https://127.0.0.1:8443")
    name = parse_socket_name(rest.removesuffix("/"), "https://127.0.0.1:8443")
    if scheme == "http" and not ip_address(name.host).is_loopback:
        raise ValueError(
            f"{show(text)}: plain http only on loopback; write https://{name}, or http://127.0.0.1:{name.port}"
        )
    return ApiListen(scheme == "https", name.host, name.port)


ListenUrl = Annotated[InstanceOf[Listen], BeforeValidator(parse_listen)]
RadiusServerUrl = Annotated[InstanceOf[RadiusUrl], BeforeValidator(_parse_radius_url)]
DirectoryUrl = Annotated[InstanceOf[LdapUrl], BeforeValidator(parse_ldap_url)]
ApiListenUrl = Annotated[InstanceOf[ApiListen] | None, BeforeValidator(_parse_api_listen)]
MetricsListen = Annotated[InstanceOf[SocketName] | None, BeforeValidator(_parse_metrics_listen)]
