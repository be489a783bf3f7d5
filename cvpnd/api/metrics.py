"""``/metrics`` for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cvpnd.ops.metrics import CONTENT_TYPE, render_metrics

ONCE = {"connection": "close"}
"""Who asks again begins another connection, and those are counted. Prometheus asks more seldom than idle ones last."""


async def _nothing() -> None: ...


def build_metrics_app(registry: CollectorRegistry, prepare: Callable[[], Awaitable[None]] = _nothing) -> Starlette:
    """Rendered in the event loop, where the numbers live: no lock is needed, and it takes about a millisecond. What has
    to be asked for elsewhere first, ``prepare`` asks for."""

    async def metrics(_request: Request) -> Response:
        await prepare()
        return Response(render_metrics(registry), headers={"content-type": CONTENT_TYPE, **ONCE})

    async def index(_request: Request) -> Response:
        return PlainTextResponse("cvpnd; the metrics are under /metrics\n", headers=ONCE)

    async def not_there(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return PlainTextResponse("the metrics are under /metrics\n", status, headers=ONCE)

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/", index)], exception_handlers={HTTPException: not_there}
    )
