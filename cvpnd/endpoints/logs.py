"""Log groups and streams, and what is in them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from functools import partial

from cvpnd.endpoints.model import LogEvent, LogGroupView, LogStreamView, OperationError
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.ops.log_streams import Line, LogStreams
from cvpnd.store import StoredLogGroup

_GROUP = re.compile(r"[.\-_/#A-Za-z0-9]{1,255}")
_STREAM = re.compile(r"[^:*\x00-\x1f\x7f]{1,255}")


class LogOperations(OperationsBase):
    _streams: LogStreams
    """Given by ``Operations``."""

    async def list_log_groups(self) -> list[LogGroupView]:
        return [_view(group) for group in await self._store(self._stored.log_groups)]

    async def show_log_group(self, name: str) -> LogGroupView:
        for group in await self.list_log_groups():
            if group.name == name:
                return group
        raise OperationError("ResourceNotFoundException", f"there is no log group {name}")

    async def create_log_group(self, name: str) -> None:
        if not _GROUP.fullmatch(name):
            raise OperationError("InvalidParameterException", f"{name} cannot be a log group's name")
        async with self._change():
            if any(group.name == name for group in await self.list_log_groups()):
                raise OperationError("ResourceAlreadyExistsException", f"log group {name} exists already")
            await self._store(self._stored.add_log_group, name, time.time())

    async def create_log_stream(self, group: str, name: str) -> None:
        if not _STREAM.fullmatch(name):
            raise OperationError("InvalidParameterException", f"{name} cannot be a log stream's name")
        async with self._change():
            if any(stream.name == name for stream in (await self.show_log_group(group)).streams):
                raise OperationError("ResourceAlreadyExistsException", f"log stream {name} exists already")
            await self._store(self._stored.add_log_stream, group, name, time.time())

    async def last_log_events(self, group: str) -> dict[str, float]:
        """When each stream of it was written to last, but for those that nobody has written to."""
        known = [stream.name for stream in (await self.show_log_group(group)).streams]
        return await asyncio.to_thread(_last, self._streams, group, known)

    async def log_events(
        self, group: str, streams: Collection[str] | None = None, *, accept: Callable[[Line], bool] = lambda _line: True
    ) -> list[LogEvent]:
        """By time, of all streams or those named."""
        known = [stream.name for stream in (await self.show_log_group(group)).streams]
        for name in streams or ():
            if name not in known:
                raise OperationError("ResourceNotFoundException", f"log group {group} has no stream {name}")
        wanted = known if streams is None else sorted(streams)
        found: list[LogEvent] = []
        for name in wanted:
            found += await asyncio.to_thread(partial(_read, self._streams, group, name, accept))
        found.sort(key=lambda event: (event.timestamp, event.stream, event.number))
        return found


def _last(streams: LogStreams, group: str, names: Collection[str]) -> dict[str, float]:
    found = {name: streams.last(group, name) for name in names}
    return {name: at for name, at in found.items() if at is not None}


def _read(streams: LogStreams, group: str, name: str, accept: Callable[[Line], bool]) -> list[LogEvent]:
    return [
        LogEvent(name, line.timestamp, line.number, line.text) for line in streams.read(group, name) if accept(line)
    ]


def _view(group: StoredLogGroup) -> LogGroupView:
    streams = tuple(LogStreamView(group.name, name, created_at) for name, created_at in group.streams.items())
    return LogGroupView(group.name, group.created_at, streams)
