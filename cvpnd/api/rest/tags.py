"""``/v1/tags``: notes on endpoints and imported certificates."""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class SetTags(Body):
    resource: Word
    tags: dict[Word, str] = Field(min_length=1)


class RemoveTags(Query):
    resource: Word
    key: tuple[Word, ...] | None = None
    """None: all of them."""


def tag_routes(operations: Operations) -> list[Operation]:
    async def list_tags(request: Request) -> Response:
        read_query(request, Query)
        return answer(tags=await operations.list_tags())

    async def set_tags(request: Request) -> Response:
        body = await read_body(request, SetTags)
        await operations.set_tags(body.resource, body.tags)
        return answer(201)

    async def remove_tags(request: Request) -> Response:
        query = read_query(request, RemoveTags, repeated=frozenset({"key"}))
        await operations.remove_tags(query.resource, query.key)
        return answer()

    return [
        Operation("GET", "/tags", list_tags),
        Operation("POST", "/tags", set_tags, body=SetTags),
        Operation("DELETE", "/tags", remove_tags, query=RemoveTags),
    ]
