"""``/v1/connections``: who is connected, and ending it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.service import Operations


class ConnectionFilter(Query):
    endpoint: Word | None = None


class TerminateUser(Body):
    username: Word
    endpoint: Word | None = None


def connection_routes(operations: Operations) -> list[Operation]:
    async def list_connections(request: Request) -> Response:
        query = read_query(request, ConnectionFilter)
        return answer(connections=await operations.list_connections(query.endpoint))

    async def show_connection(request: Request) -> Response:
        read_query(request, Query)
        wanted = request.path_params["connection_id"]
        for connection in await operations.list_connections():
            if connection.connection_id == wanted:
                return answer(connection=connection)
        raise _no_connection(wanted)

    async def terminate_connection(request: Request) -> Response:
        read_query(request, Query)
        wanted = request.path_params["connection_id"]
        terminated = await operations.terminate_connections(connection_id=wanted)
        if not terminated:
            raise _no_connection(wanted)
        return answer(terminated=terminated)

    async def terminate_user(request: Request) -> Response:
        body = await read_body(request, TerminateUser)
        terminated = await operations.terminate_connections(username=body.username, endpoint=body.endpoint)
        if not terminated:
            raise OperationError(
                "InvalidClientVpnConnection.UserNotFound",
                f"{body.username} is not connected here; tokens of their earlier logins are worth nothing from now on",
            )
        return answer(terminated=terminated)

    return [
        Operation("GET", "/connections", list_connections, query=ConnectionFilter),
        Operation("POST", "/connections/terminate", terminate_user, body=TerminateUser),
        Operation("GET", "/connections/{connection_id}", show_connection),
        Operation("DELETE", "/connections/{connection_id}", terminate_connection),
    ]


def _no_connection(connection_id: str) -> OperationError:
    return OperationError(
        "InvalidClientVpnConnection.IdNotFound",
        f"no connection {connection_id}, neither live nor ended within the last hour",
    )
