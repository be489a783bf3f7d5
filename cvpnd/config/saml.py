"""Identity providers that people log in at with their browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from cvpnd.config.table import Table
from cvpnd.config.values import FilePath, Identifier, Printable, is_loopback, resolve, show, whole

PROVIDER_ARN = re.compile(r"arn:aws:iam::\d{12}:saml-provider/[\w._-]{1,128}", re.ASCII)
"""Of one that was made at run time."""


def _parse_metadata(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or "://" not in value:
        return resolve(value, info)
    parts = urlsplit(value if value.isascii() and value.isprintable() else "")
    loopback = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or "@" in parts.netloc or not (parts.scheme == "https" or loopback):
        raise ValueError(f"{show(value)} is no place for metadata; write a URL with https, or the path of a file")
    return value


class SamlProviderConfig(Table):
    id: Identifier
    metadata: Annotated[Path | str, BeforeValidator(_parse_metadata)]
    """A file, or a URL."""
    metadata_ca: FilePath | None = None
    """None: the authorities that this host trusts."""
    refresh_s: int = whole(3600, 10, 7 * 86_400)
    idp_entity_id: Printable | None = None
    """None: there is only one in its metadata."""
    entity_id: Printable = Field(default="urn:amazon:webservices:clientvpn", min_length=1)
    """Our own."""
    signing_key: FilePath | None = None
    """For requests; None: they are not signed."""
    clock_skew_s: int = whole(30, 0, 300)
    login_time_s: int = whole(300, 30, 3600)

    @model_validator(mode="after")
    def _check_authority(self) -> Self:
        if self.metadata_ca is not None and isinstance(self.metadata, Path):
            raise ValueError("has metadata_ca, and its metadata is a file; leave it away")
        return self
