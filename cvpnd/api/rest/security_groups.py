"""``/v1/security-groups``: those of the file, and what they kept back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Query, answer, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


def security_group_routes(operations: Operations) -> list[Operation]:
    async def list_security_groups(request: Request) -> Response:
        read_query(request, Query)
        return answer(security_groups=await operations.list_security_groups())

    return [Operation("GET", "/security-groups", list_security_groups)]
