"""``/v1/client-keys``: tls-crypt-v2 keys that profiles were made with."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cvpnd.api.rest.forms import Query, Word, answer, read_query
from cvpnd.api.rest.operations import Operations


class ClientKeyFilter(Query):
    endpoint: Word | None = None


def client_key_routes(operations: Operations) -> list[Route]:
    async def list_client_keys(request: Request) -> Response:
        query = read_query(request, ClientKeyFilter)
        return answer(client_keys=await operations.list_client_keys(query.endpoint))

    return [Route("/client-keys", list_client_keys)]
