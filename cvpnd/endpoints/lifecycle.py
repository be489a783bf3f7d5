"""Endpoints: what there is, and making, changing and deleting those that are managed."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Any

from cvpnd.config import EndpointConfig, Listen
from cvpnd.config.crosscheck import managed_problems, mistakable
from cvpnd.config.sockets import parse_listen
from cvpnd.endpoints import views
from cvpnd.endpoints.arns import saml_provider_arn
from cvpnd.endpoints.gone import SHOWN_S, endpoint_of, packed_endpoint
from cvpnd.endpoints.managed import CERTIFICATE, ManagedError, client_authorities, compose, methods
from cvpnd.endpoints.model import EndpointView, OperationError
from cvpnd.endpoints.operations import OperationsBase, check_tags
from cvpnd.store import StoredEndpoint

NOT_SETTINGS = frozenset({"id", "name", "server_certificate", "associate", "route", "authorize", "control_protection"})
"""Keys of an endpoint's table that a managed one has elsewhere, or that name files."""
FIXED = frozenset({"client_cidr", "client_cidr_v6"})
"""What AWS lets nobody change: addresses that clients and target networks know."""
FIXED_OF_METHOD = ("type", "directory", "saml_provider")
DEFAULT_PORT = 443


class LifecycleOperations(OperationsBase):
    async def list_endpoints(self) -> list[EndpointView]:
        connections = [c.endpoint for c in self._gateway.control.table if c.established]
        stored = {each.id: each for each in await self._store(self._stored.managed_endpoints)}
        tags = await self._store(self._stored.tags)
        return [
            self._as_now(
                views.endpoint_view(
                    e, connections.count(e), self._gateway.config, stored.get(e.id), tags.get(e.id, {})
                ),
                e.id,
            )
            for e in self._gateway.endpoints
        ]

    async def show_endpoint(self, endpoint: str) -> EndpointView:
        endpoint_id = self._endpoint(endpoint).id
        return next(view for view in await self.list_endpoints() if view.endpoint_id == endpoint_id)

    async def create_endpoint(
        self,
        *,
        server_certificate: str,
        client_certificate: str = "",
        settings: Mapping[str, Any],
        name: str | None = None,
        transport: str = "udp",
        port: int = DEFAULT_PORT,
        vpc: str = "",
        tags: Mapping[str, str] | None = None,
        listens_on: Sequence[int] = (),
        dual_stack: bool = False,
    ) -> EndpointView:
        """It listens when this returns. ``settings`` are keys of an ``[[endpoint]]`` table; without ``listen`` among
        them an address of ``[managed] listen`` is chosen for ``transport`` and ``port``: of any IP version, or one of
        each in ``listens_on``. ``dual_stack``: clients get IPv6 addresses too, of a private network. ``authentication``
        is a list of methods without files; without it, certificates of ``client_certificate`` are what is asked for."""
        check_tags(tags or {})
        async with self._change() as change:
            existing = await self._store(self._stored.managed_endpoints)
            self._check_quota(len(existing))
            endpoint_id = f"cvpn-endpoint-{secrets.token_hex(9)[:17]}"
            own = _checked_keys(settings)
            await self._name_stream(own, endpoint_id)
            if "listen" not in own:
                own["listen"] = [str(self._free_listen(transport, port, version)) for version in listens_on or (None,)]
            if dual_stack:
                own.setdefault("client_cidr_v6", str(_private_network(endpoint_id)))
            if vpc:
                self._check_vpc(vpc)
            stored = StoredEndpoint(
                endpoint_id, name or endpoint_id, own, server_certificate, client_certificate, vpc, time.time()
            )
            await self._check(stored, existing, is_new=True)
            await self._store(self._stored.add_endpoint, stored)
            if tags:
                await self._store(self._stored.set_tags, endpoint_id, tags)
            await self._put_in_force(change)
            return await self.show_endpoint(endpoint_id)

    async def modify_endpoint(
        self,
        endpoint: str,
        *,
        settings: Mapping[str, Any] | None = None,
        server_certificate: str | None = None,
        port: int | None = None,
        vpc: str | None = None,
    ) -> EndpointView:
        """``settings`` given are replaced, those that are None go back to their default; others stay."""
        async with self._change() as change:
            served, stored = await self._managed(endpoint)
            given = _checked_keys(settings or {})
            if fixed := sorted(FIXED & given.keys()):
                raise OperationError("InvalidParameterValue", f"{fixed[0]} cannot be changed; make another endpoint")
            own = {key: value for key, value in {**stored.settings, **given}.items() if value is not None}
            await self._name_stream(own, stored.id)
            if port is not None and "listen" not in given:
                transport = served.settings.listen[0].transport
                if all(listen.port != port for listen in served.settings.listen):
                    versions = dict.fromkeys(ip_address(listen.host).version for listen in served.settings.listen)
                    own["listen"] = [
                        str(self._free_listen(transport, port, version, served.settings)) for version in versions
                    ]
            if vpc is not None and vpc != stored.vpc:
                self._check_vpc(vpc, stored)
            new = replace(
                stored,
                settings=own,
                server_certificate=server_certificate or stored.server_certificate,
                vpc=stored.vpc if vpc is None else vpc,
            )
            others = [each for each in await self._store(self._stored.managed_endpoints) if each.id != stored.id]
            if _who_says_yes(new) != _who_says_yes(stored):
                raise OperationError("InvalidParameterValue", "authentication cannot be changed; make another endpoint")
            await self._check(new, others)
            await self._store(
                self._stored.change_endpoint,
                stored.id,
                settings=own,
                server_certificate=new.server_certificate,
                vpc=new.vpc,
            )
            await self._put_in_force(change)
            return await self.show_endpoint(stored.id)

    async def delete_endpoint(self, endpoint: str) -> EndpointView:
        """Its sessions have ended and nothing of it is left on the host when this returns. What it was."""
        async with self._change() as change:
            served, stored = await self._managed(endpoint)
            if stored.associations:
                raise OperationError(
                    "DependencyViolation",
                    f"endpoint {stored.name} is associated with {stored.associations[0].subnet}; disassociate it first",
                )
            view = await self.show_endpoint(served.id)
            with self._shown_as("deleting", stored.id):
                await self._store(self._stored.delete_endpoint, stored.id)
                await self._put_in_force(change)
            packed = packed_endpoint(replace(view, status="deleted", connections=0))
            await self._store(self._stored.remember_gone, stored.id, packed, time.time(), kept_s=SHOWN_S)
        return view

    async def deleted_endpoint(self, endpoint_id: str) -> EndpointView | None:
        """What it was, for as long as that is remembered."""
        packed = await self._store(self._stored.gone, endpoint_id, time.time() - SHOWN_S)
        return None if packed is None or packed["endpoint_id"] != endpoint_id else endpoint_of(packed)

    # -- checks ---------------------------------------------------------------------------------------------

    async def _check(self, new: StoredEndpoint, others: Sequence[StoredEndpoint], *, is_new: bool = False) -> None:
        """All that can be known before it is tried."""
        certificates = {each.arn: each for each in await self._store(self._stored.imported_certificates)}
        certified = any(method.get("type") == CERTIFICATE for method in methods(new))
        if certified and not new.client_certificate:
            raise OperationError(
                "MissingParameter",
                f"{CERTIFICATE} needs client_certificate: the ARN of an imported authority; or say in authentication "
                "what else clients log in with",
            )
        if new.client_certificate and not certified:
            raise OperationError(
                "InvalidParameterCombination", f"client_certificate goes with {CERTIFICATE}; add that to authentication"
            )
        for arn in (new.server_certificate, *([new.client_certificate] if certified else [])):
            if arn not in certificates:
                raise OperationError("InvalidParameterValue", f"{arn}: there is no such certificate; import it first")
        if certified and not client_authorities(certificates[new.client_certificate]):
            raise OperationError(
                "InvalidParameterValue",
                f"{new.client_certificate} has no certificate authority in it; import it with its chain",
            )
        config = self._gateway.config
        try:
            endpoint = _draft(new)
            beside = [_draft(other) for other in others]
        except ManagedError as error:
            raise OperationError("InvalidParameterValue", str(error)) from None
        together = [*beside, endpoint]
        named = mistakable(config, together) if is_new else ()  # a change gives it no other name
        for wrong, problem in (*managed_problems(config, together), *named):
            if wrong.id == new.id:
                raise OperationError("InvalidParameterValue", problem)
        await self._check_identity_providers(endpoint)
        await self._check_log(endpoint)

    async def _check_identity_providers(self, endpoint: EndpointConfig) -> None:
        """Of the file by ARN or by id, of the store by ARN."""
        wanted = {arn for m in endpoint.authentication for arn in (m.saml_provider, m.portal_saml_provider) if arn}
        known = {name for p in self._gateway.config.saml_providers for name in (p.id, saml_provider_arn(p.id))}
        known |= {each.arn for each in await self._store(self._stored.saml_providers)}
        for arn in sorted(wanted - known):
            raise OperationError("InvalidParameterValue", f"{arn}: there is no such SAML provider; create it first")

    async def _check_log(self, endpoint: EndpointConfig) -> None:
        wanted = endpoint.connection_log
        if wanted is None:
            return
        groups = {group.name: group for group in await self._store(self._stored.log_groups)}
        if wanted.group not in groups:
            raise OperationError("InvalidParameterValue", f"there is no log group {wanted.group}; create it first")
        if wanted.stream not in groups[wanted.group].streams:
            raise OperationError(
                "InvalidParameterValue", f"log group {wanted.group} has no stream {wanted.stream}; create it first"
            )

    async def _name_stream(self, settings: dict[str, Any], endpoint_id: str) -> None:
        """A log group without a stream: one of the endpoint's own, which is made."""
        wanted = settings.get("connection_log")
        if not isinstance(wanted, Mapping) or wanted.get("stream"):
            return
        settings["connection_log"] = {**wanted, "stream": endpoint_id}
        for group in await self._store(self._stored.log_groups):
            if group.name == wanted.get("group") and endpoint_id not in group.streams:
                await self._store(self._stored.add_log_stream, group.name, endpoint_id, time.time())

    def _check_quota(self, existing: int) -> None:
        config = self._gateway.config
        if existing >= config.quotas.endpoints:
            raise OperationError(
                "ClientVpnEndpointLimitExceeded",
                f"there are {existing} endpoints made at run time; raise quotas.endpoints in {config.path}",
            )

    def _check_vpc(self, vpc: str, stored: StoredEndpoint | None = None) -> None:
        """``stored``: the endpoint as it is, whose subnets have to be in it."""
        config = self._gateway.config
        if all(vpc != each.id for each in config.vpcs):
            raise OperationError("InvalidVpcID.NotFound", f"{config.path} declares no vpc {vpc}")
        if stored is not None and any(config.subnet(each.subnet).vpc != vpc for each in stored.associations):
            raise OperationError(
                "InvalidParameterValue", f"endpoint {stored.name} is associated with another vpc; disassociate it first"
            )

    def _free_listen(
        self, transport: str, port: int, version: int | None = None, besides: EndpointConfig | None = None
    ) -> Listen:
        """``version``: of the address; None: any."""
        taken = {
            (listen.transport, listen.host, listen.port)
            for served in self._gateway.endpoints
            if served.settings is not besides
            for listen in served.settings.listen
        }
        wildcard = {"0.0.0.0", "::"}  # noqa: S104
        wanted = [a for a in self._gateway.config.managed.listen if version in (None, a.version)]
        if not wanted:
            raise OperationError(
                "InvalidParameterValue",
                f"managed.listen in {self._gateway.config.path} has no IPv{version} address to listen on; add one",
            )
        for address in wanted:
            host = str(address)
            clash = any(
                (transport, port) == (other, number)
                and (where == host or (wildcard & {where, host} and ip_address(where).version == address.version))
                for other, where, number in taken
            )
            if not clash:
                shown = f"[{host}]" if address.version == 6 else host
                try:
                    return parse_listen(f"{transport}://{shown}:{port}")
                except ValueError as error:
                    raise OperationError("InvalidParameterValue", str(error)) from None
        raise OperationError(
            "InvalidParameterValue",
            f"port {port} over {transport} is taken at every address; choose another, or add an address to "
            f"managed.listen in {self._gateway.config.path}",
        )


