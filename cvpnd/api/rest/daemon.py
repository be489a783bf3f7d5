"""``/v1/health`` and ``/v1/reload``: the daemon itself."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Query, answer, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


def daemon_routes(operations: Operations) -> list[Operation]:
    async def health(request: Request) -> Response:
        read_query(request, Query)
        return answer(status="ok", version=_version(), endpoints=len(await operations.list_endpoints()))

    async def reload(request: Request) -> Response:
        read_query(request, Query)
        return answer(reload=await operations.reload())

    return [Operation("GET", "/health", health), Operation("POST", "/reload", reload)]


def _version() -> str:
    try:
        return version("cvpnd")
    except PackageNotFoundError:
        return "uninstalled"
