"""``/v1/log-groups``: log groups, their streams, and what is in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Body, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.logs import MOST_EVENTS
from cvpnd.endpoints.service import Operations


class CreateLogGroup(Body):
    name: Word


class CreateLogStream(Body):
    group: Word
    name: Word


class EventFilter(Query):
    group: Word
    stream: Word | None = None
    since: float = 0
    limit: Annotated[int, Field(ge=1, le=MOST_EVENTS)] = 1000
    """The newest."""


def log_group_routes(operations: Operations) -> list[Operation]:
    async def list_log_groups(request: Request) -> Response:
        read_query(request, Query)
        return answer(log_groups=await operations.list_log_groups())

    async def create_log_group(request: Request) -> Response:
        body = await read_body(request, CreateLogGroup)
        await operations.create_log_group(body.name)
        return answer(201)

    async def create_log_stream(request: Request) -> Response:
        body = await read_body(request, CreateLogStream)
        await operations.create_log_stream(body.group, body.name)
        return answer(201)

    async def list_events(request: Request) -> Response:
        query = read_query(request, EventFilter)
        streams = None if query.stream is None else [query.stream]
        page = await operations.log_events(
            query.group, streams, accept=lambda line: line.timestamp >= query.since, newest=True, most=query.limit
        )
        return answer(events=page.events)

    return [
        Operation("GET", "/log-groups", list_log_groups),
        Operation("POST", "/log-groups", create_log_group, body=CreateLogGroup),
        Operation("POST", "/log-streams", create_log_stream, body=CreateLogStream),
        Operation("GET", "/log-events", list_events, query=EventFilter),
    ]
