"""cvpnctl as people run it: a process of its own against a real server on a real socket."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import pytest
from helpers.lab import wait_until
from helpers.memory_operations import ALICE, EVE, STAFF, MemoryOperations, admin_server

from cvpnd.api.server import CONNECTIONS_PER_USER
from cvpnd.ctl.client import Client, Unreachable, patiently
from cvpnd.ctl.log import POLL_S
from cvpnd.ctl.nouns import PLACES
from cvpnd.ops.problems import Problem


class Ctl(Protocol):
    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]: ...


def run(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CVPND_")}
    return subprocess.run(
        [sys.executable, "-m", "cvpnd.ctl", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        cwd=cwd,
        env=clean | {"PYTHONPATH": os.pathsep.join(sys.path), "TZ": "UTC", "NO_COLOR": "1"} | (environment or {}),
    )


@pytest.fixture
def operations() -> MemoryOperations:
    return MemoryOperations()


@pytest.fixture
def sock(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


@pytest.fixture
def ctl(operations: MemoryOperations, tmp_path: Path, sock: Path) -> Iterator[Ctl]:
    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(*arguments, cwd=tmp_path, environment={"CVPND_SOCKET": str(sock)})
        assert done.returncode == code, done
        return done

    with admin_server(operations, sock):
        yield call


def into(redirection: str, *arguments: str, sock: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$0" -m cvpnd.ctl "$@" {redirection}', sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CVPND_SOCKET": str(sock)},
    )


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_endpoints(ctl: Ctl) -> None:
    heading, staff = rows(ctl("endpoint", "list").stdout)
    assert heading[0] == "NAME"
    assert staff[:4] == ["staff", STAFF.endpoint_id, "available", "10.100.0.0/22"]
    assert json.loads(ctl("endpoint", "list", "--json").stdout)[0]["listen"] == list(STAFF.listen)


def test_connections_are_listed_and_hostile_names_stay_harmless(ctl: Ctl) -> None:
    table = ctl("connection", "list", "staff").stdout
    heading, alice, eve = rows(table)
    assert heading[:4] == ["ID", "ENDPOINT", "NAME", "ADDRESS"]
    assert alice[:5] == [ALICE.connection_id, "staff", "alice", "10.100.0.2", "198.51.100.7:50096/udp"]
    assert "2023-11-14 22:13:20" in table and "1.5 MB" in table
    assert eve[2] == "eve[bold]\\x1b[2J\\nforged"
    assert "\x1b" not in table
    assert json.loads(ctl("connection", "list", "--json").stdout)[1]["common_name"] == EVE.common_name


def test_a_connection_is_shown_and_terminated(ctl: Ctl, operations: MemoryOperations) -> None:
    operations.connections.append(
        replace(ALICE, connection_id="v6", device_ip="2001:db8::1", status="terminated", end_reason="client-exit")
    )
    shown = ctl("connection", "show", "v6").stdout
    assert "from         [2001:db8::1]:50096/udp\n" in shown
    assert "status       terminated (client-exit)\n" in shown
    assert json.loads(ctl("connection", "show", ALICE.connection_id, "--json").stdout)["port"] == 50096
    assert ctl("connection", "terminate", ALICE.connection_id).stdout == f"terminated {ALICE.connection_id}\n"
    refused = ctl("connection", "terminate", ALICE.connection_id, code=1)
    assert refused.stdout == "" and "InvalidClientVpnConnection.IdNotFound" in refused.stderr
    ended = ctl("connection", "terminate", "--username", "alice", "--endpoint", "staff", "--json").stdout
    assert json.loads(ended) == {"terminated": ["v6"]}
    ctl("connection", "show", "../reload", code=1)
    assert operations.reloads == 0


def test_status_says_what_is_wrong_and_exits_by_it(ctl: Ctl, operations: MemoryOperations) -> None:
    shown = ctl("status").stdout
    assert "up 16 min 40 s" in shown and "2/1021" in shown and "1.0 days  expired" in shown and "all is well" in shown
    operations.problems.append(Problem("critical", "endpoint staff", "its list has expired\x1b[2J", "sign a new one"))
    shown = ctl("status", code=1).stdout
    assert "CRITICAL: endpoint staff: its list has expired\\x1b[2J\n    sign a new one\n" in shown
    assert json.loads(ctl("status", "--json", code=1).stdout)["problems"][0]["fix"] == "sign a new one"


def test_hostile_names_stay_harmless_in_what_is_shown_live(ctl: Ctl) -> None:
    for shown in (ctl("top", "--count", "1", "--interval", "0.2").stdout, ctl("log", "follow", "--once").stdout):
        assert "eve[bold]\\x1b[2J\\nforged" in shown and "\x1b" not in shown
    (line,) = ctl("log", "follow", "--once", "--user", "alice", "--reason", "crl-expired").stdout.splitlines()
    assert line.startswith(
        "2023-11-14 22:13:20  refused    staff  alice  198.51.100.7:50096/udp  10.100.0.2  crl-expired"
    )
    assert ctl("log", "follow", "--once", "--reason", "tls-failure").stdout == ""
    assert "tls-failure?" in ctl("log", "follow", "--once", "--reason", "tls-failed", code=2).stderr
    assert len(ctl("log", "follow", "--once", "-n", "1").stdout.splitlines()) == 1


def heed_interrupts() -> None:
    """What a shell starts in the background ignores them, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


