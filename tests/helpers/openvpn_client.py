"""The installed ``openvpn`` client against a ``Pump``, without a device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.other_releases import generation, program
from helpers.pair import Certificate
from helpers.pump import Pump, write_client_files

from cvpnd.wire.packet import Transport

OPENVPN = program()
needs_openvpn = pytest.mark.skipif(generation() < (2, 6), reason="needs an openvpn program, 2.6 or later")


class RealClient:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def completed(self) -> bool:
        return "Initialization Sequence Completed" in self.log


@contextmanager
def openvpn(
    directory: Path,
    pump: Pump,
    *options: str,
    transport: Transport = Transport.UDP,
    certificate: Certificate | None = None,
) -> Iterator[RealClient]:
    log = directory / "client.log"
    over = ["udp4", "--explicit-exit-notify", "1"] if transport is Transport.UDP else ["tcp4-client"]
    command = [
        *OPENVPN, "--client", "--dev", "null", "--ifconfig-noexec", "--route-noexec", "--nobind",
        "--remote", "127.0.0.1", str(pump.port), "--proto", *over, "--remote-cert-tls", "server", "--verb", "3",
        *write_client_files(directory, certificate), *options,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=directory)
    try:
        yield RealClient(process, log)
    finally:
        process.kill()
        process.wait()
