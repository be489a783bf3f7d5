"""``/v1/users``: users of the directory "local"."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Line, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class AddUser(Body):
    name: Word
    password: str
    groups: list[Line] | None = None


class ChangeUser(Body):
    password: str | None = None
    groups: list[Line] | None = None
    disabled: bool | None = None


def user_routes(operations: Operations) -> list[Operation]:
    async def list_users(request: Request) -> Response:
        read_query(request, Query)
        return answer(users=await operations.list_users())

    async def add_user(request: Request) -> Response:
        body = await read_body(request, AddUser)
        return answer(201, user=await operations.add_user(body.name, body.password, body.groups or ()))

    async def change_user(request: Request) -> Response:
        body = await read_body(request, ChangeUser)
        name = request.path_params["name"]
        changed = await operations.change_user(name, password=body.password, groups=body.groups, disabled=body.disabled)
        return answer(user=changed)

    async def remove_user(request: Request) -> Response:
        read_query(request, Query)
        await operations.remove_user(request.path_params["name"])
        return answer()

    return [
        Operation("GET", "/users", list_users),
        Operation("POST", "/users", add_user, body=AddUser),
        Operation("PATCH", "/users/{name}", change_user, body=ChangeUser),
        Operation("DELETE", "/users/{name}", remove_user),
    ]
