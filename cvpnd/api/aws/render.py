"""From an answer in Python to bytes, by the model of the operation. A handler that answers what the model does not have
is our mistake and fails aloud."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from botocore.model import OperationModel, Shape
from starlette.responses import Response

from cvpnd.api.aws.models import Service

_NO_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0 cannot say these at all; a reader would give up the whole answer."""


def render(service: Service, operation: OperationModel, answer: Mapping[str, Any], request_id: str) -> Response:
    headers = {"x-amzn-requestid": request_id}
    if service.protocol == "json":
        shape = operation.output_shape
        body = json.dumps(_to_json(shape, answer)) if shape is not None else ""
        return Response(body, 200, headers, "application/x-amz-json-1.1")
    namespace = quoteattr(service.namespace)
    inner = _members(operation.output_shape, answer, ec2=service.protocol == "ec2")
    if service.protocol == "ec2":
        if operation.output_shape is None:
            inner = "<return>true</return>"
        inner = f"<requestId>{request_id}</requestId>{inner}"
    else:
        wrapper = operation.output_shape.serialization.get("resultWrapper") if operation.output_shape else None
        inner = f"<{wrapper}>{inner}</{wrapper}>" if wrapper else inner
        inner += f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
    name = f"{operation.name}Response"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns={namespace}>{inner}</{name}>'
    return Response(text, 200, headers, "text/xml;charset=UTF-8")


def _members(shape: Shape | None, value: Mapping[str, Any], *, ec2: bool) -> str:
    if shape is None:
        return ""
    if unknown := value.keys() - shape.members.keys():
        raise KeyError(f"{shape.name} has no {', '.join(unknown)}")
    parts = []
    for member, inner in shape.members.items():
        if value.get(member) is not None:
            parts.append(_element(inner, inner.serialization.get("name", member), value[member], ec2=ec2))
    return "".join(parts)


def _element(shape: Shape, name: str, value: Any, *, ec2: bool) -> str:
    match shape.type_name:
        case "structure":
            return f"<{name}>{_members(shape, value, ec2=ec2)}</{name}>"
        case "list":
            item = shape.member.serialization.get("name", "item" if ec2 else "member")
            if shape.serialization.get("flattened"):
                return "".join(_element(shape.member, name, each, ec2=ec2) for each in value)
            return f"<{name}>{''.join(_element(shape.member, item, each, ec2=ec2) for each in value)}</{name}>"
        case _:
            return f"<{name}>{xml_text(_text(shape, value))}</{name}>"


def _text(shape: Shape, value: Any) -> str:
    match shape.type_name:
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            return iso(value)
        case "blob":
            return base64.b64encode(value).decode()
        case _:
            return str(value)


def xml_text(text: str) -> str:
    """Between two tags."""
    return escape(_NO_XML.sub("?", text))


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _to_json(shape: Shape, value: Any) -> Any:
    match shape.type_name:
        case "structure":
            if unknown := value.keys() - shape.members.keys():
                raise KeyError(f"{shape.name} has no {', '.join(unknown)}")
            return {
                shape.members[member].serialization.get("name", member): _to_json(shape.members[member], each)
                for member, each in value.items()
                if each is not None
            }
        case "list":
            return [_to_json(shape.member, each) for each in value]
        case "map":
            return {key: _to_json(shape.value, each) for key, each in value.items()}
        case "timestamp":
            return value.timestamp()
        case "blob":
            return base64.b64encode(value).decode()
        case _:
            return value
