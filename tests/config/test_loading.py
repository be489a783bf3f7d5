"""The configuration as it loads, and the files that it names."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from helpers.config_file import SHORTEST, endpoint_with, load_text, problems_of

from cvpnd.config import ConfigError, Listen, SocketName, check_files, load


def test_the_shortest_useful_file_loads_with_every_default(file: Path) -> None:
    config = load_text(file, SHORTEST)
    (endpoint,) = config.endpoints
    assert endpoint.client_cidr == IPv4Network("10.100.0.0/22")
    assert endpoint.gateway == IPv4Address("10.100.0.1")
    assert endpoint.listen == (Listen("udp", "0.0.0.0", 1194), Listen("tcp", "0.0.0.0", 443))
    assert [(a.subnet, a.nat) for a in endpoint.associate] == [("subnet-a", True)]
    assert endpoint.authorize[0].group is None
    assert endpoint.server_timeout_s == 120
    assert config.metrics.listen == SocketName("127.0.0.1", 9176)
    assert config.daemon.worker_count() >= 1
    assert config.vpc("vpc-main").cidr == (IPv4Network("10.20.0.0/16"),)
    assert config.subnet("subnet-a").interface == "eth1"


def test_the_file_is_known_by_a_path_that_is_good_everywhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon tells it to programs that run elsewhere."""
    file.write_text(SHORTEST)
    monkeypatch.chdir(file.parent)
    assert load(file.name).path == file


def test_an_endpoint_is_found_by_name_and_by_the_id_made_from_it(file: Path) -> None:
    config = load_text(file, SHORTEST)
    endpoint = config.endpoint("staff")
    assert re.fullmatch("cvpn-endpoint-[0-9a-f]{17}", endpoint.id)
    assert config.endpoint(endpoint.id) is endpoint
    assert load_text(file, SHORTEST).endpoint("staff").id == endpoint.id, "the same after a restart"
    with pytest.raises(KeyError):
        config.endpoint("nobody")


def test_relative_paths_are_relative_to_the_file_not_to_where_the_daemon_was_started(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[daemon]\nstate = "sqlite:///state.db"\nadmin_socket = "/run/x.sock"\n' + SHORTEST)
    monkeypatch.chdir(file.parent)
    config = load("cvpnd.toml")
    assert config.endpoints[0].server_certificate.certificate == file.parent / "pki/server.crt"
    assert config.daemon.state == f"sqlite:///{file.parent}/state.db"
    assert config.daemon.admin_socket == Path("/run/x.sock")


def test_a_loaded_configuration_cannot_be_changed(file: Path) -> None:
    config = load_text(file, SHORTEST)
    with pytest.raises(ValueError, match="frozen"):
        config.endpoints[0].name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[daemon]", SocketName("127.0.0.1", 9176)),
        ('[metrics]\nlisten = ""', SocketName("127.0.0.1", 9176)),
        ('[metrics]\nlisten = "[::1]:9000"', SocketName("::1", 9000)),
        ('[metrics]\nlisten = "off"', None),
    ],
)
def test_metrics_listen_has_a_default_and_can_be_switched_off(
    file: Path, text: str, expected: SocketName | None
) -> None:
    assert load_text(file, text).metrics.listen == expected


def test_ipv6_everywhere_it_may_be_written(file: Path) -> None:
    text = SHORTEST.replace('["10.20.0.0/16"]', '["10.20.0.0/16", "fd00:20::/48"]')
    text = text.replace('interface = "eth1"', 'interface = "eth1"\ncidr_v6 = "fd00:20::/64"\ngateway_v6 = "fe80::1"')
    text += 'client_cidr_v6 = "fd00:100::/64"\nremote = "2001:db8::1"\ndns_servers = ["fd00:20::53"]\n'
    text += 'route = [{ destination = "::/0", target = "subnet-a" }]\n'
    text = text.replace('"tcp://0.0.0.0:443"', '"tcp://[::]:443"')
    endpoint = load_text(file, text).endpoints[0]
    assert endpoint.client_cidr_v6 == IPv6Network("fd00:100::/64")
    assert endpoint.gateway_v6 == IPv6Address("fd00:100::1")
    assert str(endpoint.listen[1]) == "tcp://[::]:443"


