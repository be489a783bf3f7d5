"""``/v1/audit``: who changed what, when and from where."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Query, answer, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class Newest(Query):
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


def audit_routes(operations: Operations) -> list[Operation]:
    async def list_records(request: Request) -> Response:
        query = read_query(request, Newest)
        records, extent = await operations.audit_records(query.limit), await operations.audit_extent()
        return answer(records=records, extent=extent)

    return [Operation("GET", "/audit", list_records, query=Newest)]
