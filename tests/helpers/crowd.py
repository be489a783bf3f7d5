"""Many light clients in one process, in the lab's first client namespace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from helpers import certs
from helpers.lab import Lab

BENCH = Path(__file__).parents[2] / "bench"


def crowd_command(lab: Lab, *options: str) -> tuple[list[str], dict[str, str]]:
    """The command line and its environment. They share one certificate, and report as JSON."""
    directory = lab.directory / "crowd"
    directory.mkdir(exist_ok=True)
    certs.client("crowd", "rsa2048").write(directory, "client")
    (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
    command = ["prlimit", "--nofile=8192", sys.executable, "-m", "light_client", "--json"]
    command += ["--remote", f"{lab.gateway_address}:1194"]
    for option, name in (("--ca", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key")):
        command += [option, str(directory / name)]
    path = os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")])
    return [*command, *options], {"PYTHONPATH": path}
