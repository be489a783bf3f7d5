"""``cvpnctl log``"""

from __future__ import annotations

from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import local_time, print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)

Group = Annotated[str, typer.Argument(help="The log group.", autocompletion=completion.log_groups)]


@app.callback()
def _nouns() -> None:
    """Log groups and their streams, which endpoints write their connections to."""


@app.command("list")
def list_groups(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List log groups and streams."""
    groups = Client(socket).get("/log-groups")["log_groups"]
    if as_json:
        print_json(groups)
        return
    print_table(
        ["GROUP", "STREAMS", "CREATED"],
        (
            [group["name"], " ".join(s["name"] for s in group["streams"]) or "-", local_time(group["created_at"])]
            for group in groups
        ),
        empty="no log groups; every connection is in connections.log",
    )


@app.command("create")
def create(
    group: Group,
    socket: SocketOption,
    stream: Annotated[str | None, typer.Option(help="A stream in a group that exists.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a log group, or with --stream a stream in it."""
    if stream is None:
        Client(socket).post("/log-groups", {"name": group})
    else:
        Client(socket).post("/log-streams", {"group": group, "name": stream})
    if as_json:
        print_json({"group": group, "stream": stream})
    else:
        print_line(f"created {group}" + ("" if stream is None else f" {stream}"))


@app.command("show")
def show(
    group: Group,
    socket: SocketOption,
    stream: Annotated[str | None, typer.Option(help="Only this one.", show_default=False)] = None,
    since: Annotated[float, typer.Option(help="Seconds since the epoch.")] = 0,
    limit: Annotated[int, typer.Option(help="The newest.", min=1, max=10_000)] = 100,
    as_json: JsonOption = False,
) -> None:
    """Print what is in a log group."""
    events = Client(socket).get("/log-events", group=group, stream=stream, since=since, limit=limit)["events"]
    if as_json:
        print_json(events)
        return
    for event in events:
        print_line(event["message"])
