"""The servers that judge a second factor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cvpnd.config.sockets import RadiusServerUrl
from cvpnd.config.table import Table
from cvpnd.config.values import FilePath, Identifier, Printable, whole


class RadiusConfig(Table):
    """RADIUS servers of one directory's users, which all know the same codes."""

    directory: Identifier
    servers: tuple[RadiusServerUrl, ...] = Field(min_length=1, max_length=16)
    """Asked in this order, those that are down last."""
    secret_file: FilePath
    sends: Literal["code", "password-and-code"] = "code"
    """As User-Password; with ``mfa = "radius-challenge"`` it is the password."""
    nas_identifier: Printable = Field(default="cvpnd", min_length=1)
    timeout_s: int = whole(5, 1, 60)
    """For each attempt with a server."""
    attempts: int = whole(2, 1, 10)
    code_once_s: int = whole(300, 0, 3600)
    """How long a code that was right is not taken again; 0: servers see to it."""
