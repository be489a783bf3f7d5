"""The connection log: AWS's keys and words, and a writer that loses lines rather than time."""

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.connections import CONNECTION
from helpers.lab import wait_until

from cvpnd.config import LogFilesConfig
from cvpnd.ops import syslog
from cvpnd.ops.connection_log import (
    ConnectionLog,
    attempt_entry,
    reset_entry,
    update_entry,
    waiting_entry,
)
from cvpnd.ops.log_file import LogFile
from cvpnd.ops.log_streams import LogStreams
from cvpnd.ops.log_writer import LogWriter
from cvpnd.reasons import End, Refusal

CONNECTED_AT = CONNECTION.connected_at

# the administrator guide's example of a successful attempt, with the keys that its later examples have too
AWS_EXAMPLE = {
    "connection-log-type": "connection-attempt",
    "connection-attempt-status": "successful",
    "connection-reset-status": "NA",
    "connection-attempt-failure-reason": "NA",
    "connection-id": "cvpn-connection-0123456789abcdef0",
    "client-vpn-endpoint-id": "cvpn-endpoint-0123456789abcdef0",
    "transport-protocol": "udp",
    "connection-start-time": "2020-03-26 20:37:15",
    "connection-last-update-time": "2020-03-26 20:37:15",
    "client-ip": "10.0.1.2",
    "client-ip-v6": "NA",
    "common-name": "client1",
    "device-type": "mac",
    "device-ip": "98.247.202.82",
    "port": "50096",
    "ingress-bytes": "0",
    "egress-bytes": "0",
    "ingress-packets": "0",
    "egress-packets": "0",
    "connection-end-time": "NA",
    "connection-duration-seconds": "0",
    "username": "N/A",
}


def read_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_successful_attempt_reads_as_in_awss_example_with_our_keys_behind() -> None:
    entry = attempt_entry(CONNECTION, CONNECTED_AT + 0.3)
    assert list(entry.items())[: len(AWS_EXAMPLE)] == list(AWS_EXAMPLE.items())
    assert all(isinstance(value, str) for value in entry.values())


def test_a_refused_attempt_says_why_and_has_no_address() -> None:
    refused = replace(CONNECTION, client_ip="", ended_at=CONNECTED_AT, posture_compliance_statuses=("old", "odd"))
    entry = attempt_entry(refused, CONNECTED_AT, failure=Refusal.CERTIFICATE_REVOKED, detail="serial 0A")
    assert entry["connection-attempt-status"] == "failed"
    assert entry["connection-attempt-failure-reason"] == "certificate-revoked"
    assert entry["client-ip"] == "NA"
    assert {entry[f"connection-{key}"] for key in ("start-time", "end-time", "duration-seconds")} == {"NA"}
    assert entry["posture-compliance-statuses"] == ["old", "odd"]
    assert entry["detail"] == "serial 0A"
    assert entry["authentication-method"] == "certificate"


def test_an_end_has_duration_counters_and_reason() -> None:
    ended = replace(
        CONNECTION, ended_at=CONNECTED_AT + 61.7, end_reason=End.CLIENT_EXIT, ingress_bytes=5, egress_packets=2**40
    )
    entry = reset_entry(ended, CONNECTED_AT + 61.7)
    assert entry["connection-log-type"] == "connection-reset"
    assert (entry["connection-attempt-status"], entry["connection-reset-status"]) == ("NA", "NA")
    assert (entry["connection-end-time"], entry["connection-duration-seconds"]) == ("2020-03-26 20:38:17", "61")
    assert (entry["ingress-bytes"], entry["egress-packets"]) == ("5", str(2**40))
    assert entry["connection-end-reason"] == "client-exit"
    assert waiting_entry(CONNECTION, CONNECTED_AT)["connection-attempt-status"] == "waiting-for-assertion"
    update = update_entry(replace(CONNECTION, ingress_bytes=7), CONNECTED_AT + 5)
    assert (update["connection-log-type"], update["ingress-bytes"]) == ("connection-update", "7")
    assert (update["connection-end-time"], update["connection-duration-seconds"]) == ("NA", "5")


def opened(path: Path, **options: int) -> LogWriter:
    file = LogFile(path)
    file.open()
    return LogWriter(str(path), file, **options)


def test_what_was_written_is_in_the_file_after_close_with_its_modes(tmp_path: Path) -> None:
    path = tmp_path / "log" / "connections.log"
    log = opened(path)
    hostile = replace(CONNECTION, common_name="eve\n\x1b[2J\u202e\ud800")
    for index in range(1000):
        log.write(attempt_entry(replace(hostile, port=index), CONNECTED_AT))
    log.close()
    lines = read_lines(path)
    assert [line["port"] for line in lines] == [str(index) for index in range(1000)]
    assert log.lost == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert path.read_text().isascii() and "\x1b" not in path.read_text()
    assert lines[0]["common-name"] == "eve\n\x1b[2J\u202e\ud800"


def test_after_reopen_new_entries_go_to_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    log = opened(path)
    log.write({"number": "1"})
    wait_until(lambda: path.stat().st_size > 0)
    path.rename(tmp_path / "connections.log.1")
    log.reopen()
    log.write({"number": "2"})
    log.close()
    assert read_lines(tmp_path / "connections.log.1") == [{"number": "1"}]
    assert read_lines(path) == [{"number": "2"}]


