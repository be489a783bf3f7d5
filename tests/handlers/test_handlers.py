"""Each kind of handler as it is: real programs, a real HTTP(S) server, functions in threads; and each way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import certs, threadless

from cvpnd.config import HandlerConfig
from cvpnd.handlers import executable
from cvpnd.handlers.desk import Handlers
from cvpnd.handlers.opening import HandlerError, open_handler
from cvpnd.handlers.schema import ConnectAnswer, ConnectRequest, HandlerFailed
from cvpnd.reasons import Refusal

NAME = "AWSClientVPN-test"
ALLOW = {
    "allow": True,
    "error-msg-on-denied-connection": "",
    "posture-compliance-statuses": ["compliant"],
    "schema-version": "v3",
}
REQUEST = ConnectRequest("cvpn-connection-1", "cvpn-endpoint-1", "alice", "", "linux", "", "2.6", "", "192.0.2.1", ())

TIMED_OUT = Refusal.CLIENT_CONNECT_HANDLER_TIMED_OUT
EXECUTION = Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR
THROTTLED = Refusal.CLIENT_CONNECT_HANDLER_THROTTLED
INVALID = Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE
SERVICE = Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR


def handlers(**settings: Any) -> Handlers:
    made = Handlers()
    made.replace([open_handler(HandlerConfig.model_validate({"name": NAME, **settings}))])
    return made


async def ask(made: Handlers, within_s: float = 10.0) -> ConnectAnswer:
    return await made.ask(NAME, REQUEST, within_s=within_s)


async def failure(made: Handlers, within_s: float = 10.0) -> tuple[Refusal, str]:
    with pytest.raises(HandlerFailed) as failed:
        await ask(made, within_s)
    return failed.value.refusal, failed.value.detail


# -- programs -----------------------------------------------------------------------------------------------


@pytest.fixture
def program(open_directory: Path) -> Callable[..., Handlers]:
    def make(script: str, **settings: Any) -> Handlers:
        path = open_directory / f"handler-{time.monotonic_ns()}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return handlers(executable=path, **settings)

    return make


SAY_ALLOW = f"cat >/dev/null; echo '{json.dumps(ALLOW)}'"


async def test_a_program_gets_the_request_and_little_else(
    program: Callable[..., Handlers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "canary")
    script = """
