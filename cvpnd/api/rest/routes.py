"""``/v1/routes``: where an endpoint's traffic goes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cvpnd.api.rest.forms import Query, Word, answer, read_query
from cvpnd.api.rest.operations import Operations


class RouteFilter(Query):
    endpoint: Word | None = None


def route_routes(operations: Operations) -> list[Route]:
    async def list_routes(request: Request) -> Response:
        query = read_query(request, RouteFilter)
        return answer(routes=await operations.list_routes(query.endpoint))

    return [Route("/routes", list_routes)]