FOLLOW = ("log", "follow")


@contextlib.contextmanager
def going_on(sock: Path, directory: Path, *arguments: str) -> Iterator[tuple[Path, Path]]:
    """What a command shows that goes on until it is interrupted, and what it complains of."""
    shown, complaints = directory / "shown", directory / "complaints"
    command = [sys.executable, "-m", "cvpnd.ctl", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CVPND_SOCKET": str(sock)}
    with (
        shown.open("w") as out,
        complaints.open("w") as errors,
        subprocess.Popen(command, stdout=out, stderr=errors, env=environment, preexec_fn=heed_interrupts) as following,
    ):
        try:
            wait_until(lambda: "alice" in shown.read_text(), 20, "what was before")
            yield shown, complaints
            following.send_signal(signal.SIGINT)
            assert following.wait(10) == 0
        finally:
            following.kill()


def test_nothing_is_shown_twice_when_a_daemon_that_lives_does_not_answer(
    tmp_path: Path, sock: Path, operations: MemoryOperations
) -> None:
    with admin_server(operations, sock), going_on(sock, tmp_path, *FOLLOW) as (shown, complaints):
        with contextlib.ExitStack() as crowd:
            for _ in range(CONNECTIONS_PER_USER + 1):  # the follower may have a place at this moment
                crowd.enter_context(socket.socket(socket.AF_UNIX)).connect(str(sock))
            wait_until(lambda: "hung up" in complaints.read_text(), 5, "that nobody answers")
        operations.connections.append(replace(EVE, common_name="mallory"))
        wait_until(lambda: "mallory" in shown.read_text(), 5, "what came meanwhile")
        assert shown.read_text().count("\n") == len(operations.connections), "each once"


def test_the_log_is_followed_beyond_a_restart_of_the_daemon(tmp_path: Path, sock: Path) -> None:
    first, second = MemoryOperations(), MemoryOperations()
    second.connections = [replace(EVE, common_name="mallory")]
    with contextlib.ExitStack() as stopped:
        stopped.enter_context(admin_server(first, sock))
        with going_on(sock, tmp_path, *FOLLOW) as (shown, complaints):
            stopped.close()
            wait_until(complaints.read_text, 5, "that nobody answers")
            sock.unlink(missing_ok=True)
            with admin_server(second, sock):
                wait_until(lambda: "mallory" in shown.read_text(), 5, "what came meanwhile")
                time.sleep(2 * POLL_S)
    assert shown.read_text().count("\n") == len(first.connections) + 1, "each once"
    lines = complaints.read_text().splitlines()
    assert all("waiting for it" in line for line in lines) and len(lines) <= 2


def test_the_busiest_are_shown_beyond_a_restart_of_the_daemon(tmp_path: Path, sock: Path) -> None:
    first, second = MemoryOperations(), MemoryOperations()
    second.started_at += 60
    second.connections = [replace(EVE, connection_id="c-mallory", common_name="mallory", status="active")]
    with contextlib.ExitStack() as stopped:
        stopped.enter_context(admin_server(first, sock))
        with going_on(sock, tmp_path, "top", "--interval", "0.2") as (shown, complaints):
            stopped.close()
            wait_until(complaints.read_text, 5, "that nobody answers")
            sock.unlink(missing_ok=True)
            with admin_server(second, sock):
                wait_until(lambda: "mallory" in shown.read_text(), 5, "who is there now")
                time.sleep(0.5)
    of_now = shown.read_text()[shown.read_text().index("mallory") :]
    assert "alice" not in of_now and "busy: nothing" in of_now
    lines = complaints.read_text().splitlines()
    assert all("waiting for it" in line for line in lines) and len(lines) <= 2


def test_a_daemon_that_is_away_is_tried_every_two_seconds_however_seldom_is_looked_at_it(monkeypatch) -> None:
    asked, slept = iter([Unreachable("away"), Unreachable("away"), "here"]), []
    monkeypatch.setattr(time, "sleep", slept.append)

    def ask() -> str:
        if isinstance(answer := next(asked), Unreachable):
            raise answer
        return answer

    assert patiently(ask, 3600) == "here" and slept == [2.0, 2.0]


def test_the_daemon_is_asked_where_there_is_no_proc_too(sock: Path, monkeypatch) -> None:
    def none(_self: Path) -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    with admin_server(MemoryOperations(), sock):
        client = Client(sock)
        assert client.endpoint_names() and client.daemon_pid == os.getpid()
        monkeypatch.setattr(Path, "readlink", none)
        assert client.endpoint_names() and client.daemon_pid == 0


def test_a_daemon_that_never_answered_is_not_waited_for(ctl: Ctl, tmp_path: Path) -> None:
    for command in (("top",), FOLLOW):
        told = ctl(*command, "--socket", str(tmp_path / "nowhere.sock"), code=3)
        assert "no cvpnd is listening" in told.stderr and "waiting" not in told.stderr


def test_rules(ctl: Ctl, operations: MemoryOperations) -> None:
    added = ctl("rule", "add", "staff", "10.30.0.0/16", "--group", "eng", "--description", "the lab")
    assert added.stdout == "added: staff: 10.30.0.0/16 for group eng\n"
    made = json.loads(ctl("rule", "add", "staff", "2001:db8::/32", "--all-groups", "--json").stdout)
    assert (made["network"], made["group"]) == ("2001:db8::/32", None)
    assert operations.actors[-1].who == f"uid:{os.getuid()}"
    table = ctl("rule", "list").stdout
    assert rows(table)[1:3] == [
        ["staff", "10.20.0.0/16", "all", "users", "file", "everything"],
        ["staff", "10.30.0.0/16", "group", "eng", "store", "the", "lab"],
    ]
    removed = ctl("rule", "remove", "staff", "10.30.0.0/16", "--group", "eng")
    assert removed.stdout == "removed: staff: 10.30.0.0/16 for group eng\n"
    assert len(json.loads(ctl("rule", "list", STAFF.endpoint_id, "--json").stdout)) == 2


def test_a_refusal_shows_code_and_fix_on_stderr(ctl: Ctl) -> None:
    refused = ctl("rule", "add", "staff", "10.30.0.1/16", "--all-groups", code=1)
    assert refused.stdout == ""
    assert refused.stderr == (
        "cvpnctl: network: 10.30.0.1/16 has host bits set; write 10.30.0.0/16 (InvalidParameterValue)\n"
    )
    assert "belongs to cvpnd.toml" in ctl("rule", "remove", "staff", "10.20.0.0/16", "--all-groups", code=1).stderr
    assert "endpoint list" in ctl("rule", "list", "nowhere", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rule", "add", "staff", "10.30.0.0/16"], "either --group NAME or --all-groups"),
        (["rule", "add", "staff", "10.30.0.0/16", "--group", "g", "--all-groups"], "either --group NAME or"),
        (["rule", "remove", "staff", "10.30.0.0/16"], "either --group NAME or --all-groups"),
        (["rule", "add", "staff"], "network"),
        (["connection", "terminate"], "either a connection id or --username"),
        (["connection", "terminate", "x", "--endpoint", "staff"], "--endpoint goes with --username"),
        (["certificate", "revoke"], "either a name or --serial"),
        (["certificate", "issue", "../alice"], "cannot be a file's name"),
        (["profile", "alice", "--output", "no/such/folder/x"], "is not a directory"),
        (["user", "add", "bob"], "standard input is no terminal"),
        (["user", "password", "bob"], "standard input is no terminal"),
        (["user", "hash"], "standard input is no terminal"),
        (["nonsense"], "nonsense"),
        (["rule", "list", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_use_is_2_and_asks_the_daemon_nothing(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path, environment={"COLUMNS": "200", "CVPND_SOCKET": str(tmp_path / "none")})
    assert done.returncode == 2, done
    assert complaint in done.stderr


def test_routes(ctl: Ctl) -> None:
    assert rows(ctl("route", "list", "staff").stdout)[1] == ["staff", "10.20.0.0/16", "subnet-a", "associate"]
    assert json.loads(ctl("route", "list", "--json").stdout)[0]["target"] == "subnet-a"


def test_a_certificate_is_issued_into_private_files_once(ctl: Ctl, tmp_path: Path) -> None:
    assert ctl("certificate", "issue", "bob", "--days", "30").stdout == "written: bob.crt\nwritten: bob.key\n"
    assert (tmp_path / "bob.key").read_text() == "key of bob\n"
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("bob.crt", "bob.key")]
    assert modes == [0o644, 0o600]
    refused = " ".join(ctl("certificate", "issue", "bob", code=2).stderr.replace("│", "").split())
    assert "bob.crt exists; move it away" in refused and "--force" not in refused
    (tmp_path / "bob.crt").unlink()
    (tmp_path / "bob.key").unlink()
    assert "revoke it first" in ctl("certificate", "issue", "bob", code=1).stderr
    assert not (tmp_path / "bob.crt").exists()
    assert json.loads(ctl("certificate", "issue", "carol", "--json").stdout)["private_key"] == "key of carol\n"
    assert not (tmp_path / "carol.key").exists()
    assert [row[0] for row in rows(ctl("certificate", "list").stdout)] == ["NAME", "alice", "bob", "carol"]


def test_certificates_are_revoked_by_name_and_by_serial(ctl: Ctl) -> None:
    assert ctl("certificate", "revoke", "alice").stdout == "revoked: alice, serial 0A1B\n"
    revoked = json.loads(ctl("certificate", "revoke", "--serial", "0A1B", "--json").stdout)
    assert revoked["status"] == "revoked"
    assert "no certificate carol" in ctl("certificate", "revoke", "carol", code=1).stderr


def test_client_keys(ctl: Ctl) -> None:
    assert rows(ctl("client-key", "list").stdout)[1] == ["staff", "alice", "0A1B", "2023-11-14", "revoked"]
    (key,) = json.loads(ctl("client-key", "list", "staff", "--json").stdout)
    assert key["status"] == "revoked"
    assert ctl("profile", "alice", "--serial", "0A1B").stdout == "client\n# alice None openvpn False 0A1B\n"


def test_a_profile_is_printed_or_written_privately(ctl: Ctl, tmp_path: Path) -> None:
    assert ctl("profile", "alice").stdout == "client\n# alice None openvpn False\n"
    arguments = ["profile", "alice", "--endpoint", "staff", "--for", "aws", "--issue", "--output", "alice.ovpn"]
    assert ctl(*arguments).stdout == "written: alice.ovpn\n"
    profile = tmp_path / "alice.ovpn"
    assert profile.read_text() == "client\n# alice staff aws True\n"
    assert stat.S_IMODE(profile.stat().st_mode) == 0o600
    profile.write_text("precious")
    ctl(*arguments, code=2)
    assert profile.read_text() == "precious"
    ctl(*arguments, "--force")
    assert profile.read_text() == "client\n# alice staff aws True\n"
    assert json.loads(ctl("profile", "alice", "--json").stdout)["profile"].startswith("client\n")
    assert "choose openvpn or aws" in ctl("profile", "alice", "--for", "fax", code=1).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["admin.sock", "alice.ovpn"]


def test_explain_tells_and_exits_by_the_verdict(ctl: Ctl) -> None:
    allowed = ctl("explain", "alice", "10.20.1.1", "--group", "eng", "--group", "ops").stdout
    assert allowed.splitlines() == [
        "alice may reach 10.20.1.1",
        "  rule           10.20.0.0/16 (file)",
        "  is for         all users",
        "  user's groups  eng, ops",
        "  route          10.20.0.0/16 by subnet-a",
    ]
    denied = ctl("explain", "alice", "8.8.8.8", "--endpoint", "staff", code=1)
    assert denied.stderr == "" and denied.stdout.startswith("no rule lets alice reach 8.8.8.8\n")
    assert json.loads(ctl("explain", "alice", "8.8.8.8", "--json", code=1).stdout)["allowed"] is False


def test_the_shell_is_offered_what_the_daemon_has(operations: MemoryOperations, tmp_path: Path, sock: Path) -> None:
    def complete(typed: str) -> list[str]:
        words = f"cvpnctl {typed}"
        shell = {"_CVPNCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return run(cwd=tmp_path, environment={"CVPND_SOCKET": str(sock), **shell}).stdout.split()

    with admin_server(operations, sock):
        assert complete("endpoint show s") == ["staff"]
        assert complete("rule remove staff 10") == ["10.20.0.0/16"]
        assert complete("route add staff 10.9.0.0/16 ") == ["subnet-a", "local"]
        assert complete("network add staff ") == ["subnet-a"]
        assert complete("connection terminate --username al") == ["alice"]
    assert complete("endpoint show s") == [], "without a daemon"


def test_reload(ctl: Ctl, operations: MemoryOperations) -> None:
    assert ctl("reload").stdout == 'reloaded  yes\nrevision  1\nchanged   ["staff"]\n'
    assert json.loads(ctl("reload", "--json").stdout)["revision"] == 2


def test_help_says_what_the_exit_codes_mean(tmp_path: Path) -> None:
    shown = " ".join(run("--help", cwd=tmp_path).stdout.split())
    assert "0 done, 1 the daemon refused it" in shown and "2 wrong use, 3 no daemon answers" in shown


@pytest.mark.parametrize("program", ["cvpnd", "cvpnd.ctl"])
def test_the_version_is_said_without_a_daemon(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--version"], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cvpnd {version('cvpnd')}\n", "")


def test_socket_and_json_before_or_behind_the_noun(ctl: Ctl, tmp_path: Path, sock: Path) -> None:
    for arguments in (
        ["--socket", str(sock), "--json", "route", "list"],
        ["route", "list", "--socket", str(sock), "--json"],
        ["--socket", "/nonexistent", "route", "list", "--socket", str(sock), "--json"],
    ):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done
        assert json.loads(done.stdout)[0]["target"] == "subnet-a"


def test_an_empty_list_says_what_it_means_and_is_valid_json(ctl: Ctl, operations: MemoryOperations) -> None:
    operations.connections.clear()
    operations.rules.clear()
    empty = ctl("connection", "list")
    assert (empty.stdout, empty.stderr) == ("", "nobody is connected\n")
    assert "nobody may reach anything" in ctl("rule", "list").stderr
    assert json.loads(ctl("connection", "list", "--json").stdout) == []


def test_a_failure_of_the_daemon_is_a_refusal_without_its_details(ctl: Ctl, operations: MemoryOperations) -> None:
    operations.broken = True
    failed = ctl("endpoint", "list", code=1)
    assert "its log has the details" in failed.stderr and "secret" not in failed.stderr


def test_no_daemon_is_3_and_says_which_socket_and_how_to_start(tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    for path in (tmp_path / "none.sock", stale):
        done = run("endpoint", "list", "--socket", str(path), cwd=tmp_path)
        assert done.returncode == 3
        assert f"no cvpnd is listening on {path}; start it with 'systemctl start cvpnd'" in done.stderr
    assert "/run/cvpnd/admin.sock" in run("endpoint", "list", "--help", cwd=tmp_path).stdout


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_no_permission_is_3_and_says_what_to_do(sock: Path, operations: MemoryOperations) -> None:
    script = f"""
import os, sys
from cvpnd.ctl.__main__ import main
sys.argv = ["cvpnctl", "endpoint", "list", "--socket", "/nonexistent"]
try:
    main()  # everything is imported now, which nobody might not be allowed to read
except SystemExit:
    pass
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv[-1] = {str(sock)!r}
main()
"""
    for folder in (sock.parent, *list(sock.parents)[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    with admin_server(operations, sock):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done
    assert f"{sock}: no permission; run this with sudo" in done.stderr


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"])
def test_something_else_on_the_socket_is_3(sock: Path, tmp_path: Path, answer: bytes) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(10_000)
        connection.sendall(answer)
        connection.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sock))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        done = run("endpoint", "list", "--socket", str(sock), cwd=tmp_path)
        thread.join(10)
    assert done.returncode == 3, done
    assert ("no sensible answer from cvpnd" if answer else "hung up without an answer") in done.stderr


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ("status --json", {"status"}),
        ("log follow --once --json", {"log"}),
        ("connection terminate --username anna", {"connection"}),
        ("endpoint list --json", {"endpoint"}),
        ("user list --json", {"user", "totp"}),
    ],
)
def test_a_command_imports_nothing_heavy_and_no_other_command(
    arguments: str, files: set[str], operations: MemoryOperations, tmp_path: Path, sock: Path
) -> None:
    script = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "from cvpnd.ctl.__main__ import main; main()"
    )
    with admin_server(operations, sock):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments.split()],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env=os.environ | {"CVPND_SOCKET": str(sock)},
        )
    assert done.returncode in (0, 1), done  # the daemon has answered
    loaded = set(done.stderr.split())
    heavy = {"httpx", "pydantic", "starlette", "uvicorn", "sqlalchemy", "cryptography", "OpenSSL", "saml2", "pyroute2"}
    assert loaded & (heavy | {"rich.table", "asyncio"}) == set()
    commands = {place.split(".")[0] for place in PLACES.values()} | {"totp"}
    assert {name for name in commands if f"cvpnd.ctl.{name}" in loaded} == files


@pytest.mark.parametrize("arguments", [("endpoint", "list"), ("status", "--json")])
def test_an_answer_that_cannot_be_written_is_said_in_one_line(ctl: Ctl, sock: Path, arguments: tuple[str, ...]) -> None:
    ctl("endpoint", "list")
    full = into(">/dev/full", *arguments, sock=sock)
    assert (full.returncode, full.stderr) == (
        2,
        "cvpnctl: the answer cannot be written: No space left on device; what was asked may be done\n",
    )
    closed = into(">&-", *arguments, sock=sock)
    assert (closed.returncode, closed.stderr) == (2, "cvpnctl: standard output is closed; nothing was done\n")
    assert into("| head -c 1", *arguments, sock=sock).stderr == ""
    unread = into("| exec true; exit ${PIPESTATUS[0]}", *arguments, sock=sock)
    assert (unread.returncode, unread.stderr) == (2, "")
