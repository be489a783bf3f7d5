"""``/v1/endpoints``: what clients connect to. Those of the TOML file are shown; those made here are changed here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations

CRL_BYTES = 8 * 1024 * 1024
Port = Annotated[int, Field(ge=1, le=65_535)]
Pem = Annotated[str, StringConstraints(min_length=1, max_length=CRL_BYTES)]


class CreateEndpoint(Body):
    """``settings`` are keys of an ``[[endpoint]]`` table; certificates are ARNs of imported ones. Who logs in otherwise
    than by a certificate says so in ``settings.authentication``, as the table does."""

    name: Word | None = None
    server_certificate: Word
    client_certificate: Word | None = None
    client_cidr: Word
    transport: Literal["udp", "tcp"] = "udp"
    port: Port = 443
    vpc: Word | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    tags: dict[Word, str] = Field(default_factory=dict)


class ModifyEndpoint(Body):
    """Settings that are null go back to their default; what is not given stays."""

    server_certificate: Word | None = None
    port: Port | None = None
    vpc: Word | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class ImportCrl(Body):
    pem: Pem
    older: bool = False
    """It may go back behind the list that is in force."""


def endpoint_routes(operations: Operations) -> list[Operation]:
    async def list_endpoints(request: Request) -> Response:
        read_query(request, Query)
        return answer(endpoints=await operations.list_endpoints())

    async def show_endpoint(request: Request) -> Response:
        read_query(request, Query)
        return answer(endpoint=await operations.show_endpoint(request.path_params["endpoint"]))

    async def create_endpoint(request: Request) -> Response:
        body = await read_body(request, CreateEndpoint)
        view = await operations.create_endpoint(
            name=body.name,
            server_certificate=body.server_certificate,
            client_certificate=body.client_certificate or "",
            settings={**body.settings, "client_cidr": body.client_cidr},
            transport=body.transport,
            port=body.port,
            vpc=body.vpc or "",
            tags=body.tags,
        )
        return answer(201, endpoint=view)

    async def modify_endpoint(request: Request) -> Response:
        body = await read_body(request, ModifyEndpoint)
        view = await operations.modify_endpoint(
            request.path_params["endpoint"],
            settings=body.settings,
            server_certificate=body.server_certificate,
            port=body.port,
            vpc=body.vpc,
        )
        return answer(endpoint=view)

    async def delete_endpoint(request: Request) -> Response:
        read_query(request, Query)
        return answer(endpoint=await operations.delete_endpoint(request.path_params["endpoint"]))

    async def export_crl(request: Request) -> Response:
        read_query(request, Query)
        return answer(pem=await operations.export_crl(request.path_params["endpoint"]))

    async def import_crl(request: Request) -> Response:
        body = await read_body(request, ImportCrl, limit=CRL_BYTES)
        await operations.import_crl(request.path_params["endpoint"], body.pem, older=body.older)
        return answer()

    async def export_profile(request: Request) -> Response:
        read_query(request, Query)
        return answer(profile=await operations.export_profile(request.path_params["endpoint"]))

    return [
        Operation("GET", "/endpoints", list_endpoints),
        Operation("POST", "/endpoints", create_endpoint, body=CreateEndpoint),
        Operation("GET", "/endpoints/{endpoint}", show_endpoint),
        Operation("PATCH", "/endpoints/{endpoint}", modify_endpoint, body=ModifyEndpoint),
        Operation("DELETE", "/endpoints/{endpoint}", delete_endpoint),
        Operation("GET", "/endpoints/{endpoint}/crl", export_crl),
        Operation("PUT", "/endpoints/{endpoint}/crl", import_crl, body=ImportCrl),
        Operation("GET", "/endpoints/{endpoint}/profile", export_profile),
    ]
