"""The connection log at journald and syslog daemons: what arrives at real sockets, and what one that is gone costs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.connections import CONNECTION
from helpers.lab import wait_until

from cvpnd.config import LogFilesConfig, SyslogTarget
from cvpnd.ops import connection_log
from cvpnd.ops.connection_log import (
    ConnectionLog,
    assertion_entry,
    attempt_entry,
    reset_entry,
    update_entry,
    waiting_entry,
)
from cvpnd.ops.journal import MESSAGE_IDS, Journal, kind
from cvpnd.ops.log_streams import LogStreams
from cvpnd.ops.log_writer import PATIENCE_S, EntriesLost, LogWriter
from cvpnd.ops.syslog import Syslog

ANNA = replace(
    CONNECTION,
    common_name="laptop",
    username="anna\nMESSAGE=forged",
    method="certificate+directory",
    ingress_bytes=7,
    egress_bytes=8,
    ingress_packets=1,
    egress_packets=1,
    posture_compliance_statuses=("compliant", "patched"),
)
ENTRIES = [
    attempt_entry(ANNA, ANNA.connected_at),
    attempt_entry(ANNA, ANNA.connected_at, failure="wrong-password", detail="why"),
    waiting_entry(ANNA, ANNA.connected_at),
    assertion_entry(ANNA, ANNA.connected_at + 2),
    update_entry(ANNA, ANNA.connected_at + 3),
    reset_entry(replace(ANNA, ended_at=ANNA.connected_at + 5, end_reason="client-exit"), ANNA.connected_at + 5),
]


def bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    daemon.bind(str(path))
    daemon.settimeout(5)
    return daemon


def parsed(datagram: bytes) -> list[tuple[str, str]]:
    """journald's native protocol, read as its documentation has it."""
    fields = []
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, size = line, int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields.append((name.decode(), value.decode()))
        datagram = rest
    return fields


def test_each_kind_of_entry_reaches_the_journal_with_its_own_id_and_a_field_for_each_key(tmp_path: Path) -> None:
    with bound(tmp_path / "journal") as daemon:
        Journal(tmp_path / "journal").append(ENTRIES)
        received = [parsed(daemon.recv(65536)) for _ in ENTRIES]
    assert [dict(fields)["MESSAGE_ID"] for fields in received] == list(MESSAGE_IDS.values())
    guide = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
    assert {
        name: number for number, name in re.findall("(?m)^\\| `([0-9a-f]{32})` \\| `([a-z-]+)`", guide)
    } == MESSAGE_IDS
    assert len(set(MESSAGE_IDS.values())) == 6 and all(re.fullmatch("[0-9a-f]{32}", i) for i in MESSAGE_IDS.values())
    for fields, entry in zip(received, ENTRIES, strict=True):
        for key, value in entry.items():
            name = "CVPND_" + key.upper().replace("-", "_")
            assert [v for n, v in fields if n == name] == ([value] if isinstance(value, str) else value)
        assert [n for n, _ in fields].count("MESSAGE") == 1, "a name cannot add a field"
    said = [dict(fields)["MESSAGE"] for fields in received]
    assert said[0] == r"anna\nMESSAGE=forged connected to staff from 98.247.202.82 port 50096 (udp) as 10.0.1.2"
    assert said[1].endswith("was not let in to staff from 98.247.202.82 port 50096 (udp): wrong-password, why")
    assert said[3].endswith("back from the identity provider at staff from 98.247.202.82 port 50096 (udp)")
    assert said[5].endswith("after 5 s: client-exit, 7 bytes in, 8 out")
    assert [dict(fields)["PRIORITY"] for fields in received] == ["6", "5", "6", "6", "6", "6"]


def test_a_journal_that_is_gone_costs_entries_and_one_that_was_restarted_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(EntriesLost) as lost:
        journal.append(ENTRIES)
    assert lost.value.count == len(ENTRIES)
    for _ in range(2):
        with bound(tmp_path / "journal") as daemon:
            journal.append(ENTRIES[:1])
            assert daemon.recv(65536)
    journal.close()


