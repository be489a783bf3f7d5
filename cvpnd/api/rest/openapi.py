"""``/v1/openapi.json``: the REST API described from the forms that check its requests, so the two cannot differ."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cvpnd.api.rest.forms import Body, Query

Handler = Callable[[Request], Awaitable[Response]]
_SCHEMAS = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


class Operation(Route):
    """A route that knows its forms."""

    def __init__(
        self, method: str, path: str, handler: Handler, *, query: type[Query] = Query, body: type[Body] | None = None
    ) -> None:
        super().__init__(path, handler, methods=[method])
        self.method, self.query, self.body = method, query, body


def openapi_route(operations: Iterable[Operation]) -> Operation:
    document = describe(list(operations))

    async def openapi(_request: Request) -> Response:
        return JSONResponse(document)

    return Operation("GET", "/openapi.json", openapi)


def describe(operations: list[Operation]) -> dict[str, Any]:
    forms: list[type[BaseModel]] = [form for o in operations for form in (o.query, o.body) if form is not None]
    modes = [(form, "validation") for form in dict.fromkeys(forms)]
    names, schemas = models_json_schema(modes, ref_template=_SCHEMAS + "{model}")  # type: ignore[arg-type]
    definitions = schemas.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        query = definitions[names[operation.query, "validation"]["$ref"].removeprefix(_SCHEMAS)]
        entry: dict[str, Any] = {
            "operationId": operation.name,
            "summary": operation.name.replace("_", " "),
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"\{(\w+)\}", operation.path)
            ]
            + [
                {"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema}
                for name, schema in query.get("properties", {}).items()
            ],
            "responses": {
                "201" if operation.method == "POST" else "200": {"description": "It is so, and in force."},
                "default": {
                    "description": "Refused; nothing has changed.",
                    "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}},
                },
            },
        }
        if operation.body is not None:
            schema = names[operation.body, "validation"]
            entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths.setdefault(f"/v1{operation.path}", {})[operation.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "cvpnd", "version": version("cvpnd")},
        "paths": paths,
        "components": {"schemas": {**definitions, "Error": _ERROR}},
    }
