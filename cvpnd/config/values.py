"""The words of the file: networks, addresses, names, paths; sockets and servers are in ``sockets.py``.

Each parser takes what TOML gave and raises ``ValueError`` with what is wrong and the fix, separated by a semicolon.
Whatever can end up in an option pushed to clients is confined here to characters that cannot break out of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError
from pydantic import BeforeValidator, Field, InstanceOf, Strict, ValidationInfo

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

LOCAL_DIRECTORY = "local"
"""The directory that is made of `[[local_users]]` and of users that are added at run time."""
LOCAL = "local"
"""The route target that stands for the other clients of the endpoint."""

DATA_CIPHERS = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
"""Data channel ciphers by OpenVPN's names, best first: AEAD only."""

CBC_CIPHERS = ("AES-256-CBC", "AES-192-CBC", "AES-128-CBC")
"""What old clients may have instead, where the operator says so."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_INTERFACE = re.compile(r"[^\s/:%*\"'\\\x00-\x1f\x7f]{1,15}")
_PASSWORD = re.compile(r"((?://|^(?!.*//))[^:/@]*:).*@", re.DOTALL)
_USER = re.compile(r"(://)[^/?#:]*@")
"""By itself it may be a token."""
_QUERY = re.compile(r"(://[^?\s]*\?).*", re.DOTALL)
SECRET_WORDS = ("password", "secret", "hash", "token")
"""Keys with one of them in their name are followed by a secret."""
_ENDPOINT_ID = re.compile(r"cvpn-endpoint-[0-9a-f]{17}")


def show(value: object) -> str:
    """``value`` as TOML would spell it, shortened, and without what may be a secret in a URL: journals have it."""
    if isinstance(value, str):
        value = _QUERY.sub(r"\1…", _USER.sub(r"\1…@", _PASSWORD.sub(r"\1…@", value)))
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def text_of(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text; write {what} in quotes")
    return value


# -- networks and addresses ---------------------------------------------------------------------------------


_network = lru_cache(maxsize=16_384)(ip_network)
"""Every change looks at all routes again; parsing 1,000 of them takes as long as the rest of it."""


def parse_network(value: object) -> IPNetwork:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = text_of(value, "a network like 10.20.0.0/16")
    if "/" not in text:
        try:
            address = ip_address(text)
        except ValueError:
            raise ValueError(f"{show(text)} is not a network; write one like 10.20.0.0/16 or fd00:20::/48") from None
        raise ValueError(f"{text} has no prefix length; write {address}/{address.max_prefixlen} for this one address")
    try:
        return _network(text)
    except ValueError:
        pass
    try:
        corrected = ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{error}; write a network like 10.20.0.0/16 or fd00:20::/48") from None
    raise ValueError(f"{text} has host bits set; write {corrected}")


def covers(outer: IPNetwork, inner: IPNetwork) -> bool:
    """Whether ``inner`` lies in ``outer``; networks of different families never do."""
    return inner.prefixlen >= outer.prefixlen and overlap(outer, inner)


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Networks of different families never do. As ``overlaps``, in a fifth of its time: each change of a route compares
    it with all others."""
    if one.version != other.version:
        return False
    different = int(one.network_address) ^ int(other.network_address)
    return different >> (one.max_prefixlen - min(one.prefixlen, other.prefixlen)) == 0


def _parse_network_v4(value: object) -> IPv4Network:
    network = parse_network(value)
    if not isinstance(network, IPv4Network):
        raise ValueError(f"{network} is IPv6; write an IPv4 network here, IPv6 has a key of its own (…_v6)")
    return network


def _parse_network_v6(value: object) -> IPv6Network:
    network = parse_network(value)
    if not isinstance(network, IPv6Network):
        raise ValueError(f"{network} is IPv4; write an IPv6 network like fd00:100::/64")
    return network


def parse_address(value: object) -> IPAddress:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    text = text_of(value, "an address like 10.20.0.2")
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{show(text)} is not an IP address; write one like 10.20.0.2 or fd00:20::2") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text} has a zone; leave %{address.scope_id} away")
    return address


def is_loopback(host: str) -> bool:
    """Where plain HTTP will do: nobody is in between."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_address_v4(value: object) -> IPv4Address:
    address = parse_address(value)
    if not isinstance(address, IPv4Address):
        raise ValueError(f"{address} is IPv6; write an IPv4 address here, IPv6 has a key of its own (…_v6)")
    return address


def _parse_address_v6(value: object) -> IPv6Address:
    address = parse_address(value)
    if not isinstance(address, IPv6Address):
        raise ValueError(f"{address} is IPv4; write an IPv6 address like fd00:20::1")
    return address


def _parse_client_cidr(value: object) -> IPv4Network:
    network = _parse_network_v4(value)
    if network.prefixlen < 12:
        raise ValueError(f"{network} is larger than /12; choose a prefix from /12 to /22")
    if network.prefixlen > 22:
        raise ValueError(f"{network} is smaller than /22; choose a prefix from /12 to /22")
    return network


def _parse_client_cidr_v6(value: object) -> IPv6Network:
    network = _parse_network_v6(value)
    # OpenVPN 2.x takes no other prefix lengths in ifconfig-ipv6 than 64 to 124 (openvpn-wire.md section 16).
    if not 64 <= network.prefixlen <= 124:
        raise ValueError(f"{network}: clients accept prefixes from /64 to /124 only; /64 is a good choice")
    return network


# -- names --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ports:
    """First and last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def _parse_ports(value: object) -> Ports | None:
    if value is None or isinstance(value, Ports):
        return value
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value)) if not isinstance(value, bool) else None
    ports = Ports(int(found[1]), int(found[2] or found[1])) if found else Ports(0, 0)
    if not 1 <= ports.first <= ports.last <= 65_535:
        raise ValueError(f'{show(value)} is no range of ports; write "443" or "8000-8099"')
    return ports


def _parse_identifier(value: object) -> str:
    text = text_of(value, "a name")
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"{show(text)} cannot be a name; use up to 63 letters, digits, dots, dashes and underscores")
    return text


def _parse_endpoint_id(value: object) -> str:
    text = text_of(value, "an endpoint id")
    if not _ENDPOINT_ID.fullmatch(text):
        raise ValueError(
            f"{show(text)} is not an endpoint id; write cvpn-endpoint- and 17 hex digits, or leave it away to have one "
            "made from the name"
        )
    return text


def _parse_interface(value: object) -> str:
    text = text_of(value, "an interface name")
    if not _INTERFACE.fullmatch(text) or text in (".", ".."):
        raise ValueError(f"{show(text)} is not an interface name; 'ip link' lists those of this host")
    return text


def _parse_domain(value: object) -> str:
    text = text_of(value, "a domain").removesuffix(".")
    if not _DOMAIN.fullmatch(text):
        raise ValueError(f"{show(text)} is not a domain name; write one like corp.example.com")
    return text


def parse_host(value: object) -> str:
    text = text_of(value, "a host name or address")
    try:
        return str(parse_address(text))
    except ValueError:
        if _DOMAIN.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
            return text
    raise ValueError(f"{show(text)} is neither a host name nor an IP address; write one like vpn.example.com")


def _parse_remote(value: object) -> str:
    text = text_of(value, "a host name or address")
    if text.startswith("*."):
        return f"*.{_parse_domain(text[2:])}"
    return parse_host(text)


def _parse_attribute_name(value: object) -> str:
    """It goes into filters as it is."""
    if isinstance(value, str) and re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,63}", value):
        return value
    raise ValueError(f'{value!r} is no attribute of a directory; write its name, like "mail"')


def _parse_printable(value: object) -> str:
    text = text_of(value, "it")
    if len(text) > 255 or not text.isprintable():
        raise ValueError(f"{show(text)} has control characters or is longer than 255; shorten it to plain text")
    return text


LONGEST_BANNER = 1400
"""As in AWS."""


def _parse_banner(value: object) -> str:
    text = text_of(value, "it").replace("\r\n", "\n").strip()
    if len(text) > LONGEST_BANNER or not all(line.isprintable() for line in text.split("\n")):
        raise ValueError(f"has control characters or is longer than {LONGEST_BANNER}; shorten it to plain text")
    return text


def _parse_group(value: object) -> str:
    text = _parse_printable(value)
    if not text.strip():
        raise ValueError("an empty name is no group; name one, or write all_groups = true for everybody")
    return text


MAX_USER_NAME = 64
"""As long as a certificate's common name may be, so that one can be the other."""
MOST_HASH_MEMORY_KIB = 256 * 1024
MOST_HASH_PASSES = 16
"""What one login may cost us at most."""


