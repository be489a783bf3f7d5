"""Authorization rules that were added at run time, to endpoints of the file and to managed ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from cvpnd.store.actor import Actor
from cvpnd.store.database import Database, StoreError
from cvpnd.store.tables import authorization_rule

Network = IPv4Network | IPv6Network


class DuplicateRule(StoreError):
    """The endpoint has this rule already."""


class NoSuchRule(StoreError):
    """The endpoint does not have this rule."""


@dataclass(frozen=True, slots=True)
class StoredRule:
    endpoint_id: str
    network: Network
    group: str | None
    """None means all users."""
    description: str
    created_at: float


class RuleStore(Database):
    def rules(self, endpoint_id: str | None = None) -> list[StoredRule]:
        """All rules, or one endpoint's, oldest first."""
        query = select(authorization_rule).order_by(authorization_rule.c.id)
        if endpoint_id is not None:
            query = query.where(authorization_rule.c.endpoint_id == endpoint_id)
        with self._read() as connection:
            return [
                StoredRule(row.endpoint_id, ip_network(row.network), row.group_name, row.description, row.created_at)
                for row in connection.execute(query)
            ]

    def add_rule(
        self,
        endpoint_id: str,
        network: Network,
        group: str | None,
        description: str = "",
        *,
        actor: Actor | None = None,
        now: float | None = None,
    ) -> StoredRule:
        """Raises ``DuplicateRule`` or ``StoreError``. ``actor`` None is whoever ``acting`` says."""
        rule = StoredRule(endpoint_id, network, group, description, time.time() if now is None else now)
        self.add_rules([rule], actor=actor)
        return rule

    def add_rules(self, rules: Sequence[StoredRule], *, actor: Actor | None = None) -> None:
        """All of them, or none. Raises as ``add_rule`` does."""
        rows = [
            {
                "endpoint_id": rule.endpoint_id,
                "network": str(rule.network),
                "group_name": rule.group,
                "description": rule.description,
                "created_at": rule.created_at,
            }
            for rule in rules
        ]
        try:
            with self._write() as connection:
                connection.execute(insert(authorization_rule), rows)
                self._record_all(
                    connection, "authorize", [_details(rule) for rule in rules], actor, rules[0].created_at
                )
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, IntegrityError) and "authorization_rule_unique" in str(cause.orig):
                which = _spell(rules[0].network, rules[0].group) if len(rules) == 1 else "one of these"
                raise DuplicateRule(f"{rules[0].endpoint_id} has the rule {which} already") from None
            raise

    def remove_rule(
        self,
        endpoint_id: str,
        network: Network,
        group: str | None,
        *,
        actor: Actor | None = None,
        now: float | None = None,
    ) -> StoredRule:
        """The rule that was removed. Raises ``NoSuchRule`` or ``StoreError``."""
        table = authorization_rule
        with self._write() as connection:
            row = connection.execute(
                delete(table)
                .where(
                    table.c.endpoint_id == endpoint_id,
                    table.c.network == str(network),
                    table.c.group_name.is_not_distinct_from(group),
                )
                .returning(table.c.description, table.c.created_at)
            ).one_or_none()
            if row is None:
                raise NoSuchRule(f"{endpoint_id} has no rule {_spell(network, group)} that was added at run time")
            rule = StoredRule(endpoint_id, network, group, row.description, row.created_at)
            self._record(connection, "revoke", _details(rule), actor, now)
        return rule


def _details(rule: StoredRule) -> dict[str, Any]:
    return {
        "endpoint_id": rule.endpoint_id,
        "network": str(rule.network),
        "group": rule.group,
        "description": rule.description,
    }


def _spell(network: Network, group: str | None) -> str:
    return f"{network} for all users" if group is None else f"{network} for group {group}"
