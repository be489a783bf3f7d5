"""What a handler is asked and may answer: AWS's schema, and nothing that could be read in two ways."""

from __future__ import annotations

import json

import pytest

from cvpnd.handlers.schema import ConnectRequest, HandlerFailed, read_answer
from cvpnd.reasons import Refusal

ALLOWED = {
    "allow": True,
    "error-msg-on-denied-connection": "",
    "posture-compliance-statuses": [],
    "schema-version": "v3",
}


def answer(**changes: object) -> bytes:
    changed = ALLOWED | {key.replace("_", "-"): value for key, value in changes.items()}
    return json.dumps({key: value for key, value in changed.items() if value is not ...}).encode()


def test_a_request_has_awss_keys_in_awss_words() -> None:
    request = ConnectRequest(
        connection_id="cvpn-connection-1",
        endpoint_id="cvpn-endpoint-1",
        common_name="laptop-7",
        username="anna",
        platform="win",
        platform_version="10.0",
        client_openvpn_version="2.6.14",
        aws_client_version="AWS_VPN_Client_3.9",
        public_ip="198.51.100.7",
        groups=("ops", "eng"),
    )
    assert json.loads(request.payload()) == {
        "connection-id": "cvpn-connection-1",
        "endpoint-id": "cvpn-endpoint-1",
        "common-name": "laptop-7",
        "username": "anna",
        "platform": "win",
        "platform-version": "10.0",
        "public-ip": "198.51.100.7",
        "client-openvpn-version": "2.6.14",
        "aws-client-version": "AWS_VPN_Client_3.9",
        "groups": ["eng", "ops"],
        "schema-version": "v3",
    }


def test_valid_answers_are_taken_at_their_word() -> None:
    assert read_answer(answer()).allow is True
    denied = read_answer(
        answer(
            allow=False,
            error_msg_on_denied_connection="é" * 255,
            posture_compliance_statuses=["x" * 255] * 10,
            own_key=[1, {"deep": None}],
        )
    )
    assert (denied.allow, denied.message, denied.statuses) == (False, "é" * 255, ("x" * 255,) * 10)
    assert read_answer(answer(schema_version="v2")).allow is True
    first = {**ALLOWED, "schema-version": "v1", "error-msg-on-failed-posture-compliance": "old"}
    del first["error-msg-on-denied-connection"]
    assert read_answer(json.dumps(first).encode()).message == "old"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"true",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"allow": ' + b"1" * 6000 + b"}",
        answer() + b"x",
        answer()[:-1] + b', "allow": false}',
        b'{"allow": false, ' + answer()[1:],
        answer(allow="true"),
        answer(allow=1),
        answer(allow=None),
        answer(allow=...),
        answer(error_msg_on_denied_connection=...),
        answer(error_msg_on_denied_connection=None),
        answer(error_msg_on_denied_connection="x" * 256),
        answer(error_msg_on_denied_connection="half a pair: \ud83d"),
        *(answer()[:-1] + b', "own-key": ' + constant + b"}" for constant in (b"NaN", b"Infinity", b"-Infinity")),
        answer(posture_compliance_statuses=...),
        answer(posture_compliance_statuses="compliant"),
        answer(posture_compliance_statuses=["x"] * 11),
        answer(posture_compliance_statuses=["x" * 256]),
        answer(posture_compliance_statuses=["two\nlines"]),
        answer(posture_compliance_statuses=["\ud800"]),
        answer(posture_compliance_statuses=[1]),
        answer(schema_version=...),
        answer(schema_version="v4"),
        answer(schema_version=3),
        answer(schema_version=["v3"]),
    ],
)
def test_anything_else_is_no_answer(data: bytes) -> None:
    with pytest.raises(HandlerFailed) as failed:
        read_answer(data)
    assert failed.value.refusal is Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE
