"""Managed endpoints: made at run time, with their associations, routes and revocation lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update

from cvpnd.store.database import Database, StoreError
from cvpnd.store.tables import association, authorization_rule, crl, endpoint, revoked_login, route, tag


@dataclass(frozen=True, slots=True)
class StoredAssociation:
    id: str
    subnet: str
    nat: bool
    created_at: float


class StoredRoute(NamedTuple):
    """A tuple and no frozen dataclass, which takes longer to make: every change reads all of them."""

    destination: str
    target: str
    description: str
    created_at: float


@dataclass(frozen=True, slots=True)
class StoredEndpoint:
    id: str
    name: str
    settings: Mapping[str, Any]
    """One ``[[endpoint]]`` table of the file, without certificates, associations, routes and rules."""
    server_certificate: str
    """ARN, as the next."""
    client_certificate: str
    """Empty if clients need none."""
    vpc: str
    """Empty until the first association."""
    created_at: float
    associations: tuple[StoredAssociation, ...] = ()
    """Oldest first, as the routes."""
    routes: tuple[StoredRoute, ...] = ()
    crl: str | None = None


class EndpointStore(Database):
    def managed_endpoints(self) -> list[StoredEndpoint]:
        """Oldest first."""
        with self._read() as connection:
            associations: dict[str, list[StoredAssociation]] = {}
            for row in connection.execute(select(association).order_by(association.c.number)):
                associations.setdefault(row.endpoint_id, []).append(
                    StoredAssociation(row.id, row.subnet, row.nat, row.created_at)
                )
            routes: dict[str, list[StoredRoute]] = {}
            columns = route.c.endpoint_id, route.c.destination, route.c.target, route.c.description, route.c.created_at
            for endpoint_id, *of_route in connection.execute(select(*columns).order_by(route.c.number)).all():
                routes.setdefault(endpoint_id, []).append(StoredRoute(*of_route))
            crls = {row.endpoint_id: row.pem for row in connection.execute(select(crl))}
            return [
                StoredEndpoint(
                    row.id,
                    row.name,
                    row.settings,
                    row.server_certificate,
                    row.client_certificate,
                    row.vpc,
                    row.created_at,
                    tuple(associations.get(row.id, ())),
                    tuple(routes.get(row.id, ())),
                    crls.get(row.id),
                )
                for row in connection.execute(select(endpoint).order_by(endpoint.c.number))
            ]

    def add_endpoint(self, new: StoredEndpoint) -> None:
        """Without associations and routes, which are added apart."""
        with self._write() as connection:
            values = {
                "id": new.id,
                "name": new.name,
                "settings": dict(new.settings),
                "server_certificate": new.server_certificate,
                "client_certificate": new.client_certificate,
                "vpc": new.vpc,
            }
            connection.execute(insert(endpoint).values(**values, created_at=new.created_at))
            self._record(connection, "create-endpoint", values, now=new.created_at)

    def change_endpoint(self, endpoint_id: str, **values: Any) -> None:
        """``settings``, ``server_certificate``, ``client_certificate`` or ``vpc``."""
        with self._write() as connection:
            changed = connection.execute(update(endpoint).where(endpoint.c.id == endpoint_id).values(**values))
            if changed.rowcount != 1:
                raise StoreError(f"{endpoint_id} is not in the store any more")
            self._record(connection, "modify-endpoint", {"id": endpoint_id, **values})

    def delete_endpoint(self, endpoint_id: str) -> None:
        """With its rules, revocation list and tags. It must have no association any more."""
        with self._write() as connection:
            for table in (authorization_rule, route, crl):
                connection.execute(delete(table).where(table.c.endpoint_id == endpoint_id))
            connection.execute(delete(tag).where(tag.c.resource == endpoint_id))
            of_it = revoked_login.c.subject.startswith(f"user-at {endpoint_id} ")
            connection.execute(delete(revoked_login).where(of_it))
            connection.execute(delete(endpoint).where(endpoint.c.id == endpoint_id))
            self._record(connection, "delete-endpoint", {"id": endpoint_id})

    def add_association(self, endpoint_id: str, new: StoredAssociation) -> None:
        with self._write() as connection:
            values = {"id": new.id, "endpoint_id": endpoint_id, "subnet": new.subnet, "nat": new.nat}
            connection.execute(insert(association).values(**values, created_at=new.created_at))
            self._record(connection, "associate", values, now=new.created_at)

    def remove_association(self, endpoint_id: str, association_id: str) -> None:
        """With the routes through its subnet."""
        with self._write() as connection:
            gone = connection.execute(
                delete(association)
                .where(association.c.endpoint_id == endpoint_id, association.c.id == association_id)
                .returning(association.c.subnet)
            ).one_or_none()
            if gone is None:
                raise StoreError(f"{association_id} is not in the store any more")
            connection.execute(delete(route).where(route.c.endpoint_id == endpoint_id, route.c.target == gone.subnet))
            details = {"id": association_id, "endpoint_id": endpoint_id, "subnet": gone.subnet}
            self._record(connection, "disassociate", details)

    def add_route(self, endpoint_id: str, new: StoredRoute) -> None:
        with self._write() as connection:
            values = {
                "endpoint_id": endpoint_id,
                "destination": new.destination,
                "target": new.target,
                "description": new.description,
            }
            connection.execute(insert(route).values(**values, created_at=new.created_at))
            self._record(connection, "add-route", values, now=new.created_at)

    def remove_route(self, endpoint_id: str, destination: str, target: str) -> None:
        with self._write() as connection:
            gone = connection.execute(
                delete(route).where(
                    route.c.endpoint_id == endpoint_id, route.c.destination == destination, route.c.target == target
                )
            )
            if gone.rowcount != 1:
                raise StoreError(f"{endpoint_id} has no route {destination} by {target} in the store any more")
            details = {"endpoint_id": endpoint_id, "destination": destination, "target": target}
            self._record(connection, "remove-route", details)

    def set_crl(self, endpoint_id: str, pem: str, now: float) -> None:
        with self._write() as connection:
            connection.execute(delete(crl).where(crl.c.endpoint_id == endpoint_id))
            connection.execute(insert(crl).values(endpoint_id=endpoint_id, pem=pem, imported_at=now))
            self._record(connection, "import-crl", {"endpoint_id": endpoint_id, "bytes": len(pem)}, now=now)
