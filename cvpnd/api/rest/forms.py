"""Requests checked strictly on the way in, answers rendered on the way out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from http import HTTPStatus
from ipaddress import ip_network
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from cvpnd.api.rest.errors import RequestError
from cvpnd.exact_json import read_json

BODY_LIMIT = 64 * 1024
"""Bytes in a request body, where there is no PEM in it."""
BODY_S = 30
"""How long one may take to arrive."""
LIST_LIMIT = 8 * 1024 * 1024
"""Of one that is a list of things to import."""
MANY = 200
"""Of things in a list; more of them are written beside the event loop, where each takes some 50 us."""


def _canonical_network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        pass
    try:
        enclosing = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; write it as 10.20.0.0/16") from None
    raise ValueError(f"{text} has host bits set; write {enclosing}")


Line = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text for people, on one line."""

Word = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]

NetworkText = Annotated[Word, AfterValidator(_canonical_network)]


class Body(BaseModel):
    """A request body: no unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters: no unknown names; text becomes numbers and truths."""

    model_config = ConfigDict(extra="forbid", frozen=True)


B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)


async def read_body(request: Request, form: type[B], *, limit: int = BODY_LIMIT) -> B:
    """The JSON body as ``form``. Raises ``RequestError``, which is answered."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", "send the body as Content-Type: application/json"
        )
    try:
        async with asyncio.timeout(BODY_S):
            body = await _read(request, limit)
    except TimeoutError:
        raise RequestError(
            HTTPStatus.REQUEST_TIMEOUT, "RequestTimeout", f"the body did not arrive in {BODY_S} s"
        ) from None
    return await asyncio.to_thread(_parse, form, body) if len(body) > BODY_LIMIT else _parse(form, body)


def _parse(form: type[B], body: bytes) -> B:
    try:
        document = read_json(body)
    except ValueError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "MalformedBody", f"the body is not JSON: {error}") from None
    return _validate(form, document)


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestTooLarge", f"a request body has at most {limit} bytes"
            )
    return bytes(body)


def read_query(request: Request, form: type[Q], *, repeated: frozenset[str] = frozenset()) -> Q:
    """The query parameters as ``form``; those in ``repeated`` may come several times and are tuples."""
    values: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in repeated:
            values[name] = (*values.get(name, ()), value)
        elif name in values:
            raise RequestError(HTTPStatus.BAD_REQUEST, "InvalidParameterValue", f"{name}: given more than once")
        else:
            values[name] = value
    return _validate(form, values)


M = TypeVar("M", bound=BaseModel)


def _validate(form: type[M], values: object) -> M:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "InvalidParameterValue", _describe(error)) from None


def _describe(error: ValidationError) -> str:
    """All complaints on one line, each with the field's path."""
    complaints = []
    for complaint in error.errors(include_url=False, include_input=False):
        path = ".".join(str(part) for part in complaint["loc"])
        text = complaint["msg"].removeprefix("Value error, ")
        complaints.append(f"{path}: {text}" if path else text)
    return "; ".join(complaints)


class _Long(Response):
    """Written when it is sent, by a thread: ten thousand rules kept everything else waiting for most of a second."""

    def __init__(self, status: int, members: Mapping[str, object]) -> None:
        super().__init__(status_code=status)
        self._members = members

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        written = await asyncio.to_thread(lambda: JSONResponse(to_json(self._members), self.status_code))
        await written(scope, receive, send)


def answer(status: int = 200, /, **members: object) -> Response:
    """A JSON object with the views in ``members`` rendered."""
    if any(isinstance(each, list | tuple) and len(each) > MANY for each in members.values()):
        return _Long(status, members)
    return JSONResponse(to_json(members), status_code=status)


def to_json(value: object) -> Any:
    """Views, networks and enumerations as plain JSON values."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return {str(key): to_json(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(member) for member in value]
    if isinstance(value, BaseModel):
        return {name: to_json(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    return str(value)
