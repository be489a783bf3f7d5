"""``/v1/imported-certificates``: certificates with their keys, for endpoints made at run time. A key goes in and
never comes out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations

Pem = Annotated[str, StringConstraints(min_length=1, max_length=32_768)]


class ImportCertificate(Body):
    certificate: Pem
    private_key: Pem
    chain: Annotated[str, StringConstraints(max_length=1_048_576)] = ""
    arn: Word | None = None
    """In place of that one."""
    tags: dict[Word, str] = Field(default_factory=dict)


class CertificateFilter(Query):
    arn: Word | None = None


class NamedCertificate(Query):
    arn: Word


def imported_certificate_routes(operations: Operations) -> list[Operation]:
    async def list_certificates(request: Request) -> Response:
        query = read_query(request, CertificateFilter)
        if query.arn is not None:
            return answer(certificates=[await operations.show_imported_certificate(query.arn)])
        return answer(certificates=await operations.list_imported_certificates())

    async def import_certificate(request: Request) -> Response:
        body = await read_body(request, ImportCertificate, limit=2 * 1024 * 1024)
        view = await operations.import_certificate(
            body.certificate.encode(), body.private_key.encode(), body.chain.encode(), arn=body.arn, tags=body.tags
        )
        return answer(201, certificate=view)

    async def delete_certificate(request: Request) -> Response:
        query = read_query(request, NamedCertificate)
        await operations.delete_imported_certificate(query.arn)
        return answer()

    return [
        Operation("GET", "/imported-certificates", list_certificates, query=CertificateFilter),
        Operation("POST", "/imported-certificates", import_certificate, body=ImportCertificate),
        Operation("DELETE", "/imported-certificates", delete_certificate, query=NamedCertificate),
    ]
