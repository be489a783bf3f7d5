"""``cvpnctl tag``"""

from __future__ import annotations

from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption, pair
from cvpnd.ctl.output import print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)

Resource = Annotated[
    str,
    typer.Argument(
        help="Id of an endpoint made at run time, or ARN of an imported certificate.",
        autocompletion=completion.taggable,
    ),
]


@app.callback()
def _nouns() -> None:
    """Tags: notes on endpoints and imported certificates."""


@app.command("list")
def list_tags(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List all tags."""
    tags = Client(socket).get("/tags")["tags"]
    if as_json:
        print_json(tags)
        return
    rows = ([resource, key, value] for resource, pairs in tags.items() for key, value in pairs.items())
    print_table(["RESOURCE", "KEY", "VALUE"], rows, empty="no tags")


@app.command("set")
def set_tags(
    resource: Resource,
    tags: Annotated[list[str], typer.Argument(metavar="KEY=VALUE…", help="Tags to set or replace.")],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Set tags."""
    pairs = dict(pair(tag) for tag in tags)
    Client(socket).post("/tags", {"resource": resource, "tags": pairs})
    _say("set", resource, sorted(pairs), as_json)


@app.command("remove")
def remove_tags(
    resource: Resource,
    keys: Annotated[list[str], typer.Argument(help="Keys of the tags to remove.")],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Remove tags."""
    Client(socket).delete("/tags", resource=resource, key=keys)
    _say("removed", resource, keys, as_json)


def _say(done: str, resource: str, keys: list[str], as_json: bool) -> None:
    if as_json:
        print_json({done: keys})
    else:
        print_line(f"{done}: {resource}: {' '.join(keys)}")
