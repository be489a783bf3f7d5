"""FreeRADIUS servers of the test's own; gone with the test.

Debian's package would start one on this host, so its files are unpacked below build/tools (see the Makefile). Its own
``rlm_totp`` judges codes of the secret ``CODES``; each user's password is ``PASSWORD`` where a password is sent too."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from helpers.lab import wait_until
from helpers.netns import Namespace, Process

TOOLS = Path(__file__).resolve().parents[2] / "build/tools"
FREERADIUS = TOOLS / "usr/sbin/freeradius"
SECRET = "a secret of sixteen and more"
CODES = b"12345678901234567890"
PASSWORD = "right"
SENT_CODE = "482911"
"""What users get by an SMS, as it were."""

CONFIGURATION = """
prefix = {tools}/usr
logdir = {directory}
run_dir = {directory}
libdir = {tools}/usr/lib/freeradius
pidfile = {directory}/radiusd.pid
max_request_time = 5
cleanup_delay = 2
max_requests = 1024
hostname_lookups = no
log {{ destination = files  file = {directory}/radius.log  auth = yes }}
security {{ reject_delay = 0  status_server = no }}
thread pool {{ start_servers = 2  max_servers = 4  min_spare_servers = 1  max_spare_servers = 2 }}
modules {{
    pap {{ }}
    totp {{ time_step = 30  otp_length = 6  lookback_steps = 1  lookback_interval = 30 }}
    always reject {{ rcode = reject }}
    always handled {{ rcode = handled }}
}}
client here {{
    ipaddr = 127.0.0.0/8
    secret = "{secret}"
    require_message_authenticator = {required}
}}
server default {{
    listen {{ type = auth  ipaddr = 127.0.0.1  port = {port} }}
    authorize {{
        {authorize}
    }}
    authenticate {{
        Auth-Type PAP {{ pap }}
        Auth-Type TOTP {{
            update control {{ &TOTP-Secret := "{codes}" }}
            totp
        }}
    }}
    post-auth {{
        {signed}
        Post-Auth-Type REJECT {{
            update reply {{ &Reply-Message := "try again" }}
            {signed}
        }}
        Post-Auth-Type Challenge {{
            {signed}
        }}
    }}
}}
"""
BY_CODE = """
        update request { &TOTP-Password := "%{User-Password}" }
        update control { &Auth-Type := TOTP }
"""
BY_PASSWORD_AND_CODE = f"""
        if (&User-Password =~ /^(.+)([0-9]{{6}})$/) {{
            update request {{ &TOTP-Password := "%{{2}}"  &User-Password := "%{{1}}" }}
        }}
        if (&User-Password != "{PASSWORD}") {{ reject }}
        update control {{ &Auth-Type := TOTP }}
"""
BY_CHALLENGE = f"""
        update control {{ &Auth-Type := PAP }}
        if (&User-Name == "asked-on") {{
            update control {{ &Response-Packet-Type := Access-Challenge }}
            handled
        }}
        if (!&State) {{
            if (&User-Password != "{PASSWORD}") {{ reject }}
            update session-state {{ &Tmp-String-0 := "{SENT_CODE}" }}
            update reply {{ &Reply-Message := "Code from the SMS:" }}
            update control {{ &Response-Packet-Type := Access-Challenge }}
            handled
        }}
        update control {{ &Cleartext-Password := "%{{session-state:Tmp-String-0}}" }}
"""
SIGNED = "update reply { &Message-Authenticator := 0x00 }"


class FreeRadius:
    """On loopback of ``place``."""

    def __init__(self, place: Namespace, directory: Path, port: int, authorize: str, *, signed: bool = True) -> None:
        self.place, self.directory, self.port = place, directory, port
        self.process: Process | None = None
        directory.mkdir()
        text = CONFIGURATION.format(
            tools=TOOLS, directory=directory, secret=SECRET, port=port, authorize=authorize,
            codes=base64.b32encode(CODES).decode(), signed=SIGNED if signed else "", required="yes" if signed else "no",
        )  # fmt: skip
        one_a_line = re.sub(r" {2,}|(?<=\{) | (?=\})", "\n", text)
        (directory / "radiusd.conf").write_text(one_a_line)
        (directory / "dictionary").write_text(f"$INCLUDE {TOOLS}/usr/share/freeradius/dictionary\n")

    def start(self) -> FreeRadius:
        self.process = self.place.start(
            FREERADIUS, "-f", "-d", self.directory, "-n", "radiusd", "-D", self.directory,
            "-l", self.directory / "radius.log", env={"LD_LIBRARY_PATH": TOOLS / "usr/lib/freeradius"},
        )  # fmt: skip
        wait_until(self._answers, 10, "freeradius")
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.running, self.log()
        return "Ready to process requests" in self.log()

    def log(self) -> str:
        path = self.directory / "radius.log"
        said = path.read_text() if path.exists() else ""
        return said + (self.process.tail() if self.process is not None else "")

    def stop(self) -> None:
        assert self.process is not None
        self.process.stop()


def code(later: int = 0) -> str:
    """Of now, or of so many half minutes later; not one that is over before anybody has looked at it."""
    if (left_s := 30 - time.time() % 30) < 3:
        time.sleep(left_s)
    return TOTP(CODES, 6, SHA1(), 30).generate(int(time.time()) + 30 * later).decode()


def toml(directory: Path, *ports: int, more: str = "", of: str = "local") -> str:
    """The table of servers at these ports."""
    (directory / "radius.secret").write_text(f"{SECRET}\n")
    servers = ", ".join(f'"radius://127.0.0.1:{port}"' for port in ports)
    return f"""
[[radius]]
directory = "{of}"
servers = [{servers}]
secret_file = "{directory}/radius.secret"
{more}
"""
