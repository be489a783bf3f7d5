"""``/v1/routes``: where an endpoint's traffic goes."""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import LIST_LIMIT, Body, Line, NetworkText, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class RouteFilter(Query):
    endpoint: Word | None = None


class AddRoute(Body):
    endpoint: Word
    destination: NetworkText
    target: Word
    """An associated subnet, or ``local``."""
    description: Line = ""


class ImportedRoute(Body):
    destination: NetworkText
    target: Word
    description: Line = ""


class ImportRoutes(Body):
    """All of them, or none."""

    endpoint: Word
    routes: list[ImportedRoute] = Field(min_length=1)


class RemoveRoute(Query):
    endpoint: Word
    destination: NetworkText
    target: Word | None = None


def route_routes(operations: Operations) -> list[Operation]:
    async def list_routes(request: Request) -> Response:
        query = read_query(request, RouteFilter)
        return answer(routes=await operations.list_routes(query.endpoint))

    async def add_route(request: Request) -> Response:
        body = await read_body(request, AddRoute)
        route = await operations.add_route(body.endpoint, body.destination, body.target, body.description)
        return answer(201, route=route)

    async def import_routes(request: Request) -> Response:
        body = await read_body(request, ImportRoutes, limit=LIST_LIMIT)
        wanted = [(route.destination, route.target, route.description) for route in body.routes]
        return answer(201, imported=len(await operations.add_routes(body.endpoint, wanted)))

    async def remove_route(request: Request) -> Response:
        query = read_query(request, RemoveRoute)
        return answer(route=await operations.remove_route(query.endpoint, query.destination, query.target))

    return [
        Operation("GET", "/routes", list_routes, query=RouteFilter),
        Operation("POST", "/routes", add_route, body=AddRoute),
        Operation("POST", "/routes/import", import_routes, body=ImportRoutes),
        Operation("DELETE", "/routes", remove_route, query=RemoveRoute),
    ]
