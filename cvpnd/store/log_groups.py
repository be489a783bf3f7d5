"""Log groups and streams by name. What is in them lies in files (``ops.connection_log``)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import log_group, log_stream


@dataclass(frozen=True, slots=True)
class StoredLogGroup:
    name: str
    created_at: float
    streams: dict[str, float]
    """Name to creation time, in order of names."""


class LogGroupStore(Database):
    def log_groups(self) -> list[StoredLogGroup]:
        """In order of names."""
        with self._read() as connection:
            groups = {
                row.name: StoredLogGroup(row.name, row.created_at, {})
                for row in connection.execute(select(log_group).order_by(log_group.c.name))
            }
            for row in connection.execute(select(log_stream).order_by(log_stream.c.name)):
                groups[row.log_group].streams[row.name] = row.created_at
            return list(groups.values())

    def add_log_group(self, name: str, now: float) -> None:
        with self._write() as connection:
            connection.execute(insert(log_group).values(name=name, created_at=now))
            self._record(connection, "create-log-group", {"name": name}, now=now)

    def add_log_stream(self, group: str, name: str, now: float) -> None:
        with self._write() as connection:
            connection.execute(insert(log_stream).values(log_group=group, name=name, created_at=now))
            self._record(connection, "create-log-stream", {"group": group, "name": name}, now=now)

    def remove_log_stream(self, group: str, name: str) -> None:
        with self._write() as connection:
            ours = (log_stream.c.log_group == group) & (log_stream.c.name == name)
            if connection.execute(delete(log_stream).where(ours)).rowcount:
                self._record(connection, "delete-log-stream", {"group": group, "name": name})
