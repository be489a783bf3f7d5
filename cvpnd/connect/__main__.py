"""``cvpn-connect PROFILE.ovpn``."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import re
import shutil
import signal
import sys
import tempfile
import webbrowser
from collections.abc import Coroutine, Sequence
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


def openvpn_arguments(openvpn: str, profile: Path, management: Path, more: Sequence[str]) -> list[str]:
    """Ours come behind the profile's, and so before them: in an exported one for AWS's client ``auth-federate`` is an
    option of that client, and with ``reneg-sec 0`` openvpn waits for no person longer than a minute. Where the profile
    has a user name, or one that stands for none, that is used."""
    has_user = re.search(r"(?m)^\s*<?auth-user-pass\b", profile.read_text(errors="replace"))
    return [
        openvpn, "--ignore-unknown-option", "auth-federate", "--cd", str(profile.parent), "--config", profile.name,
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
        self.gave_up = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """openvpn has connected."""
        self._writer = writer
        self._do([Say("state on")])
        while line := await reader.readline():
            self._do(self._talk.hear(line.decode(errors="replace").rstrip("\r\n")))

    def stop(self) -> None:
        """openvpn may run as root, where no signal of ours reaches it."""
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
                    self.gave_up = action.reason
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
            self._do([GiveUp(f"port {CALLBACK_PORT} of this host is needed and cannot be had: {error.strerror}")])

    async def _ask(self, what: str) -> None:
        secret = await asyncio.to_thread(getpass.getpass, f"Secret for {what}: ")
        self._do(self._talk.secret(what, secret))

    def _open(self, url: str) -> None:
        _tell(f"log in at {url}")
        if self._browser:
            self._start(_open_browser(url))


async def _open_browser(url: str) -> None:
    """As the person, also where this was started with sudo."""
    person, program = os.environ.get("SUDO_USER"), "open" if sys.platform == "darwin" else "xdg-open"
    if os.geteuid() == 0 and person:
        started = await asyncio.create_subprocess_exec("sudo", "-u", person, "--", program, url)
        await started.wait()
    else:
        await asyncio.to_thread(webbrowser.open, url)


def _tell(text: str) -> None:
    print(f"cvpn-connect: {''.join(c if c.isprintable() else '_' for c in text)}", flush=True)


async def connect(openvpn: str, profile: Path, more: Sequence[str], *, browser: bool) -> int:
    """Until openvpn ends; its status, or 1 if we gave up."""
    helper = Helper(browser=browser)
    with tempfile.TemporaryDirectory(prefix="cvpn-connect-") as directory:  # nobody else may look into it
        management = Path(directory) / "management"
        server = await asyncio.start_unix_server(helper.serve, management)
        async with server:
            arguments = openvpn_arguments(openvpn, profile, management, more)
            if os.geteuid() != 0:
                arguments = ["sudo", *arguments]
            process = await asyncio.create_subprocess_exec(*arguments)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, helper.stop)
            status = await process.wait()
    if helper.gave_up:
        print(f"cvpn-connect: {helper.gave_up}", file=sys.stderr)
        return 1
    return status


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="cvpn-connect", description="Connect to a VPN that logs in with a browser, with the openvpn program."
    )
    parser.add_argument("profile", type=Path, help="the .ovpn file")
    parser.add_argument("--openvpn", default="openvpn", help="the openvpn program (default: the one on PATH)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address to log in at")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="more options for openvpn, behind --")
    given = parser.parse_args()
    program = shutil.which(given.openvpn, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        parser.error(f"there is no program {given.openvpn}; install openvpn, or name it with --openvpn")
    if not given.profile.is_file():
        parser.error(f"{given.profile} is no file")
    more = given.options[1:] if given.options[:1] == ["--"] else given.options
    sys.exit(asyncio.run(connect(program, given.profile.absolute(), more, browser=not given.no_browser)))


if __name__ == "__main__":
    main()
