"""The second factor of a directory's users: the endpoint's to say, else the directory's, as in AWS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Mfa = Literal["off", "totp", "radius", "radius-challenge"]


def inherit_mfa(methods: Any, of_directories: Mapping[str, str]) -> Any:
    """``[[endpoint.authentication]]`` as it was read, with what it leaves to the directories."""
    if not isinstance(methods, list):
        return methods
    return [
        {"mfa": of_directories[method["directory"]], **method}
        if isinstance(method, dict) and str(method.get("directory")) in of_directories
        else method
        for method in methods
    ]