def test_a_local_syslog_daemon_gets_what_the_c_library_would_send(tmp_path: Path) -> None:
    with bound(tmp_path / "log") as daemon:
        Syslog(SyslogTarget("local"), tmp_path / "log").append(ENTRIES[:2])
        for priority, entry in zip((86, 85), ENTRIES, strict=False):
            text = daemon.recv(65536).decode()
            found = re.fullmatch(rf"<{priority}>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d cvpnd\[\d+\]: (.*)", text)
            assert found is not None and json.loads(found[1]) == entry


RFC_5424 = r"<86>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S+ cvpnd \d+ successful - (.*)"


def test_a_syslog_daemon_elsewhere_gets_rfc_5424_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        Syslog(SyslogTarget("udp", "127.0.0.1", daemon.getsockname()[1])).append(ENTRIES[:1])
        found = re.fullmatch(RFC_5424, daemon.recv(65536).decode())
        assert found is not None and json.loads(found[1]) == ENTRIES[0]


def test_a_syslog_daemon_that_is_gone_costs_entries_over_udp_too_as_far_as_its_host_says_so() -> None:
    """Which it does of those before, once the next is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        address = daemon.getsockname()
    syslog, lost = Syslog(SyslogTarget("udp", *address)), 0
    for _ in range(10):
        try:
            syslog.append(ENTRIES[:1])
        except EntriesLost as error:
            lost += error.count
            assert "refused" in error.why
    assert lost == 9
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(address)
        daemon.settimeout(5)
        with pytest.raises(EntriesLost):  # of the tenth
            syslog.append(ENTRIES[:1])
        syslog.append(ENTRIES[:1])
        assert all(daemon.recv(65536).startswith(b"<86>1 ") for _ in range(2)), "it is told all since it is back"
    syslog.close()


def test_a_syslog_daemon_over_tcp_gets_counted_octets_also_after_its_restart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        syslog = Syslog(SyslogTarget("tcp", "127.0.0.1", listener.getsockname()[1]))
        for _ in range(2):
            syslog.append(ENTRIES[:1])
            with listener.accept()[0] as connection:
                data = connection.recv(65536)
                size, _, rest = data.partition(b" ")
                assert int(size) == len(rest)
                assert re.fullmatch(RFC_5424, rest.decode()) is not None
            time.sleep(0.05)
    with pytest.raises(EntriesLost):
        syslog.append(ENTRIES[:1])
    syslog.close()


def test_a_daemon_that_takes_nothing_costs_entries_and_never_time(tmp_path: Path) -> None:
    """Nobody reads from its socket, which then takes no more: as a journald that hangs."""
    with bound(tmp_path / "journal"):
        writer = LogWriter("journal", Journal(tmp_path / "journal"), queue_limit=10)
        before = threading.active_count()
        begun = time.perf_counter()
        for _ in range(2000):
            writer.write(ENTRIES[0])
        assert time.perf_counter() - begun < 5, "it was not waited for"
        assert writer.lost > 1000 and threading.active_count() == before
    writer.close()


def test_destinations_come_and_go_with_the_configuration(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        url = f"udp://127.0.0.1:{daemon.getsockname()[1]}"
        log = ConnectionLog(tmp_path / "all.log", LogFilesConfig(), LogStreams(tmp_path / "streams"))
        log.write(ENTRIES[0])
        log.configure(LogFilesConfig.model_validate({"syslog": url}))
        log.write(ENTRIES[1], ("vpn", "staff"))
        assert kind(json.loads(daemon.recv(65536).decode().partition(" - ")[2])) == "failed"
        log.configure(LogFilesConfig())
        log.write(ENTRIES[2])
        log.close()
        daemon.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            pytest.fail(f"it is told still: {daemon.recv(65536)!r}")
    kinds = [kind(json.loads(line)) for line in (tmp_path / "all.log").read_text().splitlines()]
    assert kinds == ["successful", "failed", "waiting-for-assertion"]
    assert LogStreams(tmp_path / "streams").path("vpn", "staff").read_text().count("\n") == 1
    assert log.lost == 0


def test_what_is_configured_away_gets_all_that_waits_for_it_however_slowly_it_takes_that(tmp_path: Path) -> None:
    """A collector over TCP that takes 64 kB every 20 ms: all of it takes longer than a reload may."""
    received = bytearray()

    def collect(daemon: socket.socket) -> None:
        connection, _ = daemon.accept()
        with connection:
            connection.settimeout(10)
            while data := connection.recv(65536):
                received.extend(data)
                time.sleep(0.02)

    with socket.socket() as daemon:
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
        daemon.bind(("127.0.0.1", 0))
        daemon.listen()
        collector = threading.Thread(target=collect, args=[daemon])
        collector.start()
        url = f"tcp://127.0.0.1:{daemon.getsockname()[1]}"
        log = ConnectionLog(
            tmp_path / "all.log", LogFilesConfig.model_validate({"syslog": url}), LogStreams(tmp_path / "streams")
        )
        for _ in range(12000):  # of a kilobyte: more than both ends keep
            log.write(ENTRIES[0])
        begun = time.perf_counter()
        log.configure(LogFilesConfig())
        assert time.perf_counter() - begun < 0.5, "the event loop does that"
        time.sleep(1.2)
        log.close_idle()
        assert log.waiting > 0, "it has taken all"
        collector.join(30)
        log.close_idle()
        assert received.count(b'"connection-log-type"') == 12000
        assert (log.lost, log.waiting) == (0, 0)
        log.close()


def test_what_a_destination_that_hangs_cannot_take_is_lost_once_and_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_log, "HUNG_S", 0.3)
    with bound(tmp_path / "journal") as journal:
        monkeypatch.setattr(connection_log, "Journal", lambda: Journal(tmp_path / "journal"))
        settings = LogFilesConfig.model_validate({"journal": "on"})
        log = ConnectionLog(tmp_path / "all.log", settings, LogStreams(tmp_path / "streams"))
        for _ in range(2000):
            log.write(ENTRIES[0])
        log.configure(LogFilesConfig.model_validate({"journal": "off"}))
        wait_until(lambda: (tmp_path / "all.log").read_text().count("\n") == 2000, 20)
        time.sleep(0.5)
        log.close_idle()
        assert 1000 < log.lost < 2000 and 0 < log.waiting <= 256
        arrived = 0
        journal.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while journal.recv(65536):
                arrived += 1
        log.close_idle()
        assert (arrived + log.lost, log.waiting) == (2000, 0)
        log.close()


def test_the_end_waits_for_all_that_hang_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal, a syslog daemon and the disk of a stream: the daemon has to end before systemd kills it."""
    streams = LogStreams(tmp_path / "streams")
    stuck = streams.path("vpn", "staff")
    stuck.parent.mkdir(parents=True)
    os.mkfifo(stuck)
    with (
        bound(tmp_path / "journal"),
        socket.socket() as daemon,
        contextlib.closing(os.fdopen(os.open(stuck, os.O_RDWR))),
    ):
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        daemon.bind(("127.0.0.1", 0))
        daemon.listen()
        monkeypatch.setattr(connection_log, "Journal", lambda: Journal(tmp_path / "journal"))
        url = f"tcp://127.0.0.1:{daemon.getsockname()[1]}"
        settings = LogFilesConfig.model_validate({"journal": "on", "syslog": url})
        log = ConnectionLog(tmp_path / "all.log", settings, streams)
        for _ in range(6000):
            log.write(ENTRIES[0], ("vpn", "staff"))
        wait_until(lambda: (tmp_path / "all.log").read_text().count("\n") == 6000, 20)
        _, journal, syslog = log._writers()
        assert journal.waiting and syslog.waiting and streams.waiting
        begun = time.monotonic()
        log.close()
        assert time.monotonic() - begun < PATIENCE_S + 1
        assert log.waiting == 0 and log.lost > 6000
