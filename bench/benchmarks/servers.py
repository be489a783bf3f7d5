"""The two servers, set up alike: split tunnel to the target network, SNAT, AES-256-GCM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import certs
from helpers.lab import TARGET_LEG, Lab
from helpers.netns import Process

from benchmarks.experiment import CVPND, Transport

PORT = 1194
POOL_SIZE = 1000
"""Clients that fit either server."""


def write_pki(directory: Path, kind: certs.KeyKind = "ec") -> Path:
    """DIRECTORY/pki with ca.crt, and server and client .crt and .key; certificate and CA keys are of one kind."""
    pki = directory / "pki"
    pki.mkdir(parents=True, exist_ok=True)
    authority = certs.authority() if kind == "ec" else certs.authority(kind=kind)  # cached by their arguments
    (pki / "ca.crt").write_bytes(authority.certificate_pem)
    certs.server(kind=kind, issuer=authority).write(pki, "server")
    certs.client("alice", kind, authority).write(pki, "client")
    return pki


@contextmanager
def running(
    name: str, lab: Lab, transport: Transport = "udp", *, keys: certs.KeyKind = "ec", options: str = ""
) -> Iterator[Process]:
    """The server of that name in the lab's gateway. ``options`` go into our endpoint."""
    pki = write_pki(lab.directory, keys)
    with _cvpnd(lab, pki, transport, options) if name == CVPND else _openvpn(lab, pki, transport) as server:
        yield server


@contextmanager
def _cvpnd(lab: Lab, pki: Path, transport: Transport, options: str) -> Iterator[Process]:
    gateway = lab.gateway_process(
        lab.networks_toml()
        + f"""
[[endpoint]]
name = "bench"
client_cidr = "10.100.0.0/22"
listen = ["{transport}://0.0.0.0:{PORT}"]
server_certificate = {{ certificate = "{pki}/server.crt", private_key = "{pki}/server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "{pki}/ca.crt" }}]
split_tunnel = true
associate = ["subnet-a"]
authorize = [{{ network = "10.20.0.0/16", all_groups = true }}]
{options}
"""
    )
    try:
        yield gateway.running
    finally:
        gateway.stop()


@contextmanager
def _openvpn(lab: Lab, pki: Path, transport: Transport) -> Iterator[Process]:
    """As its manual would have it: in user space, SNAT by nftables, defaults otherwise but for how many clients."""
    configuration = lab.directory / "openvpn-server.conf"
    configuration.write_text(
        f"""dev tun
topology subnet
server 10.101.0.0 255.255.252.0
max-clients {POOL_SIZE}
connect-freq-initial {POOL_SIZE} 1
duplicate-cn
proto {"udp" if transport == "udp" else "tcp-server"}
port {PORT}
ca {pki}/ca.crt
cert {pki}/server.crt
key {pki}/server.key
dh none
data-ciphers AES-256-GCM
keepalive 10 60
disable-dco
push "route 10.20.0.0 255.255.0.0"
"""
    )
    snat = f"type nat hook postrouting priority srcnat; oifname {TARGET_LEG.interface} masquerade;"
    lab.gateway.run("nft", f"table ip bench {{ chain postrouting {{ {snat} }}; }}")
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    server = lab.gateway.start("openvpn", "--config", configuration, label="openvpn-server")
    try:
        server.wait_for("Initialization Sequence Completed")
        yield server
    finally:
        server.stop()
        lab.gateway.sysctl("net/ipv4/ip_forward", 0)
        lab.gateway.run("nft", "delete table ip bench")
