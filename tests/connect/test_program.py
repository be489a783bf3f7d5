"""What cvpn-connect does on a machine: which program opens the browser, as whom, and what a terminal is spared."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvpnd.connect import __main__ as program
from cvpnd.connect.management import OpenBrowser, Tell

REPOSITORY = Path(__file__).parents[2]
LINK = "https://vpn.example.com/saml/login/a;b&c='$(id)'"


@pytest.mark.parametrize(("platform", "opener"), [("linux", "xdg-open"), ("darwin", "open")])
@pytest.mark.parametrize("status", [0, 3])
async def test_under_sudo_the_person_s_own_browser_is_opened(
    platform: str,
    opener: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/told\nexit {status}\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SUDO_USER", "anna")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    await program._open_browser(LINK)
    assert (tmp_path / "told").read_text().splitlines() == ["-u", "anna", "--", opener, LINK]
    assert ("open that address yourself" in capsys.readouterr().out) is (status != 0)


async def test_without_a_browser_the_address_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    helper = program.Helper(browser=False)
    helper._do([OpenBrowser(LINK), Tell("bad\x1b[2J\x9b2J\u202e")])
    assert capsys.readouterr().out == f"cvpn-connect: log in at {LINK}\ncvpn-connect: bad_[2J_2J_\n"
    assert not helper._chores


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("client\r\nauth-user-pass\r\n", False),
        ("client\r\n<auth-user-pass>\r\nN/A\r\nN/A\r\n</auth-user-pass>\r\n", False),
        ("client\r\n# auth-user-pass\r\nauth-user-passage x\r\n", True),
        ("client\r\nauth-federate\r\n", True),
    ],
)
def test_profiles_of_every_system_are_read_alike(text: str, asks: bool, tmp_path: Path) -> None:
    profile = tmp_path / "--x.ovpn"
    profile.write_bytes(text.encode())
    arguments = program.openvpn_arguments("openvpn", profile, Path("/m"), ("--verb", "4"))
    assert ("--auth-user-pass" in arguments) is asks
    assert arguments[arguments.index("--config") + 1] == "./--x.ovpn"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere.ovpn"], "/nowhere.ovpn is no file that can be read"),
        ([__file__, "--openvpn", "/no/openvpn"], "there is no program /no/openvpn"),
        ([__file__, "--openvpn", "/no/openvpn", "--", "--verb", "4"], "there is no program /no/openvpn"),
        ([__file__, "--verb", "4"], "unrecognized arguments: --verb 4"),
        ([], "the following arguments are required: PROFILE"),
    ],
)
def test_a_mistake_on_the_command_line_is_said(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cvpn-connect", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2 and says in capsys.readouterr().err


async def test_a_temporary_directory_too_deep_for_a_socket_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert await program.connect("/no/openvpn", tmp_path / "a.ovpn", (), browser=False) == 1
    assert "set TMPDIR to a short path" in capsys.readouterr().err and not list(deep.iterdir())


async def test_a_port_that_another_program_has_is_named_and_nobody_sent_to_log_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[bytes] = []
    helper = program.Helper(browser=False)
    helper._writer = SimpleNamespace(write=said.append)  # type: ignore[assignment]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("cvpnd.connect.callback.CALLBACK_PORT", taken.getsockname()[1])
        await helper._await_callback(LINK)
    assert "in use" in helper.gave_up and said == [b"signal SIGTERM\n"]
    assert LINK not in capsys.readouterr().out


def test_people_get_it_as_one_file_that_needs_nothing_but_python(tmp_path: Path) -> None:
    file = tmp_path / "given" / "cvpn-connect.pyz"
    subprocess.run([REPOSITORY / "packaging/build-connect", file], cwd=tmp_path, check=True)
    command = (sys.executable, "-I", "-S", file, "--openvpn", "no-such-program", "staff.ovpn")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "cvpn-connect: error: there is no program no-such-program; install openvpn, or name it with --openvpn\n"
    )