read -r request
facts=$(printf '%s|%s|%s|%s' "$(pwd)" "$(ulimit -n)" "$(ulimit -t)" "$(grep -h CapEff /proc/self/status | cut -f2)")
user=$(id -u)
printf '{"allow": false, "error-msg-on-denied-connection": "%s", "schema-version": "v3", ' "$facts"
printf '"posture-compliance-statuses": ["%s", "%s", "%s"]}' "$user" "$(env | grep -c SECRET)" "$1"
case "$request" in *'"common-name": "alice"'*) exit 0;; *) exit 9;; esac
"""
    answer = await ask(program(script, arguments=["an argument"], cpu_s=3))
    expected = "nobody" if os.geteuid() == 0 else None
    directory, files, cpu, capabilities = answer.message.split("|")
    assert (directory, files, cpu) == ("/", "256", "3")
    assert int(capabilities, 16) == 0
    user, secrets, argument = answer.statuses
    assert (secrets, argument) == ("0", "an argument")
    assert expected is None or int(user) != 0


@pytest.mark.parametrize(
    ("script", "refusal", "detail"),
    [
        ("echo '{}'; exit 3", EXECUTION, "status 3"),
        ("kill -SEGV $$", EXECUTION, "SIGSEGV"),
        (f"{SAY_ALLOW}; exit 1", EXECUTION, "status 1"),
        ("while :; do :; done", EXECUTION, "SIGKILL"),
        ("exit 0", INVALID, "no JSON"),
        ("echo hello", INVALID, "no JSON"),
        ("yes", INVALID, "more than 65536 bytes"),
        ("yes >&2", EXECUTION, "more than 65536 bytes"),
    ],
)
async def test_a_program_that_fails_denies(
    program: Callable[..., Handlers], script: str, refusal: Refusal, detail: str
) -> None:
    assert (found := await failure(program(script, cpu_s=1)))[0] is refusal
    assert detail in found[1]


async def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    program: Callable[..., Handlers], pids: Path
) -> None:
    script = f"sleep 77 & echo $! >{pids}; echo $$ >>{pids}; wait"
    assert (await failure(program(script), within_s=0.5))[0] is TIMED_OUT
    await ended(pids, 2)


async def test_what_a_program_leaves_behind_is_ended_and_does_not_delay_its_answer(
    program: Callable[..., Handlers], pids: Path
) -> None:
    script = f"sleep 78 </dev/null >/dev/null 2>&1 & echo $! >{pids}; {SAY_ALLOW}"
    assert (await ask(program(script))).allow
    await ended(pids, 1)


@pytest.mark.parametrize("left", ["sleep 79", "setsid sleep 79", "setsid sh -c 'sleep 0.1; echo later; exec sleep 79'"])
@pytest.mark.parametrize("holds", ["", ">/dev/null", "2>/dev/null"])
async def test_what_a_program_leaves_behind_with_its_outputs_does_not_delay_its_answer(
    program: Callable[..., Handlers], pids: Path, left: str, holds: str
) -> None:
    made = program(f"{left} {holds} & echo $! >{pids}; {SAY_ALLOW}")
    try:
        assert (await ask(made, within_s=5)).allow
    finally:
        for pid in pids.read_text().split():  # noqa: ASYNC240
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"sleep 80 & {SAY_ALLOW}; exit 1", EXECUTION),
        ("sleep 80 & exit 3", EXECUTION),
        (f"sleep 80 & {SAY_ALLOW}; {SAY_ALLOW}", TIMED_OUT),
        (f"sleep 80 & {SAY_ALLOW}; head -c 20000 /dev/zero", TIMED_OUT),
        ("sleep 80 & printf '{'", TIMED_OUT),
        ("sleep 80 &", TIMED_OUT),
    ],
)
async def test_what_is_no_answer_is_none_because_its_program_left_something_behind(
    program: Callable[..., Handlers], script: str, reason: Refusal
) -> None:
    assert (await failure(program(script), within_s=2))[0] is reason


async def test_an_answer_that_comes_from_what_a_program_left_behind_is_one(program: Callable[..., Handlers]) -> None:
    assert (await ask(program(f"(sleep 0.3; {SAY_ALLOW}) & exit 0"))).allow


@pytest.fixture
def pids(open_directory: Path) -> Path:
    """Where programs write whom they have started."""
    (open_directory / "for-all").mkdir()
    (open_directory / "for-all").chmod(0o777)
    return open_directory / "for-all" / "pids"


async def ended(pids: Path, count: int) -> None:
    started = [int(pid) for pid in pids.read_text().split()]  # noqa: ASYNC240
    assert len(started) == count
    for _ in range(200):
        if not any(map(alive, started)):
            return
        await asyncio.sleep(0.02)
    pytest.fail("something lives on")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_others_may_change_or_a_user_that_is_none_is_refused_at_start(open_directory: Path) -> None:
    path = open_directory / "handler"
    path.write_text("#!/bin/sh\n")
    for mode, user, problem in (
        (0o777, None, r"can be changed by others \(mode 0777\), .*; chmod go-w"),
        (0o644, None, "is no program"),
        (0o755, "no-such-user", "does not exist"),
        (0o755, "root", "is root"),
    ):
        path.chmod(mode)
        with pytest.raises(HandlerError, match=problem):
            handlers(executable=path, user=user)


async def test_a_program_that_others_may_change_since_the_start_is_not_run(program: Callable[..., Handlers]) -> None:
    made = program(SAY_ALLOW)
    assert (await ask(made)).allow
    path = made._desks[NAME].handler.settings.executable
    assert path is not None
    path.chmod(0o775)
    for again in (made, handlers(executable=path)):
        refusal, detail = await failure(again)
        assert refusal is SERVICE and f"chmod go-w {path}" in detail
    path.unlink()
    assert await failure(made) == (SERVICE, f"{path}: No such file or directory")


async def test_a_module_that_others_may_change_is_not_imported_and_the_rest_is_served(
    open_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = open_directory / "posture_of_others"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "checks.py").write_text(f"raise SystemExit('{package}')\n")
    (package / "checks.py").chmod(0o664)
    asked = {"python": "posture_of_others.checks:check", "python_path": open_directory}
    refusal, detail = await failure(handlers(**asked))
    assert refusal is SERVICE and f"chmod go-w {package / 'checks.py'}" in detail
    assert f"handler {NAME} lets nobody in" in caplog.text
    (package / "checks.py").chmod(0o644)
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__").chmod(0o777)
    refusal, detail = await failure(handlers(**asked))
    assert refusal is SERVICE and f"chmod go-w {package / '__pycache__'}" in detail


def test_no_library_looks_for_modules_where_others_may_put_some(
    open_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: dict[str, Any] = {"python": "posture_anywhere:check", "python_path": open_directory}
    (open_directory / "posture_anywhere.py").write_text("def check(event): return {}\n")
    handlers(**asked)
    assert str(open_directory) in sys.path
    open_directory.chmod(0o775)
    handlers(**asked)
    assert str(open_directory) not in sys.path
    assert f"lets nobody in: {open_directory} can be changed by others" in caplog.text


DAEMON = 65432


def test_a_daemon_that_is_not_root_hands_none_of_its_rights_on(open_directory: Path) -> None:
    """As systemd starts it with handler-user.conf: a user of its own, and ambient capabilities."""
    path = open_directory / "handler"
    path.write_text(f'#!/bin/sh\necho "$(id -u) $(grep CapEff /proc/self/status | cut -f2)" >&2; {SAY_ALLOW}\n')
    path.chmod(0o755)
    os.chown(path, DAEMON, DAEMON)
    script = (
        "import asyncio, logging, sys; logging.basicConfig()\n"
        "from cvpnd.config import HandlerConfig\n"
        "from cvpnd.handlers.executable import ExecutableHandler\n"
        "from cvpnd.handlers.schema import ConnectRequest\n"
        "for name, more in (('one', {}), ('two', {'user': 'nobody'})):\n"
        "    settings = {'name': f'AWSClientVPN-{name}', 'executable': sys.argv[1], **more}\n"
        "    handler = ExecutableHandler(HandlerConfig.model_validate(settings))\n"
        "    asyncio.run(handler.call(ConnectRequest(*'abcdefghi', ())))\n"
    )
    granted = "+net_admin,+setuid,+setgid,+kill"
    done = subprocess.run(
        ["setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups", f"--inh-caps={granted}",
         f"--ambient-caps={granted}", sys.executable, "-c", script, path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    for user in (DAEMON, pwd.getpwnam("nobody").pw_uid):
        assert f"says: {user} 0000000000000000" in done.stderr, done.stderr


async def test_a_host_without_the_launcher_denies(
    program: Callable[..., Handlers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executable, "_privileges", lambda _user: ["/no/such/program"])
    assert await failure(program("exit 0")) == (SERVICE, "/no/such/program: No such file or directory")


# -- servers ------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """What comes in, and what is answered: statuses by turns, the last for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    body: bytes = json.dumps(ALLOW).encode()
    sleep_s: float = 0.0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


