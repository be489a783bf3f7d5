"""``/v1/rules``: authorization rules.

Whoever means everybody says so (``all_groups``): a forgotten group must not open a network to all.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from cvpnd.api.rest.forms import LIST_LIMIT, Body, Line, NetworkText, Query, Word, answer, read_body, read_query
from cvpnd.api.rest.openapi import Operation
from cvpnd.endpoints.service import Operations


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


class ImportedRule(Body):
    network: NetworkText
    group: Word | None = None
    all_groups: bool = False
    description: Line = ""

    @model_validator(mode="after")
    def _either_group_or_all(self) -> Self:
        _check_who(self.group, self.all_groups)
        return self


class ImportRules(Body):
    """All of them, or none."""

    endpoint: Word
    rules: list[ImportedRule] = Field(min_length=1)


def rule_routes(operations: Operations) -> list[Operation]:
    async def list_rules(request: Request) -> Response:
        query = read_query(request, RuleFilter)
        return answer(rules=await operations.list_rules(query.endpoint))

    async def add_rule(request: Request) -> Response:
        body = await read_body(request, AddRule)
        return answer(201, rule=await operations.authorize(body.endpoint, body.network, body.group, body.description))

    async def import_rules(request: Request) -> Response:
        body = await read_body(request, ImportRules, limit=LIST_LIMIT)
        wanted = [(rule.network, rule.group, rule.description) for rule in body.rules]
        return answer(201, imported=len(await operations.authorize_all(body.endpoint, wanted)))

    async def remove_rule(request: Request) -> Response:
        query = read_query(request, RemoveRule)
        return answer(rule=await operations.revoke(query.endpoint, query.network, query.group))

    return [
        Operation("GET", "/rules", list_rules, query=RuleFilter),
        Operation("POST", "/rules", add_rule, body=AddRule),
        Operation("POST", "/rules/import", import_rules, body=ImportRules),
        Operation("DELETE", "/rules", remove_rule, query=RemoveRule),
    ]
