"""``cvpnctl route``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.files import read_text
from cvpnd.ctl.options import Endpoint, JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """Routes: where clients' traffic goes."""


@app.command("list")
def list_routes(
    socket: SocketOption,
    endpoint: OnlyEndpoint = None,
    as_json: JsonOption = False,
) -> None:
    """List the routes. What has none is unreachable, also where a rule allows it."""
    client = Client(socket)
    routes = client.get("/routes", endpoint=endpoint)["routes"]
    if as_json:
        print_json(routes)
        return
    names = client.endpoint_names()
    print_table(
        ["ENDPOINT", "DESTINATION", "TARGET", "ORIGIN", "DESCRIPTION"],
        (
            [
                names.get(route["endpoint_id"], route["endpoint_id"]),
                route["destination"],
                route["target"],
                route["origin"],
                route["description"],
            ]
            for route in routes
        ),
        empty="no routes; associate a subnet with 'cvpnctl network add', or in cvpnd.toml",
    )


@app.command("add")
def add_route(
    endpoint: Endpoint,
    destination: Annotated[str, typer.Argument(help="The network it leads to, e.g. 172.16.0.0/16.")],
    target: Annotated[
        str, typer.Argument(help="An associated subnet, or local: client to client.", autocompletion=completion.targets)
    ],
    socket: SocketOption,
    description: Annotated[str, typer.Option(help="A note for people.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Add a route. Connected clients learn of it at once."""
    body = {"endpoint": endpoint, "destination": destination, "target": target, "description": description}
    route = Client(socket).post("/routes", body)["route"]
    if as_json:
        print_json(route)
    else:
        print_line(f"added: {endpoint}: {route['destination']} by {route['target']}")


@app.command("import")
def import_routes(
    endpoint: Endpoint,
    file: Annotated[Path, typer.Argument(help="JSON list of {destination, target, description}; - is standard input.")],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Add many at once: all of them, or none."""
    try:
        routes = json.loads(read_text(file))
    except ValueError as error:
        raise typer.BadParameter(f"{file}: is not JSON: {error}") from None
    imported = Client(socket).post("/routes/import", {"endpoint": endpoint, "routes": routes})["imported"]
    if as_json:
        print_json({"imported": imported})
    else:
        print_line(f"imported: {endpoint}: {imported} routes")


@app.command("remove")
def remove_route(
    endpoint: Endpoint,
    destination: Annotated[
        str, typer.Argument(help="The network it leads to.", autocompletion=completion.destinations)
    ],
    socket: SocketOption,
    target: Annotated[
        str | None, typer.Option(help="By which subnet, if there are several.", autocompletion=completion.targets)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a route that was added. Those of an association go with it."""
    route = Client(socket).delete("/routes", endpoint=endpoint, destination=destination, target=target)["route"]
    if as_json:
        print_json(route)
    else:
        print_line(f"removed: {endpoint}: {route['destination']} by {route['target']}")
