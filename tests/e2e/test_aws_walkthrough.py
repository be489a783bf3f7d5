"""The usual way to set up AWS Client VPN, with the AWS CLI as people have it, easy-rsa and the stock client."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.easy_rsa import EASY_RSA, EasyRsa
from helpers.lab import GatewayProcess, Lab, wait_until
from helpers.networks import subnet, vpc

WALKTHROUGH = Path(__file__).parent.parent / "data" / "aws-walkthrough.sh"
API = "http://127.0.0.1:8443"

# two subnets of one vpc, as the walkthrough names them, behind the lab's two legs
TOML = f"""
[api]
listen = "{API}"
{vpc("vpc-main", "10.0.0.0/16")}
{subnet("subnet-111111", "vpc-main", "10.0.1.0/24", "lan")}
{subnet("subnet-222222", "vpc-main", "10.0.2.0/24", "lan2")}
"""

# becomes a daemon itself, so that the script goes on while it is connected
CONNECT = """#!/bin/sh
exec >{directory}/connect.out 2>&1
ip netns exec {client} openvpn --config "$1" --daemon walkthrough --log {directory}/client.log
for _ in $(seq 100); do
    grep -q 'Initialization Sequence Completed' {directory}/client.log && break; sleep 0.1
done
ip netns exec {client} ping -c 2 -i 0.2 -W 1 10.0.1.10 && ip netns exec {client} ping -c 2 -i 0.2 -W 1 10.0.2.10
"""

pytestmark = pytest.mark.skipif(not EASY_RSA.exists(), reason="easy-rsa is not installed (Debian package easy-rsa)")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        for leg, namespace, network in (("lan", lab.target, "10.0.1"), ("lan2", lab.other, "10.0.2")):
            lab.gateway.run("ip", "address", "add", f"{network}.1/24", "dev", leg)
            namespace.run("ip", "address", "add", f"{network}.10/24", "dev", "eth0")
        yield lab


def aws_environment(gateway: GatewayProcess, home: Path) -> dict[str, str]:
    """With nothing of whoever runs the test in it."""
    key = gateway.ctl_json("access-key", "create", "--role", "admin")
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "AWS_ENDPOINT_URL": API,
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.mark.timeout(180)
def test_the_aws_walkthrough_runs_unchanged_and_the_revoked_client_is_out(lab: Lab) -> None:
    directory = lab.directory
    pki = EasyRsa(directory, "ec")
    pki("build-server-full", "server", "nopass")
    pki("build-client-full", "client1.domain.tld", "nopass")
    gateway = lab.gateway_process(TOML)
    connect = directory / "connect"
    connect.write_text(CONNECT.format(directory=directory, client=lab.client.name))
    connect.chmod(0o755)
    environment = {
        **aws_environment(gateway, directory),
        "PKI": str(pki.pki),
        "OUT": str(directory),
        "CONNECT": str(connect),
        "REVOKE": "1",
        "EASYRSA": str(EASY_RSA),
        # unbuffered, the CLI writes a list and its last newline apart, and openssl behind the pipe may be gone by then
        "PYTHONUNBUFFERED": "",
    }
    done = lab.gateway.run("bash", WALKTHROUGH, env=environment, timeout_s=150, check=False)
    told = f"{done.stdout}\n{done.stderr}\n{gateway.log()}"
    assert done.returncode == 0 and "\n== done\n" in done.stdout, told
    assert "10.0.0.0/16\tsubnet-111111\tassociate\tactive" in done.stdout
    assert "172.16.0.0/16\tsubnet-111111\tadd-route\tactive" in done.stdout
    assert "nextUpdate=" in done.stdout

    endpoint_id = (directory / "endpoint-id").read_text().strip()
    wait_until(lambda: gateway.connection_log()[-1]["connection-end-reason"] == "certificate-revoked", what="the end")
    assert not [c for c in gateway.ctl_json("connection", "list") if c["status"] == "active"]
    assert gateway.connection_log()[0]["client-vpn-endpoint-id"] == endpoint_id
    client = (directory / "client.log").read_text()
    assert "Halt command was pushed by server ('Certificate revoked')" in client, client

    gateway.kill()
    gateway.start()  # all of it comes back from the store
    (endpoint,) = gateway.ctl_json("endpoint", "list")
    assert (endpoint["endpoint_id"], endpoint["status"]) == (endpoint_id, "available")
    assert [rule["network"] for rule in gateway.ctl_json("rule", "list")] == ["10.0.0.0/16", "10.0.1.0/24"]
    command = ["aws", "ec2", "describe-client-vpn-routes", "--client-vpn-endpoint-id", endpoint_id, "--output", "json"]
    routes = json.loads(lab.gateway.run(*command, env=environment, timeout_s=60).stdout)["Routes"]
    assert {route["DestinationCidr"] for route in routes} == {"10.0.0.0/16", "172.16.0.0/16"}
    gateway.stop()
