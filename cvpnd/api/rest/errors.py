"""Every error on the wire is ``{"error": {"code", "message"}}`` with the status that fits the code."""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from cvpnd.endpoints.model import OperationError

_log = logging.getLogger(__name__)

# the first part that the code contains decides; AWS answers 400 to nearly everything, but REST tools expect better
_STATUS_BY_PART = (
    ("NotFound", HTTPStatus.NOT_FOUND),
    ("Duplicate", HTTPStatus.CONFLICT),
    ("AlreadyExists", HTTPStatus.CONFLICT),
    ("IncorrectState", HTTPStatus.CONFLICT),
    ("DependencyViolation", HTTPStatus.CONFLICT),
    ("InUse", HTTPStatus.CONFLICT),
    ("Unauthorized", HTTPStatus.FORBIDDEN),
    ("AccessDenied", HTTPStatus.FORBIDDEN),
    ("Unavailable", HTTPStatus.SERVICE_UNAVAILABLE),
    ("Internal", HTTPStatus.INTERNAL_SERVER_ERROR),
)


class RequestError(Exception):
    """The request itself is wrong, before any operation was called."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def status_of(code: str) -> HTTPStatus:
    """The HTTP status for an ``OperationError`` code."""
    return next((status for part, status in _STATUS_BY_PART if part in code), HTTPStatus.BAD_REQUEST)


def error_response(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


async def _refusal(_request: Request, error: Exception) -> Response:
    match error:
        case RequestError():
            return error_response(error.status, error.code, str(error))
        case OperationError():
            return error_response(status_of(error.code), error.code, str(error))
    raise error


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or a method that the path does not have."""
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "NoSuchPath", 405: "MethodNotAllowed"}.get(error.status_code, "InvalidRequest")
    response = error_response(error.status_code, code, f"{request.method} {request.scope['path']}: {error.detail}")
    response.headers.update(error.headers or {})
    return response


class FailureMiddleware:
    """Answers for a handler that failed. The traceback is the log's, not the caller's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            response = error_response(500, "InternalError", "the daemon failed to do this; its log has the details")
            await response(scope, receive, send)


EXCEPTION_HANDLERS: dict[int | type[Exception], ExceptionHandler] = {
    RequestError: _refusal,
    OperationError: _refusal,
    HTTPException: _http_error,
}
