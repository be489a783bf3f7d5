"""sd_notify over real datagram sockets, in the file system and abstract."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvpnd.ops.sdnotify import Notifier
from cvpnd.service import Daemon


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[socket.socket, str]:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"@cvpnd-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    manager.bind(name.replace("@", "\0", 1))
    manager.settimeout(5)
    request.addfinalizer(manager.close)
    return manager, name


def test_states_reach_the_manager(listener: tuple[socket.socket, str]) -> None:
    manager, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("2 endpoints,\n 0 connections")
    assert manager.recv(1000) == b"READY=1\nSTATUS=2 endpoints, 0 connections"
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    state, clock = manager.recv(1000).decode().split("\n")
    assert state == "RELOADING=1"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.status("5 connections")
    notifier.watchdog()
    notifier.stopping()
    assert [manager.recv(1000) for _ in range(3)] == [b"STATUS=5 connections", b"WATCHDOG=1", b"STOPPING=1"]
    notifier.close()
    notifier.watchdog()


def _fails(*_: object) -> None:
    raise RuntimeError("planted")


async def _reloads() -> str:
    return "2 endpoints"


@pytest.mark.parametrize(("reopen", "reload"), [(_fails, _reloads), (lambda: None, _fails)])
async def test_whoever_waits_for_a_reload_hears_of_its_end_however_it_ends(
    listener: tuple[socket.socket, str], reopen: Callable[[], None], reload: Callable[[], object]
) -> None:
    manager, name = listener
    daemon = SimpleNamespace(
        notifier=Notifier({"NOTIFY_SOCKET": name}),
        connection_log=SimpleNamespace(reopen=reopen),
        operations=SimpleNamespace(reload=reload),
        _status=lambda: "serving staff",
    )
    with pytest.raises(RuntimeError, match="planted"):
        await Daemon.reload(daemon)  # type: ignore[arg-type]
    assert manager.recv(1000).startswith(b"RELOADING=1\n")
    assert manager.recv(1000) == b"READY=1\nSTATUS=serving staff"


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).ready()


def test_a_full_receive_queue_does_not_block(tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for _ in range(5000):
        notifier.watchdog()
    manager.close()


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_interval_is_half_of_what_the_manager_allows(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert Notifier(environment).watchdog_interval_s == interval_s
