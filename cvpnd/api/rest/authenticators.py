"""``/v1/authenticators``: the apps whose codes are asked besides passwords."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.authenticators import ISSUER
from cvpnd.endpoints.service import Operations


class EnrolAuthenticator(Body):
    directory: Word = "local"
    name: Word
    issuer: Word = ISSUER


def authenticator_routes(operations: Operations) -> list[Operation]:
    async def list_authenticators(request: Request) -> Response:
        read_query(request, Query)
        return answer(authenticators=await operations.list_authenticators())

    async def enrol(request: Request) -> Response:
        body = await read_body(request, EnrolAuthenticator)
        return answer(201, enrolment=await operations.enrol_authenticator(body.directory, body.name, body.issuer))

    async def remove(request: Request) -> Response:
        read_query(request, Query)
        await operations.remove_authenticator(request.path_params["directory"], request.path_params["name"])
        return answer()

    return [
        Operation("GET", "/authenticators", list_authenticators),
        Operation("POST", "/authenticators", enrol, body=EnrolAuthenticator),
        Operation("DELETE", "/authenticators/{directory}/{name}", remove),
    ]
