"""Certificates, logs and identities by boto3: each action with what can be set read back, and each documented error
provoked."""

from __future__ import annotations

from typing import Any

from helpers import certs, saml_idp
from helpers.aws_api import Api, code_of


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
