"""boto3 against the daemon: each action with what can be set read back, and each documented error provoked."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from unittest import mock

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from helpers import certs, saml_idp, web_login
from helpers.lab import GatewayProcess, Lab
from helpers.networks import subnet, vpc

from cvpnd.api.aws.app import HANDLERS, READING

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


@pytest.fixture(scope="module")
def daemon() -> Iterator[GatewayProcess]:
    with Lab() as lab:
        directory = lab.directory / "gateway"
        directory.mkdir()
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        web_login.write_certificate(directory)
        (directory / "idp.xml").write_text(saml_idp.metadata())
        for network in ("10.20.1", "10.20.2", "10.20.3"):
            lab.gateway.run("ip", "address", "add", f"{network}.1/28", "dev", "lan")
        gateway = lab.gateway_process(TOML)
        gateway.running.wait_for("ready: ")  # the admin socket answers before the API listens
        with lab.gateway.entered():
            yield gateway
        gateway.stop()


@pytest.fixture(scope="module")
def shared(daemon: GatewayProcess) -> Api:
    return Api(daemon)


@pytest.fixture
def api(shared: Api) -> Iterator[Api]:
    yield shared
    shared.clear()


@pytest.fixture
def arn(api: Api) -> str:
    return api.import_certificate()


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return str(refused.value.response["Error"]["Code"])


def not_there(page: str) -> bool:
    """Whoever has no such page answers 404."""
    context = ssl.create_default_context(cadata=certs.authority().certificate_pem.decode())
    return httpx.get(page, verify=context).status_code == 404


# -- endpoints ----------------------------------------------------------------------------------------------


def test_every_attribute_that_is_set_reads_back(api: Api, arn: str) -> None:
    with suppress(api.logs.exceptions.ResourceAlreadyExistsException):
        api.logs.create_log_group(logGroupName="/vpn")
        api.logs.create_log_stream(logGroupName="/vpn", logStreamName="all")
    log = {"Enabled": True, "CloudwatchLogGroup": "/vpn", "CloudwatchLogStream": "all"}
    tags = [{"Key": "Name", "Value": "Büro"}, {"Key": "env", "Value": '<prod> & "more"'}]
    endpoint_id = api.create(
        arn,
        DnsServers=["10.20.0.2", "10.20.0.3"],
        TransportProtocol="tcp",
        VpnPort=1194,
        SplitTunnel=True,
        Description="for all; 'quoted' & <tagged>",
        ConnectionLogOptions=log,
        VpcId="vpc-main",
        SessionTimeoutHours=10,
        DisconnectOnSessionTimeout=False,
        ClientLoginBannerOptions={"Enabled": True, "BannerText": "Willkommen, alle!\nNur für Befugte."},
        TagSpecifications=[{"ResourceType": "client-vpn-endpoint", "Tags": tags}],
        AuthenticationOptions=[mutual(arn), by_directory("local")],
        SecurityGroupIds=["sg-web"],
        ClientRouteEnforcementOptions={"Enforced": True},
        ClientConnectOptions={"Enabled": True, "LambdaFunctionArn": CHECK},
        SelfServicePortal="enabled",
        # what asks for nothing
        EndpointIpAddressType="ipv4",
        TrafficIpAddressType="ipv4",
    )
    shown = api.describe(endpoint_id)
    expected = {
        "ClientVpnEndpointId": endpoint_id,
        "Description": "for all; 'quoted' & <tagged>",
        "Status": {"Code": "pending-associate"},
        "DnsName": "*.vpn.example.com",
        "ClientCidrBlock": "10.100.0.0/22",
        "DnsServers": ["10.20.0.2", "10.20.0.3"],
        "SplitTunnel": True,
        "VpnProtocol": "openvpn",
        "TransportProtocol": "tcp",
        "VpnPort": 1194,
        "ServerCertificateArn": arn,
        "AuthenticationOptions": [
            {"Type": "certificate-authentication", "MutualAuthentication": {"ClientRootCertificateChain": arn}},
            {"Type": "directory-service-authentication", "ActiveDirectory": {"DirectoryId": "local"}},
        ],
        "AssociatedTargetNetworks": [],
        "SecurityGroupIds": ["sg-web"],
        "ClientConnectOptions": {"Enabled": True, "LambdaFunctionArn": CHECK, "Status": {"Code": "applied"}},
        "ClientRouteEnforcementOptions": {"Enforced": True},
        "EndpointIpAddressType": "ipv4",
        "TrafficIpAddressType": "ipv4",
        "ConnectionLogOptions": log,
        "SessionTimeoutHours": 10,
        "DisconnectOnSessionTimeout": False,
        "ClientLoginBannerOptions": {"Enabled": True, "BannerText": "Willkommen, alle!\nNur für Befugte."},
        "Tags": tags,
        "VpcId": "vpc-main",
        "SelfServicePortalUrl": f"{web_login.URL}/self-service/endpoints/{endpoint_id}",
    }
    assert {key: shown[key] for key in expected} == expected
    assert abs(datetime.fromisoformat(shown["CreationTime"]).replace(tzinfo=UTC).timestamp() - time.time()) < 60

    other = api.import_certificate(certs.server("other.example.com"))
    api.ec2.modify_client_vpn_endpoint(
        ClientVpnEndpointId=endpoint_id,
        DnsServers={"CustomDnsServers": ["10.20.0.4"], "Enabled": True},
        VpnPort=443,
        SplitTunnel=False,
        Description="",
        ConnectionLogOptions={"Enabled": True, "CloudwatchLogGroup": "/vpn"},
        ServerCertificateArn=other,
        SecurityGroupIds=["sg-third"],
        VpcId="vpc-main",
        SessionTimeoutHours=24,
        DisconnectOnSessionTimeout=True,
        ClientLoginBannerOptions={"Enabled": False},
        ClientRouteEnforcementOptions={"Enforced": False},
        SelfServicePortal="disabled",
        ClientConnectOptions={"Enabled": False},
    )
    changed = {
        "DnsServers": ["10.20.0.4"],
        "VpnPort": 443,
        "SplitTunnel": False,
        "Description": "",
        "ConnectionLogOptions": {"Enabled": True, "CloudwatchLogGroup": "/vpn", "CloudwatchLogStream": endpoint_id},
        "ServerCertificateArn": other,
        "SecurityGroupIds": ["sg-third"],
        "SessionTimeoutHours": 24,
        "DisconnectOnSessionTimeout": True,
        "ClientLoginBannerOptions": {"Enabled": False},
        "ClientConnectOptions": {"Enabled": False, "Status": {"Code": "applied"}},
        "ClientRouteEnforcementOptions": {"Enforced": False},
    }
    expected |= changed
    page = expected.pop("SelfServicePortalUrl")
    assert "SelfServicePortalUrl" not in api.describe(endpoint_id) and not_there(page)
    modify = ("endpoint", "modify", endpoint_id)
    assert api.gateway.ctl_json(*modify, "--self-service-portal")["self_service_url"] == page and not not_there(page)
    assert api.gateway.ctl_json(*modify, "--no-self-service-portal")["self_service_url"] == ""
    shown = api.describe(endpoint_id)
    assert {key: shown[key] for key in expected} == expected, "and what was not given stays"
    streams = api.logs.describe_log_streams(logGroupName="/vpn")["logStreams"]
    assert endpoint_id in [stream["logStreamName"] for stream in streams], "one of its own, where none is named"
    api.ec2.modify_client_vpn_endpoint(
        ClientVpnEndpointId=endpoint_id, ConnectionLogOptions={"Enabled": False}, DnsServers={"Enabled": False}
    )
    shown = api.describe(endpoint_id)
    assert (shown["ConnectionLogOptions"], shown["DnsServers"]) == ({"Enabled": False}, [])


def test_it_listens_within_a_second_and_leaves_the_host_clean(api: Api, arn: str) -> None:
    def sockets() -> str:
        return api.gateway.namespace.run("ss", "-lun").stdout

    def devices() -> int:
        return api.gateway.namespace.run("ip", "-brief", "link").stdout.count("cvpn")

    before = sockets(), devices()
    began = time.monotonic()
    endpoint_id = api.create(arn)
    took = time.monotonic() - began
    assert ":443 " in sockets() and devices() == before[1] + 1
    api.ec2.delete_client_vpn_endpoint(ClientVpnEndpointId=endpoint_id)
    assert (sockets(), devices()) == before
    assert api.describe(endpoint_id)["Status"]["Code"] == "deleted", "to whoever waits for that by its id"
    assert endpoint_id not in [
        e["ClientVpnEndpointId"] for e in api.ec2.describe_client_vpn_endpoints()["ClientVpnEndpoints"]
    ]
    gone = {"ClientVpnEndpointId": endpoint_id}
    for call in (api.ec2.delete_client_vpn_endpoint, api.ec2.describe_client_vpn_routes):
        assert code_of(lambda call=call: call(**gone)) == "InvalidClientVpnEndpointId.NotFound"
    assert took < 5, "seconds, where a second is meant and a loaded machine is not"
    assert not list((api.gateway.directory / "managed").glob("*")), "nothing of its key is left"


def test_a_second_endpoint_gets_the_next_address_until_there_is_none(api: Api, arn: str) -> None:
    api.create(arn)
    api.create(arn, "10.101.0.0/22")
    listed = api.gateway.ctl_json("endpoint", "list")
    assert [each["listen"] for each in listed][1:] == [["udp://192.0.2.1:443"], ["udp://10.20.0.1:443"]]
    full = {"EndpointIpAddressType": "ipv4"}
    assert code_of(lambda: api.create(arn, "10.102.0.0/22", **full)) == "InvalidParameterValue"


def test_what_is_wrong_is_refused_and_leaves_nothing(api: Api, arn: str) -> None:
    none = "arn:aws:acm:eu-central-1:000000000000:certificate/none"
    nameless = api.import_certificate(certs.server(), CertificateChain=None)
    for more, code in (
        ({"ClientCidrBlock": "10.20.4.0/22"}, "InvalidParameterValue"),  # the vpc's
        ({"ClientCidrBlock": "10.200.0.0/22"}, "InvalidParameterValue"),  # the file's endpoint's
        ({"ClientCidrBlock": "10.100.0.0/24"}, "InvalidParameterValue"),
        ({"ClientCidrBlock": "10.0.0.0/8"}, "InvalidParameterValue"),
        ({"ClientCidrBlock": "10.100.0.1/22"}, "InvalidParameterValue"),
        ({"ClientCidrBlock": "nonsense"}, "InvalidParameterValue"),
        ({"VpnPort": 80}, "InvalidParameterValue"),
        ({"TransportProtocol": "sctp"}, "InvalidParameterValue"),
        ({"DnsServers": ["10.20.0.2", "10.20.0.3", "10.20.0.4"]}, "InvalidParameterValue"),
        ({"DnsServers": ["ns.example.com"]}, "InvalidParameterValue"),
        ({"VpcId": "vpc-none"}, "InvalidVpcID.NotFound"),
        ({"Description": "two\nlines"}, "InvalidParameterValue"),
        ({"ServerCertificateArn": none}, "InvalidParameterValue"),
        (
            {"ConnectionLogOptions": {"Enabled": True, "CloudwatchLogGroup": "no", "CloudwatchLogStream": "no"}},
            "InvalidParameterValue",
        ),
        ({"ConnectionLogOptions": {"Enabled": True, "CloudwatchLogGroup": "no"}}, "InvalidParameterValue"),
        ({"ConnectionLogOptions": {"Enabled": True}}, "MissingParameter"),
        ({"SelfServicePortal": "enabled"}, "InvalidParameterValue"),  # it asks for certificates only
        ({"SelfServicePortal": "on"}, "InvalidParameterValue"),
        ({"ClientLoginBannerOptions": {"Enabled": True, "BannerText": "x" * 1401}}, "InvalidParameterValue"),
        ({"ClientLoginBannerOptions": {"Enabled": True}}, "MissingParameter"),
        ({"SessionTimeoutHours": 9}, "InvalidParameterValue"),
        ({"ClientConnectOptions": {"Enabled": True}}, "MissingParameter"),
        ({"ClientConnectOptions": {"LambdaFunctionArn": CHECK}}, "MissingParameter"),  # on or off?
        ({"ClientLoginBannerOptions": {"BannerText": "Hello"}}, "MissingParameter"),
        ({"DevicePostureOptions": {"TrustProviders": [{"TrustProviderType": "jamf"}]}}, "UnsupportedOperation"),
        ({"TrafficIpAddressType": "ipv6"}, "UnsupportedOperation"),
        (
            {"ClientConnectOptions": {"Enabled": True, "LambdaFunctionArn": "AWSClientVPN-check"}},
            "InvalidParameterValue",
        ),
        ({"ClientConnectOptions": {"Enabled": True, "LambdaFunctionArn": CHECK + "er"}}, "InvalidParameterValue"),
        ({"TransitGatewayConfiguration": {"TransitGatewayId": "tgw-1"}}, "UnsupportedOperation"),
        ({"AuthenticationOptions": [{"Type": "federated-authentication"}]}, "MissingParameter"),
        (
            {"AuthenticationOptions": [by_browser("arn:aws:iam::000000000000:saml-provider/no")]},
            "InvalidParameterValue",
        ),
        ({"AuthenticationOptions": [by_directory("local"), by_browser("x")]}, "InvalidParameterCombination"),
        ({"AuthenticationOptions": []}, "MissingParameter"),
        ({"AuthenticationOptions": [{"Type": "certificate-authentication"}]}, "MissingParameter"),
        ({"AuthenticationOptions": [mutual(none)]}, "InvalidParameterValue"),
        ({"AuthenticationOptions": [mutual(nameless)]}, "InvalidParameterValue"),  # it has no authority in it
        ({"AuthenticationOptions": [mutual(arn), mutual(arn)]}, "InvalidParameterValue"),
        ({"AuthenticationOptions": [{"Type": "directory-service-authentication"}]}, "MissingParameter"),
        ({"AuthenticationOptions": [by_directory("d-none")]}, "InvalidParameterValue"),
        ({"AuthenticationOptions": [mutual(arn), by_directory("d-none")]}, "InvalidParameterValue"),
        (
            {"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a", "Value": "b"}]}]},
            "InvalidParameterValue",
        ),
    ):
        assert code_of(lambda more=more: api.create(arn, **more)) == code, more
    assert len(api.ec2.describe_client_vpn_endpoints()["ClientVpnEndpoints"]) == 1


def test_a_directory_lets_users_in_without_certificates(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn, AuthenticationOptions=[by_directory("local")])}
    (method,) = api.describe(name["ClientVpnEndpointId"])["AuthenticationOptions"]
    assert method == {"Type": "directory-service-authentication", "ActiveDirectory": {"DirectoryId": "local"}}
    profile = api.ec2.export_client_vpn_client_configuration(**name)["ClientConfiguration"]
    assert "\nauth-user-pass\n" in profile
    pem = certs.crl_pem(certs.certificate_revocation_list()).decode()
    assert (
        code_of(
            lambda: api.ec2.import_client_vpn_client_certificate_revocation_list(**name, CertificateRevocationList=pem)
        )
        == "InvalidParameterValue"
    )


def test_an_identity_provider_lets_users_in_and_cannot_go_meanwhile(api: Api, arn: str) -> None:
    idp, portal = (
        api.iam.create_saml_provider(Name=name, SAMLMetadataDocument=saml_idp.metadata())["SAMLProviderArn"]
        for name in ("idp", "portal")
    )
    alone = api.create(arn, AuthenticationOptions=[by_browser(idp)])
    both = api.create(
        arn, "10.101.0.0/22", AuthenticationOptions=[mutual(arn), by_browser(idp, SelfServiceSAMLProviderArn=portal)]
    )
    assert api.describe(alone)["AuthenticationOptions"] == [
        {"Type": "federated-authentication", "FederatedAuthentication": {"SamlProviderArn": idp}}
    ]
    assert api.describe(both)["AuthenticationOptions"][1]["FederatedAuthentication"] == {
        "SamlProviderArn": idp,
        "SelfServiceSamlProviderArn": portal,
    }
    profile = api.ec2.export_client_vpn_client_configuration(ClientVpnEndpointId=alone)["ClientConfiguration"]
    assert "\nauth-federate\n" in profile
    for used in (idp, portal):
        assert code_of(lambda used=used: api.iam.delete_saml_provider(SAMLProviderArn=used)) == "DeleteConflict"
    for endpoint in (alone, both):
        api.ec2.delete_client_vpn_endpoint(ClientVpnEndpointId=endpoint)
    for used in (idp, portal):
        api.iam.delete_saml_provider(SAMLProviderArn=used)


def test_an_identity_provider_of_the_file_has_an_arn_and_is_not_changed(api: Api, arn: str) -> None:
    corp = "arn:aws:iam::000000000000:saml-provider/corp"
    assert [each["Arn"] for each in api.iam.list_saml_providers()["SAMLProviderList"]] == [corp]
    assert api.iam.get_saml_provider(SAMLProviderArn=corp)["SAMLMetadataDocument"] == saml_idp.metadata()
    endpoint_id = api.create(arn, AuthenticationOptions=[by_browser(corp)])
    (method,) = api.describe(endpoint_id)["AuthenticationOptions"]
    assert method["FederatedAuthentication"] == {"SamlProviderArn": corp}
    given = {"SAMLMetadataDocument": saml_idp.metadata()}
    assert code_of(lambda: api.iam.create_saml_provider(Name="corp", **given)) == "EntityAlreadyExists"
    assert code_of(lambda: api.iam.update_saml_provider(SAMLProviderArn=corp, **given)) == "InvalidInput"
    assert code_of(lambda: api.iam.delete_saml_provider(SAMLProviderArn=corp)) == "InvalidInput"
    ctl = api.gateway.ctl
    assert f"{corp}  file" in ctl("saml-provider", "list").stdout
    assert "is declared in" in ctl("saml-provider", "delete", corp, check=False).stderr
    assert ctl("saml-provider", "show", corp).stdout.strip() == saml_idp.metadata().strip()
    api.gateway.write_config(TOML.replace('id = "corp"', 'id = "other"'))
    assert f"logs people in by {corp}, which" in ctl("reload", check=False).stderr
    api.gateway.write_config(TOML)
    ctl("reload")


def test_an_endpoint_with_ipv6_says_so(api: Api, arn: str) -> None:
    trust = ("--server-certificate", arn, "--client-certificate", arn, "--set", "client_cidr_v6=fd00:77::/64")
    both = ("--set", 'listen=["udp://0.0.0.0:1777", "udp://[::]:1777"]')
    made = api.gateway.ctl_json("endpoint", "create", "10.110.0.0/22", *trust, *both)
    shown = api.describe(made["endpoint_id"])
    assert (shown["EndpointIpAddressType"], shown["TrafficIpAddressType"]) == ("dual-stack", "dual-stack")


def test_address_types_are_what_is_listened_on_and_what_clients_get(api: Api, arn: str) -> None:
    def types(endpoint: str) -> tuple[str, str, int]:
        shown = api.describe(endpoint)
        return shown["EndpointIpAddressType"], shown["TrafficIpAddressType"], shown["VpnPort"]

    assert code_of(lambda: api.create(arn, TrafficIpAddressType="ipv6")) == "UnsupportedOperation"
    both = api.create(arn, EndpointIpAddressType="dual-stack", TrafficIpAddressType="dual-stack")
    assert types(both) == ("dual-stack", "dual-stack", 443)
    (settings,) = [e for e in api.gateway.ctl_json("endpoint", "list") if e["endpoint_id"] == both]
    assert settings["client_cidr_v6"].startswith("fd") and settings["client_cidr_v6"].endswith("/64")
    api.ec2.modify_client_vpn_endpoint(ClientVpnEndpointId=both, VpnPort=1194)
    assert types(both) == ("dual-stack", "dual-stack", 1194)
    listening = api.gateway.namespace.run("ss", "-lunH").stdout
    assert "192.0.2.1:1194 " in listening and "[2001:db8:1::1]:1194 " in listening
    only = api.create(arn, "10.104.0.0/22", EndpointIpAddressType="ipv6", TrafficIpAddressType="ipv4")
    assert types(only) == ("ipv6", "ipv4", 443)
    plain = api.create(arn, "10.108.0.0/22", EndpointIpAddressType="ipv4")
    assert types(plain) == ("ipv4", "ipv4", 443)
    for endpoint in (both, only, plain):
        profile = api.ec2.export_client_vpn_client_configuration(ClientVpnEndpointId=endpoint)["ClientConfiguration"]
        assert "vpn.example.com" in profile


def test_the_files_endpoint_is_shown_and_not_changed(api: Api, arn: str) -> None:
    (shown,) = api.ec2.describe_client_vpn_endpoints()["ClientVpnEndpoints"]
    name = {"ClientVpnEndpointId": shown["ClientVpnEndpointId"]}
    assert (shown["VpnPort"], shown["Status"]["Code"]) == (1195, "available")
    for change in (
        lambda: api.ec2.modify_client_vpn_endpoint(**name, Description="x"),
        lambda: api.ec2.delete_client_vpn_endpoint(**name),
        lambda: api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-c"),
        lambda: api.ec2.create_client_vpn_route(
            **name, DestinationCidrBlock="10.50.0.0/16", TargetVpcSubnetId="subnet-a"
        ),
        lambda: api.ec2.revoke_client_vpn_ingress(**name, TargetNetworkCidr="10.20.0.0/16", RevokeAllGroups=True),
        lambda: api.ec2.create_tags(Resources=list(name.values()), Tags=[{"Key": "a", "Value": "b"}]),
    ):
        with pytest.raises(ClientError, match=r"IncorrectState.*cvpnd\.toml"):
            change()


def test_an_unknown_endpoint_is_not_found_whatever_is_asked_of_it(api: Api) -> None:
    name = {"ClientVpnEndpointId": "cvpn-endpoint-00000000000000000"}
    for call in (
        lambda: api.ec2.describe_client_vpn_endpoints(ClientVpnEndpointIds=list(name.values())),
        lambda: api.ec2.describe_client_vpn_routes(**name),
        lambda: api.ec2.describe_client_vpn_connections(**name),
        lambda: api.ec2.delete_client_vpn_endpoint(**name),
        lambda: api.ec2.export_client_vpn_client_configuration(**name),
        lambda: api.ec2.authorize_client_vpn_ingress(**name, TargetNetworkCidr="10.0.0.0/8", AuthorizeAllGroups=True),
    ):
        assert code_of(call) == "InvalidClientVpnEndpointId.NotFound"


def test_quota_dry_run_and_client_token(api: Api, arn: str) -> None:
    assert code_of(lambda: api.create(arn, DryRun=True)) == "DryRunOperation"
    assert code_of(lambda: api.create(arn, "10.20.0.0/22", DryRun=True)) == "InvalidParameterValue"
    assert len(api.ec2.describe_client_vpn_endpoints()["ClientVpnEndpoints"]) == 1
    assert code_of(lambda: api.create(arn, ClientToken="t" * 65)) == "InvalidParameterValue"
    first = api.create(arn, ClientToken="once")
    assert api.create(arn, ClientToken="once") == first
    assert code_of(lambda: api.create(arn, "10.101.0.0/22", ClientToken="once")) == "IdempotentParameterMismatch"
    api.create(arn, "10.101.0.0/22")
    api.create(arn, "10.102.0.0/22", TransportProtocol="tcp")
    with pytest.raises(ClientError, match=r"ClientVpnEndpointLimitExceeded.*quotas\.endpoints"):
        api.create(arn, "10.103.0.0/22", TransportProtocol="tcp")


# -- networks, routes, rules --------------------------------------------------------------------------------


def test_associations_carry_their_rules(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def associate(subnet: str, **more: Any) -> dict[str, Any]:
        return api.ec2.associate_client_vpn_target_network(**name, SubnetId=subnet, **more)

    assert code_of(lambda: associate("subnet-none")) == "InvalidSubnetID.NotFound"
    assert code_of(lambda: associate("subnet-small")) == "InvalidParameterValue"
    assert code_of(lambda: associate("subnet-a", AvailabilityZone="a")) == "UnsupportedOperation"
    first = associate("subnet-a", ClientToken="t")
    again = associate("subnet-a", ClientToken="t")
    assert (first["Status"]["Code"], again["AssociationId"]) == ("associating", first["AssociationId"])
    assert code_of(lambda: associate("subnet-a")) == "InvalidClientVpnDuplicateAssociationException"
    assert code_of(lambda: associate("subnet-a2")) == "InvalidClientVpnSubnetId.DuplicateAz"
    assert code_of(lambda: associate("subnet-b")) == "InvalidParameterValue"
    second = associate("subnet-c")
    networks = api.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]
    assert [(n["TargetNetworkId"], n["VpcId"], n["Status"]["Code"]) for n in networks] == [
        ("subnet-a", "vpc-main", "associated"),
        ("subnet-c", "vpc-main", "associated"),
    ]
    shown = api.describe(name["ClientVpnEndpointId"])
    assert (shown["Status"]["Code"], shown["VpcId"]) == ("available", "vpc-main")
    assert [n["NetworkId"] for n in shown["AssociatedTargetNetworks"]] == ["subnet-a", "subnet-c"]
    assert code_of(lambda: api.ec2.delete_client_vpn_endpoint(**name)) == "DependencyViolation"
    only = api.ec2.describe_client_vpn_target_networks(**name, AssociationIds=[second["AssociationId"]])
    assert len(only["ClientVpnTargetNetworks"]) == 1
    by_vpc = [{"Name": "vpc-id", "Values": ["vpc-o*"]}]
    assert api.ec2.describe_client_vpn_target_networks(**name, Filters=by_vpc)["ClientVpnTargetNetworks"] == []
    gone = api.ec2.disassociate_client_vpn_target_network(**name, AssociationId=first["AssociationId"])
    assert gone["Status"]["Code"] == "disassociating"
    assert (
        code_of(lambda: api.ec2.disassociate_client_vpn_target_network(**name, AssociationId=first["AssociationId"]))
        == "InvalidClientVpnAssociationIdNotFound"
    )


def test_routes(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def create(cidr: str, subnet: str, **more: Any) -> dict[str, Any]:
        return api.ec2.create_client_vpn_route(**name, DestinationCidrBlock=cidr, TargetVpcSubnetId=subnet, **more)

    def delete(cidr: str, **more: Any) -> dict[str, Any]:
        return api.ec2.delete_client_vpn_route(**name, DestinationCidrBlock=cidr, **more)

    assert code_of(lambda: create("10.50.0.0/16", "subnet-a")) == "InvalidClientVpnActiveAssociationNotFound"
    api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-a")
    second = api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-c")["AssociationId"]
    assert create("10.50.0.0/16", "subnet-a", Description="branch")["Status"]["Code"] == "creating"
    create("10.50.0.0/16", "subnet-c")
    create("10.100.0.0/22", "local")
    routes = api.ec2.describe_client_vpn_routes(**name)["Routes"]
    assert [(r["DestinationCidr"], r["TargetSubnet"], r["Origin"], r["Status"]["Code"]) for r in routes] == [
        ("10.20.0.0/16", "subnet-a", "associate", "active"),
        ("10.20.0.0/16", "subnet-c", "associate", "active"),
        ("10.50.0.0/16", "subnet-a", "add-route", "active"),
        ("10.50.0.0/16", "subnet-c", "add-route", "active"),
        ("10.100.0.0/22", "local", "add-route", "active"),
    ]
    assert routes[2]["Description"] == "branch"
    assert code_of(lambda: create("10.50.0.0/16", "subnet-a")) == "InvalidClientVpnDuplicateRoute"
    assert code_of(lambda: create("10.20.0.0/16", "subnet-a")) == "InvalidClientVpnDuplicateRoute"
    assert code_of(lambda: create("10.100.1.0/24", "subnet-a")) == "InvalidParameterValue"
    assert code_of(lambda: create("10.99.0.0/24", "local")) == "InvalidParameterValue"
    assert code_of(lambda: create("10.51.0.0/16", "subnet-a")) == "ClientVpnRouteLimitExceeded"
    assert code_of(lambda: delete("10.20.0.0/16", TargetVpcSubnetId="subnet-a")) == "OperationNotPermitted"
    assert code_of(lambda: delete("10.77.0.0/16")) == "InvalidClientVpnRouteNotFound"
    assert code_of(lambda: delete("10.50.0.0/16")) == "MissingParameter"
    filters = [{"Name": "origin", "Values": ["add-route"]}, {"Name": "target-subnet", "Values": ["subnet-?"]}]
    assert len(api.ec2.describe_client_vpn_routes(**name, Filters=filters)["Routes"]) == 2
    unknown = [{"Name": "colour", "Values": ["red"]}]
    assert code_of(lambda: api.ec2.describe_client_vpn_routes(**name, Filters=unknown)) == "InvalidParameterValue"
    table = api.gateway.namespace.run("ip", "route", "show", "table", "all").stdout
    assert "10.50.0.0/16 " in table
    api.ec2.disassociate_client_vpn_target_network(**name, AssociationId=second)
    (network,) = api.ec2.describe_client_vpn_target_networks(**name, AssociationIds=[second])["ClientVpnTargetNetworks"]
    assert (network["AssociationId"], network["Status"]["Code"]) == (second, "disassociated")
    assert len(api.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]) == 1
    left = [r["TargetSubnet"] for r in api.ec2.describe_client_vpn_routes(**name)["Routes"]]
    assert left == ["subnet-a", "subnet-a", "local"], "manual routes go with their association"


def test_rules_and_pages(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def authorize(cidr: str, **whom: Any) -> dict[str, Any]:
        return api.ec2.authorize_client_vpn_ingress(**name, TargetNetworkCidr=cidr, **whom)

    everybody = {"AuthorizeAllGroups": True}
    assert authorize("10.20.0.0/16", **everybody, Description="all")["Status"]["Code"] == "authorizing"
    for group in ("eng", "ops"):
        authorize("10.20.0.0/16", AccessGroupId=group)
    assert (
        code_of(lambda: authorize("10.20.0.0/16", AccessGroupId="eng")) == "InvalidClientVpnDuplicateAuthorizationRule"
    )
    assert code_of(lambda: authorize("10.21.0.0/16")) == "InvalidParameterCombination"
    assert code_of(lambda: authorize("10.21.0.0/16", AccessGroupId="g", **everybody)) == "InvalidParameterCombination"
    assert code_of(lambda: authorize("10.21.0.1/16", **everybody)) == "InvalidParameterValue"
    assert code_of(lambda: authorize("10.21.0.0", **everybody)) == "InvalidParameterValue"
    for words in ({"Description": "x" * 256}, {"Description": "two\nlines"}):
        assert code_of(lambda words=words: authorize("10.21.0.0/16", **everybody, **words)) == "InvalidParameterValue"
    for group in ("a\x00b", "g" * 256):
        assert code_of(lambda group=group: authorize("10.21.0.0/16", AccessGroupId=group)) == "InvalidParameterValue"
    assert code_of(lambda: authorize("10.21.0.0/16", **everybody, DryRun=True)) == "DryRunOperation"
    for number in (21, 22):
        authorize(f"10.{number}.0.0/16", **everybody)
    assert code_of(lambda: authorize("10.23.0.0/16", **everybody)) == "ClientVpnAuthorizationRuleLimitExceeded"
    rules = api.ec2.describe_client_vpn_authorization_rules(**name)["AuthorizationRules"]
    assert [(r["DestinationCidr"], r["GroupId"], r["AccessAll"], r["Status"]["Code"]) for r in rules][:3] == [
        ("10.20.0.0/16", "", True, "active"),
        ("10.20.0.0/16", "eng", False, "active"),
        ("10.20.0.0/16", "ops", False, "active"),
    ]
    assert rules[0]["Description"] == "all"
    assert (
        code_of(lambda: api.ec2.describe_client_vpn_authorization_rules(**name, MaxResults=5, NextToken="bent"))
        == "InvalidNextToken"
    )
    pages = api.ec2.get_paginator("describe_client_vpn_authorization_rules").paginate(
        **name, PaginationConfig={"PageSize": 5}
    )
    assert [len(page["AuthorizationRules"]) for page in pages] == [5]

    def revoke(cidr: str, **whom: Any) -> dict[str, Any]:
        return api.ec2.revoke_client_vpn_ingress(**name, TargetNetworkCidr=cidr, **whom)

    assert revoke("10.20.0.0/16", RevokeAllGroups=True)["Status"]["Code"] == "revoking"
    missing = "InvalidClientVpnEndpointAuthorizationRuleNotFound"
    assert code_of(lambda: revoke("10.20.0.0/16", RevokeAllGroups=True)) == missing
    revoke("10.20.0.0/16", AccessGroupId="eng")
    by_group = [{"Name": "group-id", "Values": ["ops"]}]
    (left,) = api.ec2.describe_client_vpn_authorization_rules(**name, Filters=by_group)["AuthorizationRules"]
    assert left["DestinationCidr"] == "10.20.0.0/16"


def test_the_networks_of_the_file(api: Api) -> None:
    assert [vpc["VpcId"] for vpc in api.ec2.describe_vpcs()["Vpcs"]] == ["vpc-main", "vpc-other"]
    in_other = [{"Name": "vpc-id", "Values": ["vpc-other"]}]
    (subnet,) = api.ec2.describe_subnets(Filters=in_other)["Subnets"]
    assert (subnet["SubnetId"], subnet["CidrBlock"], subnet["State"]) == ("subnet-b", "10.30.0.0/24", "available")
    assert code_of(lambda: api.ec2.describe_vpcs(VpcIds=["vpc-none"])) == "InvalidVpcID.NotFound"
    assert code_of(lambda: api.ec2.describe_subnets(SubnetIds=["subnet-none"])) == "InvalidSubnetID.NotFound"


def test_security_groups(api: Api, arn: str) -> None:
    web, _, _, *defaults = api.ec2.describe_security_groups()["SecurityGroups"]
    assert (web["GroupId"], web["GroupName"], web["VpcId"], web["Description"]) == (
        "sg-web", "sg-web", "vpc-main", "the web",
    )  # fmt: skip
    https, v6 = web["IpPermissionsEgress"]
    assert (https["IpProtocol"], https["FromPort"], https["ToPort"]) == ("tcp", 443, 443)
    assert https["IpRanges"] == [{"CidrIp": "10.20.0.0/16", "Description": "https"}]
    assert (v6["IpProtocol"], v6["Ipv6Ranges"]) == ("-1", [{"CidrIpv6": "::/0"}])
    assert [(group["GroupName"], group["VpcId"]) for group in defaults] == [
        ("default", "vpc-main"), ("default", "vpc-other"),
    ]  # fmt: skip
    in_main = [{"Name": "group-name", "Values": ["default"]}, {"Name": "vpc-id", "Values": ["vpc-main"]}]
    (default,) = [each["GroupId"] for each in api.ec2.describe_security_groups(Filters=in_main)["SecurityGroups"]]
    assert code_of(lambda: api.ec2.describe_security_groups(GroupIds=["sg-no"])) == "InvalidGroup.NotFound"
    (found,) = api.ec2.describe_security_groups(GroupNames=["sg-third"])["SecurityGroups"]
    assert found["GroupId"] == "sg-third"
    assert code_of(lambda: api.ec2.describe_security_groups(GroupNames=["sg-no"])) == "InvalidGroup.NotFound"
    assert code_of(lambda: api.create(arn, SecurityGroupIds=["sg-no"])) == "InvalidParameterValue"
    without = {"ClientVpnEndpointId": api.create(arn, "10.101.0.0/22")}
    api.ec2.associate_client_vpn_target_network(**without, SubnetId="subnet-a")
    assert api.describe(without["ClientVpnEndpointId"])["SecurityGroupIds"] == [default]
    (network,) = api.ec2.describe_client_vpn_target_networks(**without)["ClientVpnTargetNetworks"]
    assert network["SecurityGroups"] == [default]
    endpoint_id = api.create(arn, SecurityGroupIds=["sg-web"], VpcId="vpc-main")
    assert api.describe(endpoint_id)["SecurityGroupIds"] == ["sg-web"]
    name = {"ClientVpnEndpointId": endpoint_id}
    groups = {"VpcId": "vpc-main", "SecurityGroupIds": ["sg-other"]}
    apply = api.ec2.apply_security_groups_to_client_vpn_target_network
    assert code_of(lambda: apply(**name, **groups)) == "InvalidVpcID.NotFound"
    api.ec2.associate_client_vpn_target_network(**name, SubnetId="subnet-a")
    assert code_of(lambda: apply(**name, **groups)) == "InvalidParameterValue", "of another vpc"
    assert apply(**name, VpcId="vpc-main", SecurityGroupIds=["sg-web"])["SecurityGroupIds"] == ["sg-web"]
    (network,) = api.ec2.describe_client_vpn_target_networks(**name)["ClientVpnTargetNetworks"]
    assert network["SecurityGroups"] == ["sg-web"]
    apply(**name, VpcId="vpc-main", SecurityGroupIds=[default])
    assert api.describe(endpoint_id)["SecurityGroupIds"] == [default]


def test_tags(api: Api, arn: str) -> None:
    endpoint_id = api.create(arn)
    api.ec2.create_tags(Resources=[endpoint_id], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    api.ec2.create_tags(Resources=[endpoint_id], Tags=[{"Key": "a", "Value": "3"}])
    api.ec2.delete_tags(Resources=[endpoint_id], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
    assert api.ec2.describe_tags()["Tags"] == [
        {"Key": "a", "Value": "3", "ResourceId": endpoint_id, "ResourceType": "client-vpn-endpoint"}
    ]
    found = api.ec2.describe_client_vpn_endpoints(Filters=[{"Name": "tag:a", "Values": ["3"]}])["ClientVpnEndpoints"]
    assert [each["ClientVpnEndpointId"] for each in found] == [endpoint_id]
    reserved = [{"Key": "aws:x", "Value": ""}]
    assert code_of(lambda: api.ec2.create_tags(Resources=[endpoint_id], Tags=reserved)) == "InvalidParameterValue"
    more = [{"Key": "c", "Value": "4"}]
    for other, code in (("cvpn-endpoint-0", "InvalidClientVpnEndpointId.NotFound"), ("vpc-main", "InvalidID")):
        assert code_of(lambda other=other: api.ec2.create_tags(Resources=[endpoint_id, other], Tags=more)) == code
    too_many = [{"Key": f"k{number}", "Value": ""} for number in range(51)]
    assert code_of(lambda: api.ec2.create_tags(Resources=[endpoint_id], Tags=too_many)) == "TagLimitExceeded"
    assert (
        code_of(
            lambda: api.create(
                arn, "10.101.0.0/22", TagSpecifications=[{"ResourceType": "client-vpn-endpoint", "Tags": too_many}]
            )
        )
        == "TagLimitExceeded"
    )
    assert [tag["Key"] for tag in api.ec2.describe_tags()["Tags"]] == ["a"], "of several resources all or none"
    assert code_of(lambda: api.ec2.describe_tags(MaxResults=-1)) == "InvalidParameterValue"


def test_a_filter_is_read_as_ec2_documents_it(api: Api, arn: str) -> None:
    resource = [api.create(arn)]
    tags = {"plain": "a*c", "a=b": "c", "länge": "größer 🙂", "path": "C:\\x", "long": "a" * 256}
    api.ec2.create_tags(Resources=resource, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])

    def found(name: str, *values: str) -> set[str]:
        return {tag["Key"] for tag in api.ec2.describe_tags(Filters=[{"Name": name, "Values": values}])["Tags"]}

    for value, keys in {
        "a?c": {"plain"},
        "a\\?c": set(),
        "a\\*c": {"plain"},
        "[a-c]": set(),
        "A*": set(),
        "gr??er *": {"länge"},
        "C:\\\\x": {"path"},
        "*a" * 60 + "b": set(),
        "*a*": {"plain", "long"},
    }.items():
        assert found("value", value) == keys, value
    assert found("key", "a=b") == found("tag:a=b", "c") == {"a=b"}
    assert found("tag:a", "b=c") == found("tag:plain") == set()
    assert found("key", "plain", "länge") == {"plain", "länge"}
    shown = api.ec2.describe_client_vpn_endpoints(Filters=[{"Name": "tag-key", "Values": ["a=*"]}])
    assert {tag["Key"]: tag["Value"] for tag in shown["ClientVpnEndpoints"][0]["Tags"]} == tags
    assert code_of(lambda: found("colour", "red")) == "InvalidParameterValue"
    assert found("value", *("*x*" * 80 + str(number) for number in range(198)), "a[*]c", "a?c") == {"plain"}
    assert code_of(lambda: found("value", *map(str, range(201)))) == "FilterLimitExceeded"
    assert code_of(lambda: found("value", "*a" * 128)) == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("bad", "told"), [("a\0b", "has a character in it that is none"), ("\ud800", "is half of a character")]
)
def test_text_that_no_database_takes_is_refused_in_words(api: Api, arn: str, bad: str, told: str) -> None:
    with pytest.raises(ClientError, match=told) as refused:
        api.acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "k", "Value": bad}])
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    if bad.isascii():  # a form has no surrogates
        assert code_of(lambda: api.create(arn, ClientToken=bad)) == "InvalidParameterValue"
        resources = [api.create(arn)]
        more = [{"Key": bad, "Value": ""}]
        assert code_of(lambda: api.ec2.create_tags(Resources=resources, Tags=more)) == "InvalidParameterValue"


# -- certificates, revocation, profile ----------------------------------------------------------------------


def test_certificates(api: Api, arn: str) -> None:
    shown = api.acm.describe_certificate(CertificateArn=arn)["Certificate"]
    assert (shown["CertificateArn"], shown["Type"], shown["Status"], shown["InUseBy"]) == (
        arn,
        "IMPORTED",
        "ISSUED",
        [],
    )
    got = api.acm.get_certificate(CertificateArn=arn)
    assert got["Certificate"].encode() == certs.server().certificate_pem
    assert got["CertificateChain"].encode() == certs.authority().certificate_pem
    endpoint_id = api.create(arn)
    assert code_of(lambda: api.acm.delete_certificate(CertificateArn=arn)) == "ResourceInUseException"
    assert api.acm.describe_certificate(CertificateArn=arn)["Certificate"]["InUseBy"][0].endswith(endpoint_id)
    keys = {"keyTypes": ["EC_prime256v1"]}
    assert len(api.acm.list_certificates(Includes=keys)["CertificateSummaryList"]) == 1
    assert api.acm.list_certificates(Includes={"keyTypes": ["RSA_2048"]})["CertificateSummaryList"] == []
    renewed = certs.server("other.example.com")
    assert api.import_certificate(renewed, CertificateArn=arn) == arn
    profile = api.ec2.export_client_vpn_client_configuration(ClientVpnEndpointId=endpoint_id)["ClientConfiguration"]
    assert 'verify-x509-name "other.example.com" name' in profile, "a certificate that is in use is shown at once"
    api.acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "a", "Value": "1"}])
    assert api.acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    api.acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "a"}])
    assert api.acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == []
    other = arn[:-4] + "0000"
    assert code_of(lambda: api.acm.describe_certificate(CertificateArn=other)) == "ResourceNotFoundException"
    assert code_of(lambda: api.import_certificate(CertificateArn=other)) == "ResourceNotFoundException"
    assert (
        code_of(lambda: api.acm.describe_certificate(CertificateArn="arn:aws:acm:nothing:at:all"))
        == "InvalidArnException"
    )


def test_a_certificate_that_cannot_serve_is_not_imported(api: Api) -> None:
    whole = {
        "Certificate": certs.server().certificate_pem,
        "PrivateKey": certs.server().private_key_pem,
        "CertificateChain": certs.authority().certificate_pem,
    }
    for parts in (
        {"Certificate": b"nonsense"},
        {"PrivateKey": b"nonsense"},
        {"PrivateKey": certs.client("eve").private_key_pem},
        {"CertificateChain": b"-----BEGIN CERTIFICATE-----\n"},
        {"CertificateChain": certs.client("eve").certificate_pem},
    ):
        refused = code_of(lambda parts=parts: api.acm.import_certificate(**{**whole, **parts}))
        assert refused == "ValidationException", parts.keys()
    assert api.acm.list_certificates()["CertificateSummaryList"] == []


def test_a_revocation_list_is_taken_if_it_is_whole_and_of_the_right_authority(api: Api, arn: str) -> None:
    name = {"ClientVpnEndpointId": api.create(arn)}

    def load(pem: str) -> Any:
        return api.ec2.import_client_vpn_client_certificate_revocation_list(**name, CertificateRevocationList=pem)

    exported = api.ec2.export_client_vpn_client_certificate_revocation_list(**name)
    assert exported["Status"]["Code"] == "pending"
    pem = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client("bob")])).decode()
    assert load(pem)["Return"] is True
    exported = api.ec2.export_client_vpn_client_certificate_revocation_list(**name)
    assert (exported["CertificateRevocationList"], exported["Status"]["Code"]) == (pem, "active")
    assert code_of(lambda: load(pem[:-40])) == "InvalidParameterValue"
    assert code_of(lambda: load("nonsense")) == "InvalidParameterValue"
    many = certs.certificate_revocation_list(revoked=[certs.client(f"client{n}") for n in range(4)])
    assert code_of(lambda: load(certs.crl_pem(many).decode())) == "ClientVpnCertificateRevocationListLimitExceeded"
    assert api.ec2.export_client_vpn_client_certificate_revocation_list(**name)["CertificateRevocationList"] == pem


def test_the_profile(api: Api, arn: str) -> None:
    endpoint_id = api.create(arn, TransportProtocol="tcp")
    profile = api.ec2.export_client_vpn_client_configuration(ClientVpnEndpointId=endpoint_id)["ClientConfiguration"]
    lines = profile.splitlines()
    assert "remote vpn.example.com 443 tcp" in lines and "remote-random-hostname" in lines
    assert "remote-cert-tls server" in lines and certs.authority().certificate_pem.decode().strip() in profile
    assert not [
        line for line in lines if line.split(" ")[0] in ("script-security", "up", "down", "plugin", "cert", "key")
    ]


# -- logs, identity, access ---------------------------------------------------------------------------------


def test_log_groups_and_streams(api: Api) -> None:
    assert (
        code_of(lambda: api.logs.create_log_stream(logGroupName="/none", logStreamName="s"))
        == "ResourceNotFoundException"
    )
    api.logs.create_log_group(logGroupName="/aws/test")
    assert code_of(lambda: api.logs.create_log_group(logGroupName="/aws/test")) == "ResourceAlreadyExistsException"
    for name in ("../../etc/passwd", "b"):
        api.logs.create_log_stream(logGroupName="/aws/test", logStreamName=name)
    streams = api.logs.describe_log_streams(logGroupName="/aws/test")["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["../../etc/passwd", "b"]
    by_time = {"logGroupName": "/aws/test", "orderBy": "LastEventTime"}
    streams = api.logs.describe_log_streams(**by_time, descending=True)["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["b", "../../etc/passwd"]
    for call in (
        lambda: api.logs.describe_log_streams(**by_time, logStreamNamePrefix="b"),
        lambda: api.logs.create_log_group(logGroupName="/rare", logGroupClass="INFREQUENT_ACCESS"),
    ):
        assert code_of(call) == "InvalidParameterException"
    assert api.logs.describe_log_groups(logGroupClass="INFREQUENT_ACCESS")["logGroups"] == []
    assert [g["logGroupName"] for g in api.logs.describe_log_groups(logGroupNamePrefix="/aws/t")["logGroups"]] == [
        "/aws/test"
    ]
    assert api.logs.filter_log_events(logGroupName="/aws/test")["events"] == []
    got = api.logs.get_log_events(logGroupName="/aws/test", logStreamName="b")
    assert got["events"] == [] and got["nextForwardToken"].startswith("f/")
    again = api.logs.get_log_events(logGroupName="/aws/test", logStreamName="b", nextToken=got["nextForwardToken"])
    assert again["nextForwardToken"] == got["nextForwardToken"], "as at AWS, where there is nothing more"
    for bad in ("f/" + "9" * 5000, "b/\u0663", "x/0", got["nextForwardToken"][2:]):
        bad_token = {"logGroupName": "/aws/test", "logStreamName": "b", "nextToken": bad}
        assert code_of(lambda: api.logs.get_log_events(**bad_token)) == "InvalidParameterException"  # noqa: B023
    for call in (
        lambda: api.logs.filter_log_events(logGroupName="/none"),
        lambda: api.logs.get_log_events(logGroupName="/aws/test", logStreamName="c"),
    ):
        assert code_of(call) == "ResourceNotFoundException"
    broken = {"logGroupName": "/aws/test", "filterPattern": "{ $.a ="}
    assert code_of(lambda: api.logs.filter_log_events(**broken)) == "InvalidParameterException"


def test_saml_providers(api: Api) -> None:
    iam = api.iam
    metadata = saml_idp.metadata()
    arn = iam.create_saml_provider(Name="okta", SAMLMetadataDocument=metadata)["SAMLProviderArn"]
    assert arn == "arn:aws:iam::000000000000:saml-provider/okta"
    assert (
        code_of(lambda: iam.create_saml_provider(Name="okta", SAMLMetadataDocument=metadata)) == "EntityAlreadyExists"
    )
    assert code_of(lambda: iam.create_saml_provider(Name="b", SAMLMetadataDocument="x" * 2000)) == "InvalidInput"
    assert iam.get_saml_provider(SAMLProviderArn=arn)["SAMLMetadataDocument"] == metadata
    iam.update_saml_provider(SAMLProviderArn=arn, SAMLMetadataDocument=metadata + " ")
    assert iam.get_saml_provider(SAMLProviderArn=arn)["SAMLMetadataDocument"] == metadata + " "
    assert arn in [each["Arn"] for each in iam.list_saml_providers()["SAMLProviderList"]]
    iam.delete_saml_provider(SAMLProviderArn=arn)
    assert code_of(lambda: iam.get_saml_provider(SAMLProviderArn=arn)) == "NoSuchEntity"


def test_who_calls(api: Api) -> None:
    identity = api.sts.get_caller_identity()
    assert (identity["UserId"], identity["Account"]) == (api.key_id, "000000000000")


def test_a_wrong_secret_and_an_unknown_key_are_refused_in_each_services_words(api: Api) -> None:
    expected = {
        "ec2": ("AuthFailure", "AuthFailure"),
        "acm": ("InvalidSignatureException", "UnrecognizedClientException"),
        "sts": ("SignatureDoesNotMatch", "InvalidClientTokenId"),
    }
    calls = {"ec2": "describe_vpcs", "acm": "list_certificates", "sts": "get_caller_identity"}
    for service, codes in expected.items():
        wrong_secret = api.client(service, secret="x" * 40)
        unknown_key = api.client(service, key_id="AKIAUNKNOWN000000000")
        assert (code_of(getattr(wrong_secret, calls[service])), code_of(getattr(unknown_key, calls[service]))) == codes
    metrics = api.gateway.metrics()
    assert metrics['cvpnd_api_refusals_total{reason="signature-mismatch"}'] >= 3
    assert metrics['cvpnd_api_refusals_total{reason="access-key-unknown"}'] >= 3
    assert "x" * 40 not in api.gateway.log()


ROUTE_TO_NOWHERE = {
    "ClientVpnEndpointId": "cvpn-endpoint-00000000000000000",
    "DestinationCidrBlock": "172.16.0.0/16",
    "TargetVpcSubnetId": "subnet-a",
}


def test_a_read_only_key_reads(api: Api, arn: str) -> None:
    reader = Api(api.gateway, "read-only")
    assert reader.ec2.describe_vpcs()["Vpcs"] and reader.acm.list_certificates()["CertificateSummaryList"]
    assert code_of(lambda: reader.create(arn)) == "UnauthorizedOperation"
    assert code_of(lambda: reader.create(arn, DryRun=True)) == "UnauthorizedOperation"
    assert code_of(lambda: reader.import_certificate()) == "AccessDeniedException"
    writer = Api(api.gateway)
    unknown = code_of(lambda: writer.ec2.create_client_vpn_route(**ROUTE_TO_NOWHERE))
    assert unknown == "InvalidClientVpnEndpointId.NotFound"
    kept = [record for record in api.gateway.ctl_json("audit") if record["action"] == "refused"]
    assert [(each["who"], each["details"]["action"], each["details"]["reason"]) for each in kept[:4]] == [
        (f"access-key:{writer.key_id}", "CreateClientVpnRoute", "InvalidClientVpnEndpointId.NotFound"),
        (f"access-key:{reader.key_id}", "ImportCertificate", "read-only-key"),
        (f"access-key:{reader.key_id}", "CreateClientVpnEndpoint", "read-only-key"),
        (f"access-key:{reader.key_id}", "CreateClientVpnEndpoint", "read-only-key"),
    ]
    for _ in range(12):
        assert code_of(lambda: reader.create(arn)) == "UnauthorizedOperation"
    records = api.gateway.ctl_json("audit", "--limit", "100")
    assert sum(each["who"] == f"access-key:{reader.key_id}" for each in records) == 10
    metrics = api.gateway.metrics()
    assert metrics['cvpnd_api_refusals_total{reason="InvalidClientVpnEndpointId.NotFound"}'] >= 1
    assert metrics['cvpnd_api_refusals_total{reason="read-only-key"}'] >= 15
    for key in (reader, writer):
        api.gateway.ctl("access-key", "delete", key.key_id)
    assert code_of(reader.ec2.describe_vpcs) == "AuthFailure", "a deleted key is refused at once"


def least(shape: Any) -> Any:
    """The smallest thing that botocore sends as such a shape."""
    match shape.type_name:
        case "structure":
            names = shape.required_members or list(shape.members)[:1]
            return {name: least(shape.members[name]) for name in names}
        case "list":
            return [least(shape.member)]
        case "boolean":
            return True
        case "integer" | "long" | "float" | "double":
            return max(1, shape.metadata.get("min", 1))
        case "timestamp":
            return 0
        case kind:
            text = (getattr(shape, "enum", None) or ["x" * max(1, shape.metadata.get("min", 1))])[0]
            return text.encode() if kind == "blob" else text


def test_a_read_only_key_changes_nothing_by_any_action(api: Api, arn: str) -> None:
    reader, endpoint = Api(api.gateway, "read-only"), api.create(arn)
    before = api.gateway.ctl_json("audit", "--limit", "1000")
    tried = 0
    for service, handlers in HANDLERS.items():
        client = reader.client(service)
        for method, action in client.meta.method_to_api_mapping.items():
            if action not in handlers or action.startswith(READING):
                continue
            shape = client.meta.service_model.operation_model(action).input_shape
            given = least(shape)
            if "ClientVpnEndpointId" in given:
                given["ClientVpnEndpointId"] = endpoint
            for dry in ({}, {"DryRun": True}) if "DryRun" in shape.members else ({},):
                refused = code_of(lambda: getattr(client, method)(**given, **dry))  # noqa: B023
                assert refused in ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"), (action, refused)
                tried += 1
    assert tried >= 30
    after = api.gateway.ctl_json("audit", "--limit", "1000")
    assert [each for each in after if each["action"] != "refused"] == [e for e in before if e["action"] != "refused"]
    api.gateway.ctl("access-key", "delete", reader.key_id)


def test_of_changes_that_race_one_wins_and_nothing_is_left_half_done(api: Api, arn: str) -> None:
    endpoint = {"ClientVpnEndpointId": api.create(arn)}
    rule = {"TargetNetworkCidr": "10.20.0.0/16", "AuthorizeAllGroups": True}
    given = {
        "ClientCidrBlock": "10.104.0.0/22",
        "ServerCertificateArn": arn,
        "AuthenticationOptions": [mutual(arn)],
        "ConnectionLogOptions": {"Enabled": False},
        "ClientToken": "race",
    }

    def authorize(client: Any) -> str:
        client.authorize_client_vpn_ingress(**endpoint, **rule)
        return "done"

    def create(client: Any) -> str:
        return str(client.create_client_vpn_endpoint(**given)["ClientVpnEndpointId"])

    def turn(client: Any, do: Callable[[Any], str]) -> str:
        with api.gateway.namespace.entered():
            try:
                return do(client)
            except ClientError as error:
                return str(error.response["Error"]["Code"])

    clients = [api.client("ec2") for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda client: turn(client, authorize), clients))
        assert sorted(told) == ["InvalidClientVpnDuplicateAuthorizationRule"] * 5 + ["done"], told
        made = set(pool.map(lambda client: turn(client, create), clients))
        made.discard("AuthFailure")  # the same second and the same words are the same signature, by another connection
        assert len(made) == 1 and api.describe(made.pop())["ClientCidrBlock"] == "10.104.0.0/22"
        doing = [
            lambda client: str(client.associate_client_vpn_target_network(**endpoint, SubnetId="subnet-a")["Status"]),
            lambda client: str(client.delete_client_vpn_endpoint(**endpoint)["Status"]),
        ]
        told = list(pool.map(turn, clients[:2], doing))
    there = {e["endpoint_id"] for e in api.gateway.ctl_json("endpoint", "list")}
    if endpoint["ClientVpnEndpointId"] in there:
        assert told[1] == "DependencyViolation", told
        time.sleep(1)  # who clears up says the same words, which in the same second are the same signature
    else:
        assert told[0] == "InvalidClientVpnEndpointId.NotFound", told


def raw(api: Api, body: str, path: str = "/", bend: Callable[[AWSRequest], None] | None = None) -> tuple[int, str]:
    """A request signed by botocore, and perhaps changed after that."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = AWSRequest("POST", API + path, headers=headers, data=body)
    SigV4Auth(Credentials(api.key_id, api.secret), "ec2", "eu-central-1").add_auth(request)
    if bend is not None:
        bend(request)
    sent = [f"-H{name}: {value}" for name, value in request.headers.items()]
    done = api.gateway.namespace.run(
        "curl", "-sS", "-w", "\n%{http_code}", "--data-binary", request.data, *sent, API + path
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def test_a_key_that_is_deleted_while_a_request_is_on_its_way_is_good_for_nothing(api: Api, arn: str) -> None:
    """The signature of the whole body was right, and the key was there when the request began."""
    other, bodies = Api(api.gateway), []
    endpoint = api.create(arn)
    for action in ("DescribeVpcs", f"DeleteClientVpnEndpoint&ClientVpnEndpointId={endpoint}"):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = f"Action={action}&Version=2016-11-15".encode()
        request = AWSRequest("POST", API + "/", headers=headers, data=body)
        SigV4Auth(Credentials(other.key_id, other.secret), "ec2", "eu-central-1").add_auth(request)
        sent = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection = socket.create_connection(("127.0.0.1", 8443), timeout=15)
        more = f"Host: 127.0.0.1:8443\r\nConnection: close\r\nContent-Length: {len(body)}"
        head = f"POST / HTTP/1.1\r\n{more}\r\n{sent}\r\n"
        connection.sendall(head.encode() + body[:-1])
        bodies.append((connection, body[-1:]))
    time.sleep(0.2)  # it has asked about the key by then
    api.gateway.ctl("access-key", "delete", other.key_id)
    for connection, rest in bodies:
        with connection:
            connection.sendall(rest)
            told = b""
            while data := connection.recv(65536):
                told += data
        assert told.startswith(b"HTTP/1.1 401 ") and b"<Code>AuthFailure</Code>" in told, told
    assert api.describe(endpoint)["Status"]["Code"] != "deleted"


def test_requests_that_no_sdk_sends(api: Api, arn: str) -> None:
    version = "Version=2016-11-15"
    assert raw(api, f"Action=DescribeVpcs&{version}")[0] == 200
    for body, code in {
        f"Action=Nonsense&{version}": "InvalidAction",
        "Action=DescribeVpcs&Version=2015-01-01": "InvalidAction",
        version: "MissingAction",
        f"Action=DescribeVpcs&{version}&Colour=red": "UnknownParameter",
        f"Action=DescribeVpcs&{version}&MaxResults=many": "InvalidParameterValue",
        f"Action=DescribeVpcs&{version}&MaxResults=1": "InvalidParameterValue",
        f"Action=DescribeVpcs&{version}&DryRun=maybe": "InvalidParameterValue",
        f"Action=DeleteClientVpnEndpoint&{version}": "MissingParameter",
        f"Action=ModifyClientVpnEndpoint&{version}&ClientVpnEndpointId=a&ClientCidrBlock=b": "UnknownParameter",
        f"Action=DescribeVpcs&Action=DescribeVpcs&{version}": "MalformedQueryString",
    }.items():
        status, text = raw(api, body)
        assert (status, f"<Code>{code}</Code>" in text) == (400, True), (body, text)

    def later(request: AWSRequest) -> None:
        request.data += "&DryRun=true"

    status, text = raw(api, f"Action=DescribeVpcs&{version}", bend=later)
    assert (status, "<Code>AuthFailure</Code>" in text) == (401, True)
    assert raw(api, f"Action=DescribeVpcs&{version}", path="/?Action=DescribeVpcs")[0] == 400
    too_long = f"Action=DescribeVpcs&{version}&Filler={'x' * 100_000}"
    assert "UnknownParameter" in raw(api, too_long)[1]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 5\r\nContent-Length: 44",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding : chunked",
        "Content-Length: +5",
        "Content-Length: 5\nTransfer-Encoding: chunked",
        "Content-Length: 5, 44",
    ],
)
def test_nothing_is_hidden_behind_a_request_of_two_lengths(daemon: GatewayProcess, head: str) -> None:
    hidden = "POST / HTTP/1.1\r\nHost: a\r\nX-Amz-Target: hidden\r\nContent-Length: 0\r\n\r\n"
    with daemon.namespace.entered(), socket.create_connection(("127.0.0.1", 8443), timeout=15) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n0\r\n\r\n{hidden}".encode())
        told = b""
        while data := connection.recv(65536):
            told += data
    assert told.count(b"HTTP/1.1 ") == 1 and told.startswith(b"HTTP/1.1 4"), told
    assert b"hidden" not in told and b"x-amz-json" not in told


