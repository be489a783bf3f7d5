"""The routes that associations bring along, and those that the file adds."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from cvpnd.config import Config, load
from cvpnd.policy.model import Route
from cvpnd.policy.routes import endpoint_routes, endpoint_rules

HOST = """
[[vpc]]
id = "vpc-main"
cidr = ["10.20.0.0/16", "fd00:20::/48"]
[[vpc]]
id = "vpc-lab"
cidr = ["10.40.0.0/16"]
[[subnet]]
id = "a"
vpc = "vpc-main"
cidr = "10.20.0.0/24"
cidr_v6 = "fd00:20::/64"
interface = "eth1"
[[subnet]]
id = "b"
vpc = "vpc-main"
cidr = "10.20.1.0/24"
interface = "eth2"
[[subnet]]
id = "lab"
vpc = "vpc-lab"
cidr = "10.40.0.0/16"
interface = "eth3"
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = ["udp://0.0.0.0:1194"]
server_certificate = { certificate = "c", private_key = "k" }
authentication = [{ type = "certificate-authentication", client_ca = "ca" }]
"""


def load_endpoint(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "cvpnd.toml"
    path.write_text(HOST + text)
    return load(path)


def route(destination: str, target: str, origin: str = "associate") -> Route:
    return Route(ip_network(destination), target, origin)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ('associate = ["a"]', [route("10.20.0.0/16", "a"), route("fd00:20::/48", "a")]),
        ('associate = ["b"]', [route("10.20.0.0/16", "b"), route("fd00:20::/48", "b")]),
        (
            'associate = ["a", "b"]',
            [route("10.20.0.0/16", "a"), route("fd00:20::/48", "a"), route("10.20.1.0/24", "b")],
        ),
        ('associate = ["lab"]', [route("10.40.0.0/16", "lab")]),
        (
            'associate = ["lab"]\nroute = [{ destination = "0.0.0.0/0", target = "lab" }]',
            [route("0.0.0.0/0", "lab", "add-route"), route("10.40.0.0/16", "lab")],
        ),
        (
            'route = [{ destination = "10.100.0.0/22", target = "local" }]',
            [route("10.100.0.0/22", "local", "add-route")],
        ),
        (
            'associate = ["a", "b"]\nroute = [{ destination = "10.20.0.0/16", target = "b" }]',
            [
                route("10.20.0.0/16", "b", "add-route"),
                route("fd00:20::/48", "a"),
                route("10.20.0.0/24", "a"),
            ],
        ),
    ],
)
def test_each_destination_has_one_route(tmp_path: Path, text: str, expected: list[Route]) -> None:
    config = load_endpoint(tmp_path, text)
    assert list(endpoint_routes(config.endpoints[0], config)) == expected


def test_rules_of_the_file_say_so(tmp_path: Path) -> None:
    config = load_endpoint(
        tmp_path,
        'authorize = [{ network = "10.20.0.0/16", all_groups = true }, { network = "::/0", group = "it" }]',
    )
    assert [(str(r.network), r.group, r.origin) for r in endpoint_rules(config.endpoints[0])] == [
        ("10.20.0.0/16", None, "file"),
        ("::/0", "it", "file"),
    ]
