"""``cvpnctl crl``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl.client import Client, segment
from cvpnd.ctl.files import read_text
from cvpnd.ctl.options import Endpoint, JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_line

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """Revocation lists of endpoints that are made at run time."""


@app.command("import")
def import_crl(
    endpoint: Endpoint,
    file: Annotated[Path, typer.Argument(help="PEM file of the list; - is standard input.")],
    socket: SocketOption,
    older: Annotated[bool, typer.Option("--older", help="Also if it is older than the one in force.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a revocation list in force. Whoever it names is sent away at once."""
    Client(socket).put(f"/endpoints/{segment(endpoint)}/crl", {"pem": read_text(file), "older": older})
    if as_json:
        print_json({"imported": endpoint})
    else:
        print_line(f"in force: {endpoint}")


@app.command("export")
def export_crl(endpoint: Endpoint, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Print the revocation list that was imported last."""
    pem = Client(socket).get(f"/endpoints/{segment(endpoint)}/crl")["pem"]
    if as_json:
        print_json({"pem": pem})
    elif pem is None:
        sys.stderr.write("none was imported\n")
    else:
        sys.stdout.write(pem)
