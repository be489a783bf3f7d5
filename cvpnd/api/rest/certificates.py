"""``/v1/certificates``: client certificates of the gateway's own authority."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations

DEFAULT_DAYS = 825
"""A little over two years, what easy-rsa gives and every client accepts."""

CommonName = Annotated[Word, StringConstraints(max_length=64)]
"""RFC 5280, ub-common-name."""


Serial = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f:]{1,64}$")]


class IssueCertificate(Body):
    name: CommonName
    days: Annotated[int, Field(ge=1, le=36500)] = DEFAULT_DAYS


class RevokeCertificate(Body):
    name: CommonName | None = None
    serial: Serial | None = None

    @model_validator(mode="after")
    def _either_name_or_serial(self) -> Self:
        if (self.name is None) == (self.serial is None):
            raise ValueError("give either a name or a serial number")
        return self


def certificate_routes(operations: Operations) -> list[Operation]:
    async def list_certificates(request: Request) -> Response:
        read_query(request, Query)
        return answer(certificates=await operations.list_certificates())

    async def issue_certificate(request: Request) -> Response:
        body = await read_body(request, IssueCertificate)
        issued = await operations.issue_certificate(body.name, body.days)
        return answer(201, certificate=issued.certificate, private_key=issued.private_key)

    async def revoke_certificate(request: Request) -> Response:
        body = await read_body(request, RevokeCertificate)
        return answer(certificate=await operations.revoke_certificate(body.name, body.serial))

    return [
        Operation("GET", "/certificates", list_certificates),
        Operation("POST", "/certificates", issue_certificate, body=IssueCertificate),
        Operation("POST", "/certificates/revoke", revoke_certificate, body=RevokeCertificate),
    ]
