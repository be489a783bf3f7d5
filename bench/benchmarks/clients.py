"""The two clients that carry traffic: the stock one, and ours that batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.lab import TARGET_LEG, Lab, LabError

from benchmarks.experiment import Transport
from benchmarks.servers import PORT

BATCHING_CLIENT = Path(__file__).resolve().parents[1] / "batching_client.py"
STOCK, BATCHING = "stock", "batching"


@contextmanager
def connected(kind: str, lab: Lab, transport: Transport = "udp") -> Iterator[None]:
    """A client in the lab's client namespace, whose way to the target is the tunnel."""
    with _stock(lab, transport) if kind == STOCK else _batching(lab, transport) as device:
        route = lab.client.run("ip", "route", "get", TARGET_LEG.host).stdout
        if f"dev {device} " not in route:
            raise LabError(f"the traffic would not go through the tunnel: {route}")
        yield


@contextmanager
def _stock(lab: Lab, transport: Transport) -> Iterator[str]:
    pki = lab.directory / "pki"
    profile = lab.directory / f"{transport}.ovpn"
    profile.write_text(
        f"""client
dev tun
remote {lab.gateway_address} {PORT} {transport}
nobind
remote-cert-tls server
ca {pki}/ca.crt
cert {pki}/client.crt
key {pki}/client.key
"""
    )
    client = lab.openvpn(profile, "--disable-dco", verb=3).wait_connected()
    try:
        yield client.interface
    finally:
        client.stop()


@contextmanager
def _batching(lab: Lab, transport: Transport) -> Iterator[str]:
    pki = lab.directory / "pki"
    files = (
        f"--{option}={pki}/{name}" for option, name in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))
    )
    options = ["--tcp"] if transport == "tcp" else []
    options += ["--remote", f"{lab.gateway_address}:{PORT}", "--target", TARGET_LEG.host]
    client = lab.client.start(sys.executable, BATCHING_CLIENT, *options, *files, label="batching-client")
    try:
        yield client.wait_for(r"^ready (\S+)")[1]
    finally:
        client.stop()
