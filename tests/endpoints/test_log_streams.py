"""Streams that endpoints had for themselves go after them; those that somebody made stay."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cvpnd.config import AuditConfig
from cvpnd.endpoints.logs import DAY_S, LogOperations
from cvpnd.ops.log_streams import LogStreams
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
