"""``/v1/access-keys``: keys to the AWS-compatible API."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Line, Query, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class CreateAccessKey(Body):
    role: Literal["admin", "read-only"]
    name: Line = ""


def access_key_routes(operations: Operations) -> list[Operation]:
    async def list_access_keys(request: Request) -> Response:
        read_query(request, Query)
        return answer(access_keys=await operations.list_access_keys())

    async def create_access_key(request: Request) -> Response:
        body = await read_body(request, CreateAccessKey)
        key, secret = await operations.create_access_key(body.role, body.name)
        return answer(201, access_key=key, secret_access_key=secret)

    async def delete_access_key(request: Request) -> Response:
        read_query(request, Query)
        await operations.delete_access_key(request.path_params["access_key_id"])
        return answer()

    return [
        Operation("GET", "/access-keys", list_access_keys),
        Operation("POST", "/access-keys", create_access_key, body=CreateAccessKey),
        Operation("DELETE", "/access-keys/{access_key_id}", delete_access_key),
    ]
