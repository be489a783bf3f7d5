"""The application: one request in, verified, understood, done and answered.

A stranger costs what ``read_claim`` costs: the body of a request is not read before its key is known, and nothing of it
is parsed before its signature is right.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, Literal

from botocore.loaders import Loader
from botocore.model import OperationModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cvpnd.api.aws import acm, ec2, ec2_connections, ec2_networks, ec2_tags, ec2_vpc, iam, logs, sts
from cvpnd.api.aws.call import Answer, Call, Handler
from cvpnd.api.aws.errors import ApiError, render_error
from cvpnd.api.aws.models import Protocol, Service, load_service
from cvpnd.api.aws.parse import Form, parse_form, parse_json, read_form
from cvpnd.api.aws.render import render
from cvpnd.api.aws.sigv4 import REMEMBERED_S, Claim, Headers, Refused, check_repeat, read_claim, verify
from cvpnd.endpoints.access import using
from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.operations import Rehearsed
from cvpnd.endpoints.service import Operations
from cvpnd.ops.logs import RateLimited
from cvpnd.reasons import ApiRefusal
from cvpnd.store import Actor, acting

log = logging.getLogger(__name__)
_warn = RateLimited(log, interval_s=10)

BODY_LIMIT = 4 * 1024 * 1024
"""Twenty thousand revoked certificates in a form are a little over one megabyte."""
BODY_S = 30
"""How long a request may take to arrive."""
LONG_BODY = 64 * 1024
"""From here on a body is hashed and parsed beside the event loop."""
LONGEST_CLIENT_TOKEN = 64
DRY_RUN = "DryRunOperation"
READING = ("Describe", "Get", "List", "Export", "Filter")

HANDLERS: Mapping[str, Mapping[str, Handler]] = {
    "ec2": {
        **ec2.HANDLERS,
        **ec2_networks.HANDLERS,
        **ec2_connections.HANDLERS,
        **ec2_tags.HANDLERS,
        **ec2_vpc.HANDLERS,
    },
    "acm": acm.HANDLERS,
    "iam": iam.HANDLERS,
    "logs": logs.HANDLERS,
    "sts": sts.HANDLERS,
}

# by the protocol, as ec2, query, json; the words are those that AWS's tools know
_REFUSED = {
    ApiRefusal.SIGNATURE_MISSING: ("AuthFailure", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    ApiRefusal.SIGNATURE_MALFORMED: ("IncompleteSignature", "IncompleteSignature", "IncompleteSignatureException"),
    ApiRefusal.SIGNATURE_MISMATCH: ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"),
    ApiRefusal.ACCESS_KEY_UNKNOWN: ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"),
    ApiRefusal.REQUEST_EXPIRED: ("RequestExpired", "RequestExpired", "RequestExpiredException"),
    ApiRefusal.REQUEST_REPLAYED: ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"),
    ApiRefusal.REQUEST_TOO_LARGE: ("RequestEntityTooLarge",) * 3,
    ApiRefusal.READ_ONLY_KEY: ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
}
_TOLD = {
    ApiRefusal.SIGNATURE_MISMATCH: "The provided access credentials could not be validated",
    ApiRefusal.ACCESS_KEY_UNKNOWN: "The provided access credentials could not be validated",
}
"""Where the detail is for the operator only."""

# what the services call the same mistake
_TRANSLATED = {
    "acm": {
        "InvalidParameterValue": "ValidationException",
        "MissingParameter": "ValidationException",
        "InvalidNextToken": "ValidationException",
        "TagLimitExceeded": "TooManyTagsException",
        "InternalError": "InternalFailure",
        "Unavailable": "InternalFailure",
        "UnsupportedOperation": "ValidationException",
        "AuthFailure": "UnrecognizedClientException",
    },
    "logs": {
        "InvalidParameterValue": "InvalidParameterException",
        "MissingParameter": "InvalidParameterException",
        "InvalidNextToken": "InvalidParameterException",
        "ValidationException": "InvalidParameterException",
        "InternalError": "ServiceUnavailableException",
        "Unavailable": "ServiceUnavailableException",
        "AuthFailure": "UnrecognizedClientException",
    },
    "iam": {
        "InvalidParameterValue": "ValidationError",
        "IncorrectState": "InvalidInput",
        "InternalError": "ServiceFailure",
        "Unavailable": "ServiceFailure",
        "AuthFailure": "InvalidClientTokenId",
    },
    "sts": {"InternalError": "InternalFailure", "Unavailable": "InternalFailure"},
}


class AwsApi:
    """An ASGI application."""

    def __init__(self, operations: Operations, services: Mapping[str, Service]) -> None:
        """Use ``load``."""
        self._operations = operations
        self._services = services
        self.refusals: Counter[str] = Counter()
        """By ``ApiRefusal``, and by AWS's error code where an operation refused a change."""

    @classmethod
    async def load(cls, operations: Operations) -> AwsApi:
        return cls(operations, await asyncio.to_thread(load_services))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _Request(scope, receive)
        response = await self._answer(request)
        if not request.is_signed:  # how many more there are is for the listener to say, which counts connections
            response.headers["connection"] = "close"
        await response(scope, receive, send)

    async def _answer(self, request: _Request) -> Response:
        try:
            return await self._served(request)
        except Refused as refused:
            self._count(request, refused)
            if refused.reason is ApiRefusal.READ_ONLY_KEY:
                await self._record(request, str(refused.reason), str(refused))
            return request.error(_as_error(refused, request.protocol))
        except OperationError as error:
            return await self._refused(request, ApiError(error.code, str(error)))
        except ApiError as error:
            return await self._refused(request, error)
        except Exception:
            log.exception("%s failed (%s)", request.action or "a request to the API", request.request_id)
            return request.error(ApiError("InternalError", "The gateway failed to do this; its log has the details"))

    async def _served(self, request: _Request) -> Response:
        if request.method != "POST" or request.path != "/" or request.query:
            raise ApiError("InvalidAction", "Requests are POST / without a query string")
        now = datetime.now(UTC)
        claim = read_claim(request.headers, now)
        service = self._services.get(claim.service)
        credential = await self._operations.credential(claim.key_id, time.monotonic())
        if credential is None:
            raise Refused(ApiRefusal.ACCESS_KEY_UNKNOWN, f"there is no access key {claim.key_id}")
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.body()
        except TimeoutError:
            raise ApiError("RequestTimeout", "The request did not arrive in time") from None
        await _beside(len(body), verify, claim, credential.secret, request.headers, body)
        request.is_signed = True
        if service is None:
            raise ApiError("InvalidAction", f"There is no service {claim.service} here")
        request.service = service
        operation, parameters = await _beside(len(body), _understand, service, request, body)
        if not await self._operations.is_good(credential):
            raise Refused(ApiRefusal.ACCESS_KEY_UNKNOWN, f"access key {claim.key_id} was deleted during the request")
        using.set(credential)
        acting.set(Actor(f"access-key:{credential.key_id}", f"api {request.host}"))
        if not operation.name.startswith(READING):
            request.changes_as = credential.key_id
            if credential.role != "admin":
                raise Refused(
                    ApiRefusal.READ_ONLY_KEY, f"access key {credential.key_id} may only read, not {operation.name}"
                )
            if not parameters.get("DryRun"):
                await self._check_repeat(claim, request.sender)
        answer = await self._do(service, Call(operation.name, claim.region, parameters, credential, self._operations))
        return render(service, operation, answer, request.request_id)

    async def _check_repeat(self, claim: Claim, sender: str) -> None:
        now = self._operations.steady_now()
        first = await self._operations.see_request(claim.signature, sender, now, kept_s=REMEMBERED_S)
        check_repeat(first, sender, now)

    async def _do(self, service: Service, call: Call) -> Answer:
        handler = HANDLERS[service.name][call.action]
        rehearsing: AbstractContextManager[None] = nullcontext()
        if dry_run := call.get("DryRun", False):
            rehearsing = self._operations.rehearsal()
        try:
            with rehearsing:
                token = call.get("ClientToken")
                if token and len(token) > LONGEST_CLIENT_TOKEN:
                    raise ApiError(
                        "InvalidParameterValue", f"ClientToken has at most {LONGEST_CLIENT_TOKEN} characters"
                    )
                if not token or dry_run:
                    answer = await handler(call)
                else:
                    request = {key: value for key, value in call.parameters.items() if key != "ClientToken"}
                    answer = await self._operations.once(
                        f"{service.name}:{call.action}", token, request, lambda: handler(call)
                    )
        except Rehearsed:
            pass
        if dry_run:
            raise ApiError(DRY_RUN, "Request would have succeeded, but DryRun flag is set.")
        return answer

    async def _refused(self, request: _Request, error: ApiError) -> Response:
        """A change that is not made is told to the operator as well."""
        if request.changes_as and error.code != DRY_RUN:
            who = f"access key {request.changes_as} from {request.host}"
            self.refusals[error.code] += 1
            _warn.warning(error.code, "API: %s by %s refused: %s: %s", request.action, who, error.code, error.message)
            await self._record(request, error.code, error.message)
        return request.error(error)

    async def _record(self, request: _Request, reason: str, message: str) -> None:
        try:
            await self._operations.record_refusal(request.changes_as, request.action, reason, message)
        except OperationError as error:  # a full disk: the refusal stands, and the log has it
            _warn.warning("audit", "API: a refusal cannot be recorded: %s", error)

    def _count(self, request: _Request, refused: Refused) -> None:
        self.refusals[refused.reason] += 1
        _warn.warning(str(refused.reason), "API request from %s refused: %s: %s", request.host, refused.reason, refused)


