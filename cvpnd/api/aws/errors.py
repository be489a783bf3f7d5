"""Errors as each protocol writes them, with AWS's code and HTTP status."""

from __future__ import annotations

import json
from typing import Literal

from starlette.responses import Response

from cvpnd.api.aws.models import Protocol
from cvpnd.api.aws.render import xml_text

_FORBIDDEN = ("UnauthorizedOperation", "AccessDenied", "SignatureDoesNotMatch", "InvalidClientTokenId")
_STATUS = {
    "AuthFailure": 401,
    "DryRunOperation": 412,
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServerException": 500,
    "ServiceFailure": 500,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
    "NoSuchEntity": 404,
    "EntityAlreadyExists": 409,
    "DeleteConflict": 409,
    "RequestEntityTooLarge": 413,
}


class ApiError(Exception):
    """What a caller is told."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def status_of(code: str, protocol: Protocol) -> int:
    if protocol == "json":  # which AWS answers 400 to everything but its own failures
        if code.startswith("ServiceUnavailable"):
            return 503
        return 500 if code.startswith("Internal") else 400
    return 403 if code in _FORBIDDEN else _STATUS.get(code, 400)


def render_error(error: ApiError, protocol: Protocol | Literal["none"], request_id: str) -> Response:
    """``none``: it is not even known which service was meant."""
    if protocol == "json":
        body = json.dumps({"__type": error.code, "message": error.message})
        headers = {"x-amzn-requestid": request_id, "x-amzn-errortype": error.code}
        return Response(body, status_of(error.code, "json"), headers, "application/x-amz-json-1.1")
    code, message = xml_text(error.code), xml_text(error.message)
    if protocol == "query":
        side = "Receiver" if status_of(error.code, "query") >= 500 else "Sender"
        text = (
            f"<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return Response(text, status_of(error.code, "query"), {"x-amzn-requestid": request_id}, "text/xml")
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        f"<RequestID>{request_id}</RequestID></Response>"
    )
    return Response(text, status_of(error.code, "ec2"), {"x-amzn-requestid": request_id}, "text/xml")
