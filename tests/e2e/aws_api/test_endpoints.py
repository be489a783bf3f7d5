"""Endpoints by boto3: each action with what can be set read back, and each documented error provoked."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime

import httpx
import pytest
from botocore.exceptions import ClientError
from helpers import certs, saml_idp, web_login
from helpers.aws_api import CHECK, TOML, Api, by_browser, by_directory, code_of, mutual


def not_there(page: str) -> bool:
    """Whoever has no such page answers 404."""
    context = ssl.create_default_context(cadata=certs.authority().certificate_pem.decode())
    return httpx.get(page, verify=context).status_code == 404


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