def test_a_file_that_somebody_has_removed_is_made_anew_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "log" / "connections.log"
    log = opened(path)
    for number in ("1", "2"):
        log.write({"number": number})
        wait_until(lambda: path.exists() and path.stat().st_size > 0)
        assert read_lines(path) == [{"number": number}] and log.lost == 0
        shutil.rmtree(path.parent)
    path.parent.symlink_to(tmp_path / "nowhere")
    log.write({"number": "3"})
    wait_until(lambda: log.last_loss)
    assert log.lost == 1 and (log.last_loss.where, log.last_loss.why) == (str(path), "File exists")
    path.parent.unlink()
    log.write({"number": "4"})
    log.close()
    assert read_lines(path) == [{"number": "4"}]


def test_a_reopen_that_fails_goes_on_in_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    log = opened(path)
    path.rename(tmp_path / "old")
    path.mkdir()
    log.reopen()
    log.write({"number": "1"})
    log.close()
    assert read_lines(tmp_path / "old") == [{"number": "1"}]
    assert log.lost == 0


def test_a_log_that_cannot_be_opened_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        ConnectionLog(tmp_path / "link", LogFilesConfig(), LogStreams(tmp_path))


def test_a_disk_that_hangs_costs_lines_but_never_time(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)  # a pipe that nobody reads hangs like a dead disk once 64 kB are in it
    log = opened(path, queue_limit=100)
    slowest = 0.0
    for _ in range(2000):
        begun = time.perf_counter()
        log.write({"text": "x" * 1000})
        slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 1.0
    assert 2000 - 100 - 256 - 70 <= log.lost < 2000
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    received = read_while_closing(log, reader, 0.001)
    assert len(received.splitlines()) + log.lost == 2000


def test_each_line_that_a_disk_that_hung_at_the_end_did_not_take_is_lost_once(tmp_path: Path) -> None:
    """Also those that it was taking, unless it takes them after all."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = opened(path)
    for _ in range(2000):
        log.write({"text": "x" * 1000})
    reader, received = os.open(path, os.O_RDONLY | os.O_NONBLOCK), bytearray()
    log.close(timeout_s=0.3)
    assert log.lost > 1000 and log.waiting == 0
    whole_batches = log.lost

    def all_is_here() -> bool:
        received.extend(read_some(reader))
        return log.is_over

    wait_until(all_is_here, 10)
    received += read_some(reader)
    os.close(reader)
    assert received.count(b"\n") + log.lost == 2000
    assert 0 < whole_batches - log.lost <= 256, "no more arrives than it had in its hand"


def test_a_disk_that_is_merely_slow_loses_nothing_at_the_end(tmp_path: Path) -> None:
    """It takes 64 kB every 0.2 s, thus longer for all than the end waits for a sign of life."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = opened(path)
    for _ in range(1000):
        log.write({"text": "x" * 1000})
    received = read_while_closing(log, os.open(path, os.O_RDONLY | os.O_NONBLOCK), 0.2, timeout_s=2.0)
    assert received.count(b"\n") == 1000 and log.lost == 0


def read_while_closing(log: LogWriter, reader: int, pause_s: float, **patience: float) -> bytes:
    received = bytearray()
    closing = threading.Thread(target=log.close, kwargs=patience)
    closing.start()
    while closing.is_alive():
        received += read_some(reader)
        time.sleep(pause_s)
    while more := read_some(reader):
        received += more
    os.close(reader)
    return bytes(received)


def read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def test_a_full_disk_loses_counted_lines_and_never_leaves_a_torn_one_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    script = """
        import resource, signal, sys, json, time
        from pathlib import Path
        from cvpnd.ops.log_file import LogFile
        from cvpnd.ops.log_writer import LogWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = Path(sys.argv[1])
        log = LogWriter(str(path), LogFile(path))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))   # EFBIG in the middle of a line, as a full disk would
        for number in range(100):
            log.write({"number": str(number), "text": "x" * 100})
        while log.waiting:
            time.sleep(0.01)
        time.sleep(0.1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))   # somebody made room
        log.write({"number": "last"})
        log.close()
        print(log.lost)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    whole, torn = [], []
    for line in path.read_text().splitlines():
        try:
            whole.append(json.loads(line)["number"])
        except json.JSONDecodeError:
            torn.append(line)
    assert whole[-1] == "last" and len(torn) <= 1
    assert int(done.stdout) == 101 - len(whole) > 0
    assert "entries are being lost" in done.stderr
    assert path.stat().st_size > 5000 or torn, "the limit was not reached"


def test_a_torn_last_line_of_a_crash_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "connections.log"
    path.write_text('{"number": "1"}\n{"num')
    log = opened(path)
    log.write({"number": "2"})
    log.close()
    assert path.read_text() == '{"number": "1"}\n{"num\n{"number": "2"}\n'


def test_entries_after_close_are_lost_and_counted(tmp_path: Path) -> None:
    log = opened(tmp_path / "connections.log")
    log.close()
    log.write({"number": "1"})
    assert log.lost == 1


def test_entries_that_reach_the_journal_twice_are_spoken_of(tmp_path, monkeypatch, caplog):
    (tmp_path / "journal").mkdir()
    (tmp_path / "log").symlink_to("journal/dev-log")
    monkeypatch.setattr(syslog, "SOCKET", tmp_path / "log")
    monkeypatch.setattr(syslog, "JOURNAL", tmp_path / "journal")

    def told(journal: str, target: str) -> bool:
        caplog.clear()
        settings = LogFilesConfig(journal=journal, syslog=target)
        log = ConnectionLog(tmp_path / "connections.log", settings, LogStreams(tmp_path / "streams"))
        log.close()
        return "in the journal twice" in caplog.text

    assert told("on", "local")
    assert not told("off", "local")
    assert not told("on", "udp://127.0.0.1:514")
    monkeypatch.setattr(syslog, "JOURNAL", tmp_path / "elsewhere")
    assert not told("on", "local"), "a syslog daemon of its own"
