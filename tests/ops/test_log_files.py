"""Files of the connection log over time: rotated, read across rotations, on a disk without room."""

from __future__ import annotations

import json
import operator
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import threadless
from helpers.lab import wait_until

from cvpnd.ops.log_file import LogFile, Rotation, rotated
from cvpnd.ops.log_streams import IDLE_S, LogStreams
from cvpnd.ops.log_writer import EntriesLost, LogWriter


def entry(number: int, when: float | None = None) -> dict[str, str | list[str]]:
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when or time.time()))
    return {"connection-last-update-time": written, "number": f"{number:04}"}


LINE = len(json.dumps(entry(0))) + 1


def numbers(path: Path) -> list[int]:
    return [int(json.loads(line)["number"]) for line in path.read_text().splitlines()]


def test_a_file_is_rotated_before_it_grows_too_large_and_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    log = LogFile(path, Rotation(bytes=3 * LINE, keep=2))
    for number in range(10):
        log.append([entry(number)])
    log.close()
    assert numbers(path) == [9]
    assert [(position, numbers(old)) for position, old in rotated(path)] == [
        (3 * LINE, [3, 4, 5]),
        (6 * LINE, [6, 7, 8]),
    ]
    assert rotated(path)[0][1].name == f"connections.log.{3 * LINE:015}"
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o640}


def test_a_file_is_rotated_when_its_first_line_is_old_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    LogFile(path).append([entry(1, time.time() - 7200)])
    log = LogFile(path, Rotation(age_s=3600))
    log.append([entry(2)])
    log.append([entry(3)])
    log.close()
    assert numbers(path) == [2, 3]
    assert [numbers(old) for _, old in rotated(path)] == [[1]]


def test_a_file_that_is_copied_and_emptied_goes_on_from_its_beginning_and_is_young_again(tmp_path: Path) -> None:
    """As by logrotate with copytruncate, also where a full disk had left half a line at its end."""
    path = tmp_path / "connections.log"
    path.write_text(json.dumps(entry(1, time.time() - 3599)) + "\n" + '{"half')
    file = LogFile(path, Rotation(age_s=3600))
    file.open()
    (tmp_path / "copy").write_bytes(path.read_bytes())
    os.truncate(path, 0)
    file.append([entry(2)])
    time.sleep(1.5)  # by when the first one would have been an hour old
    file.append([entry(3)])
    file.close()
    assert numbers(path) == [2, 3] and rotated(path) == []


def test_what_cannot_be_rotated_grows_on(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    log = LogFile(path, Rotation(bytes=LINE))
    log.append([entry(1)])
    (tmp_path / "connections.log.new").mkdir()
    log.append([entry(2)])
    assert numbers(path) == [1, 2]
    (tmp_path / "connections.log.new").rmdir()
    log.append([entry(3)])
    log.close()
    assert numbers(path) == [3]


def test_a_stream_is_read_across_its_files_and_its_lines_keep_their_numbers(tmp_path: Path) -> None:
    streams = LogStreams(tmp_path)
    for number in range(4):
        streams.write("vpn", "staff", entry(number))
    streams.close()
    before = list(streams.read("vpn", "staff"))
    assert [line.number for line in before] == [number * LINE for number in range(4)]
    streams.rotate(Rotation(bytes=4 * LINE))
    streams.write("vpn", "staff", entry(4))
    streams.close()
    after = list(streams.read("vpn", "staff"))
    assert after[:4] == before
    assert (after[4].number, json.loads(after[4].text)["number"]) == (4 * LINE, "0004")
    assert len(rotated(streams.path("vpn", "staff"))) == 1


def test_a_stream_is_closed_once_nobody_writes_to_it_and_opened_again(tmp_path: Path) -> None:
    now = 0.0

    def held() -> tuple[int, int]:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()), sum(1 for _ in Path("/proc/self/task").iterdir())

    streams, before = LogStreams(tmp_path, clock=lambda: now), held()
    for number in range(30):
        streams.write("vpn", f"cvpn-endpoint-{number}", entry(number))
        streams.write("vpn", "staff", entry(number))
        now += IDLE_S / 2
        wait_until(lambda: not streams.waiting, 5)
        streams.close_idle()
    wait_until(lambda: held()[1] <= before[1] + 4, 5)
    assert held()[0] <= before[0] + 4
    for number in (0, 29):
        streams.write("vpn", f"cvpn-endpoint-{number}", entry(number))
    streams.close()
    assert numbers(streams.path("vpn", "staff")) == list(range(30))
    assert [numbers(streams.path("vpn", f"cvpn-endpoint-{number}")) for number in (0, 1, 29)] == [
        [0, 0],
        [1],
        [29] * 2,
    ]
    assert streams.lost == 0
    # a thread is there for a moment after it was joined, nobody joins idle ones, and other tests' may end meanwhile
    wait_until(lambda: all(map(operator.le, held(), before)), 5)


