"""Every operation on the running gateway, with its validation. The HTTP skins call this and nothing else does.

Changes are made in this order: check, store (one transaction with its audit record), put in force. So what an answer
says is in force, and what a crash leaves behind comes into force at the next start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import ParamSpec, TypeVar

from cvpnd.endpoints import views
from cvpnd.endpoints.gateway import Gateway, GatewayError
from cvpnd.endpoints.model import (
    CertificateView,
    ClientKeyView,
    ConnectionView,
    EndpointView,
    Explanation,
    OperationError,
    RouteView,
    RuleView,
)
from cvpnd.endpoints.protection import issue_client_key
from cvpnd.pki.authority import Authority
from cvpnd.pki.files import PkiError
from cvpnd.pki.index import CertificateRecord, certificates, format_serial, parse_serial
from cvpnd.pki.issue import CLIENT_DAYS, IssuedCertificate, issue_client
from cvpnd.pki.revocation import revoke, sign_again_if_due
from cvpnd.policy.decide import Decision, best_route, decide
from cvpnd.policy.model import Route, Rule
from cvpnd.profile import ProfileError, render_profile
from cvpnd.reasons import End
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.store.store import StoredClientKey, StoreError
from cvpnd.wire.wrap.client_key import ClientKeyMetadata

P = ParamSpec("P")
T = TypeVar("T")

TERMINATED_TEXT = "Terminated by the administrator"


class Operations:
    """Raises ``OperationError``; after an error nothing has changed."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._changing = asyncio.Lock()
        """Held by whatever changes the store or what is in force, so that the two cannot drift apart."""

    # -- endpoints, connections, routes ---------------------------------------------------------------------

    async def list_endpoints(self) -> list[EndpointView]:
        connections = [c.endpoint for c in self._gateway.control.table if c.established]
        return [views.endpoint_view(e, connections.count(e)) for e in self._gateway.endpoints]

    async def list_connections(self, endpoint: str | None = None) -> list[ConnectionView]:
        """Live ones, and those that ended within the last hour."""
        only = self._endpoint(endpoint) if endpoint is not None else None
        table = self._gateway.control.table
        found = [c for c in table if c.keys_installed] + table.recently_ended(time.time())
        return [
            views.connection_view(self._gateway.plane, c) for c in found if only is None or c.endpoint.id == only.id
        ]

    async def terminate_connections(
        self, *, connection_id: str | None = None, username: str | None = None, endpoint: str | None = None
    ) -> list[str]:
        """End them for good and return their ids. A user name without sessions is an empty answer, not an error."""
        if (connection_id is None) == (username is None):
            raise OperationError("InvalidParameterCombination", "name either a connection id or a user")
        only = self._endpoint(endpoint) if endpoint is not None else None
        chosen = [
            c
            for c in self._gateway.control.table
            if c.established
            and (only is None or c.endpoint is only)
            and (c.connection_id == connection_id or username in (c.username or None, c.common_name))
        ]
        if connection_id is not None and not chosen:
            raise OperationError("InvalidConnectionId.NotFound", f"{connection_id}: no such active connection")
        for connection in chosen:
            self._gateway.control.halt(connection, End.TERMINATED, TERMINATED_TEXT)
        return [connection.connection_id for connection in chosen]

    async def list_routes(self, endpoint: str | None = None) -> list[RouteView]:
        return [views.route_view(e, route) for e in self._chosen(endpoint) for route in e.routes]

    # -- authorization rules --------------------------------------------------------------------------------

    async def list_rules(self, endpoint: str | None = None) -> list[RuleView]:
        return [views.rule_view(e, rule) for e in self._chosen(endpoint) for rule in e.rules]

    async def authorize(self, endpoint: str, network: str, group: str | None, description: str) -> RuleView:
        """In force for live sessions when this returns."""
        async with self._changing:
            served = self._endpoint(endpoint)
            prefix = _network(network)
            if _rule(served, prefix, group) is not None:
                raise OperationError(
                    "InvalidClientVpnDuplicateAuthorizationRule",
                    f"{served.settings.name} has this rule for {prefix} already",
                )
            rule = Rule(prefix, group, description, "store")
            await self._store(self._gateway.store.add_rule, served.id, prefix, group, description)
            self._gateway.put_rules_in_force(served, [*served.rules, rule])
            return views.rule_view(served, rule)

    async def revoke(self, endpoint: str, network: str, group: str | None) -> RuleView:
        """Out of force for live sessions when this returns."""
        async with self._changing:
            served = self._endpoint(endpoint)
            prefix = _network(network)
            rule = _rule(served, prefix, group)
            if rule is None:
                raise OperationError(
                    "InvalidClientVpnEndpointAuthorizationRuleNotFound",
                    f"{served.settings.name} has no rule for {prefix} and {_whom(group)}; see 'cvpnctl rule list'",
                )
            if rule.origin == "file":
                raise OperationError(
                    "IncorrectState", f"this rule belongs to {self._gateway.config.path}; remove it there and reload"
                )
            await self._store(self._gateway.store.remove_rule, served.id, prefix, group)
            self._gateway.put_rules_in_force(served, [other for other in served.rules if other is not rule])
            return views.rule_view(served, rule)

    async def explain(self, who: str, destination: str, endpoint: str | None, groups: tuple[str, ...]) -> Explanation:
        """Whether ``who`` (a user or certificate name) may reach ``destination``, and why. Without ``groups``, those of
        the user's live session count, or none."""
        served = self._only_endpoint(endpoint)
        try:
            address = ip_address(destination)
        except ValueError:
            raise OperationError(
                "InvalidParameterValue", f"{destination} is not an IP address; resolve names before asking"
            ) from None
        if not groups:
            for connection in self._gateway.control.table:
                identity = connection.identity
                if (
                    connection.endpoint is served
                    and identity is not None
                    and who in (identity.username, identity.common_name)
                ):
                    groups = tuple(sorted(identity.groups))
        decision = decide(served.rules, groups, address)
        route = best_route(served.routes, address)
        return Explanation(
            allowed=decision.allowed,
            endpoint_id=served.id,
            destination=destination,
            groups=groups,
            rule=views.rule_view(served, decision.rule) if decision.rule is not None else None,
            deciding_groups=decision.deciding_groups,
            route=views.route_view(served, route) if route is not None else None,
            sentence=_sentence(who, destination, decision, route),
        )

    # -- certificates and profiles --------------------------------------------------------------------------

    async def list_certificates(self) -> list[CertificateView]:
        return [_certificate_view(record) for record in await self._pki(certificates, await self._authority())]

    async def issue_certificate(self, name: str, days: int) -> IssuedCertificate:
        return await self._pki(issue_client, await self._authority(), name, days)

    async def revoke_certificate(self, name: str | None, serial: str | None) -> CertificateView:
        """On the CRL, and its live sessions ended, when this returns. Of several the newest is answered."""
        async with self._changing:
            records = await self._pki(revoke, await self._authority(), name=name, serial=serial)
            await self._gateway.reload_trust()
            return _certificate_view(records[0])

    async def list_client_keys(self, endpoint: str | None = None) -> list[ClientKeyView]:
        """tls-crypt-v2 keys that were handed out, and whether they are accepted now."""
        chosen = {served.id: served for served in self._chosen(endpoint)}
        stored = await self._store(self._gateway.store.client_keys)
        return [_client_key_view(chosen[key.endpoint_id], key) for key in stored if key.endpoint_id in chosen]

    async def profile(
        self, name: str, *, endpoint: str | None, kind: str, issue: bool, serial: str | None = None
    ) -> str:
        """The ``.ovpn`` text. With ``issue`` it holds a new certificate and its key, which is nowhere else; without, it
        refers to the files of somebody who has them. Where the endpoint has tls-crypt-v2 it holds a new client key that
        belongs to that certificate: the new one, the one with that ``serial``, or the newest that we issued."""
        served = self._only_endpoint(endpoint)
        own_keys = served.protection.server_key is not None
        if serial is not None and not own_keys:
            raise OperationError("InvalidParameterCombination", f"{served.settings.name} has no tls_crypt_v2")
        render = partial(render_profile, served.settings, served.trust, name, kind=kind)
        try:
            if issue:
                render(client_key=b"" if own_keys else None)  # what cannot be rendered is not issued
                issued = await self.issue_certificate(name, CLIENT_DAYS)
                client_key = await self._issue_client_key(served, name, issued.serial) if own_keys else None
                return render(certificate=issued.certificate, private_key=issued.private_key, client_key=client_key)
            number = await self._serial(name, serial) if own_keys else None
            render(client_key=None if number is None else b"")
            return render(client_key=None if number is None else await self._issue_client_key(served, name, number))
        except ProfileError as error:
            raise OperationError("InvalidParameterValue", str(error)) from error

    async def _serial(self, name: str, serial: str | None) -> int | None:
        """Of the certificate that a client key is to belong to; None where nobody knows."""
        if serial is not None:
            return await self._pki(parse_serial, serial)
        if self._gateway.config.pki.directory is None:
            return None
        records = await self._pki(certificates, await self._authority(), name)
        return next((record.serial for record in records if record.status == "valid"), None)

    async def _issue_client_key(self, served: ServedEndpoint, name: str, serial: int) -> bytes:
        server_key = served.protection.server_key
        assert server_key is not None  # noqa: S101 - looked at by the caller
        await self._store(self._gateway.store.add_client_key, StoredClientKey(served.id, name, serial, time.time()))
        return issue_client_key(server_key, name, serial)

    async def reload(self) -> dict[str, object]:
        """Read the configuration again. A mistake in it keeps everything as it was."""
        async with self._changing:
            try:
                return await self._gateway.reload()
            except GatewayError as error:
                raise OperationError("InvalidParameterValue", str(error)) from error

    async def keep_crl_fresh(self) -> None:
        """Sign our own CRL again long before it expires, which would lock everybody out. The daemon calls it hourly."""
        if self._gateway.config.pki.directory is not None:
            async with self._changing:
                await self._pki(sign_again_if_due, await self._authority())

    async def poll_trust(self, now: float) -> None:
        async with self._changing:
            await self._gateway.poll_trust(now)

    async def _store(self, change: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(change, *args, **kwargs)
        except StoreError as error:
            raise OperationError("InternalError", str(error)) from error

    async def _pki(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(do, *args, **kwargs)
        except PkiError as error:
            raise OperationError("InvalidParameterValue", str(error)) from error

    async def _authority(self) -> Authority:
        directory = self._gateway.config.pki.directory
        if directory is None:
            raise OperationError(
                "UnsupportedOperation",
                f"this gateway has no certificate authority; name its directory in {self._gateway.config.path}: "
                "[pki] directory",
            )
        return await self._pki(Authority.open, directory)

    # -- helpers --------------------------------------------------------------------------------------------

    def _endpoint(self, name_or_id: str) -> ServedEndpoint:
        for served in self._gateway.endpoints:
            if name_or_id in (served.id, served.settings.name):
                return served
        known = ", ".join(e.settings.name for e in self._gateway.endpoints)
        raise OperationError("InvalidClientVpnEndpointId.NotFound", f"no endpoint {name_or_id}; there are: {known}")

    def _only_endpoint(self, name_or_id: str | None) -> ServedEndpoint:
        if name_or_id is not None:
            return self._endpoint(name_or_id)
        if len(self._gateway.endpoints) != 1:
            known = ", ".join(e.settings.name for e in self._gateway.endpoints)
            raise OperationError("MissingParameter", f"say which endpoint with --endpoint: {known}")
        return next(iter(self._gateway.endpoints))

    def _chosen(self, endpoint: str | None) -> list[ServedEndpoint]:
        return list(self._gateway.endpoints) if endpoint is None else [self._endpoint(endpoint)]


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        corrected = ip_network(text, strict=False)
    except ValueError:
        raise OperationError("InvalidParameterValue", f"{text} is not a network; write one like 10.20.0.0/16") from None
    raise OperationError("InvalidParameterValue", f"{text} has host bits set; write {corrected}")


def _rule(served: ServedEndpoint, network: IPv4Network | IPv6Network, group: str | None) -> Rule | None:
    return next((r for r in served.rules if r.network == network and r.group == group), None)


def _certificate_view(record: CertificateRecord) -> CertificateView:
    return CertificateView(
        name=record.name,
        serial=record.serial_hex,
        not_before=record.not_before.timestamp(),
        not_after=record.not_after.timestamp(),
        status=record.status,
    )


def _client_key_view(served: ServedEndpoint, key: StoredClientKey) -> ClientKeyView:
    status = "unused"
    if served.protection.server_key is not None:
        metadata = ClientKeyMetadata(key.name, key.serial, int(key.created_at))
        refused = served.protection.check_client_key(metadata.serialise())
        status = "valid" if refused is None else str(refused).removeprefix("client_key_").replace("_", "-")
    return ClientKeyView(served.id, key.name, format_serial(key.serial), key.created_at, status)


def _whom(group: str | None) -> str:
    return "all users" if group is None else f"group {group}"


def _sentence(who: str, destination: str, decision: Decision, route: Route | None) -> str:
    rule = decision.rule
    if rule is None:
        return f"{who} may not reach {destination}: no authorization rule covers it."
    if not decision.allowed:
        named = ", ".join(_whom(r.group) for r in decision.rules_on_prefix)
        return f"{who} may not reach {destination}: the longest match {rule.network} allows only {named}."
    if route is None:
        return f"{who} may reach {destination} by the rule for {rule.network}, but no route leads there."
    return (
        f"{who} may reach {destination}: the rule for {rule.network} allows {_whom(rule.group)}, "
        f"and the route {route.destination} leads to {route.target}."
    )
