"""``/v1/profiles``: a client's ready ``.ovpn``. POST, because it may issue the certificate."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.certificates import CommonName, Serial
from cvpnd.api.rest.forms import Body, Word, answer, read_body
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class MakeProfile(Body):
    name: CommonName
    endpoint: Word | None = None
    kind: Word = "openvpn"
    issue: bool = False
    serial: Serial | None = None
    """Of a certificate issued elsewhere, for a tls-crypt-v2 key that belongs to it."""

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.issue and self.serial is not None:
            raise ValueError("give either issue or a serial number: a new certificate has its own")
        return self


def profile_routes(operations: Operations) -> list[Operation]:
    async def make_profile(request: Request) -> Response:
        body = await read_body(request, MakeProfile)
        profile = await operations.profile(
            body.name, endpoint=body.endpoint, kind=body.kind, issue=body.issue, serial=body.serial
        )
        return answer(profile=profile)

    return [Operation("POST", "/profiles", make_profile, body=MakeProfile)]
