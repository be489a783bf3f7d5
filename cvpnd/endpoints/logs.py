"""Log groups and streams, and what is in them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from bisect import insort
from collections.abc import Callable, Collection
from functools import partial

from cvpnd.endpoints.gateway import Gateway
from cvpnd.endpoints.model import LogEvent, LogGroupView, LogPage, LogStreamView, OperationError, Place
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.ops.log_streams import Line, LogStreams
from cvpnd.store import StoredLogGroup, StoreUnavailable

log = logging.getLogger(__name__)

TIDIED_EVERY_S = 3600.0
DAY_S = 86_400
MOST_EVENTS = 10_000
MOST_CHARACTERS = 16 * 1024 * 1024
"""Of one answer."""
READERS = 2
"""Requests for which logs are read at a time: all that looks into the store, logins too, takes turns on the same few
threads."""
_OWN_STREAM = re.compile(r"cvpn-endpoint-[0-9a-f]{17}")
"""Of an endpoint that was told a group only."""
_GROUP = re.compile(r"[.\-_/#A-Za-z0-9]{1,255}")
_STREAM = re.compile(r"[^:*\x00-\x1f\x7f]{1,255}")


class LogOperations(OperationsBase):
    _streams: LogStreams
    """Given by ``Operations``."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._readers = asyncio.Semaphore(READERS)

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

    async def keep_log_streams(self) -> None:
        """Runs until cancelled: streams that endpoints had for themselves go some time after them, as the record of
        changes does. Whoever made a stream goes on having it, as at AWS."""
        while True:
            try:
                await self._tidy_log_streams(time.time())
            except OperationError as error:
                if not isinstance(error.__cause__, StoreUnavailable):  # which is said already
                    log.warning("log streams of endpoints that are gone cannot be removed: %s", error)
            await asyncio.sleep(TIDIED_EVERY_S)

    async def _tidy_log_streams(self, now: float) -> None:
        keep_days = self._gateway.config.audit.keep_days
        if not keep_days or self._gateway.timekeeper.trouble:  # else it may be that nothing is so old
            return
        before = now - keep_days * DAY_S
        there_are = {each.id for each in self._gateway.config.endpoints}
        there_are |= {each.id for each in await self._store(self._stored.managed_endpoints)}

        def is_over(stream: str) -> bool:
            return _OWN_STREAM.fullmatch(stream) is not None and stream not in there_are

        for group in await self._store(self._stored.log_groups):
            over = [name for name, created_at in group.streams.items() if is_over(name) and created_at < before]
            last = await asyncio.to_thread(_last, self._streams, group.name, over)
            for name in over:
                if last.get(name, 0.0) < before:
                    async with self._changing:
                        await self._store(self._stored.remove_log_stream, group.name, name)
        await asyncio.to_thread(self._streams.remove_unused, before, is_over)

    async def last_log_events(self, group: str) -> dict[str, float]:
        """When each stream of it was written to last, but for those that nobody has written to."""
        known = [stream.name for stream in (await self.show_log_group(group)).streams]
        async with self._readers:
            return await asyncio.to_thread(_last, self._streams, group, known)

    async def log_events(
        self,
        group: str,
        streams: Collection[str] | None = None,
        *,
        accept: Callable[[Line], bool] = lambda _line: True,
        since: Place | None = None,
        before: Place | None = None,
        newest: bool = False,
        as_written: bool = False,
        most: int = MOST_EVENTS,
        most_characters: int = MOST_CHARACTERS,
    ) -> LogPage:
        """By time, of all streams or those named: the first ones ``since`` a place, or the ``newest`` ones ``before``
        one. However much there is, no more than that is held. ``as_written``: of one stream, in its own order, which a
        clock that was set back does not change."""
        known = [stream.name for stream in (await self.show_log_group(group)).streams]
        for name in streams or ():
            if name not in known:
                raise OperationError("ResourceNotFoundException", f"log group {group} has no stream {name}")
        if as_written and since is not None and since.stream in known:
            end = await asyncio.to_thread(self._streams.end, group, since.stream)
            if since.number > end:
                since = None  # somebody else has moved its file away, so it has begun anew
        page = _Page(since, before, newest, as_written, most, most_characters)
        async with self._readers:
            for name in known if streams is None else sorted(streams):
                await asyncio.to_thread(_read, self._streams, group, name, accept, page)
        return LogPage(page.events, page.more)


class _Page:
    """Of the events that are offered in any order, the first ones or the last ones that fit."""

    def __init__(
        self, since: Place | None, before: Place | None, newest: bool, as_written: bool, most: int, most_characters: int
    ) -> None:
        self.events: list[LogEvent] = []
        self.more = False
        self._since, self._before = since, before
        self._newest = newest
        self._place = partial(LogEvent.place, as_written=as_written)
        self._most, self._most_characters = most, most_characters
        self._characters = 0

    def offer(self, event: LogEvent) -> None:
        place = self._place(event)
        if (self._since is not None and place < self._since) or (self._before is not None and place >= self._before):
            return
        insort(self.events, event, key=self._place)
        self._characters += len(event.message)
        while len(self.events) > self._most or (self._characters > self._most_characters and len(self.events) > 1):
            left_away = self.events.pop(0 if self._newest else -1)
            self._characters -= len(left_away.message)
            self.more = True
            if self._newest:  # nothing beyond it comes in its place
                self._since = self._place(left_away)._replace(number=left_away.number + 1)
            else:
                self._before = self._place(left_away)


def _last(streams: LogStreams, group: str, names: Collection[str]) -> dict[str, float]:
    found = {name: streams.last(group, name) for name in names}
    return {name: at for name, at in found.items() if at is not None}


def _read(streams: LogStreams, group: str, name: str, accept: Callable[[Line], bool], page: _Page) -> None:
    for line in streams.read(group, name):
        if accept(line):
            page.offer(LogEvent(name, line.timestamp, line.number, line.text))


def _view(group: StoredLogGroup) -> LogGroupView:
    streams = tuple(LogStreamView(group.name, name, created_at) for name, created_at in group.streams.items())
    return LogGroupView(group.name, group.created_at, streams)
