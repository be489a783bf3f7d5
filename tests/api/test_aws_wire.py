"""Requests parsed and answers rendered by botocore's models, held against botocore's own two sides of the wire."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.awsrequest import AWSResponse
from botocore.model import OperationModel
from botocore.parsers import create_parser
from botocore.retries.standard import RetryContext, TransientRetryableChecker
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpnd.api.aws.app import _TRANSLATED, load_services
from cvpnd.api.aws.errors import ApiError, render_error
from cvpnd.api.aws.models import Service
from cvpnd.api.aws.parse import parse_form, parse_json, read_form
from cvpnd.api.aws.render import render

SERVICES = load_services()
OPERATIONS = [(service, operation) for service in SERVICES.values() for operation in service.operations.values()]
NAMES = [f"{service.name}:{operation.name}" for service, operation in OPERATIONS]
KEYS = ("Certificate", "CertificateArn", "Tags", "Key", "Value", "Includes", "keyTypes", "MaxItems")
CHARACTERS = "abcXYZ019 .-_/:*?&<>=%+,;'\"\\äß€😀"


def value_of(shape: Any, pick: Random, depth: int = 0) -> Any:
    """Anything that the model says may be there."""
    match shape.type_name:
        case "structure":
            usable = {name: inner for name, inner in shape.members.items() if inner.type_name != "map"}
            chosen = [n for n in usable if n in shape.required_members or (depth < 3 and pick.random() < 0.6)]
            if not chosen and depth:  # one without anything in it has no form on the wire
                chosen = list(usable)[:1]
            return {name: value_of(usable[name], pick, depth + 1) for name in chosen}
        case "list":
            return [value_of(shape.member, pick, depth + 1) for _ in range(pick.randint(1, 3))]
        case "boolean":
            return pick.random() < 0.5
        case "integer" | "long":
            return pick.randint(shape.metadata.get("min", 0), min(shape.metadata.get("max", 1 << 31), 1 << 53))
        case "timestamp":
            return datetime.fromtimestamp(pick.randrange(4_000_000_000), UTC)
        case "blob":
            return pick.randbytes(pick.randint(1, 40))
        case "string" if shape.enum:
            return pick.choice(shape.enum)
        case _:
            text = "".join(pick.choice(CHARACTERS) for _ in range(pick.randint(1, 20)))
            return text.ljust(shape.metadata.get("min", 1), "x")[: shape.metadata.get("max", 100)]


def without_empty(value: Any) -> Any:
    """An empty structure or list has no form on the wire of the older protocols."""
    if isinstance(value, dict):
        return {key: inner for key, each in value.items() if (inner := without_empty(each)) not in ({}, [])}
    return [without_empty(each) for each in value] if isinstance(value, list) else value


def parsed(service: Service, operation: OperationModel, request: dict[str, Any]) -> dict[str, Any]:
    body = request["body"]
    if service.protocol == "json":
        return parse_json(operation, body if isinstance(body, bytes) else body.encode())
    form = read_form(urlencode(body, doseq=True).encode())
    assert (form.pop("Action"), form.pop("Version")) == (operation.name, service.version)
    return parse_form(service, operation, form)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS, ids=NAMES)
def test_what_botocore_writes_is_read_as_it_was_meant(service: Service, operation: OperationModel) -> None:
    serializer = create_serializer(service.protocol, include_validation=False)
    for seed in range(20):
        parameters = value_of(operation.input_shape, Random(seed)) if operation.input_shape else {}
        if operation.input_shape is not None:
            assert not ParamValidator().validate(parameters, operation.input_shape).has_errors()
        request = serializer.serialize_to_request(parameters, operation)
        assert parsed(service, operation, request) == without_empty(parameters)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS, ids=NAMES)
def test_what_is_answered_is_read_by_botocore_as_it_was_meant(service: Service, operation: OperationModel) -> None:
    for seed in range(20):
        answer = value_of(operation.output_shape, Random(seed)) if operation.output_shape else {}
        response = render(service, operation, answer, "request-1")
        given = {"body": bytes(response.body), "status_code": 200, "headers": dict(response.headers)}
        read = create_parser(service.protocol).parse(given, operation.output_shape)
        read.pop("ResponseMetadata")
        assert without_empty(read) == without_empty(answer)


@pytest.mark.parametrize("protocol", ["ec2", "query", "json"])
def test_an_error_is_read_by_botocore_as_it_was_meant(protocol: Any) -> None:
    error = ApiError("InvalidParameterValue", "<what> & 'why' \u00fc")
    response = render_error(error, protocol, "request-1")
    headers = dict(response.headers)
    read = create_parser(protocol).parse(
        {"body": bytes(response.body), "status_code": response.status_code, "headers": headers}, None
    )
    assert (read["Error"]["Code"], read["Error"]["Message"]) == ("InvalidParameterValue", "<what> & 'why' \u00fc")


@pytest.mark.parametrize("protocol", ["ec2", "query", "json"])
def test_an_answer_is_read_whatever_somebody_has_written_into_it(protocol: Any) -> None:
    """XML has no word for some characters, and a reader refuses the whole of it."""
    odd = "a\x01b\x1b\x7f\r\ufffec\uffff]]>\U0001f642"
    response = render_error(ApiError("InvalidParameterValue", odd), protocol, "request-1")
    given = {"body": bytes(response.body), "status_code": response.status_code, "headers": dict(response.headers)}
    read = create_parser(protocol).parse(given, None)["Error"]["Message"]
    assert read == odd if protocol == "json" else read == "a?b?\x7f??c?]]>\U0001f642"
    service = SERVICES["ec2"]
    operation = service.operations["DescribeTags"]
    answer = render(service, operation, {"Tags": [{"Key": odd, "Value": "v" * 1_000_000}]}, "request-1")
    tags = create_parser("ec2").parse(
        {"body": bytes(answer.body), "status_code": 200, "headers": {}}, operation.output_shape
    )["Tags"]
    assert tags == [{"Key": "a?b?\x7f??c?]]>\U0001f642", "Value": "v" * 1_000_000}]


@pytest.mark.parametrize("name", ["ec2", "acm", "logs", "iam", "sts"])
def test_what_cannot_be_done_now_is_tried_again_by_botocore(name: str) -> None:
    protocol = SERVICES[name].protocol
    code = _TRANSLATED.get(name, {}).get("Unavailable", "Unavailable")
    response = render_error(ApiError(code, "the database"), protocol, "request-1")
    given = {"body": bytes(response.body), "status_code": response.status_code, "headers": dict(response.headers)}
    context = RetryContext(
        attempt_number=1,
        parsed_response=create_parser(protocol).parse(given, None),
        http_response=AWSResponse(f"https://{name}", response.status_code, dict(response.headers), None),
    )
    assert TransientRetryableChecker().is_retryable(context)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text("abcAFilters.1NameValue=&%2", max_size=200).map(str.encode))
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    service = SERVICES["ec2"]
    with suppress(ApiError):
        parse_form(service, service.operations["DescribeClientVpnRoutes"], read_form(body))


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        max_leaves=8,
    )
)
def test_no_document_does_more_than_be_refused(document: Any) -> None:
    for operation in SERVICES["acm"].operations.values():
        with suppress(ApiError):
            parse_json(operation, json.dumps(document).encode())


def test_deep_and_broken_documents_are_refused() -> None:
    operation = SERVICES["acm"].operations["ImportCertificate"]
    unknown = b'{"Certificate": "QQ==", "PrivateKey": "QQ==", "Colour": "red"}'
    for body in (b"[" * 100_000, b"{", b"\xff", b'{"Certificate": "not base64!"}', b"[]", b"3", unknown):
        with pytest.raises(ApiError):
            parse_json(operation, body)
