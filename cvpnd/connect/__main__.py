"""``cvpn-connect PROFILE.ovpn``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import re
import shutil
import signal
import sys
import tempfile
import termios
import threading
import webbrowser
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path

from cvpnd.connect.callback import wait_for_callback
from cvpnd.connect.management import (
    CALLBACK_PORT,
    Action,
    AskSecret,
    AwaitCallback,
    Conversation,
    GiveUp,
    OpenBrowser,
    Say,
    Tell,
)

SBIN = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
"""Where openvpn is, which people have not on their PATH; the last is Homebrew's on Apple's own processors."""


def openvpn_arguments(openvpn: str, profile: Path, management: Path, more: Sequence[str]) -> list[str]:
    """Ours come behind the profile's, and so before them: in an exported one for AWS's client ``auth-federate`` is an
    option of that client, and with ``reneg-sec 0`` openvpn waits for no person longer than a minute. Where the profile
    has a user name, or one that stands for none, that is used."""
    has_user = re.search(r"(?m)^\s*<?auth-user-pass\b", profile.read_text(errors="replace"))
    return [
        openvpn, "--ignore-unknown-option", "auth-federate",
        "--cd", str(profile.parent), "--config", f"./{profile.name}",
        *(() if has_user else ("--auth-user-pass",)), "--auth-retry", "interact", "--reneg-sec", "3600",
        "--setenv", "IV_SSO", "webauth,openurl", "--push-peer-info",
        "--management", str(management), "unix", "--management-client", "--management-query-passwords", *more,
    ]  # fmt: skip


class Helper:
    def __init__(self, *, browser: bool) -> None:
        self._browser = browser
        self._talk = Conversation()
        self._chores: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self.stopped = False
        self.gave_up = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """openvpn has connected."""
        self._writer = writer
        self._do([Say("signal SIGTERM" if self.stopped else "state on")])
        with contextlib.suppress(ConnectionError):  # it ended while we were saying something
            while line := await reader.readline():
                self._do(self._talk.hear(line.decode(errors="replace").rstrip("\r\n")))

    def stop(self) -> None:
        """openvpn may run as root, where no signal of ours reaches it; and it may still be on its way to us."""
        self.stopped = True
        if self._writer is not None:
            self._do([Say("signal SIGTERM")])

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Say():
                    assert self._writer is not None  # noqa: S101 - it is openvpn that we answer
                    self._writer.write(f"{action.line}\n".encode())
                case OpenBrowser():
                    self._open(action.url)
                case AwaitCallback():
                    self._start(self._await_callback(action.url))
                case AskSecret():
                    self._start(self._ask(action.what))
                case Tell():
                    _tell(action.text)
                case GiveUp():
                    self.gave_up = self.gave_up or action.reason  # openvpn complains of what we left unanswered
                    self._do([Say("signal SIGTERM")])

    def _start(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _await_callback(self, url: str) -> None:
        opened = asyncio.Event()
        waiting = asyncio.create_task(wait_for_callback(opened))
        opening = asyncio.create_task(opened.wait())
        await asyncio.wait({waiting, opening}, return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if not waiting.done():
            self._open(url)
        try:
            self._do(self._talk.called_back(await waiting))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            self._do([GiveUp(f"port {CALLBACK_PORT} of this host is needed and cannot be had: {why}")])

    async def _ask(self, what: str) -> None:
        secret = await _typed(f"Secret for {_printable(what)}: ")
        self._do([GiveUp(f"nobody typed a secret for {what}")] if secret is None else self._talk.secret(what, secret))

    def _open(self, url: str) -> None:
        _tell(f"log in at {url}")
        if self._browser:
            self._start(_open_browser(url))


async def _open_browser(url: str) -> None:
    """As the person, also where this was started with sudo."""
    person, program = os.environ.get("SUDO_USER"), "open" if sys.platform == "darwin" else "xdg-open"
    if os.geteuid() == 0 and person:
        started = await asyncio.create_subprocess_exec("sudo", "-u", person, "--", program, url)
        opened = await started.wait() == 0
    else:
        opened = await asyncio.to_thread(webbrowser.open, url)
    if not opened:
        _tell("no browser could be started here; open that address yourself, in any browser")


async def _typed(prompt: str) -> str | None:
    """None if there is nobody to type. In a thread that nobody waits for: Ctrl-C ends us in the middle of a line."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def found(secret: str | None) -> None:
        if not answer.done():
            answer.set_result(secret)

    def ask() -> None:
        try:
            secret: str | None = getpass.getpass(prompt)
        except (EOFError, OSError):
            secret = None
        with contextlib.suppress(RuntimeError):  # all is over
            loop.call_soon_threadsafe(found, secret)

    threading.Thread(target=ask, daemon=True).start()
    return await answer


@contextlib.contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """Which shows what is typed, also after a question for a secret that was not answered."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    settings = termios.tcgetattr(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
        os.close(terminal)


def _printable(text: str) -> str:
    """Servers may say anything, and terminals obey some of it."""
    return "".join(c if c.isprintable() else "_" for c in text)


def _tell(text: str) -> None:
    print(f"cvpn-connect: {_printable(text)}", flush=True)


async def connect(openvpn: str, profile: Path, more: Sequence[str], *, browser: bool) -> int:
    """Until openvpn ends; its status, or 1 if we gave up, or 0 if somebody ended us."""
    helper = Helper(browser=browser)
    with tempfile.TemporaryDirectory(prefix="cvpn-connect-") as directory:  # nobody else may look into it
        management = Path(directory) / "management"
        try:
            server = await asyncio.start_unix_server(helper.serve, management)
        except OSError as error:
            print(f"cvpn-connect: no socket at {management}: {error}; set TMPDIR to a short path", file=sys.stderr)
            return 1
        async with server:
            arguments = openvpn_arguments(openvpn, profile, management, more)
            if os.geteuid() != 0:
                arguments = ["sudo", *arguments]
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, helper.stop)
            process = await asyncio.create_subprocess_exec(*arguments)
            status = await process.wait()
    if helper.stopped:
        return 0
    if helper.gave_up:
        print(f"cvpn-connect: {_printable(helper.gave_up)}", file=sys.stderr)
        return 1
    return 1 if status else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="cvpn-connect",
        usage="%(prog)s [-h] [--openvpn OPENVPN] [--no-browser] PROFILE [-- OPENVPN-OPTION ...]",
        description="Connect to a VPN that logs in with a browser, by the openvpn program. Ctrl-C ends the connection.",
        epilog="Exit status: 0 after Ctrl-C, 1 if the login was refused or openvpn failed, 2 for a mistake here.",
    )
    parser.add_argument("profile", metavar="PROFILE", type=Path, help="the .ovpn file")
    parser.add_argument("--openvpn", default="openvpn", help="the openvpn program (default: the one on PATH)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address to log in at")
    words = sys.argv[1:]
    border = words.index("--") if "--" in words else len(words)
    given, more = parser.parse_args(words[:border]), words[border + 1 :]
    program = shutil.which(given.openvpn, path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if program is None:
        parser.error(f"there is no program {given.openvpn}; install openvpn, or name it with --openvpn")
    if not os.access(given.profile, os.R_OK) or not given.profile.is_file():
        parser.error(f"{given.profile} is no file that can be read")
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        parser.error("openvpn needs root, and there is no sudo here; start cvpn-connect as root")
    with _terminal_as_it_was():
        status = asyncio.run(connect(program, given.profile.absolute(), more, browser=not given.no_browser))
    sys.exit(status)


if __name__ == "__main__":
    main()
