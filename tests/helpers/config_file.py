"""A short configuration file, and what loading it tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvpnd.config import Config, ConfigError, load

SHORTEST = """
[[vpc]]
id = "vpc-main"
cidr = ["10.20.0.0/16"]

[[subnet]]
id = "subnet-a"
vpc = "vpc-main"
cidr = "10.20.0.0/24"
interface = "eth1"

[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = ["udp://0.0.0.0:1194", "tcp://0.0.0.0:443"]
server_certificate = { certificate = "pki/server.crt", private_key = "pki/server.key" }
authentication = [{ type = "certificate-authentication", client_ca = "pki/ca.crt" }]
split_tunnel = true
associate = ["subnet-a"]
authorize = [{ network = "10.20.0.0/16", all_groups = true }]
"""


def load_text(file: Path, text: str) -> Config:
    file.write_text(text)
    return load(file)


def problems_of(file: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_text(file, text)
    return caught.value.problems


def endpoint_with(**keys: str) -> str:
    """The shortest useful file with keys of its endpoint replaced or added, as TOML text."""
    before, table, endpoint = SHORTEST.partition("[[endpoint]]\n")
    lines = [line for line in endpoint.splitlines() if line.partition(" = ")[0] not in keys]
    return before + table + "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"
