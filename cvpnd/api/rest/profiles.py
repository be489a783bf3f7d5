"""``/v1/profiles``: a client's ready ``.ovpn``. POST, because it may issue the certificate."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cvpnd.api.rest.certificates import CommonName
from cvpnd.api.rest.forms import Body, Word, answer, read_body
from cvpnd.api.rest.operations import Operations


class MakeProfile(Body):
    name: CommonName
    endpoint: Word | None = None
    kind: Word = "openvpn"
    issue: bool = False


def profile_routes(operations: Operations) -> list[Route]:
    async def make_profile(request: Request) -> Response:
        body = await read_body(request, MakeProfile)
        profile = await operations.profile(body.name, endpoint=body.endpoint, kind=body.kind, issue=body.issue)
        return answer(profile=profile)

    return [Route("/profiles", make_profile, methods=["POST"])]