def test_a_stranger_is_answered_once_and_has_to_come_again(api: Api, daemon: GatewayProcess) -> None:
    """Connections are what is counted of strangers."""
    unsigned = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with daemon.namespace.entered(), socket.create_connection(("127.0.0.1", 8443), timeout=15) as connection:
        connection.sendall(unsigned * 10)
        told = b""
        with suppress(ConnectionError):
            while data := connection.recv(65536):
                told += data
    assert told.count(b"HTTP/1.1 401 ") == told.count(b"HTTP/1.1 ") == 1 and b"connection: close" in told, told
    assert "connection" not in api.sts.get_caller_identity()["ResponseMetadata"]["HTTPHeaders"], "who is known stays"


def test_a_clock_that_is_off_is_told_so(api: Api) -> None:
    for hours in (-1, 1):
        off = datetime.now(UTC) + timedelta(hours=hours)
        with mock.patch("botocore.auth.get_current_datetime", return_value=off.replace(tzinfo=None)):
            status, text = raw(api, "Action=DescribeVpcs&Version=2016-11-15")
        assert status == 400 and "<Code>RequestExpired</Code>" in text and f"{off:%Y%m%dT%H}" in text


def test_a_change_that_was_recorded_cannot_be_sent_again(api: Api, arn: str) -> None:
    body = f"Action=CreateTags&Version=2016-11-15&ResourceId.1={api.create(arn)}&Tag.1.Key=a&Tag.1.Value=1"
    before = api.gateway.metrics()['cvpnd_api_refusals_total{reason="request-replayed"}']
    stamps: list[AWSRequest] = []
    assert raw(api, body, bend=stamps.append)[0] == 200

    def as_before(request: AWSRequest) -> None:
        for name in ("Authorization", "X-Amz-Date"):
            del request.headers[name]
            request.headers[name] = stamps[0].headers[name]

    status, text = raw(api, body, bend=as_before)  # at once, and yet by another connection
    assert status == 401 and "was accepted before" in text
    metrics = api.gateway.metrics()
    assert metrics['cvpnd_api_refusals_total{reason="request-replayed"}'] == before + 1
