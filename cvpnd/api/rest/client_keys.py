"""``/v1/client-keys``: tls-crypt-v2 keys that profiles were made with."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Query, Word, answer, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class ClientKeyFilter(Query):
    endpoint: Word | None = None


def client_key_routes(operations: Operations) -> list[Operation]:
    async def list_client_keys(request: Request) -> Response:
        query = read_query(request, ClientKeyFilter)
        return answer(client_keys=await operations.list_client_keys(query.endpoint))

    return [Operation("GET", "/client-keys", list_client_keys, query=ClientKeyFilter)]
