"""``--version``, as ``cvpnd`` and ``cvpnctl`` have it."""

from __future__ import annotations

from typing import Annotated

import typer


def _say(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # which reads what no other command needs

        typer.echo(f"cvpnd {version('cvpnd')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_say, help="Show the version and end.")
]
