"""Many light clients in one process, in one of the lab's client namespaces."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers import certs
from helpers.lab import CLIENT_LEGS, Lab
from helpers.netns import Process

BENCH = Path(__file__).parents[2] / "bench"


def crowd_command(lab: Lab, *options: str, client: int = 0) -> tuple[list[str], dict[str, str]]:
    """The command line and its environment. They share one certificate, and report as JSON."""
    directory = lab.directory / "crowd"
    directory.mkdir(exist_ok=True)
    certs.client("crowd", "rsa2048").write(directory, "client")
    (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
    command = ["prlimit", "--nofile=8192", sys.executable, "-P", "-m", "light_client", "--json"]
    command += ["--remote", f"{CLIENT_LEGS[client].gateway}:1194"]
    for option, name in (("--ca", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key")):
        command += [option, str(directory / name)]
    path = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    return [*command, *options], {"PYTHONPATH": path}


class Crowd:
    """In the background: users log in, one light client each. ``report()`` waits for their end."""

    def __init__(self, lab: Lab, logins: Iterable[tuple[str, str]], *options: str, client: int = 0) -> None:
        """``client``: the number of the machine that they run on."""
        lines = [f"{name} {password}\n" for name, password in logins]
        place = lab.clients[client]
        file = lab.directory / f"logins-{client}-{len(place.processes)}"
        file.write_text("".join(lines))
        command, env = crowd_command(lab, "--count", str(len(lines)), "--logins", str(file), *options, client=client)
        self.process: Process = place.start(*command, label="crowd", env=env)

    def report(self, timeout_s: float = 100) -> dict[str, Any]:
        self.process.wait(timeout_s)
        try:
            return dict(json.loads(self.process.log().splitlines()[-1]))
        except (IndexError, ValueError):
            raise AssertionError(self.process.tail()) from None


def errors(report: dict[str, Any]) -> list[str]:
    """Of the clients that failed."""
    return [result["error"] for result in report["results"] if result["error"]]


def pushed_token(result: dict[str, Any]) -> str:
    """Empty: none."""
    found = (option.partition(" ")[2] for option in result["options"] if option.startswith("auth-token "))
    return str(next(found, ""))
