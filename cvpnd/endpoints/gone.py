"""What was taken away lately, in its last state: whoever waits for that asks for it by its id until it says so, at this
gateway or at another one on the same store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from cvpnd.endpoints.model import AssociationView, EndpointView

SHOWN_S = 30.0
"""Twice as long as AWS's own waiters pause between two questions."""

_ENDPOINT, _ASSOCIATION = TypeAdapter(EndpointView), TypeAdapter(AssociationView)


def packed_endpoint(view: EndpointView) -> Mapping[str, Any]:
    """For the store."""
    found: Mapping[str, Any] = _ENDPOINT.dump_python(view, mode="json")
    return found


def packed_association(view: AssociationView) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _ASSOCIATION.dump_python(view, mode="json")
    return found


def endpoint_of(packed: Mapping[str, Any]) -> EndpointView:
    return _ENDPOINT.validate_python(packed)


def association_of(packed: Mapping[str, Any]) -> AssociationView:
    return _ASSOCIATION.validate_python(packed)
