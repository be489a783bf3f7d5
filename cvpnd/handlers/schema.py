"""AWS's request to a client connect handler, and its response: JSON, version v3."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cvpnd.exact_json import read_json
from cvpnd.reasons import Refusal

SCHEMA_VERSION = "v3"
LONGEST_TEXT = 255
MOST_STATUSES = 10
LARGEST_ANSWER = 64 * 1024
"""Bytes; a valid one has at most some 20 kB, with every character escaped."""

_MESSAGE_KEYS = {
    "v1": "error-msg-on-failed-posture-compliance",
    "v2": "error-msg-on-denied-connection",
    SCHEMA_VERSION: "error-msg-on-denied-connection",
}
"""By version of the answer; functions that were written for an older one go on working."""


class HandlerFailed(Exception):
    """There is no valid answer."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What is known of a client that has been authenticated. What it says of itself is marked so."""

    connection_id: str
    endpoint_id: str
    common_name: str
    username: str
    """Empty with certificates alone."""
    platform: str
    """Said by the client, as all up to ``aws_client_version``."""
    platform_version: str
    client_openvpn_version: str
    aws_client_version: str
    public_ip: str
    groups: Sequence[str]

    def payload(self) -> bytes:
        return json.dumps(
            {
                "connection-id": self.connection_id,
                "endpoint-id": self.endpoint_id,
                "common-name": self.common_name,
                "username": self.username,
                "platform": self.platform,
                "platform-version": self.platform_version,
                "public-ip": self.public_ip,
                "client-openvpn-version": self.client_openvpn_version,
                "aws-client-version": self.aws_client_version,
                "groups": sorted(self.groups),
                "schema-version": SCHEMA_VERSION,
            }
        ).encode()


@dataclass(frozen=True, slots=True)
class ConnectAnswer:
    allow: bool
    message: str
    """For a client that is denied."""
    statuses: tuple[str, ...]
    """Of its posture."""


def read_answer(data: bytes) -> ConnectAnswer:
    """Raises ``HandlerFailed``. Keys that AWS does not have are not looked at; one that comes twice is no answer, as
    readers differ on which of them counts."""
    try:
        answer = read_json(data)
    except ValueError as error:
        raise _invalid(f"no JSON: {error}") from None
    if not isinstance(answer, dict):
        raise _invalid("no JSON object")
    version = answer.get("schema-version")
    message_key = _MESSAGE_KEYS.get(version) if isinstance(version, str) else None
    if message_key is None:
        raise _invalid(f"schema-version is none of {', '.join(_MESSAGE_KEYS)}")
    allow, message = answer.get("allow"), answer.get(message_key)
    if not isinstance(allow, bool):
        raise _invalid("allow is neither true nor false")
    if not isinstance(message, str) or len(message) > LONGEST_TEXT:
        raise _invalid(f"{message_key} is no text of up to {LONGEST_TEXT} characters")
    statuses = answer.get("posture-compliance-statuses")
    if not isinstance(statuses, list) or len(statuses) > MOST_STATUSES or not all(map(_is_status, statuses)):
        raise _invalid(
            f"posture-compliance-statuses is no list of up to {MOST_STATUSES} printable texts of up to {LONGEST_TEXT} "
            "characters"
        )
    return ConnectAnswer(allow, message, tuple(statuses))


def _is_status(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _invalid(detail: str) -> HandlerFailed:
    return HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE, detail)