def _parse_user_name(value: object) -> str:
    text = _parse_printable(value)
    if not text or text != text.strip() or len(text) > MAX_USER_NAME:
        raise ValueError(
            f"{show(text)} is no user name; use 1 to {MAX_USER_NAME} characters without spaces around them"
        )
    return text


def _parse_password_hash(value: object) -> str:
    """The value is never shown."""
    fix = "make one with 'cvpnctl user hash'"
    if not isinstance(value, str):
        raise ValueError(f"is not text; {fix}")
    try:
        found = extract_parameters(value)
    except (InvalidHashError, ValueError):
        raise ValueError(f"is no Argon2 hash; {fix}") from None
    if found.type is not Type.ID:
        raise ValueError(f"is not Argon2id; {fix}")
    if found.memory_cost > MOST_HASH_MEMORY_KIB or found.time_cost > MOST_HASH_PASSES:
        raise ValueError(f"takes more memory or passes than this gateway spends on a login; {fix}")
    return value


def _parse_state(value: object, info: ValidationInfo) -> str:
    text = text_of(value, "a database URL")
    if re.match(r"postgresql(\+[a-z]+)?://[^/]*/.", text):
        return text
    if not text.startswith("sqlite:///") or text in ("sqlite:///", "sqlite:////"):
        raise ValueError(
            "is neither an SQLite file nor a PostgreSQL database; write a URL like sqlite:////var/lib/cvpnd/state.db "
            "or postgresql://user@host/cvpnd"  # the value itself may hold a password
        )
    return f"sqlite:///{resolve(text.removeprefix('sqlite:///'), info)}"


def resolve(value: object, info: ValidationInfo) -> Path:
    """Relative paths are relative to the file they stand in."""
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"{show(value)} is not a path; write one in quotes")
    if "\n" in str(value):
        raise ValueError("is more than one line, as what is in a key file; write the path of a file with that in it")
    if "\0" in str(value):
        raise ValueError(f"{show(value)} contains a NUL; correct the path")
    base: Path | None = (info.context or {}).get("directory")
    return base / value if base is not None else Path(value)


Network = Annotated[InstanceOf[IPv4Network] | InstanceOf[IPv6Network], BeforeValidator(parse_network)]
NetworkV4 = Annotated[InstanceOf[IPv4Network], BeforeValidator(_parse_network_v4)]
NetworkV6 = Annotated[InstanceOf[IPv6Network], BeforeValidator(_parse_network_v6)]
Address = Annotated[InstanceOf[IPv4Address] | InstanceOf[IPv6Address], BeforeValidator(parse_address)]
AddressV4 = Annotated[InstanceOf[IPv4Address], BeforeValidator(_parse_address_v4)]
AddressV6 = Annotated[InstanceOf[IPv6Address], BeforeValidator(_parse_address_v6)]
ClientCidr = Annotated[InstanceOf[IPv4Network], BeforeValidator(_parse_client_cidr)]
ClientCidrV6 = Annotated[InstanceOf[IPv6Network], BeforeValidator(_parse_client_cidr_v6)]
PortRange = Annotated[InstanceOf[Ports] | None, BeforeValidator(_parse_ports)]
Identifier = Annotated[str, BeforeValidator(_parse_identifier)]
EndpointId = Annotated[str, BeforeValidator(_parse_endpoint_id)]
Interface = Annotated[str, BeforeValidator(_parse_interface)]
Domain = Annotated[str, BeforeValidator(_parse_domain)]
Remote = Annotated[str, BeforeValidator(_parse_remote)]
"""A host; with ``*.`` before a domain every name below it is the gateway's."""
Printable = Annotated[str, BeforeValidator(_parse_printable)]
AttributeName = Annotated[str, BeforeValidator(_parse_attribute_name)]
Banner = Annotated[str, BeforeValidator(_parse_banner)]
Group = Annotated[str, BeforeValidator(_parse_group)]
UserName = Annotated[str, BeforeValidator(_parse_user_name)]
PasswordHash = Annotated[str, BeforeValidator(_parse_password_hash)]
StateUrl = Annotated[str, BeforeValidator(_parse_state)]
FilePath = Annotated[Path, BeforeValidator(resolve)]
Flag = Annotated[bool, Strict()]


def whole(default: int, minimum: int, maximum: int) -> Any:
    """A field of TOML integers only, both bounds included."""
    return Field(default=default, ge=minimum, le=maximum, strict=True)