def test_every_vpc_has_a_security_group_that_needs_no_declaration(file: Path) -> None:
    config = load_text(file, SHORTEST)
    (group,) = config.all_security_groups
    assert (group.name, group.vpc, group.is_default) == ("default", "vpc-main", True)
    assert config.security_groups_of(config.endpoints[0]) == (group,)
    for named in ("default", group.id):
        config = load_text(file, endpoint_with(security_groups=f'["{named}"]'))
        assert config.security_groups_of(config.endpoints[0]) == (group,)
    assert config.egress_of(config.endpoints[0]) is None
    unknown = config.endpoints[0].model_copy(update={"security_groups": ("sg-gone",)})
    assert config.egress_of(unknown) == (), "a group that is not known lets nothing through"
    declared = '[[security_group]]\nid = "default"\nvpc = "vpc-main"\n'
    (problem,) = problems_of(file, SHORTEST + declared)
    assert problem.startswith('security_group[0].id: "default" is the group that each vpc has without declaring it')


@pytest.mark.parametrize("destination", ["0.0.0.0/0", "10.9.0.0/16", "fd00:9::/48"])
def test_a_default_route_and_routes_elsewhere_do_not_overlap_the_clients(file: Path, destination: str) -> None:
    load_text(file, endpoint_with(route=f'[{{ destination = "{destination}", target = "subnet-a" }}]'))


def test_a_resolver_may_be_the_gateway_or_lie_behind_a_route(file: Path) -> None:
    load_text(
        file,
        endpoint_with(
            dns_servers='["10.100.0.1", "10.20.7.7", "9.9.9.9"]',
            route='[{ destination = "9.9.9.9/32", target = "subnet-a" }]',
        ),
    )


@pytest.mark.parametrize(
    ("table", "plain"),
    [
        ("{}", True),
        ("{ plain = true }", True),
        ('{ tls_crypt = { key = "k" } }', False),
        ('{ tls_auth = { key = "k", direction = "none", digest = "SHA512" } }', False),
        ('{ tls_crypt_v2 = { server_key = "k" } }', False),
        ('{ tls_crypt_v2 = { server_key = "k" }, plain = true }', True),
        ('{ tls_crypt_v2 = { server_key = "k" }, tls_crypt = { key = "k" }, plain = false }', False),
    ],
)
def test_packets_without_a_wrapping_are_accepted_only_without_any_or_on_demand(
    file: Path, table: str, plain: bool
) -> None:
    protection = load_text(file, endpoint_with(control_protection=table)).endpoints[0].control_protection
    assert protection.allows_plain is plain
    assert all(path == file.parent / "k" for path in protection.paths)


# -- the files it names -------------------------------------------------------------------------------------


def test_certificate_files_are_looked_for_only_when_asked(file: Path) -> None:
    method = '[{ type = "certificate-authentication", client_ca = "pki", crl = "crl.pem" }]'
    config = load_text(file, endpoint_with(authentication=method))
    (file.parent / "pki").mkdir()
    (file.parent / "pki" / "server.crt").write_text("x")
    with pytest.raises(ConfigError) as caught:
        check_files(config)
    key, authority, crl = caught.value.problems
    at = "endpoint[0].server_certificate.private_key"
    missing = (
        f"{file.parent}/pki/server.key does not exist; make it ('cvpnd init' does what is in pki), or correct the path"
    )
    assert key == f"{at}: {missing}"
    assert authority == f"endpoint[0].authentication[0].client_ca: {file.parent}/pki is a directory; name a PEM file"
    assert crl.startswith(f"endpoint[0].authentication[0].crl: {file.parent}/crl.pem does not exist")


def test_complete_certificate_files_pass(file: Path) -> None:
    config = load_text(file, SHORTEST)
    (file.parent / "pki").mkdir()
    for name in ("server.crt", "server.key", "ca.crt"):
        (file.parent / "pki" / name).write_text("x")
    check_files(config)


def test_a_file_that_is_no_key_is_named_with_the_command_that_makes_one(file: Path) -> None:
    config = load_text(
        file,
        endpoint_with(control_protection='{ tls_crypt = { key = "a" }, tls_crypt_v2 = { server_key = "b" } }'),
    )
    (file.parent / "pki").mkdir()
    for name in ("server.crt", "server.key", "ca.crt"):
        (file.parent / "pki" / name).write_text("x")
    (file.parent / "a").write_text(
        "-----BEGIN OpenVPN Static key V1-----\nc0ffee\n-----END OpenVPN Static key V1-----\n"
    )
    (file.parent / "b").write_text("secret")
    with pytest.raises(ConfigError) as caught:
        check_files(config)
    shared, server = caught.value.problems
    at = "endpoint[0].control_protection"
    assert shared.startswith(f"{at}.tls_crypt.key: {file.parent}/a does not hold 256 bytes in hexadecimal; copy the")
    assert server.startswith(
        f'{at}.tls_crypt_v2.server_key: {file.parent}/b is not an "OpenVPN tls-crypt-v2 server key"'
    )
    assert "openvpn --genkey tls-crypt-v2-server" in server
    assert "c0ffee" not in shared
    assert "secret" not in server
