"""Streams that endpoints had for themselves go after them; those that somebody made stay."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.served import wait_until

from cvpnd.api.aws.logs import get_log_events
from cvpnd.config import AuditConfig
from cvpnd.endpoints import logs
from cvpnd.endpoints.logs import DAY_S, LogOperations
from cvpnd.endpoints.model import LogEvent, Place
from cvpnd.ops.log_file import seconds
from cvpnd.ops.log_streams import Line, LogStreams
from cvpnd.store import Store, StoredEndpoint

NOW = 2_000_000_000.0
GONE, THERE, OF_THE_FILE = (f"cvpn-endpoint-0123456789abcdef{number}" for number in range(3))


def _files(directory: Path) -> list[str]:
    return sorted({path.name.partition(".")[0] for path in directory.glob("streams/*/*")})


async def test_streams_of_endpoints_that_are_gone_are_removed_when_they_are_old(tmp_path: Path) -> None:
    streams = LogStreams(tmp_path / "streams")
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        store.add_log_group("vpn", 0.0)
        for name in (GONE, THERE, OF_THE_FILE, "mine"):
            store.add_log_stream("vpn", name, NOW - 400 * DAY_S)
            path = streams.path("vpn", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            for each in (path, path.with_name(f"{path.name}.000000000000000")):
                each.write_text('{"connection-last-update-time": "2033-05-18 03:33:20"}\n')  # now
                os.utime(each, (NOW - 10 * DAY_S,) * 2)
        store.add_endpoint(StoredEndpoint(THERE, "there", {}, "arn", "", "", 0.0))
        gateway: Any = SimpleNamespace(
            store=store,
            config=SimpleNamespace(audit=AuditConfig(keep_days=30), endpoints=[SimpleNamespace(id=OF_THE_FILE)]),
            timekeeper=SimpleNamespace(trouble=""),
        )
        operations = LogOperations(gateway)
        operations._streams = streams

        async def left(later_days: int) -> tuple[list[str], list[str]]:
            await operations._tidy_log_streams(NOW + later_days * DAY_S)
            (group,) = store.log_groups()
            return list(group.streams), _files(tmp_path)

        everything = sorted([GONE, THERE, OF_THE_FILE, "mine"])
        assert await left(0) == (everything, everything)
        gateway.timekeeper.trouble = "the clock was put ahead by 40.0 years"
        assert await left(40 * 365) == (everything, everything)
        gateway.timekeeper.trouble = ""
        assert await left(31) == 2 * (sorted([THERE, OF_THE_FILE, "mine"]),)
        assert [record.details["name"] for record in store.audit_records(1)] == [GONE]


def _line(second: int, word: str) -> str:
    return json.dumps(
        {"connection-last-update-time": f"2033-05-18 03:{second // 60:02}:{second % 60:02}", "word": word}
    )


@pytest.fixture
def crowded(tmp_path: Path):
    """Streams with many lines, whose clocks were put back now and then."""
    streams = LogStreams(tmp_path / "streams")
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        store.add_log_group("vpn", 0.0)
        for name in "abc":
            store.add_log_stream("vpn", name, 0.0)
            path = streams.path("vpn", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [_line((7 * number) % 30, "x" * (number % 50)) for number in range(200)]
            path.write_text("".join(f"{line}\n" for line in lines))
        operations = LogOperations(SimpleNamespace(store=store))  # type: ignore[arg-type]
        operations._streams = streams
        yield operations


@pytest.mark.parametrize(("most", "most_characters"), [(7, 10**6), (10**6, 1000), (50, 3000), (10**6, 1)])
@pytest.mark.parametrize(("newest", "as_written"), [(False, False), (True, False), (False, True), (True, True)])
async def test_pages_of_events_have_each_once_and_no_more_is_held_than_fits(
    crowded: LogOperations,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    most_characters: int,
    newest: bool,
    as_written: bool,
) -> None:
    def place_of(event: LogEvent) -> Place:
        return event.place(as_written=as_written)

    which: dict[str, Any] = {"streams": ["b"], "as_written": True} if as_written else {}
    everything = (await crowded.log_events("vpn", **which)).events
    assert len(everything) == (200 if as_written else 600) and everything == sorted(everything, key=place_of)
    held: Counter[str] = Counter()

    class Watched(logs._Page):
        def offer(self, event: LogEvent) -> None:
            super().offer(event)
            held["events"] = max(held["events"], len(self.events))
            held["characters"] = max(held["characters"], sum(len(each.message) for each in self.events[1:]))

    monkeypatch.setattr(logs, "_Page", Watched)
    found: list[LogEvent] = []
    place: Place | None = None
    while True:
        from_there: dict[str, Any] = {**which, **({"before": place} if newest else {"since": place})}
        page = await crowded.log_events("vpn", newest=newest, most=most, most_characters=most_characters, **from_there)
        found = page.events + found if newest else found + page.events
        if not page.more:
            break
        last = place_of(page.events[-1])
        place = place_of(page.events[0]) if newest else last._replace(number=last.number + 1)
    assert found == everything
    assert held["events"] <= most and held["characters"] <= most_characters


async def test_a_follower_misses_nothing_after_the_clock_was_set_back(crowded: LogOperations) -> None:
    path = crowded._streams.path("vpn", "a")
    path.write_text(f"{_line(50, 'first')}\n")

    async def read(token: str, **more: Any) -> tuple[list[str], str, str]:
        asked = {"logGroupName": "vpn", "logStreamName": "a", **({"nextToken": token} if token else {}), **more}
        page = await get_log_events(SimpleNamespace(get=asked.get, operations=crowded))  # type: ignore[arg-type]
        words = [json.loads(event["message"])["word"] for event in page["events"]]
        return words, page["nextForwardToken"], page["nextBackwardToken"]

    words, forward, _ = await read("", startFromHead=True)
    assert words == ["first"]
    there = path.stat().st_size
    before = base64.urlsafe_b64encode(f"{seconds('2033-05-18 03:00:50'):.0f}/{there}/a".encode()).decode()
    with path.open("a") as file:
        file.write(f"{_line(20, 'second')}\n{_line(21, 'third')}\n")
    for token in (forward, f"f/{before}"):  # as an older release wrote it
        words, behind, back = await read(token)
        assert words == ["second", "third"]
        assert (await read(behind))[:2] == ([], behind)
        assert (await read(back))[0] == ["first"] == (await read(f"b/{before}"))[0]
    assert (await read(behind.replace("f/", "b/"), limit=2))[0] == ["second", "third"]
    path.unlink()  # by somebody else's rotation
    path.write_text(f"{_line(60, 'anew')}\n")
    assert (await read(behind))[0] == ["anew"]


async def test_however_many_read_logs_others_find_a_thread(crowded: LogOperations) -> None:
    """What logins look up in the store takes turns on the same threads."""
    go_on = threading.Event()
    readers = 0

    def accept(_line: Line) -> bool:
        nonlocal readers
        readers += not go_on.is_set()
        return go_on.wait(10)

    reading = [asyncio.create_task(crowded.log_events("vpn", accept=accept)) for _ in range(40)]
    assert await wait_until(lambda: readers == logs.READERS, 5)
    assert await asyncio.wait_for(asyncio.to_thread(crowded._stored.log_groups), 2)
    assert readers == logs.READERS
    go_on.set()
    assert {len(page.events) for page in await asyncio.gather(*reading)} == {600}


async def test_however_many_ask_when_streams_were_written_to_others_find_a_thread(
    crowded: LogOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(crowded._streams, "last", lambda _group, _stream: go_on.wait(10) and 1.0)
    asking = [asyncio.create_task(crowded.last_log_events("vpn")) for _ in range(40)]
    assert await wait_until(crowded._readers.locked, 5)
    assert await asyncio.wait_for(asyncio.to_thread(crowded._stored.log_groups), 2)
    go_on.set()
    assert {len(last) for last in await asyncio.gather(*asking)} == {3}
