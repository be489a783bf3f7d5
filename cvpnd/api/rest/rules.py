"""``/v1/rules``: authorization rules.

Whoever means everybody says so (``all_groups``): a forgotten group must not open a network to all.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cvpnd.api.rest.forms import Body, Line, NetworkText, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.operations import Operations


class RuleFilter(Query):
    endpoint: Word | None = None


def _check_who(group: str | None, all_groups: bool) -> None:
    if (group is not None) == all_groups:
        raise ValueError("give either a group or all_groups = true")


class AddRule(Body):
    endpoint: Word
    network: NetworkText
    group: Word | None = None
    all_groups: bool = False
    description: Line = ""

    @model_validator(mode="after")
    def _either_group_or_all(self) -> Self:
        _check_who(self.group, self.all_groups)
        return self


class RemoveRule(Query):
    endpoint: Word
    network: NetworkText
    group: Word | None = None
    all_groups: bool = False

    @model_validator(mode="after")
    def _either_group_or_all(self) -> Self:
        _check_who(self.group, self.all_groups)
        return self


def rule_routes(operations: Operations) -> list[Route]:
    async def list_rules(request: Request) -> Response:
        query = read_query(request, RuleFilter)
        return answer(rules=await operations.list_rules(query.endpoint))

    async def add_rule(request: Request) -> Response:
        body = await read_body(request, AddRule)
        return answer(201, rule=await operations.authorize(body.endpoint, body.network, body.group, body.description))

    async def remove_rule(request: Request) -> Response:
        query = read_query(request, RemoveRule)
        return answer(rule=await operations.revoke(query.endpoint, query.network, query.group))

    return [
        Route("/rules", list_rules),
        Route("/rules", add_rule, methods=["POST"]),
        Route("/rules", remove_rule, methods=["DELETE"]),
    ]
