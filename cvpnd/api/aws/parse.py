"""From a request's body to parameters in Python, by the model of the operation. Nothing is guessed: what the model does
not know, or not so, is refused."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import OperationModel, Shape

from cvpnd.api.aws.errors import ApiError
from cvpnd.api.aws.models import Service
from cvpnd.exact_json import read_json

MOST_FIELDS = 20_000
_INTEGER = re.compile(r"-?[0-9]{1,19}")
Form = dict[str, str]


def read_form(body: bytes) -> Form:
    """Raises ``ApiError``."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError:
        raise ApiError("MalformedQueryString", "The body is not a form in UTF-8") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise ApiError("MalformedQueryString", "The body has a parameter twice")
    return form


def parse_form(service: Service, operation: OperationModel, form: Form) -> dict[str, Any]:
    """Without ``Action`` and ``Version``, which must be gone. Raises ``ApiError``."""
    reader = _FormReader(form, ec2=service.protocol == "ec2")
    shape = operation.input_shape
    parameters: dict[str, Any] = reader.read(shape, "", operation.name) if shape is not None else {}
    for left in sorted(form.keys() - reader.used):
        raise ApiError("UnknownParameter", f"The parameter {left} is not recognized")
    return parameters


class _FormReader:
    def __init__(self, form: Form, *, ec2: bool) -> None:
        self._form = form
        self._ec2 = ec2
        self.used: set[str] = set()
        self._prefixes = set(_prefixes(form))

    def read(self, shape: Shape, name: str, path: str) -> Any:
        match shape.type_name:
            case "structure":
                found = {}
                for member, inner in shape.members.items():
                    wire = self._member_name(inner, member)
                    full = f"{name}.{wire}" if name else wire
                    if full in self._form or full in self._prefixes:
                        found[member] = self.read(inner, full, member)
                    elif member in shape.required_members:
                        raise ApiError("MissingParameter", f"The request must contain the parameter {full}")
                return found
            case "list":
                prefix = name
                if not self._ec2 and not shape.serialization.get("flattened"):
                    prefix = f"{name}.{shape.member.serialization.get('name', 'member')}"
                if self._form.get(name) == "":  # how an empty list is written
                    self.used.add(name)
                    return []
                values: list[Any] = []
                while f"{prefix}.{len(values) + 1}" in self._form or f"{prefix}.{len(values) + 1}" in self._prefixes:
                    values.append(self.read(shape.member, f"{prefix}.{len(values) + 1}", path))
                return values
            case "map":
                raise ApiError("UnsupportedOperation", f"{path}: maps are not supported here")
            case _:
                if name not in self._form:
                    raise ApiError("InvalidParameterValue", f"{path}: is one value, not several")
                self.used.add(name)
                return _checked(shape, _scalar(shape, self._form[name], path), path)

    def _member_name(self, shape: Shape, member: str) -> str:
        serialization = shape.serialization
        if not self._ec2:
            return str(serialization.get("name", member))
        if "queryName" in serialization:
            return str(serialization["queryName"])
        name = str(serialization.get("name", member))
        return name[0].upper() + name[1:]


def _prefixes(form: Form) -> Iterator[str]:
    for name in form:
        parts = name.split(".")
        for length in range(1, min(len(parts), 12)):
            yield ".".join(parts[:length])


def _scalar(shape: Shape, text: str, path: str) -> Any:
    try:
        match shape.type_name:
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case "integer" | "long":
                if _INTEGER.fullmatch(text) is None:  # Python takes more, and raises for thousands of digits
                    raise ValueError
                return int(text)
            case "float" | "double":
                return float(text)
            case "blob":
                return base64.b64decode(text, validate=True)
            case "timestamp":
                return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
            case _:
                return text
    except (ValueError, KeyError, OverflowError, binascii.Error):
        raise ApiError("InvalidParameterValue", f"Value ({text[:80]}) for parameter {path} is invalid") from None


# -- JSON ---------------------------------------------------------------------------------------------------


def parse_json(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """Raises ``ApiError``."""
    try:
        document = read_json(body or b"{}")
    except ValueError as error:
        raise ApiError("SerializationException", f"the body is not JSON: {error}") from None
    shape = operation.input_shape
    if shape is None:
        return {}
    parameters: dict[str, Any] = _from_json(shape, document, operation.name)
    return parameters


def _from_json(shape: Shape, value: Any, path: str) -> Any:
    match shape.type_name:
        case "structure":
            _expect(value, Mapping, path)
            found = {}
            wires = {member: inner.serialization.get("name", member) for member, inner in shape.members.items()}
            for unknown in sorted(value.keys() - set(wires.values())):
                raise ApiError("ValidationException", f"The parameter {unknown[:80]} is not recognized")
            for member, inner in shape.members.items():
                wire = wires[member]
                if value.get(wire) is not None:
                    found[member] = _from_json(inner, value[wire], member)
                elif member in shape.required_members:
                    raise ApiError("ValidationException", f"{member}: must not be null")
            return found
        case "list":
            _expect(value, list, path)
            return [_from_json(shape.member, each, path) for each in value]
        case "map":
            _expect(value, Mapping, path)
            return {str(key): _from_json(shape.value, each, path) for key, each in value.items()}
        case "boolean":
            _expect(value, bool, path)
            return value
        case "integer" | "long":
            _expect(value, int, path)
            return _checked(shape, value, path)
        case "timestamp":
            _expect(value, (int, float), path)
            return _moment(value, path)
        case "blob":
            _expect(value, str, path)
            return _checked(shape, _scalar(shape, value, path), path)
        case _:
            _expect(value, str, path)
            return _checked(shape, value, path)


def _moment(seconds: float, path: str) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise ApiError("InvalidParameterValue", f"Value ({seconds}) for parameter {path} is invalid") from None


def _expect(value: Any, kind: type | tuple[type, ...], path: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ApiError("SerializationException", f"{path}: is of the wrong type")


def _checked(shape: Shape, value: Any, path: str) -> Any:
    """Against what the model says of it: choices, length, range."""
    if isinstance(value, str) and "\0" in value:  # JSON can spell it, and no database takes it
        raise ApiError("InvalidParameterValue", f"Parameter {path} has a character in it that is none")
    allowed = getattr(shape, "enum", None)
    if allowed and value not in allowed:
        raise ApiError(
            "InvalidParameterValue", f"Value ({value}) for parameter {path} is invalid; choose {', '.join(allowed[:8])}"
        )
    size = len(value) if isinstance(value, str | bytes) else value
    if isinstance(size, int) and not isinstance(size, bool):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if (low is not None and size < low) or (high is not None and size > high):
            what = "length" if isinstance(value, str | bytes) else "value"
            raise ApiError("InvalidParameterValue", f"The {what} of parameter {path} is not from {low or 0} to {high}")
    return value
