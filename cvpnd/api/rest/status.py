"""``/v1/status`` and ``/v1/recent-log``: how the gateway is, and who came and went."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Query, Word, answer, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations
from cvpnd.ops.recent_log import MOST, LogFilter


class RecentEntries(Query):
    after: Annotated[int, Field(ge=0)] = 0
    """The ``newest`` that the answer before had. Of another ``log_id`` it means nothing."""
    limit: Annotated[int, Field(ge=1, le=MOST)] = MOST
    endpoint: Word | None = None
    user: Word | None = None
    reason: Word | None = None
    failed: bool = False


def status_routes(operations: Operations) -> list[Operation]:
    async def show_status(request: Request) -> Response:
        read_query(request, Query)
        return answer(status=await operations.status())

    async def list_recent_log(request: Request) -> Response:
        query = read_query(request, RecentEntries)
        wanted = LogFilter(query.endpoint, query.user, query.reason, query.failed)
        recent = await operations.recent_log(query.after, wanted, query.limit)
        return answer(**recent._asdict())

    return [
        Operation("GET", "/status", show_status),
        Operation("GET", "/recent-log", list_recent_log, query=RecentEntries),
    ]