def load_services() -> dict[str, Service]:
    """Blocks for a second or so."""
    loader = Loader()
    loaded = (load_service(loader, name, handlers) for name, handlers in HANDLERS.items())
    return {service.name: service for service in loaded}


class _Request:
    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.request_id = str(uuid.uuid4())
        self.method, self.path = scope["method"], scope["path"]
        self.query = scope["query_string"]
        self.headers: Headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        client = scope.get("client")
        self.host = client[0] if client else "-"
        self.sender = f"{client[0]} {client[1]}" if client else "-"
        self.service: Service | None = None
        self.is_signed = False
        self.action = ""
        self.changes_as = ""
        """The access key, once it is known that something is to be changed."""
        self._receive = receive

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def protocol(self) -> Protocol:
        """Also before the service is known: how the caller can read an error."""
        if self.service is not None:
            return self.service.protocol
        if self.header("x-amz-target"):
            return "json"
        authorization = self.header("authorization")
        return "query" if "/iam/aws4_request" in authorization or "/sts/aws4_request" in authorization else "ec2"

    async def body(self) -> bytes:
        """Raises ``Refused`` for one that is too long, without having read more of it than that."""
        too_large = Refused(ApiRefusal.REQUEST_TOO_LARGE, f"a request has at most {BODY_LIMIT} bytes")
        length = self.header("content-length")
        if length.isdecimal() and int(length[:12]) > BODY_LIMIT:
            raise too_large
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ApiError("IncompleteBody", "The connection ended within the request")
            body += message.get("body", b"")
            if len(body) > BODY_LIMIT:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)

    def error(self, error: ApiError) -> Response:
        if self.service is not None:
            code = _TRANSLATED.get(self.service.name, {}).get(error.code, error.code)
            error = ApiError(code, error.message)
        return render_error(error, self.protocol, self.request_id)


