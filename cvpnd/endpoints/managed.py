"""Managed endpoints as configuration: from their rows in the store to the model that the file's endpoints have.

Certificates, keys and revocation lists come out of the store into files below the runtime directory (0700, gone at the
end; usually memory), because whoever serves an endpoint reads files, and watches them. A file is named by what is in
it and never changes, so going back to what was before is naming the files that were named before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import ValidationError
from pyroute2 import IPRoute

from cvpnd.auth.crl_scope import UNREADABLE, is_authority
from cvpnd.config import Config, EndpointConfig, Listen, RouteConfig, inherit_mfa
from cvpnd.config.values import LOCAL
from cvpnd.endpoints.arns import saml_provider_arn
from cvpnd.host.routes import MAIN_TABLE
from cvpnd.store import Store, StoredCertificate, StoredEndpoint, StoredRoute

CERTIFICATE = "certificate-authentication"
PROVIDER_KEYS = ("saml_provider", "portal_saml_provider")


class ManagedError(Exception):
    """A managed endpoint cannot be made so; the text names it."""


class EndpointFault(ManagedError):
    """The same, of one that is known."""

    def __init__(self, endpoint_id: str, text: str) -> None:
        super().__init__(text)
        self.endpoint_id = endpoint_id


def compose(
    stored: StoredEndpoint,
    files: Mapping[str, Path | None],
    *,
    remote: str | None = None,
    mfa: Mapping[str, str] = MappingProxyType({}),
    providers: Mapping[str, str] = MappingProxyType({}),
) -> EndpointConfig:
    """``files``: certificate, private_key, chain, client_ca, crl. ``mfa``: of each directory, where the endpoint says
    nothing. ``providers``: ids of the file's SAML providers, by their ARNs. Raises ``ManagedError``."""
    settings = dict(stored.settings)
    certificate = {key: files[key] for key in ("certificate", "private_key", "chain") if files[key] is not None}
    trusted = {key: files[key] for key in ("client_ca", "crl") if files[key] is not None}
    routes: dict[str, StoredRoute] = {}
    for route in stored.routes:  # of several ways to one destination the oldest counts
        routes.setdefault(route.destination, route)
    if remote is not None:
        settings.setdefault("remote", remote)
    try:
        return EndpointConfig.model_validate(
            {
                **settings,
                "id": stored.id,
                "name": stored.name,
                "server_certificate": certificate,
                "authentication": [
                    {**method, **trusted} if method.get("type") == CERTIFICATE else _by_id(method, providers)
                    for method in inherit_mfa(methods(stored), mfa)
                ],
                "associate": [{"subnet": each.subnet, "nat": each.nat} for each in stored.associations],
                "route": [_route(each.destination, each.target, each.description) for each in routes.values()],
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ManagedError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


@lru_cache(maxsize=4096)
def _route(destination: str, target: str, description: str) -> RouteConfig | dict[str, str]:
    """Every change composes all routes again. One that cannot be is left to who names its place in the endpoint."""
    route = {"destination": destination, "target": target, "description": description}
    try:
        return RouteConfig.model_validate(route)
    except ValidationError:
        return route


def methods(stored: StoredEndpoint) -> list[dict[str, Any]]:
    """How clients log in: as an ``[[endpoint]]`` table has it, without files."""
    given = stored.settings.get("authentication") or {}
    if isinstance(given, Mapping):  # what there is to say of certificates
        return [{"type": CERTIFICATE, **given}]
    return [dict(each) for each in given]


def _by_id(method: Mapping[str, Any], providers: Mapping[str, str]) -> dict[str, Any]:
    return {key: providers.get(value, value) if key in PROVIDER_KEYS else value for key, value in method.items()}


def named_providers(stored: StoredEndpoint) -> set[str]:
    """SAML providers that it logs people in by: ARNs, and ids of the file's."""
    return {str(method[key]) for method in methods(stored) for key in PROVIDER_KEYS if method.get(key)}


@dataclass(frozen=True, slots=True)
class SetAside:
    """How an endpoint goes on that cannot be served here as the store has it: where it listens and over what networks
    is this gateway's, who gets in and where they may go is as the store says, or nobody does."""

    listen: tuple[Listen, ...]
    """Where it does that already; nowhere: nobody gets in here by it."""

    def as_far_as_possible(self, stored: StoredEndpoint, config: Config) -> StoredEndpoint:
        """Without networks that are not declared here."""
        return replace(
            stored,
            settings={**stored.settings, "listen": [str(each) for each in self.listen]},
            associations=tuple(each for each in stored.associations if config.has_subnet(each.subnet)),
            routes=tuple(each for each in stored.routes if each.target == LOCAL or config.has_subnet(each.target)),
        )


class ManagedEndpoints:
    """The store's endpoints as the gateway serves them. Synchronous; call it from a thread."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory

    def read(self, config: Config, aside: Mapping[str, SetAside]) -> tuple[EndpointConfig, ...]:
        """As of now, which is inside the transaction that is joined, if any. ``aside``: by id, those of them that
        cannot be made so here. Raises ``EndpointFault``, ``StoreError`` or ``OSError``."""
        stored = [
            aside[each.id].as_far_as_possible(each, config) if each.id in aside else each
            for each in self._store.managed_endpoints()
            if each.id not in aside or aside[each.id].listen
        ]
        if not stored:
            return ()
        found = []
        certificates = {each.arn: each for each in self._store.imported_certificates()}
        factors = {directory.id: directory.mfa for directory in config.directories}
        providers = self._providers(config, stored)
        for each in stored:
            declared = [association for association in each.associations if config.has_subnet(association.subnet)]
            if len(declared) < len(each.associations):
                gone = next(a.subnet for a in each.associations if a not in declared)
                raise EndpointFault(
                    each.id,
                    f"endpoint {each.name}, made at run time, is associated with {gone}, which {config.path} does not "
                    "declare any more; declare it again, or disassociate it first",
                )
            server = certificates[each.server_certificate]
            client = certificates[each.client_certificate] if each.client_certificate else None
            files = self._files(server, client, each.crl)
            remote = None if each.settings.get("remote") else config.managed.remote or _remote(server, each, config)
            try:
                found.append(compose(each, files, remote=remote, mfa=factors, providers=providers))
            except ManagedError as error:
                raise EndpointFault(each.id, f"endpoint {each.name}, made at run time: {error}") from None
        return tuple(found)

    def _providers(self, config: Config, stored: Sequence[StoredEndpoint]) -> dict[str, str]:
        """Ids of the file's SAML providers by their ARNs, but for those ARNs that the store has."""
        if not any(named_providers(each) for each in stored):
            return {}
        own = {each.arn for each in self._store.saml_providers()}
        found = {saml_provider_arn(each.id): each.id for each in config.saml_providers}
        for each in stored:
            for arn in sorted(named_providers(each)):
                if arn.startswith("arn:") and arn not in own and arn not in found:
                    raise EndpointFault(
                        each.id,
                        f"endpoint {each.name}, made at run time, logs people in by {arn}, which {config.path} does "
                        "not declare any more; declare it again, or delete the endpoint first",
                    )
        return {arn: name for arn, name in found.items() if arn not in own}

    def forget(self, served: Sequence[EndpointConfig]) -> None:
        """Remove the files that none of these name."""
        named = {path for endpoint in served for path in _paths(endpoint)}
        with contextlib.suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                if path not in named:
                    path.unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _files(
        self, server: StoredCertificate, client: StoredCertificate | None, crl: str | None
    ) -> dict[str, Path | None]:
        return {
            "certificate": self._file(server.certificate),
            "private_key": self._file(self._store.private_key(server.arn)),
            "chain": self._file(server.chain) if server.chain else None,
            "client_ca": None if client is None else self._file(client_authorities(client)),
            "crl": self._file(crl) if crl is not None else None,
        }

    def _file(self, content: str | bytes) -> Path:
        data = content if isinstance(content, bytes) else content.encode()
        path = self._directory / f"{hashlib.sha256(data).hexdigest()[:40]}.pem"
        if path.exists():
            return path
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
        partial.replace(path)
        return path


def client_authorities(certificate: StoredCertificate) -> str:
    """What clients' certificates may come from, PEM: the authorities among an imported certificate and its chain. Empty
    if there is none."""
    found = x509.load_pem_x509_certificates((certificate.certificate + "\n" + certificate.chain).encode())
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in found if _is_authority(each))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return is_authority(certificate)
    except UNREADABLE:
        return False


def _paths(endpoint: EndpointConfig) -> list[Path]:
    certificate, method = endpoint.server_certificate, endpoint.certificate_method
    given = [certificate.certificate, certificate.private_key, certificate.chain]
    given += [] if method is None else [method.client_ca, method.crl]
    return [path for path in given if path is not None]


# -- under which name clients find it -----------------------------------------------------------------------


def _remote(server: StoredCertificate, stored: StoredEndpoint, config: Config) -> str | None:
    only_v6 = all("[" in str(listen) for listen in stored.settings.get("listen") or [""])
    family = socket.AF_INET6 if only_v6 else socket.AF_INET
    return _full_name(x509.load_pem_x509_certificate(server.certificate.encode())) or _own_address(config, family)


def _full_name(certificate: x509.Certificate) -> str | None:
    """The first name of a server certificate that could be looked up."""
    names: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound, *UNREADABLE):
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names += extension.value.get_values_for_type(x509.DNSName)
    with contextlib.suppress(*UNREADABLE):
        names += [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return next((name for name in names if "." in name and "*" not in name and _is_host(name)), None)


def _is_host(name: str) -> bool:
    return all(part and part.replace("-", "").isalnum() and part.isascii() for part in name.split("."))


def _own_address(config: Config, family: int) -> str | None:
    """An address of this host that clients may know it by: of the default route's interface, else of the first one that
    is no target network's."""
    # strict: the kernel leaves out what was not asked for, as the 1,000 routes of another table
    with IPRoute(strict_check=True) as netlink:
        names = {link["index"]: str(link.get("ifname")) for link in netlink.get_links()}
        addresses = [
            (names[a["index"]], str(a.get("IFA_LOCAL") or a.get("IFA_ADDRESS")))
            for a in netlink.get_addr(family=family)
        ]
        main = netlink.get_routes(family=family, table=MAIN_TABLE)
        defaults = {names.get(r.get("oif")) for r in main if r["dst_len"] == 0}
    targets = {subnet.interface for subnet in config.subnets}
    reachable = [(name, a) for name, a in addresses if not (ip_address(a).is_loopback or ip_address(a).is_link_local)]
    usable = [(name, a) for name, a in reachable if not name.startswith("cvpn")]
    usable.sort(key=lambda each: (each[0] not in defaults, each[0] in targets))
    return usable[0][1] if usable else None
