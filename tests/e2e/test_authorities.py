"""Authorities that are trusted no more: whoever came in by one of them leaves at once, whatever else let them in."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import certs
from helpers.lab import wait_until

from cvpnd.auth.passwords import hash_password

PASSWORD = '{ type = "directory-service-authentication", directory = "local" }'
CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
USERS = "".join(
    f'[[local_users]]\nname = "{name}"\npassword_hash = "{hash_password("right")}"\n' for name in ("alice", "bob")
)


@pytest.fixture
def trust(site):
    """Replaces the endpoint's client_ca, as another program does."""

    def write(*authorities: certs.TestCertificate) -> None:
        path = site.directory / "ca.new"
        path.write_bytes(b"".join(each.certificate_pem for each in authorities))
        path.rename(site.directory / "ca.crt")

    return write


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("password", [False, True], ids=["certificate", "certificate+password"])
def test_who_came_by_an_authority_that_is_taken_away_leaves_at_once_and_stays_out(
    site, ping, trust, transport, password
):
    theirs = certs.authority("Partner CA")
    trust(certs.authority(), theirs)
    toml = site.toml("renegotiate_s = 0")  # no key will ever ask again
    if password:
        toml = toml.replace(f"[{CERTIFICATE}]", f"[{CERTIFICATE}, {PASSWORD}]") + USERS
    gateway = site._gateway = site.lab.gateway_process(toml)

    def options(name: str) -> list[str]:
        if not password:
            return []
        login = site.lab.directory / f"{name}.login"
        login.write_text(f"{name}\nright\n")
        login.chmod(0o600)
        return ["--auth-user-pass", str(login)]

    alice = site.connect(certs.client("alice", issuer=theirs), *options("alice"), transport=transport)
    second = site.lab.clients[1]
    where = {"client": second, "host": "198.51.100.1", "transport": transport}
    bob = site.connect(certs.client("bob"), *options("bob"), name="bob", **where)
    assert ping(count=1) == ping(client=second, count=1) == 1.0
    trust(certs.authority())
    alice.wait_for("Certificate authority removed", 5)
    assert [c["common_name"] for c in gateway.ctl_json("connection", "list") if c["status"] == "active"] == ["bob"]
    assert ping(count=1) == 0.0
    (entry,) = [e for e in gateway.connection_log() if e["connection-log-type"] == "connection-reset"]
    assert (entry["common-name"], entry["connection-end-reason"]) == ("alice", "certificate-unknown-ca")
    site.connect(certs.client("alice", issuer=theirs), *options("alice"), wait=False, name="again", transport=transport)
    wait_until(lambda: "certificate-unknown-ca" in gateway.refusals(), 8)
    assert bob.connected_count == 1
    assert ping(client=second) == 1.0


@pytest.mark.parametrize("narrowed", [False, True], ids=["gone", "for-servers-alone"])
def test_a_reload_that_names_another_bundle_does_the_same(site, ping, trust, narrowed):
    theirs = certs.authority("Partner CA")
    trust(certs.authority(), theirs)
    ours = [certs.authority().certificate]
    if narrowed:
        ours.append(certs.with_extension(theirs, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])))
    (site.directory / "ours.crt").write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in ours))
    gateway = site.start("renegotiate_s = 0")
    alice = site.connect(certs.client("alice", issuer=theirs))
    config = gateway.config_path
    config.write_text(config.read_text().replace('client_ca = "ca.crt"', 'client_ca = "ours.crt"'))
    gateway.ctl("reload")
    alice.wait_for("Certificate authority removed", 5)
    assert ping(count=1) == 0.0