def _understand(service: Service, request: _Request, body: bytes) -> tuple[OperationModel, dict[str, Any]]:
    """Which operation with which parameters. Raises ``ApiError``."""
    if service.protocol == "json":
        prefix, _, action = request.header("x-amz-target").rpartition(".")
        operation = service.operations.get(action) if prefix == service.target_prefix else None
        if operation is None:
            raise ApiError("UnknownOperationException", f"There is no operation {action[:80]} here")
        request.action = action
        return operation, parse_json(operation, body)
    form: Form = read_form(body)
    action, version = form.pop("Action", ""), form.pop("Version", "")
    if not action:
        raise ApiError("MissingAction", "The request names no action")
    operation = service.operations.get(action)
    if operation is None or version != service.version:
        raise ApiError("InvalidAction", f"The action {action[:80]} is not valid for this web service")
    request.action = action
    return operation, parse_form(service, operation, form)


async def _beside(size: int, do: Any, *arguments: Any) -> Any:
    """In a thread if there is much to do."""
    return await asyncio.to_thread(do, *arguments) if size > LONG_BODY else do(*arguments)


def _as_error(refused: Refused, protocol: Protocol) -> ApiError:
    which: dict[Protocol, Literal[0, 1, 2]] = {"ec2": 0, "query": 1, "json": 2}
    return ApiError(_REFUSED[refused.reason][which[protocol]], _TOLD.get(refused.reason, str(refused)))
