"""``cvpnctl doctor``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cvpnd.ctl.client import Client, Refused, Silent, Unreachable
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_line

WRONG = 1
DEFAULT_CONFIG = Path("/etc/cvpnd/cvpnd.toml")
ANSWERS_WITHIN_S = 15
"""How it is: of what it has in memory, but for what the firewall's program may take."""
HANGING = {
    "hangs": True,
    "config_path": str(DEFAULT_CONFIG),
    "endpoints": [],
    "problems": [
        {
            "severity": "critical",
            "subject": "cvpnd",
            "what": "it runs, and does not answer: it hangs, or is stopped",
            "fix": "journalctl -u cvpnd; systemctl restart cvpnd, after which clients come back by themselves",
        }
    ],
}
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help=f"The TOML file; without it the running daemon's, else {DEFAULT_CONFIG}.",
        show_default=False,
    ),
]


def doctor(socket: SocketOption, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at this host, the file and the daemon, and say what is wrong and the fix. Changes nothing.

    Exit code 0: no problem, 1: there are some."""
    from cvpnd.doctor.diagnosis import diagnose  # with cryptography and pyroute2, which no other command needs

    daemon = running_daemon(socket)
    findings = diagnose(config_path(config, daemon), daemon)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            if finding.level in ("warning", "problem"):
                print_line(f"{finding.level.upper()}: {finding.check}: {finding.what}")
                print_line(f"    {finding.fix}")
        unseen = [finding for finding in findings if finding.level == "unknown"]
        for why in dict.fromkeys(finding.what for finding in unseen):
            print_line(f"not looked at, as {why}: {', '.join(each.check for each in unseen if each.what == why)}")
        print_line(f"in order: {', '.join(finding.check for finding in findings if finding.level == 'ok')}")
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(WRONG)


def running_daemon(socket: Path) -> dict[str, Any] | None:
    """What it says of itself, ``pid`` as it is called here (``Client.daemon_pid``); None if none is there. Of one that
    hangs that, and nothing else."""
    client = Client(socket, ANSWERS_WITHIN_S)
    try:
        status: dict[str, Any] = client.get("/status")["status"]
    except Silent:
        status = HANGING
    except (Unreachable, Refused):
        return None
    return status | {"pid": client.daemon_pid}


def config_path(given: Path | None, daemon: dict[str, Any] | None) -> Path:
    if given is not None:
        return given
    return DEFAULT_CONFIG if daemon is None else Path(daemon["config_path"])