class _Answering(BaseHTTPRequestHandler):
    site: Site

    def do_POST(self) -> None:
        site = self.site
        body = self.rfile.read(int(self.headers["Content-Length"]))
        site.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        time.sleep(site.sleep_s)
        self.send_response(site.statuses.pop(0) if len(site.statuses) > 1 else site.statuses[0])
        self.send_header("Location", site.url)
        self.send_header("Set-Cookie", f"session={len(site.requests)}; Path=/")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(site.body)

    def log_message(self, *_: object) -> None:
        pass


def _serve(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (_Answering,), {"site": site}))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    site.url = f"{scheme}://{'127.0.0.1' if tls is None else 'localhost'}:{server.server_port}/connect?from=cvpnd"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from _serve()


async def test_a_server_gets_a_signed_request(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    assert (await ask(handlers(url=site.url, secret_file=secret))).statuses == ("compliant",)
    ((headers, body),) = site.requests
    assert json.loads(body)["common-name"] == "alice"
    assert headers["idempotency-key"] == REQUEST.connection_id
    assert abs(time.time() - int(headers["x-cvpnd-timestamp"])) < 30
    signed = headers["x-cvpnd-timestamp"].encode() + b"." + body
    command = ["openssl", "dgst", "-sha256", "-r", "-hmac", "0123456789abcdef0123456789abcdef"]  # as in the guide
    run = await asyncio.to_thread(subprocess.run, command, input=signed, capture_output=True, check=True)
    assert headers["x-cvpnd-signature"] == f"sha256={run.stdout.decode().split()[0]}"
    secret.write_text("short")
    with pytest.raises(HandlerError, match="has under 16 bytes"):
        handlers(url=site.url, secret_file=secret)


async def test_what_a_server_is_asked_with_is_in_no_log(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many a server wants its key in the URL."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    caplog.set_level(logging.DEBUG)
    site.statuses = [503, 200]
    await ask(handlers(url=f"{site.url}&code=canary", secret_file=secret))
    assert len(site.requests) == 2 and "canary" not in caplog.text and "signature" not in caplog.text.lower()


@pytest.mark.parametrize(
    ("statuses", "body", "refusal", "asked"),
    [
        ([500], b"", EXECUTION, 1),
        ([302], json.dumps(ALLOW).encode(), EXECUTION, 1),
        ([201], json.dumps(ALLOW).encode(), EXECUTION, 1),
        ([403], json.dumps(ALLOW).encode(), EXECUTION, 1),
        ([429], b"", THROTTLED, 3),
        ([503, 500], b"", EXECUTION, 2),
        ([200], b"hello", INVALID, 1),
        ([200], b"x" * 200_000, INVALID, 1),
    ],
)
async def test_a_server_that_fails_denies_and_is_asked_again_only_if_it_did_nothing(
    site: Site, statuses: list[int], body: bytes, refusal: Refusal, asked: int
) -> None:
    site.statuses, site.body = statuses, body
    assert (await failure(handlers(url=site.url)))[0] is refusal
    assert len(site.requests) == asked


async def test_a_server_that_is_busy_for_a_moment_is_asked_again(site: Site) -> None:
    site.statuses = [503, 200]
    assert (await ask(handlers(url=site.url))).allow
    assert len(site.requests) == 2


async def test_what_a_server_set_for_one_client_is_not_sent_with_another(site: Site) -> None:
    """It would take the second for the first, whom it may have let in."""
    made = handlers(url=site.url)
    assert (await ask(made)).allow and (await ask(made)).allow
    assert ["cookie" in headers for headers, _ in site.requests] == [False, False]


async def test_a_server_that_is_slow_or_gone_denies(site: Site) -> None:
    site.sleep_s = 1.0
    assert (await failure(handlers(url=site.url), within_s=0.3))[0] is TIMED_OUT
    assert (await failure(handlers(url="http://127.0.0.1:9/")))[0] is SERVICE


async def test_a_certificate_of_another_authority_denies(tmp_path: Path) -> None:
    certificate, key = certs.server("localhost").write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(certs.authority().certificate_pem)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    serving = _serve(tls)
    site = next(serving)
    assert (await ask(handlers(url=site.url, ca=tmp_path / "ca.crt"))).allow
    assert (await failure(handlers(url=site.url)))[0] is SERVICE
    assert len(site.requests) == 1
    next(serving, None)


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/x", "ftp://localhost/", "https://", "https://a:b@host/", "//host", "https://host/#x", 3]
)
def test_an_url_that_others_could_answer_at_is_refused(url: object) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1|write one like"):
        HandlerConfig.model_validate({"name": NAME, "url": url})


# -- functions ----------------------------------------------------------------------------------------------


@pytest.fixture
def function(tmp_path: Path) -> Callable[..., Handlers]:
    (tmp_path / "posture_for_tests.py").write_text(
        f"import threading\nALLOW = {ALLOW!r}\ngo_on, at_once = threading.Event(), []\n"
        "def allow(event):\n    return ALLOW | {'allow': event['common-name'] == 'alice'}\n"
        "def as_lambda(event, context):\n    return ALLOW\n"
        "def crash(event):\n    raise SystemExit(1)\n"
        "def times_out(event):\n    raise TimeoutError\n"
        "def nonsense(event):\n    return {1, 2}\n"
        "def wait(event):\n    at_once.append(event)\n    go_on.wait(10)\n    return ALLOW\n"
        "async def later(event):\n    return ALLOW\n"
    )

    def make(name: str, **settings: Any) -> Handlers:
        return handlers(python=f"posture_for_tests:{name}", python_path=tmp_path, **settings)

    return make


async def test_a_function_is_called_as_a_lambda_function_would_be(function: Callable[..., Handlers]) -> None:
    assert (await ask(function("allow"))).allow
    assert (await ask(function("as_lambda"))).allow
    assert (await failure(function("crash")))[0] is EXECUTION
    assert (await failure(function("times_out")))[0] is EXECUTION
    assert (await failure(function("nonsense")))[0] is INVALID
    for name in ("later", "ALLOW", "no_such"):
        with pytest.raises(HandlerError, match=r"no plain function|cannot be imported"):
            function(name)


async def test_so_many_are_asked_about_at_once_so_many_wait_and_no_more(function: Callable[..., Handlers]) -> None:
    made = function("wait", concurrency=2, queue=1)
    module = __import__("posture_for_tests")
    module.go_on.clear()
    module.at_once.clear()
    asked = [asyncio.create_task(ask(made)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert (len(module.at_once), made.pending()) == (2, {NAME: 3})
    assert await failure(made) == (THROTTLED, "2 are being answered and 1 wait")
    module.go_on.set()
    assert all(answer.allow for answer in await asyncio.gather(*asked))
    assert made.pending() == {NAME: 0}


def test_where_there_is_room_for_one_process_and_no_thread_a_program_answers_and_is_waited_for(
    open_directory: Path,
) -> None:
    path = open_directory / "handler"
    path.write_text(f"#!/bin/sh\nread -r request; echo '{json.dumps(ALLOW)}'\n")
    path.chmod(0o755)
    said = threadless.said_by(f"""
        import asyncio, os
        from cvpnd.config import HandlerConfig
        from cvpnd.event_loop import EventLoop
        from cvpnd.handlers.opening import open_handler
        from cvpnd.handlers.schema import ConnectRequest
        request = ConnectRequest(*[""] * 9, ())
        async def ask():
            room_for_one_more()
            handler = open_handler(HandlerConfig(name={NAME!r}, executable={str(path)!r}))
            print((await handler.call(request)).decode(), end="")
            try:
                print(os.waitpid(-1, os.WNOHANG))
            except ChildProcessError:
                print("no child is left")
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(ask())
    """)
    assert said.splitlines() == [json.dumps(ALLOW), "no child is left"]


def test_where_there_is_no_room_for_a_thread_a_function_denies_and_its_place_is_free_again() -> None:
    said = threadless.said_by(f"""
        import asyncio, resource
        from cvpnd.config import HandlerConfig
        from cvpnd.handlers.opening import open_handler
        from cvpnd.handlers.schema import ConnectRequest, HandlerFailed
        handler = open_handler(HandlerConfig(name={NAME!r}, python="json:dumps", concurrency=1))
        request = ConnectRequest(*[""] * 9, ())
        async def ask():
            for _ in range(3):
                try:
                    await handler.call(request)
                except HandlerFailed as failed:
                    print(failed.refusal, failed.detail)
        no_more_threads()
        asyncio.run(ask())
    """)
    assert said.splitlines() == [f"{SERVICE} can't start new thread"] * 3


async def test_a_function_that_does_not_come_back_holds_its_place_and_nobody_else(
    function: Callable[..., Handlers],
) -> None:
    made = function("wait", concurrency=1)
    module = __import__("posture_for_tests")
    module.go_on.clear()
    assert (await failure(made, within_s=0.1))[0] is TIMED_OUT
    assert (await failure(made, within_s=0.1))[0] is THROTTLED
    module.go_on.set()
    for _ in range(100):
        await asyncio.sleep(0.01)
        try:
            assert (await ask(made)).allow
            return
        except HandlerFailed as failed:
            assert failed.refusal is THROTTLED
    pytest.fail("its place was never given back")


async def test_who_waits_too_long_for_a_turn_was_throttled_and_a_handler_that_is_gone_denies(
    function: Callable[..., Handlers],
) -> None:
    made = function("wait", concurrency=1)
    module = __import__("posture_for_tests")
    module.go_on.clear()
    first = asyncio.create_task(ask(made))
    await asyncio.sleep(0.05)
    assert await failure(made, within_s=0.1) == (THROTTLED, "its turn did not come in time")
    made.replace([])
    assert (await failure(made))[0] is SERVICE
    module.go_on.set()
    assert (await first).allow, "who was being asked about has its answer"
