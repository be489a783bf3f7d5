"""cvpn-connect with a stock openvpn at a real gateway: with its portal, and without one, where it asks as AWS's client
does. The browser is of a few lines."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import termios
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from helpers import certs, saml_idp, web_login
from helpers.lab import wait_until

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")


@pytest.fixture
def start(site):
    """``start(portal=False)``: the gateway, and the profile of AWS's client with the line ends of Windows."""

    def run(*, portal: bool = True):
        (site.directory / "idp.xml").write_text(saml_idp.metadata())
        toml = web_login.toml(site, site.directory / "idp.xml", more=f'remote = "{web_login.HOST}"')
        gateway = site._gateway = site.lab.gateway_process(toml if portal else toml.partition("[portal]")[0])
        profile = site.lab.directory / "anna's profile.ovpn"
        profile.write_bytes(gateway.ctl("profile", "anna", "--for", "aws").stdout.replace("\n", "\r\n").encode())
        return gateway, profile

    return run


@pytest.fixture
def cvpn_connect(site):
    def run(*arguments: object, **environment: str):
        return site.lab.client.start(
            sys.executable, "-m", "cvpnd.connect", *map(str, arguments), label="cvpn-connect",
            env={"PYTHONUNBUFFERED": "1", "SUDO_USER": "", **environment},
        )  # fmt: skip

    return run


def test_it_opens_the_browser_once_and_ends_with_ctrl_c(site, start, cvpn_connect, ping):
    gateway, profile = start()
    told, own = site.lab.directory / "told", site.lab.directory / "own"
    own.mkdir()
    program = site.lab.directory / "browser"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{told}\n')
    program.chmod(0o755)
    helper = cvpn_connect(profile, BROWSER=f"{program} %s", TMPDIR=str(own))
    link = helper.wait_for(r"log in at (https://\S+)")[1]
    wait_until(lambda: told.exists() and told.read_text(), 5, helper.tail())
    assert told.read_text() == f"{link}\n"
    (directory,) = own.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700, "whoever reaches its socket is openvpn's master"
    browser = web_login.Browser(site.lab.client)
    url = browser.sent_on(browser.get(link))
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    answer = browser.post(web_login.ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state)
    browser.decide(browser.consent_page(answer))
    helper.wait_for(r"connected, with the address 10\.100\.")
    assert ping() == 1.0
    helper.signal(signal.SIGINT)
    assert helper.wait() == 0
    assert not list(own.iterdir())

    def ends() -> list[str]:
        return [entry["connection-end-reason"] for entry in gateway.connection_log()]

    wait_until(lambda: "client-exit" in ends(), 8, "its goodbye")

    declined = cvpn_connect("--no-browser", profile)
    url = browser.sent_on(browser.get(declined.wait_for(r"log in at (https://\S+)")[1]))
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    answer = browser.post(web_login.ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state)
    browser.decide(browser.consent_page(answer), "deny")
    assert declined.wait() == 1
    assert "cvpn-connect: the server refused the login: The login was declined" in declined.log()


def test_without_a_portal_it_asks_as_aws_s_client_and_says_before_the_login_what_openvpn_cannot_carry(
    site, start, cvpn_connect
):
    gateway, profile = start(portal=False)
    told = site.lab.directory / "told"
    program = site.lab.directory / "browser"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{told}\n')
    program.chmod(0o755)
    helper = cvpn_connect(profile, BROWSER=f"{program} %s")
    assert helper.wait() == 1
    assert "this server takes logins of AWS's client only" in helper.log() and "set up [portal]" in helper.log()
    assert "log in at" not in helper.log() and not told.exists(), "nobody logs in for nothing"
    statuses = [entry["connection-attempt-status"] for entry in gateway.connection_log()]
    assert statuses.count("waiting-for-assertion") == 1


def test_ctrl_c_ends_it_before_openvpn_is_there_and_while_a_secret_is_asked_for(tmp_path: Path) -> None:
    slow = tmp_path / "openvpn"
    slow.write_text('#!/bin/sh\nsleep 1\nexec openvpn "$@"\n')
    slow.chmod(0o755)
    client = certs.client("secret")
    key = serialization.load_pem_private_key(client.private_key_pem, None)
    locked = serialization.BestAvailableEncryption(b"sesame")
    (tmp_path / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )
    (tmp_path / "cert").write_bytes(client.certificate_pem)
    (tmp_path / "ca").write_bytes(certs.authority().certificate_pem)
    profile = tmp_path / "a.ovpn"
    profile.write_text("client\ndev null\nremote 127.0.0.1 9 udp\nca ca\ncert cert\nkey key\n")
    command = [sys.executable, "-m", "cvpnd.connect", "--no-browser"]

    with subprocess.Popen([*command, "--openvpn", slow, profile], stdout=subprocess.DEVNULL) as early:
        wait_until(lambda: Path(f"/proc/{early.pid}/task/{early.pid}/children").read_text(), 10, "openvpn")
        early.send_signal(signal.SIGTERM)
        assert early.wait(20) == 0

    process, terminal = pty.fork()
    if process == 0:
        os.execv(command[0], [*command, str(profile)])
    heard = b""
    while b"Secret for Private Key" not in heard:
        heard += os.read(terminal, 4096)
    wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO, 5)
    os.write(terminal, b"ses\x03")  # Ctrl-C in the middle of it
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert termios.tcgetattr(terminal)[3] & termios.ECHO, "the terminal shows again what is typed"
    os.close(terminal)
