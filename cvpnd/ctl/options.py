"""Options and arguments that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import DEFAULT_SOCKET

SocketOption = Annotated[
    Path,
    typer.Option(
        "--socket",
        envvar="CVPND_SOCKET",
        show_envvar=False,
        default_factory=lambda: Path(DEFAULT_SOCKET),
        show_default=False,
        readable=False,  # not checked here: a socket without permission is the daemon out of reach, not wrong use
        help=f"The daemon's admin socket; without it CVPND_SOCKET, else {DEFAULT_SOCKET}.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", envvar="CVPND_JSON", show_envvar=False, help="Print JSON instead of text.")
]
Endpoint = Annotated[str, typer.Argument(help="Endpoint (name or id).", autocompletion=completion.endpoints)]
OnlyEndpoint = Annotated[
    str | None,
    typer.Argument(help="Only of this endpoint (name or id).", show_default=False, autocompletion=completion.endpoints),
]
WhichEndpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        help="Endpoint (name or id), if there are several.",
        show_default=False,
        autocompletion=completion.endpoints,
    ),
]


def pair(text: str) -> tuple[str, str]:
    """What is written as KEY=VALUE."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise typer.BadParameter(f"{text}: write KEY=VALUE")
    return key, value
