"""``/v1/networks``: the subnets that endpoints are associated with. ``/v1/vpcs`` and ``/v1/subnets``: what the file
declares."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class NetworkFilter(Query):
    endpoint: Word | None = None


class Associate(Body):
    endpoint: Word
    subnet: Word
    nat: bool = True


class Disassociate(Query):
    endpoint: Word
    network: Word
    """The association's id, or the subnet's."""


def network_routes(operations: Operations) -> list[Operation]:
    async def list_networks(request: Request) -> Response:
        query = read_query(request, NetworkFilter)
        return answer(networks=await operations.list_associations(query.endpoint))

    async def list_vpcs(request: Request) -> Response:
        read_query(request, Query)
        return answer(vpcs=operations.vpcs())

    async def list_subnets(request: Request) -> Response:
        read_query(request, Query)
        return answer(subnets=operations.subnets())

    async def associate(request: Request) -> Response:
        body = await read_body(request, Associate)
        return answer(201, network=await operations.associate(body.endpoint, body.subnet, nat=body.nat))

    async def disassociate(request: Request) -> Response:
        query = read_query(request, Disassociate)
        return answer(network=await operations.disassociate(query.endpoint, query.network))

    return [
        Operation("GET", "/networks", list_networks, query=NetworkFilter),
        Operation("GET", "/vpcs", list_vpcs),
        Operation("GET", "/subnets", list_subnets),
        Operation("POST", "/networks", associate, body=Associate),
        Operation("DELETE", "/networks", disassociate, query=Disassociate),
    ]
