"""What a managed endpoint leads to: its associations with subnets, and its routes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from cvpnd.config import LOCAL, SubnetConfig, covers
from cvpnd.endpoints import views
from cvpnd.endpoints.gone import SHOWN_S, association_of, packed_association
from cvpnd.endpoints.model import AssociationView, OperationError, RouteView
from cvpnd.endpoints.operations import OperationsBase, network, one_line
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.store import StoredAssociation, StoredEndpoint, StoredRoute

SMALLEST_SUBNET = 27
"""The longest prefix of a subnet that AWS takes."""


class NetworkOperations(OperationsBase):
    async def list_associations(self, endpoint: str | None = None) -> list[AssociationView]:
        chosen = {served.id: served for served in self._chosen(endpoint)}
        config = self._gateway.config
        found = [
            AssociationView(
                views.file_association_id(e.id, a.subnet), e.id, a.subnet, config.subnet(a.subnet).vpc, a.nat
            )
            for e in config.endpoints
            if e.id in chosen
            for a in e.associate
        ]
        for stored in await self._store(self._stored.managed_endpoints):
            if stored.id in chosen:
                found += [self._association_view(stored.id, each) for each in stored.associations]
        return found

    async def associate(self, endpoint: str, subnet_id: str, *, nat: bool = True) -> AssociationView:
        """Clients know the way there when this returns."""
        async with self._change() as change:
            served, stored = await self._managed(endpoint)
            subnet = self._subnet(subnet_id)
            self._check_association(stored, subnet)
            clash = next(
                (c for c in self._gateway.config.vpc(subnet.vpc).cidr if c.overlaps(served.settings.client_cidr)), None
            )
            if clash is not None:
                raise OperationError(
                    "InvalidClientVpnSubnetId.OverlappingCidr",
                    f"{clash} of vpc {subnet.vpc} overlaps the client CIDR {served.settings.client_cidr}",
                )
            new = StoredAssociation(f"cvpn-assoc-{secrets.token_hex(9)[:17]}", subnet_id, nat, time.time())
            await self._store(self._stored.add_association, stored.id, new)
            await self._put_in_force(change)
            return self._association_view(stored.id, new)

    async def disassociate(self, endpoint: str, association_id: str) -> AssociationView:
        """By its id, or by its subnet's. The routes through the subnet go with it."""
        async with self._change() as change:
            _, stored = await self._managed(endpoint)
            gone = next((a for a in stored.associations if association_id in (a.id, a.subnet)), None)
            if gone is None:
                raise OperationError(
                    "InvalidClientVpnAssociationIdNotFound",
                    f"endpoint {stored.name} has no association {association_id}",
                )
            with self._shown_as("disassociating", gone.id):
                await self._store(self._stored.remove_association, stored.id, gone.id)
                await self._put_in_force(change)
            view = self._association_view(stored.id, gone)
            packed = packed_association(replace(view, status="disassociated"))
            await self._store(self._stored.remember_gone, gone.id, packed, time.time(), kept_s=SHOWN_S)
        return view

    async def disassociated(self, endpoint: str, association_id: str) -> AssociationView | None:
        """What it was, for as long as that is remembered."""
        packed = await self._store(self._stored.gone, association_id, time.time() - SHOWN_S)
        if packed is None or packed["endpoint_id"] != self._endpoint(endpoint).id:
            return None
        return association_of(packed)

    # -- routes ---------------------------------------------------------------------------------------------

    async def list_routes(self, endpoint: str | None = None) -> list[RouteView]:
        """Of a managed endpoint each association's route to its vpc, and every route that was added, also where an
        older one to the same network is in force."""
        stored = {each.id: each for each in await self._store(self._stored.managed_endpoints)}
        found: list[RouteView] = []
        for served in self._chosen(endpoint):
            if served.id in stored:
                found += self._route_views(stored[served.id])
            else:
                found += [views.route_view(served, route) for route in served.routes]
        return found

    async def add_route(self, endpoint: str, destination: str, target: str, description: str = "") -> RouteView:
        """Clients know of it when this returns. ``target`` is an associated subnet, or ``local``."""
        (view,) = await self.add_routes(endpoint, [(destination, target, description)])
        return view

    async def add_routes(self, endpoint: str, wanted: Sequence[tuple[str, str, str]]) -> list[RouteView]:
        """Destination, target and description of each. All of them, or none."""
        async with self._change() as change:
            served, stored = await self._managed(endpoint)
            new = [
                RouteView(
                    stored.id, network(destination), target, "add-route", one_line("the description", description)
                )
                for destination, target, description in wanted
            ]
            self._check_new_routes(served, stored, new)
            await self._store(self._add_routes, stored.id, new)
            await self._put_in_force(change)
            return new

    def _add_routes(self, endpoint_id: str, new: Sequence[RouteView]) -> None:
        for view in new:
            route = StoredRoute(str(view.destination), view.target, view.description, time.time())
            self._stored.add_route(endpoint_id, route)

    def _check_new_routes(self, served: ServedEndpoint, stored: StoredEndpoint, new: Sequence[RouteView]) -> None:
        brought = {(str(view.destination), view.target) for view in self._brought_routes(stored)}
        taken = brought | {(route.destination, route.target) for route in stored.routes}
        for view in new:
            self._check_route(served, stored, view)
            if (str(view.destination), view.target) in taken:
                raise OperationError(
                    "InvalidClientVpnDuplicateRoute",
                    f"endpoint {stored.name} has the route {view.destination} by {view.target} already",
                )
            taken.add((str(view.destination), view.target))
        quota = self._gateway.config.quotas.routes
        if len(stored.routes) + len(new) > quota:
            raise OperationError(
                "ClientVpnRouteLimitExceeded",
                f"endpoint {stored.name} may have {quota} routes; raise quotas.routes in {self._gateway.config.path}",
            )

    def _check_route(self, served: ServedEndpoint, stored: StoredEndpoint, view: RouteView) -> None:
        clients = [c for c in (served.settings.client_cidr, served.settings.client_cidr_v6) if c is not None]
        prefix = view.destination
        if view.target == LOCAL:
            if not any(covers(c, prefix) for c in clients):
                raise OperationError(
                    "InvalidParameterValue", f'{prefix} is not among the clients; "{LOCAL}" leads to {clients[0]}'
                )
            return
        subnet = self._subnet(view.target)
        if all(association.subnet != view.target for association in stored.associations):
            raise OperationError(
                "InvalidClientVpnActiveAssociationNotFound",
                f"endpoint {stored.name} is not associated with {view.target}; associate it first",
            )
        if prefix.version == 6 and subnet.cidr_v6 is None:
            raise OperationError(
                "InvalidParameterValue", f"{view.target} has no IPv6, so {prefix} cannot lead there; add its cidr_v6"
            )
        if prefix.prefixlen and any(c.version == prefix.version and c.overlaps(prefix) for c in clients):
            raise OperationError("InvalidParameterValue", f"{prefix} overlaps the client CIDR {clients[0]}")

    async def remove_route(self, endpoint: str, destination: str, target: str | None = None) -> RouteView:
        """``target`` may be left away where there is one route to that network."""
        async with self._change() as change:
            _, stored = await self._managed(endpoint)
            prefix = network(destination)
            alike = replace(stored, routes=tuple(each for each in stored.routes if each.destination == str(prefix)))
            found = [v for v in self._route_views(alike) if v.destination == prefix and target in (None, v.target)]
            if not found:
                raise OperationError(
                    "InvalidClientVpnRouteNotFound",
                    f"endpoint {stored.name} has no route {prefix}" + (f" by {target}" if target else ""),
                )
            added = [view for view in found if view.origin == "add-route"]
            if not added:
                raise OperationError(
                    "OperationNotPermitted",
                    f"{prefix} is the route that came with {found[0].target}; it goes when that is disassociated",
                )
            if len(added) > 1:
                raise OperationError("MissingParameter", f"there are several routes {prefix}; say which target")
            with self._shown_as("deleting", stored.id, str(prefix), added[0].target):
                await self._store(self._stored.remove_route, stored.id, str(prefix), added[0].target)
                await self._put_in_force(change)
            return added[0]

    # -- helpers --------------------------------------------------------------------------------------------

    def _subnet(self, subnet_id: str) -> SubnetConfig:
        try:
            return self._gateway.config.subnet(subnet_id)
        except KeyError:
            known = ", ".join(subnet.id for subnet in self._gateway.config.subnets) or "none"
            raise OperationError(
                "InvalidSubnetID.NotFound",
                f"{self._gateway.config.path} declares no subnet {subnet_id}; there are: {known}",
            ) from None

    def _check_association(self, stored: StoredEndpoint, subnet: SubnetConfig) -> None:
        if subnet.cidr.prefixlen > SMALLEST_SUBNET:
            raise OperationError(
                "InvalidParameterValue",
                f"{subnet.id} is {subnet.cidr}; a target network is /{SMALLEST_SUBNET} or larger",
            )
        if stored.vpc and stored.vpc != subnet.vpc:
            raise OperationError(
                "InvalidParameterValue", f"{subnet.id} is in vpc {subnet.vpc}, endpoint {stored.name} in {stored.vpc}"
            )
        for association in stored.associations:
            other = self._gateway.config.subnet(association.subnet)
            if other.id == subnet.id:
                raise OperationError(
                    "InvalidClientVpnDuplicateAssociationException",
                    f"endpoint {stored.name} is associated with {subnet.id} already",
                )
            if other.vpc != subnet.vpc:
                raise OperationError(
                    "InvalidParameterValue",
                    f"{subnet.id} is in vpc {subnet.vpc}, {other.id} in {other.vpc}; keep to one",
                )
            if subnet.zone and other.zone == subnet.zone:
                raise OperationError(
                    "InvalidClientVpnSubnetId.DuplicateAz",
                    f"{other.id}, which is associated, is in zone {subnet.zone} too; one of each zone is enough",
                )

    def _association_view(self, endpoint_id: str, association: StoredAssociation) -> AssociationView:
        vpc = self._gateway.config.subnet(association.subnet).vpc
        view = AssociationView(association.id, endpoint_id, association.subnet, vpc, association.nat)
        return self._as_now(view, association.id)

    def _brought_routes(self, stored: StoredEndpoint) -> list[RouteView]:
        config = self._gateway.config
        return [
            RouteView(stored.id, cidr, association.subnet, "associate", "Default Route")
            for association in stored.associations
            for cidr in config.vpc(config.subnet(association.subnet).vpc).cidr
        ]

    def _route_views(self, stored: StoredEndpoint) -> list[RouteView]:
        added = [
            self._as_now(
                RouteView(stored.id, network(r.destination), r.target, "add-route", r.description),
                stored.id,
                r.destination,
                r.target,
            )
            for r in stored.routes
        ]
        return self._brought_routes(stored) + added
