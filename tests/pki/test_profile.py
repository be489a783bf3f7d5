"""The profile, read as text and by the real client."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import certs

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings
from cvpnd.config import AuthenticationConfig, EndpointConfig, load
from cvpnd.profile import KINDS, ProfileError, render_profile
from cvpnd.wire.wrap.key_files import serialise_static_key

ALICE = certs.client("alice")

TOML = """
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = {listen}
{more}
server_certificate = {{ certificate = "server.crt", private_key = "server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "ca.crt" }}]
"""


class Gateway:
    """An endpoint of a configuration file, and what it trusts."""

    def __init__(
        self,
        directory: Path,
        listen: str = '["udp://0.0.0.0:1194"]',
        more: str = "",
        server: certs.TestCertificate | None = None,
        authority: certs.TestCertificate | None = None,
    ) -> None:
        self.server = server or certs.server()
        self.server.write(directory, "server")
        (directory / "ca.crt").write_bytes((authority or certs.authority()).certificate_pem)
        config = directory / "cvpnd.toml"
        config.write_text(TOML.format(listen=listen, more=more))
        self.endpoint: EndpointConfig = load(config).endpoints[0]
        self.trust = CertificateTrust.load(CertificateSettings.of_endpoint(self.endpoint))

    def profile(self, client: certs.TestCertificate = ALICE, kind: str = "openvpn", name: str = "alice") -> str:
        return render_profile(
            self.endpoint,
            self.trust,
            name,
            certificate=client.certificate_pem,
            private_key=client.private_key_pem,
            kind=kind,
        )


def options(profile: str, name: str) -> list[str]:
    return [line for line in profile.splitlines() if line.split(" ")[0] == name]


def block(profile: str, tag: str) -> str:
    return profile.split(f"<{tag}>\n")[1].split(f"\n</{tag}>")[0] + "\n"


def test_every_listener_is_a_remote_udp_first_and_each_once(tmp_path):
    listen = '["tcp://0.0.0.0:443", "udp://0.0.0.0:1194", "udp://[::]:1194", "tcp://0.0.0.0:1194", "udp://0.0.0.0:443"]'
    profile = Gateway(tmp_path, listen, 'remote = "gw.example.com"').profile()
    assert options(profile, "remote") == [
        "remote gw.example.com 1194 udp",
        "remote gw.example.com 443 udp",
        "remote gw.example.com 443 tcp",
        "remote gw.example.com 1194 tcp",
    ]
    assert not options(profile, "explicit-exit-notify"), "pushed to UDP clients; in a profile it breaks TCP"


def test_without_a_remote_the_servers_name_is_used(tmp_path):
    assert options(Gateway(tmp_path).profile(), "remote") == ["remote vpn.example.com 1194 udp"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_verifies_the_server_and_holds_all_it_needs(tmp_path, kind):
    profile = Gateway(tmp_path).profile(kind=kind)
    for line in ("client", "dev tun", "nobind", "remote-cert-tls server", "auth-nocache", "tls-version-min 1.2"):
        assert line in profile.splitlines()
    assert options(profile, "verify-x509-name") == ['verify-x509-name "vpn.example.com" name']
    ciphers = ["data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"]
    assert options(profile, "data-ciphers") == ([] if kind == "aws" else ciphers), "AWS's client has them built in"
    assert block(profile, "ca").encode() == certs.authority().certificate_pem
    assert block(profile, "cert").encode() == ALICE.certificate_pem
    assert block(profile, "key").encode() == ALICE.private_key_pem


def test_the_authorities_go_from_the_servers_issuer_to_its_root(tmp_path):
    gateway = Gateway(tmp_path, server=certs.server(issuer=certs.intermediate()))
    expected = certs.intermediate().certificate_pem + certs.authority().certificate_pem
    assert block(gateway.profile(), "ca").encode() == expected


def test_a_server_whose_authority_is_in_no_file_is_an_error(tmp_path):
    gateway = Gateway(tmp_path, authority=certs.authority("Another CA"))
    with pytest.raises(ProfileError, match="CN=Test CA"):
        gateway.profile()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gateway_that_serves_old_clients_lowers_nothing_for_the_others(tmp_path, kind):
    """Who has only CBC has a configuration that says so; everybody else must not even offer it."""
    plain = Gateway(tmp_path).profile(kind=kind)
    assert Gateway(tmp_path, more='legacy_cbc_ciphers = ["AES-256-CBC"]').profile(kind=kind) == plain
    assert "CBC" not in plain.partition("<ca>")[0]


def test_without_a_key_the_profile_names_files(tmp_path):
    gateway = Gateway(tmp_path)
    profile = render_profile(gateway.endpoint, gateway.trust, "Zoë K")
    assert 'cert "Zoë K.crt"\nkey "Zoë K.key"' in profile
    assert "<cert>" not in profile


@pytest.mark.parametrize("name", ["a\nscript-security 2", "a\rb", "../a", "", " a", "x" * 65])
def test_a_name_cannot_add_options(tmp_path, name):
    with pytest.raises(ProfileError, match="the name"):
        Gateway(tmp_path).profile(name=name)


def test_a_server_name_is_quoted(tmp_path):
    odd = certs.issue(certs.authority(), certs.common_name('my "vpn" \\ server'), usage=None)
    profile = Gateway(tmp_path, more='remote = "gw.example.com"', server=odd).profile()
    assert options(profile, "verify-x509-name") == [r'verify-x509-name "my \"vpn\" \\ server" name']


@pytest.mark.parametrize("kind", KINDS)
def test_who_logs_in_with_a_browser_is_asked_for_no_name(tmp_path, kind):
    gateway = Gateway(tmp_path)
    federated = AuthenticationConfig(type="federated-authentication", saml_provider="corp")
    endpoint = gateway.endpoint.model_copy(update={"authentication": (federated,)})
    profile = render_profile(endpoint, gateway.trust, "alice", kind=kind)
    if kind == "aws":
        assert {"auth-federate", "reneg-sec 0"} <= set(profile.splitlines()) and "auth-user-pass" not in profile
    else:
        assert block(profile, "auth-user-pass").split() == ["N/A", "N/A"] and "auth-federate" not in profile
    assert ("setenv IV_SSO webauth" in profile) is (kind == "openvpn")
    assert ("setenv CLIENT_CERT 0" in profile) is (kind == "connect")


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ProfileError, match="fax is no kind of profile; choose openvpn, connect"):
        Gateway(tmp_path).profile(kind="fax")


# --- the wrapping of the control channel ------------------------------------------------------------------------------

SHARED_KEY = serialise_static_key(bytes(range(256)))


@pytest.mark.parametrize(
    ("table", "expected", "tag"),
    [
        ('tls_crypt = { key = "ta.key" }', [], "tls-crypt"),
        ('tls_auth = { key = "ta.key" }', ["auth SHA1", "key-direction 1"], "tls-auth"),
        (
            'tls_auth = { key = "ta.key", direction = 1, digest = "SHA512" }',
            ["auth SHA512", "key-direction 0"],
            "tls-auth",
        ),
        ('tls_auth = { key = "ta.key", direction = "none" }', ["auth SHA1"], "tls-auth"),
        ('tls_crypt_v2 = { server_key = "v2.key" }, plain = true', [], None),
        ("", [], None),
    ],
)  # fmt: skip
def test_the_shared_key_is_in_the_profile_as_the_client_needs_it(tmp_path, table, expected, tag):
    (tmp_path / "ta.key").write_bytes(b"# a comment\n" + SHARED_KEY)
    profile = Gateway(tmp_path, more=f"control_protection = {{ {table} }}").profile()
    assert options(profile, "auth") + options(profile, "key-direction") == expected
    for each in ("tls-auth", "tls-crypt", "tls-crypt-v2"):
        assert profile.count(f"<{each}>") == (each == tag)
    if tag is not None:
        assert block(profile, tag).encode() == SHARED_KEY


def test_a_clients_own_key_goes_before_the_shared_one(tmp_path):
    (tmp_path / "ta.key").write_bytes(SHARED_KEY)
    gateway = Gateway(
        tmp_path,
        more='control_protection = { tls_crypt = { key = "ta.key" }, tls_crypt_v2 = { server_key = "v2.key" } }',
    )
    profile = render_profile(gateway.endpoint, gateway.trust, "alice", client_key=b"the client's key\n")
    assert block(profile, "tls-crypt-v2") == "the client's key\n"
    assert "<tls-crypt>" not in profile
    assert "<tls-crypt>" in gateway.profile(), "without one of its own"


def test_without_any_key_for_the_client_there_is_no_profile(tmp_path):
    gateway = Gateway(tmp_path, more='control_protection = { tls_crypt_v2 = { server_key = "v2.key" } }')
    with pytest.raises(ProfileError, match=r"staff wants a tls-crypt-v2 key .* --issue .* --serial"):
        gateway.profile()
    gateway = Gateway(tmp_path, more='control_protection = { tls_crypt = { key = "missing.key" } }')
    with pytest.raises(ProfileError, match=r"missing\.key: cannot be read: No such file"):
        gateway.profile()


# --- the real client --------------------------------------------------------------------------------------------------

needs_openvpn = pytest.mark.skipif(shutil.which("openvpn") is None, reason="openvpn is not installed")


@pytest.fixture
def stock_server(tmp_path: Path) -> Iterator[int]:
    """A real OpenVPN server without a device on a loopback port: it does the TLS handshake, and that is what counts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    certificate, private_key = certs.server().write(tmp_path, "stock")
    (tmp_path / "stock-ca.crt").write_bytes(certs.authority().certificate_pem)
    place = ["--local", "127.0.0.1", "--port", str(port)]
    files = ["--ca", tmp_path / "stock-ca.crt", "--cert", certificate, "--key", private_key]
    process = subprocess.Popen(
        ["openvpn", "--tls-server", "--dev", "null", "--dh", "none", *place, *files], stdout=subprocess.DEVNULL
    )
    yield port
    process.terminate()
    process.wait(10)


def connect(profile: Path, until: tuple[str, ...], timeout_s: float = 30) -> str:
    """Start the client; its output until one of the words appears, or it exits."""
    output = profile.with_suffix(".log")
    with output.open("w") as log:
        process = subprocess.Popen(["openvpn", "--config", profile, "--dev", "null", "--disable-dco"], stdout=log)
        deadline = time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline and process.poll() is None:
                if any(word in output.read_text() for word in until):
                    break
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(10)
    return output.read_text()


@needs_openvpn
@pytest.mark.parametrize("kind", KINDS)
def test_the_real_client_accepts_the_profile_and_the_server(tmp_path, stock_server, kind):
    gateway = Gateway(
        tmp_path, f'["udp://127.0.0.1:{stock_server}", "tcp://127.0.0.1:{stock_server}"]', 'remote = "127.0.0.1"'
    )
    profile = tmp_path / "alice.ovpn"
    profile.write_text(gateway.profile(kind=kind))
    log = connect(profile, ("Peer Connection Initiated", "Options error", "TLS Error"))
    assert "VERIFY X509NAME OK: CN=vpn.example.com" in log, log
    assert "VERIFY EKU OK" in log
    assert "[vpn.example.com] Peer Connection Initiated" in log
    for complaint in ("DEPRECATED", "Unrecognized", "Options error", "WARNING: No server certificate verification"):
        assert complaint not in log


@needs_openvpn
def test_the_real_client_refuses_a_server_of_another_name(tmp_path, stock_server):
    gateway = Gateway(
        tmp_path,
        f'["udp://127.0.0.1:{stock_server}"]',
        'remote = "127.0.0.1"',
        server=certs.server("other.example.com"),
    )
    profile = tmp_path / "alice.ovpn"
    profile.write_text(gateway.profile())
    log = connect(profile, ("Peer Connection Initiated", "VERIFY X509NAME ERROR"))
    assert "VERIFY X509NAME ERROR" in log
    assert "Peer Connection Initiated" not in log
