"""Tags of managed resources, and the answers to requests that may be repeated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import client_token, tag

TOKEN_LIFETIME_S = 86_400
"""How long a repeated request is recognised, as in AWS."""


@dataclass(frozen=True, slots=True)
class Answered:
    request: str
    """Digest of the parameters that the answer was given to."""
    answer: Mapping[str, Any]


class TagStore(Database):
    def tags(self) -> dict[str, dict[str, str]]:
        """By resource, each in order of its keys."""
        found: dict[str, dict[str, str]] = {}
        with self._read() as connection:
            for row in connection.execute(select(tag).order_by(tag.c.resource, tag.c.key)):
                found.setdefault(row.resource, {})[row.key] = row.value
        return found

    def set_tags(self, resource: str, tags: Mapping[str, str]) -> None:
        with self._write() as connection:
            connection.execute(delete(tag).where(tag.c.resource == resource, tag.c.key.in_(list(tags))))
            rows = [{"resource": resource, "key": key, "value": value} for key, value in tags.items()]
            connection.execute(insert(tag), rows)
            self._record(connection, "create-tags", {"resource": resource, "tags": dict(tags)})

    def remove_tags(self, resource: str, keys: Collection[str] | None) -> None:
        """None: all of them."""
        query = delete(tag).where(tag.c.resource == resource)
        if keys is not None:
            query = query.where(tag.c.key.in_(list(keys)))
        with self._write() as connection:
            if connection.execute(query).rowcount:
                details = {"resource": resource, "keys": None if keys is None else list(keys)}
                self._record(connection, "delete-tags", details)

    def answered(self, action: str, token: str, now: float) -> Answered | None:
        """What this token's request was answered within the last day, on the steady clock."""
        table = client_token.c
        oldest = now - TOKEN_LIFETIME_S
        with self._read() as connection:
            row = connection.execute(
                select(table.request, table.answer).where(
                    table.action == action, table.token == token, table.created_at > oldest
                )
            ).one_or_none()
            return None if row is None else Answered(row.request, row.answer)

    def remember_answer(self, action: str, token: str, answered: Answered, now: float) -> None:
        """Together with the change that it answers. Older ones are forgotten on this occasion."""
        with self._write() as connection:
            connection.execute(delete(client_token).where(client_token.c.created_at <= now - TOKEN_LIFETIME_S))
            connection.execute(
                insert(client_token).values(
                    action=action,
                    token=token,
                    request=answered.request,
                    answer=dict(answered.answer),
                    created_at=now,
                )
            )
