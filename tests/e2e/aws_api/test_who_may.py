"""The API's door: wrong keys and read-only ones, changes that race, and requests that no SDK sends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from helpers.aws_api import API, Api, code_of, mutual
from helpers.lab import GatewayProcess

from cvpnd.api.aws.app import HANDLERS, READING


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
