"""``cvpnctl route``"""

from __future__ import annotations

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import print_json, print_table

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
        ["ENDPOINT", "DESTINATION", "TARGET", "ORIGIN"],
        (
            [
                names.get(route["endpoint_id"], route["endpoint_id"]),
                route["destination"],
                route["target"],
                route["origin"],
            ]
            for route in routes
        ),
        empty="no routes; associate a subnet in cvpnd.toml",
    )