def test_only_the_newest_of_a_stream_are_looked_through_wherever_its_files_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = LogStreams(tmp_path).path("vpn", "staff")
    log = LogFile(path, Rotation(bytes=3 * LINE))
    for number in range(10):
        log.append([entry(number)])
    log.close()
    monkeypatch.setattr("cvpnd.ops.log_streams.MAX_BYTES_READ", 5 * LINE + 3)
    found = list(LogStreams(tmp_path).read("vpn", "staff"))
    assert [(line.number, int(json.loads(line.text)["number"])) for line in found] == [
        (number * LINE, number) for number in range(5, 10)
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_loses_what_does_not_fit_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "connections.log"
    writer = LogWriter(str(path), LogFile(path))
    for number in range(2000):
        writer.write(entry(number))
    wait_until(lambda: not writer.waiting)
    other = LogFile(small_disk / "other.log", Rotation(bytes=10))
    with pytest.raises(EntriesLost) as lost:
        other.append([entry(1), entry(2)])
    assert lost.value.count == 2 and "No space left" in lost.value.why
    other.close()
    kept = len([line for line in path.read_text().splitlines() if line.endswith("}")])
    path.unlink()
    writer.reopen()
    writer.write(entry(2000))
    writer.close()
    assert numbers(path) == [2000]
    assert 0 < writer.lost == 2000 - kept


class SeenOnRelease:
    """A lock that looks at what it protects whenever it is let go."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._lock, self._look = threading.Lock(), look

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._look()
        self._lock.release()


def test_where_entries_were_lost_is_known_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = LogWriter("here", LogFile(tmp_path / "file" / "connections.log"))
    seen: list[tuple[int, bool]] = []
    writer._counting = SeenOnRelease(lambda: seen.append((writer.lost, writer.last_loss is not None)))  # type: ignore[assignment]
    writer.write(entry(1))
    writer.close()
    writer.write(entry(2))
    assert seen[0] == (0, False) and seen[-1] == (2, True) and (1, True) in seen
    assert all(lost == 0 or told for lost, told in seen), seen


def test_where_there_is_no_room_for_a_thread_a_stream_costs_its_entries_and_nothing_else(open_directory: Path) -> None:
    open_directory.chmod(0o777)
    said = threadless.said_by(f"""
        from pathlib import Path
        from cvpnd.ops.log_streams import LogStreams
        streams = LogStreams(Path({str(open_directory)!r}))
        no_more_threads()
        for _ in range(2):
            streams.write("vpn", "staff", {{}})
        print(streams.lost, streams.waiting, streams.last_loss.where, streams.last_loss.why, sep="\\n")
        streams.close()
    """)
    where = LogStreams(open_directory).path("vpn", "staff")
    assert said.splitlines() == ["2", "0", str(where), "can't start new thread"]


def test_a_stream_that_cannot_be_made_costs_its_entries_and_they_are_counted(tmp_path: Path) -> None:
    (tmp_path / "vpn").write_text("a file where the group's directory should be")
    now = 0.0
    streams = LogStreams(tmp_path, clock=lambda: now)
    streams.write("vpn", "staff", entry(1))
    streams.write("other", "staff", entry(2))
    wait_until(lambda: streams.lost and streams.path("other", "staff").exists())
    assert streams.lost == 1
    now = IDLE_S
    streams.close_idle()
    assert streams.last_loss is not None, "also of one that is closed"
    assert streams.last_loss.where == str(streams.path("vpn", "staff")) and streams.last_loss.why == "File exists"
    streams.close()
    assert numbers(streams.path("other", "staff")) == [2]
