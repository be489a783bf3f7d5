"""What the two ends of a tunnel need on disk: test certificates, and a profile for the stock client."""

from pathlib import Path

from helpers import certs


def write_pki(directory: Path) -> Path:
    """ca.crt, server.crt and server.key below DIRECTORY/pki, which is returned."""
    pki = directory / "pki"
    pki.mkdir(parents=True, exist_ok=True)
    (pki / "ca.crt").write_bytes(certs.authority().certificate_pem)
    certs.server().write(pki, "server")
    return pki


def write_profile(
    directory: Path, remote: str, *, transport: str = "udp", port: int = 1194, name: str = "alice", extra: str = ""
) -> Path:
    """An inline profile as a person would be handed it, below ``directory``."""
    client = certs.client(name)
    profile = directory / f"{name}-{transport}-{port}.ovpn"
    profile.write_text(
        f"""client
dev tun
remote {remote} {port} {transport}
nobind
remote-cert-tls server
connect-retry 1 5
{extra}
<ca>
{certs.authority().certificate_pem.decode()}</ca>
<cert>
{client.chain_pem.decode()}</cert>
<key>
{client.private_key_pem.decode()}</key>
"""
    )
    return profile
