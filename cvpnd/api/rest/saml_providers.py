"""``/v1/saml-providers``: SAML identity providers by their metadata."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import LIST_LIMIT, Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations

Metadata = Annotated[str, StringConstraints(min_length=1, max_length=LIST_LIMIT)]


class CreateSamlProvider(Body):
    name: Word
    metadata: Metadata


class UpdateSamlProvider(Body):
    arn: Word
    metadata: Metadata


class SamlProviderFilter(Query):
    arn: Word | None = None


class NamedSamlProvider(Query):
    arn: Word


def saml_provider_routes(operations: Operations) -> list[Operation]:
    async def list_saml_providers(request: Request) -> Response:
        query = read_query(request, SamlProviderFilter)
        if query.arn is not None:
            return answer(saml_providers=[await operations.show_saml_provider(query.arn)])
        return answer(saml_providers=await operations.list_saml_providers())

    async def create_saml_provider(request: Request) -> Response:
        body = await read_body(request, CreateSamlProvider, limit=LIST_LIMIT)
        return answer(201, saml_provider=await operations.create_saml_provider(body.name, body.metadata))

    async def update_saml_provider(request: Request) -> Response:
        body = await read_body(request, UpdateSamlProvider, limit=LIST_LIMIT)
        return answer(saml_provider=await operations.update_saml_provider(body.arn, body.metadata))

    async def delete_saml_provider(request: Request) -> Response:
        query = read_query(request, NamedSamlProvider)
        await operations.delete_saml_provider(query.arn)
        return answer()

    return [
        Operation("GET", "/saml-providers", list_saml_providers, query=SamlProviderFilter),
        Operation("POST", "/saml-providers", create_saml_provider, body=CreateSamlProvider),
        Operation("PUT", "/saml-providers", update_saml_provider, body=UpdateSamlProvider),
        Operation("DELETE", "/saml-providers", delete_saml_provider, query=NamedSamlProvider),
    ]
