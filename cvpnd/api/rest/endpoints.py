"""``/v1/endpoints``"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cvpnd.api.rest.forms import Query, answer, read_query
from cvpnd.api.rest.operations import Operations


def endpoint_routes(operations: Operations) -> list[Route]:
    async def list_endpoints(request: Request) -> Response:
        read_query(request, Query)
        return answer(endpoints=await operations.list_endpoints())

    return [Route("/endpoints", list_endpoints)]