def _private_network(endpoint_id: str) -> IPv6Network:
    """A unique local network (RFC 4193), its global id by chance, as the endpoint's is."""
    return IPv6Network((b"\xfd" + hashlib.sha256(endpoint_id.encode()).digest()[:7] + bytes(8), 64))


_NO_FILES: dict[str, Path | None] = {
    "certificate": Path("certificate"),
    "private_key": Path("private_key"),
    "chain": None,
    "client_ca": Path("client_ca"),
    "crl": None,
}


def _draft(stored: StoredEndpoint) -> EndpointConfig:
    """As it would be, files aside. Raises ``ManagedError``."""
    return compose(stored, _NO_FILES)


def _who_says_yes(stored: StoredEndpoint) -> list[tuple[Any, ...]]:
    return sorted(tuple(str(method.get(key, "")) for key in FIXED_OF_METHOD) for method in methods(stored))


def _checked_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    for key in settings:
        if key in NOT_SETTINGS or key not in EndpointConfig.model_fields:
            raise OperationError("InvalidParameterValue", f"{key} is no setting of a managed endpoint")
    given = settings.get("authentication")
    for method in [given] if isinstance(given, Mapping) else given or []:
        if not isinstance(method, Mapping) or {"client_ca", "crl"} & method.keys():
            raise OperationError(
                "InvalidParameterValue",
                "authentication is a list of tables, each with a type, and names no files: certificates are imported",
            )
    return dict(settings)
