"""``/v1/explain``: may this user reach that address, and why."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import Query, Word, answer, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


class Question(Query):
    user: Word
    destination: Word
    endpoint: Word | None = None
    group: tuple[Word, ...] = ()


def explain_routes(operations: Operations) -> list[Operation]:
    async def explain(request: Request) -> Response:
        question = read_query(request, Question, repeated=frozenset({"group"}))
        explanation = await operations.explain(question.user, question.destination, question.endpoint, question.group)
        return answer(explanation=explanation)

    return [Operation("GET", "/explain", explain, query=Question)]
