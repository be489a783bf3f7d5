"""``cvpnctl endpoint``"""

from __future__ import annotations

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """Endpoints that clients connect to."""


@app.command("list")
def list_endpoints(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the endpoints."""
    endpoints = Client(socket).get("/endpoints")["endpoints"]
    if as_json:
        print_json(endpoints)
        return
    print_table(
        ["NAME", "ID", "STATUS", "CLIENT CIDR", "LISTEN", "TUNNEL", "INTERFACE", "CONNECTIONS>"],
        (
            [
                endpoint["name"],
                endpoint["endpoint_id"],
                endpoint["status"],
                endpoint["client_cidr"],
                " ".join(endpoint["listen"]),
                "split" if endpoint["split_tunnel"] else "full",
                endpoint["interface"],
                str(endpoint["connections"]),
            ]
            for endpoint in endpoints
        ),
        empty="no endpoints; declare one in cvpnd.toml",
    )
