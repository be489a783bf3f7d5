"""``[portal]``: the pages on which people log in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, InstanceOf, model_validator

from cvpnd.config.sockets import SocketName, parse_socket_name
from cvpnd.config.table import Table
from cvpnd.config.values import FilePath, show, whole

EXAMPLE = "https://vpn.example.com"
SELF_SERVICE_PATH = "/self-service/endpoints/"


def _parse_listen(value: object) -> SocketName | None:
    if value is None or isinstance(value, SocketName):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text; write an address and port like 0.0.0.0:8444, or off")
    return None if value == "off" else parse_socket_name(value, "0.0.0.0:8444")


def _parse_url(value: object) -> str:
    """As the parts of it that a browser compares: an origin."""
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text; write a URL like {EXAMPLE}")
    text = value.removesuffix("/")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{show(value)}: {error}; write a URL like {EXAMPLE}") from None
    if (
        not text.isascii()
        or not text.isprintable()
        or parts.scheme != "https"
        or not host
        or parts.username is not None
    ):
        raise ValueError(f"{show(value)} is no place that a browser can trust; write a URL like {EXAMPLE}")
    if parts.path or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError(f"{show(value)} has something after the host; leave that away, as in {EXAMPLE}")
    netloc = f"[{host}]" if ":" in host else host
    return f"https://{netloc}" + (f":{port}" if port not in (None, 443) else "")


PortalListen = Annotated[InstanceOf[SocketName] | None, BeforeValidator(_parse_listen)]
PortalUrl = Annotated[str, BeforeValidator(_parse_url)]


class PortalConfig(Table):
    listen: PortalListen = Field(default=None)
    """None: there is none."""
    url: PortalUrl | None = None
    """Without a slash at its end."""
    certificate: FilePath | None = None
    private_key: FilePath | None = None
    login_s: int = whole(180, 10, 1800)
    requests_per_source_per_min: int = whole(1200, 10, 1_000_000)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.listen is None:
            return self
        for key, value in (("url", self.url), ("certificate", self.certificate), ("private_key", self.private_key)):
            if value is None:
                raise ValueError(f"listens and has no {key}; add {key} = … (conf/cvpnd.toml explains it)")
        return self

    def self_service_url(self, endpoint_id: str) -> str:
        """Empty if there is no portal."""
        return "" if self.listen is None else f"{self.url}{SELF_SERVICE_PATH}{endpoint_id}"

    @property
    def files(self) -> tuple[Path, Path]:
        """Certificate and private key of one that listens."""
        assert self.certificate is not None and self.private_key is not None  # noqa: S101 - checked above
        return self.certificate, self.private_key
