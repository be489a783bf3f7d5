"""boto3 against a daemon: its configuration, and the clients of one access key."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from helpers import certs, web_login
from helpers.lab import GatewayProcess
from helpers.networks import subnet, vpc

API = "http://127.0.0.1:8443"
TOML = f"""
[api]
listen = "{API}"
[managed]
listen = ["192.0.2.1", "10.20.0.1", "2001:db8:1::1"]
remote = "*.vpn.example.com"
[quotas]
endpoints = 3
rules = 5
routes = 3
crl_entries = 3
[[security_group]]
id = "sg-web"
vpc = "vpc-main"
description = "the web"
egress = [{{ network = "10.20.0.0/16", protocol = "tcp", ports = "443", description = "https" }},
    {{ network = "::/0" }}]
[[saml_provider]]
id = "corp"
metadata = "idp.xml"
[[handler]]
name = "AWSClientVPN-check"
executable = "/usr/bin/true"
[[security_group]]
id = "sg-third"
vpc = "vpc-main"
[[security_group]]
id = "sg-other"
vpc = "vpc-other"
{vpc("vpc-main", "10.20.0.0/16")}
{subnet("subnet-a", "vpc-main", "10.20.0.0/24", "lan", zone="a")}
{subnet("subnet-a2", "vpc-main", "10.20.1.0/24", "lan", zone="a")}
{subnet("subnet-c", "vpc-main", "10.20.2.0/24", "lan", zone="c")}
{subnet("subnet-small", "vpc-main", "10.20.3.0/28", "lan")}
{vpc("vpc-other", "10.30.0.0/16")}
{subnet("subnet-b", "vpc-other", "10.30.0.0/24", "lan2")}
[[endpoint]]
name = "staff"
client_cidr = "10.200.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = {{ certificate = "server.crt", private_key = "server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "ca.crt" }}]
associate = ["subnet-a"]
authorize = [{{ network = "10.20.0.0/16", all_groups = true }}]
{web_login.PORTAL.replace("0.0.0.0", web_login.HOST)}
"""


def mutual(arn: str) -> dict[str, Any]:
    return {"Type": "certificate-authentication", "MutualAuthentication": {"ClientRootCertificateChainArn": arn}}


def by_directory(name: str) -> dict[str, Any]:
    return {"Type": "directory-service-authentication", "ActiveDirectory": {"DirectoryId": name}}


def by_browser(arn: str, **more: str) -> dict[str, Any]:
    return {"Type": "federated-authentication", "FederatedAuthentication": {"SAMLProviderArn": arn, **more}}


CHECK = "arn:aws:lambda:eu-central-1:123456789012:function:AWSClientVPN-check"


class Api:
    """The daemon and the clients of one access key. Use it inside the gateway's namespace."""

    def __init__(self, gateway: GatewayProcess, role: str = "admin") -> None:
        self.gateway = gateway
        key = gateway.ctl_json("access-key", "create", "--role", role)
        self.key_id, self.secret = key["access_key_id"], key["secret_access_key"]

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def acm(self) -> Any:
        return self.client("acm")

    @cached_property
    def iam(self) -> Any:
        return self.client("iam")

    @cached_property
    def logs(self) -> Any:
        return self.client("logs")

    @cached_property
    def sts(self) -> Any:
        return self.client("sts")

    def client(self, service: str, **changes: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=API,
            region_name="eu-central-1",
            aws_access_key_id=changes.get("key_id", self.key_id),
            aws_secret_access_key=changes.get("secret", self.secret),
            config=Config(retries={"max_attempts": 1}),
        )

    def import_certificate(self, certificate: certs.TestCertificate | None = None, **more: Any) -> str:
        certificate = certificate or certs.server()
        given = {
            "Certificate": certificate.certificate_pem,
            "PrivateKey": certificate.private_key_pem,
            "CertificateChain": certs.authority().certificate_pem,
        }
        given = {name: value for name, value in {**given, **more}.items() if value is not None}
        return self.acm.import_certificate(**given)["CertificateArn"]

    def create(self, arn: str, cidr: str = "10.100.0.0/22", **more: Any) -> str:
        given = {
            "ClientCidrBlock": cidr,
            "ServerCertificateArn": arn,
            "AuthenticationOptions": [mutual(arn)],
            "ConnectionLogOptions": {"Enabled": False},
            **more,
        }
        return self.ec2.create_client_vpn_endpoint(**given)["ClientVpnEndpointId"]

    def describe(self, endpoint_id: str) -> dict[str, Any]:
        (found,) = self.ec2.describe_client_vpn_endpoints(ClientVpnEndpointIds=[endpoint_id])["ClientVpnEndpoints"]
        return found

    def clear(self) -> None:
        """Everything that was made."""
        for endpoint in self.ec2.describe_client_vpn_endpoints()["ClientVpnEndpoints"]:
            name = {"ClientVpnEndpointId": endpoint["ClientVpnEndpointId"]}
            with suppress(ClientError):  # the file's
                for network in self.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]:
                    self.ec2.disassociate_client_vpn_target_network(**name, AssociationId=network["AssociationId"])
                self.ec2.delete_client_vpn_endpoint(**name)
        for certificate in self.acm.list_certificates()["CertificateSummaryList"]:
            self.acm.delete_certificate(CertificateArn=certificate["CertificateArn"])


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return str(refused.value.response["Error"]["Code"])
