"""`cvpnd init`: on this host, in namespaces with other networks, and twice."""

import os
import stat
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from helpers import certs
from helpers.handshake import client_context, shake_hands

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings
from cvpnd.auth.identity import common_name
from cvpnd.bootstrap import BootstrapError, HostNetwork, initialise
from cvpnd.config import check_files, load
from cvpnd.pki.authority import Authority
from cvpnd.pki.index import certificates


def tree(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Each file: inode, modification time and content."""
    return {
        str(path.relative_to(directory)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_what_it_makes_is_a_valid_configuration_with_files_that_fit(tmp_path):
    summary = initialise(tmp_path / "gateway", "vpn.example.com")
    config = load(summary.config)
    check_files(config)
    endpoint = config.endpoints[0]
    trust = CertificateTrust.load(CertificateSettings.of_endpoint(endpoint))
    assert common_name(trust.server_certificate) == "vpn.example.com"
    assert config.daemon.state == f"sqlite:///{tmp_path}/gateway/state.db"
    assert config.daemon.admin_socket == tmp_path / "gateway/admin.sock"
    assert config.daemon.log_directory == tmp_path / "gateway/log"
    assert config.pki.directory == tmp_path / "gateway/pki"
    profile = summary.profile.read_text()
    assert "remote vpn.example.com 1194 udp" in profile.splitlines()
    assert stat.S_IMODE(summary.profile.stat().st_mode) == 0o600
    client = certs.TestCertificate(
        certs.x509.load_pem_x509_certificate(profile.split("<cert>\n")[1].encode()),
        certs.serialization.load_pem_private_key(profile.split("<key>\n")[1].split("</key>")[0].encode(), None),
    )
    handshake = shake_hands(trust.ssl_context, client_context(client))
    assert handshake.accepted
    assert common_name(client.certificate) == "client1"
    assert "PRIVATE" not in str(summary)
    key = (tmp_path / "gateway/pki/tls-crypt.key").read_text()
    assert f"<tls-crypt>\n{key}</tls-crypt>" in profile
    assert stat.S_IMODE((tmp_path / "gateway/pki/tls-crypt.key").stat().st_mode) == 0o600
    for path in (summary.config, summary.profile, "cvpnd run --config"):
        assert str(path) in str(summary)


def test_the_second_run_reuses_everything_and_says_so(tmp_path):
    first = initialise(tmp_path / "gateway")
    before = tree(tmp_path)
    second = initialise(tmp_path / "gateway")
    assert tree(tmp_path) == before
    assert first.made
    assert not second.made
    assert len(second.kept) == len(first.made)
    assert not second.notes
    renamed = initialise(tmp_path / "gateway", "other.example.com")
    assert tree(tmp_path) == before
    assert "was not used" in renamed.notes[0]


def test_a_server_certificate_that_was_moved_away_is_made_anew_and_nothing_else(tmp_path):
    """As the guide has it renewed."""
    initialise(tmp_path, "vpn.example.com")
    before = tree(tmp_path)
    for name in ("server.crt", "server.key"):
        (tmp_path / "pki" / name).rename(tmp_path / "pki" / f"{name}.old")
    again = initialise(tmp_path, "vpn.example.com")
    (made,) = again.made
    assert made == f"{tmp_path}/pki/server.crt, server.key (for vpn.example.com)"
    after = tree(tmp_path)
    assert {path for path in before if after.get(path) != before[path]} == {"pki/server.crt", "pki/server.key"}


def test_a_run_that_was_interrupted_is_completed(tmp_path):
    complete = initialise(tmp_path / "complete", "vpn.example.com")
    assert len(complete.made) == 6
    partial = tmp_path / "partial"
    Authority.create(partial / "pki", "Acme CA")
    before = tree(partial)
    summary = initialise(partial, "vpn.example.com")
    assert len(summary.made) == 5
    assert before.items() <= tree(partial).items()
    assert set(tree(partial)) == set(tree(tmp_path / "complete"))


def test_a_profile_that_was_handed_over_and_removed_is_not_made_again(tmp_path):
    summary = initialise(tmp_path)
    summary.profile.unlink()
    again = initialise(tmp_path)
    assert not summary.profile.exists()
    assert "cvpnctl profile" in again.notes[0]
    assert len(certificates(Authority.open(tmp_path / "pki"))) == 1


def test_a_configuration_from_before_gets_no_key_that_it_does_not_use(tmp_path):
    summary = initialise(tmp_path)
    for path in (summary.profile, tmp_path / "pki/tls-crypt.key"):
        path.unlink()
    lines = [line for line in summary.config.read_text().splitlines() if "control_protection" not in line]
    summary.config.write_text("\n".join(lines))
    initialise(tmp_path)
    assert not (tmp_path / "pki/tls-crypt.key").exists()


def test_somebody_elses_configuration_is_left_alone_and_named(tmp_path):
    (tmp_path / "cvpnd.toml").write_text("[[endpoint]]\nnme = 1\n")
    with pytest.raises(BootstrapError, match=r"cvpnd\.toml: endpoint\[0\]"):
        initialise(tmp_path)
    assert (tmp_path / "cvpnd.toml").read_text() == "[[endpoint]]\nnme = 1\n"


@pytest.mark.parametrize("name", ["two words", "a\nb", ""])
def test_a_name_that_is_none_stops_before_anything_is_made(tmp_path, name):
    with pytest.raises(BootstrapError, match="no host name or address"):
        initialise(tmp_path / "gateway", name)
    assert not (tmp_path / "gateway").exists()


def test_a_broken_authority_is_named(tmp_path):
    initialise(tmp_path)
    (tmp_path / "pki/ca.key").write_text("garbage")
    with pytest.raises(BootstrapError, match=r"ca\.key: is not a PEM private key"):
        initialise(tmp_path)


def test_the_system_directory_keeps_the_systems_paths():
    from cvpnd.bootstrap import render_config

    text = render_config(HostNetwork(None, None, None, ()), "vpn.example.com", own_paths=False)
    assert '# state = "sqlite:////var/lib/cvpnd/state.db"' in text
    assert '# admin_socket = "/run/cvpnd/admin.sock"' in text


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "10.100.0.0/22"),
        (["10.100.0.0/16"], "10.101.0.0/22"),
        (["10.100.2.0/24", "10.101.3.255/32"], "10.102.0.0/22"),
        (["10.0.0.0/8"], "172.31.240.0/22"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.240.0/22"),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], "100.127.0.0/22"),
    ],
)
def test_the_client_network_overlaps_with_nothing(taken, expected):
    network = HostNetwork("eth0", None, None, tuple(IPv4Network(text) for text in taken))
    assert str(network.free_client_network()) == expected


def test_a_host_with_routes_everywhere_is_told_so():
    everything = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
    with pytest.raises(BootstrapError, match=r"write cvpnd\.toml by hand"):
        HostNetwork("eth0", None, None, everything).free_client_network()


# --- other hosts, as network namespaces -------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")


def init_on_a_host_with(commands: str, directory: Path) -> str:
    """Run the command in a new network namespace that ``commands`` (shell) have furnished; its standard output."""
    script = f"set -e\nip link set lo up\n{commands}\nexec {sys.executable} -P -m cvpnd init --dir {directory}"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def interface(name: str, *addresses: str) -> str:
    lines = [f"ip link add {name} type veth peer name {name}p", f"ip link set {name} up", f"ip link set {name}p up"]
    return "\n".join([*lines, *(f"ip address add {address} dev {name}" for address in addresses)])


@needs_root
def test_the_default_routes_interface_becomes_the_first_target_network(tmp_path):
    commands = [
        interface("lan0", "10.100.7.1/24"),
        interface("wan0", "198.51.100.9/26"),
        interface("wan1", "203.0.113.9/24"),
        "ip route add default via 203.0.113.1 metric 500",
        "ip route add default via 198.51.100.1 metric 100",
        "ip route add 10.101.0.0/16 via 10.100.7.2",
    ]
    output = init_on_a_host_with("\n".join(commands), tmp_path)
    config = load(tmp_path / "cvpnd.toml")
    assert (config.subnets[0].interface, str(config.subnets[0].cidr)) == ("wan0", "198.51.100.0/26")
    assert str(config.subnets[0].gateway) == "198.51.100.1"
    assert str(config.vpcs[0].cidr[0]) == "198.51.100.0/26"
    assert str(config.endpoints[0].client_cidr) == "10.100.0.0/22", "10.100.7.0/24 lies beyond 10.100.0.0/22"
    assert config.endpoints[0].remote == "198.51.100.9"
    assert "198.51.100.0/26 on wan0" in output


@needs_root
def test_routes_of_the_host_are_not_given_to_clients(tmp_path):
    commands = [interface("lan0", "10.100.1.1/24"), "ip route add 10.101.0.0/16 via 10.100.1.2"]
    init_on_a_host_with("\n".join(commands), tmp_path)
    config = load(tmp_path / "cvpnd.toml")
    assert str(config.endpoints[0].client_cidr) == "10.102.0.0/22"
    assert config.subnets[0].interface == "lan0", "without a default route the first network serves"
    assert config.subnets[0].gateway is None


@needs_root
@pytest.mark.parametrize("commands", ["", interface("cloud0", "192.0.2.5/32")], ids=["no-network", "only-a-/32"])
def test_a_host_without_a_network_gets_a_configuration_to_fill_in(tmp_path, commands):
    output = init_on_a_host_with(commands, tmp_path)
    assert "fill in [[vpc]] and [[subnet]]" in output
    config = load(tmp_path / "cvpnd.toml")
    assert not config.subnets
    assert not config.endpoints[0].associate
    assert (tmp_path / "client1.ovpn").exists()
