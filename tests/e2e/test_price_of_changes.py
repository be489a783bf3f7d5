"""What one more rule or route costs beside those that are there: unmodified boto3, one call after the other.

``make crash`` adds ten thousand and prints what each took; ``make test`` looks at the same with a few."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from helpers import certs
from helpers.lab import GatewayProcess, Lab

RULES = int(os.environ.get("RULES", "300"))
ROUTES = int(os.environ.get("ROUTES", "60"))
SAMPLES = 25
API = "http://127.0.0.1:8443"
TOML = f"""
[api]
listen = "{API}"
[quotas]
rules = 20000
routes = 2000
"""


@pytest.fixture
def ec2() -> Iterator[tuple[Any, str, GatewayProcess]]:
    """With an endpoint that leads to subnet-a."""
    with Lab() as lab:
        directory = lab.directory / "gateway"
        directory.mkdir()
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        gateway = GatewayProcess(lab.gateway, directory, TOML + lab.networks_toml(), {})
        gateway.start()
        key = gateway.ctl_json("access-key", "create", "--role", "admin")
        files = (str(directory / "server.crt"), str(directory / "server.key"))
        arn = gateway.ctl_json("certificate", "import", *files, "--chain", str(directory / "ca.crt"))["arn"]
        trust = ("--server-certificate", arn, "--client-certificate", arn)
        made = gateway.ctl_json("endpoint", "create", "10.100.0.0/22", "--name", "lab", *trust)
        gateway.ctl("network", "add", "lab", "subnet-a")
        with lab.gateway.entered():
            client = boto3.client(
                "ec2",
                endpoint_url=API,
                region_name="eu-central-1",
                aws_access_key_id=key["access_key_id"],
                aws_secret_access_key=key["secret_access_key"],
                config=Config(retries={"max_attempts": 1}),
            )
            yield client, made["endpoint_id"], gateway


def rule(number: int) -> dict[str, str]:
    network = f"10.{20 + number // 256 % 60}.{number % 256}.0/24"
    return {"TargetNetworkCidr": network, "AccessGroupId": f"group{number % 97}"}


def route(number: int) -> dict[str, str]:
    network = f"172.{16 + number // 1024}.{number // 4 % 256}.{number % 4 * 64}/26"
    return {"DestinationCidrBlock": network, "TargetVpcSubnetId": "subnet-a"}


def add(call: Callable[..., Any], make: Callable[[int], dict[str, str]], count: int, what: str) -> None:
    """One by one, and what the last few took at each power of ten."""
    took: list[float] = []
    begun = time.monotonic()
    for number in range(count):
        start = time.perf_counter()
        call(**make(number))
        took.append(time.perf_counter() - start)
        if number + 1 in (100, 1000, 10_000):
            last = sorted(took[-SAMPLES * 2 :])
            median = statistics.median(last) * 1e3
            print(f"{what} beside {number + 1:6}: {median:6.1f} ms, longest {last[-1] * 1e3:.0f}")
    print(f"{count} {what}s one by one: {time.monotonic() - begun:.1f} s")


@pytest.mark.timeout(60 + RULES // 10 + ROUTES // 2)
def test_rules_and_routes_are_added_one_by_one_and_all_of_them_are_in_force(
    ec2: tuple[Any, str, GatewayProcess],
) -> None:
    client, endpoint, gateway = ec2
    add(lambda **rule: client.authorize_client_vpn_ingress(ClientVpnEndpointId=endpoint, **rule), rule, RULES, "rule")
    add(lambda **route: client.create_client_vpn_route(ClientVpnEndpointId=endpoint, **route), route, ROUTES, "route")
    pages = client.get_paginator("describe_client_vpn_authorization_rules").paginate(ClientVpnEndpointId=endpoint)
    shown = {each["DestinationCidr"] for page in pages for each in page["AuthorizationRules"]}
    assert shown == {rule(number)["TargetNetworkCidr"] for number in range(RULES)}
    table = gateway.namespace.run("ip", "route", "show", "table", "all").stdout
    assert len(re.findall(r"^172\.[\d.]+/26 ", table, re.MULTILINE)) == ROUTES
    for number in (0, RULES // 2, RULES - 1):
        client.revoke_client_vpn_ingress(ClientVpnEndpointId=endpoint, **rule(number))
    with pytest.raises(ClientError, match="NotFound"):
        client.revoke_client_vpn_ingress(ClientVpnEndpointId=endpoint, **rule(0))
    assert len(gateway.ctl_json("rule", "list")) == RULES - 3
