"""A program that is started for each client: the request on its standard input, the answer on its standard output.

It runs as a user of its own, in a session and process group of its own, from ``/``, with a fresh environment, no
capabilities, no way to new ones and bounded resources. ``setpriv`` and ``prlimit`` (util-linux) arrange that between
fork and exec: Python's own hook there is not safe in a process with threads. What is left of the group when the answer
is there or time is over is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pwd
import signal
import sys
import termios
from asyncio.subprocess import PIPE
from typing import Any

from cvpnd.config import HandlerConfig
from cvpnd.exact_json import read_json
from cvpnd.handlers.schema import LARGEST_ANSWER, ConnectRequest, HandlerFailed
from cvpnd.handlers.trusted_path import problem_with
from cvpnd.ops.logs import RateLimited
from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)
_warn = RateLimited(log)

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
UNPRIVILEGED = "nobody"
MIB = 1024 * 1024
_SURROUNDINGS: dict[str, Any] = {"cwd": "/", "env": ENVIRONMENT, "start_new_session": True}
LIMITS = ("--nofile=256", "--nproc=512", f"--fsize={16 * MIB}", "--core=0")
STDIN, STDOUT, STDERR = range(3)
EXIT_TAKES_S = 1.0
SAID_IN_LOG = 1000
"""Characters of what it wrote to standard error."""


class ExecutableHandler:
    read_from_files: object = None

    def __init__(self, settings: HandlerConfig) -> None:
        """Raises ``ValueError`` for a user that cannot be."""
        assert settings.executable is not None  # noqa: S101 - the caller's promise
        self.settings = settings
        self._executable = settings.executable
        self.trouble = ""
        self.look()
        self._command = [*_privileges(settings.user), *_limits(settings), str(settings.executable), *settings.arguments]

    async def call(self, request: ConnectRequest) -> bytes:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.look)  # again, as modes are changed while a daemon runs
        if self.trouble:
            raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, self.trouble)
        try:
            transport, talk = await loop.subprocess_exec(
                _Talk, *self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, **_SURROUNDINGS
            )
        except OSError as error:
            raise HandlerFailed(
                Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, f"{self._command[0]}: {error.strerror}"
            ) from None
        try:
            talk.begin(transport, request.payload())
            await talk.over
        finally:
            _kill_group(transport.get_pid())
            talk.hang_up(transport)
            await talk.wait_for_exit()
        if talk.said:
            text = talk.said.decode(errors="replace").strip()[:SAID_IN_LOG]
            _warn.warning(self.settings.name, "handler %s says: %s", self.settings.name, text)
        if status := transport.get_returncode():
            raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR, _what_ended_it(status))
        return bytes(talk.answer)

    def look(self) -> None:
        try:
            self.trouble = problem_with(self._executable) or ""
        except OSError as error:
            self.trouble = f"{error.filename}: {error.strerror}"


class _Talk(asyncio.SubprocessProtocol):
    """With one process. ``over`` when it has ended and its answer is whole, or both of its outputs are closed; or when
    it has said too much."""

    _transport: asyncio.SubprocessTransport

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer = bytearray()
        self.said = bytearray()
        self.over: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - that is what this protocol is for
        self._transport = transport

    def begin(self, transport: asyncio.SubprocessTransport, payload: bytes) -> None:
        pipe = transport.get_pipe_transport(STDIN)
        assert isinstance(pipe, asyncio.WriteTransport)  # noqa: S101 - it was asked for
        pipe.write(payload)  # it may also know its answer without reading
        pipe.write_eof()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        received = self.answer if fd == STDOUT else self.said
        received += data
        if len(received) > LARGEST_ANSWER and not self.over.done():
            reason = Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE
            if fd != STDOUT:
                reason = Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR
            self.over.set_exception(HandlerFailed(reason, f"it wrote more than {LARGEST_ANSWER} bytes"))
        self._look()

    def pipe_connection_lost(self, _fd: int, _error: Exception | None) -> None:
        self._look()

    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)
        self._look()

    def _look(self) -> None:
        """Something that it leaves behind may hold its outputs open for ever. All that it wrote itself was in them when
        it ended, and what else comes there is no part of its answer."""
        status = self._transport.get_returncode()
        if status is None or self.over.done() or any(map(self._unread, (STDOUT, STDERR))):
            return
        if status or _is_whole(self.answer):
            self.over.set_result(None)

    def _unread(self, fd: int) -> int:
        """Bytes."""
        transport = self._transport.get_pipe_transport(fd)
        if transport is None or transport.is_closing():
            return 0
        return int.from_bytes(fcntl.ioctl(transport.get_extra_info("pipe"), termios.FIONREAD, bytes(4)), sys.byteorder)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def hang_up(self, transport: asyncio.SubprocessTransport) -> None:
        """Somebody who left the process group may hold the other ends for ever."""
        for fd in (STDIN, STDOUT, STDERR):
            if (pipe := transport.get_pipe_transport(fd)) is not None:
                pipe.close()

    async def wait_for_exit(self) -> None:
        """It was killed. The kernel may yet keep it, but nobody waits for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_TAKES_S):
                await asyncio.shield(self._exited)


def _is_whole(answer: bytearray) -> bool:
    if not answer.rstrip().endswith(b"}"):
        return False
    try:
        read_json(bytes(answer))
    except ValueError:
        return False
    return True


def _privileges(user: str | None) -> list[str]:
    command = ["/usr/bin/setpriv", "--no-new-privs", "--ambient-caps=-all"]
    if user is None and os.geteuid() != 0:
        return [*command, "--"]
    user = user or UNPRIVILEGED
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ValueError(f'user "{user}" does not exist; make it with useradd --system, or name another') from None
    if account.pw_uid == 0:
        raise ValueError(f'user "{user}" is root; name one that can do less')
    if account.pw_uid == os.geteuid():
        return [*command, "--"]
    return [*command, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--"]


def _limits(settings: HandlerConfig) -> list[str]:
    own = (f"--data={settings.memory_mib * MIB}", f"--cpu={settings.cpu_s}")
    return ["/usr/bin/prlimit", *own, *LIMITS, "--"]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        _warn.warning("kill", "process group %d of a handler cannot be killed; the daemon needs CAP_KILL for that", pid)


def _what_ended_it(status: int) -> str:
    if status > 0:
        return f"it ended with status {status}"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"
