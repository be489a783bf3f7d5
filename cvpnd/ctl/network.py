"""``cvpnctl network``"""

from __future__ import annotations

from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.options import Endpoint, JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """Networks: the subnets that an endpoint leads to."""


@app.command("list")
def list_networks(socket: SocketOption, endpoint: OnlyEndpoint = None, as_json: JsonOption = False) -> None:
    """List the subnets that endpoints are associated with."""
    client = Client(socket)
    networks = client.get("/networks", endpoint=endpoint)["networks"]
    if as_json:
        print_json(networks)
        return
    names = client.endpoint_names()
    print_table(
        ["ENDPOINT", "SUBNET", "VPC", "STATUS", "CLIENTS APPEAR AS", "ID"],
        (
            [
                names.get(network["endpoint_id"], network["endpoint_id"]),
                network["subnet"],
                network["vpc"],
                network["status"],
                "this host" if network["nat"] else "themselves",
                network["association_id"],
            ]
            for network in networks
        ),
        empty="no networks; add one with 'cvpnctl network add', or associate a subnet in cvpnd.toml",
    )


@app.command("add")
def add_network(
    endpoint: Endpoint,
    subnet: Annotated[
        str, typer.Argument(help="A subnet that cvpnd.toml declares.", autocompletion=completion.subnets)
    ],
    socket: SocketOption,
    routed: Annotated[
        bool, typer.Option("--routed", help="Clients appear under their own addresses, and the subnet knows the way.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Associate an endpoint with a subnet. It brings the routes to its vpc; rules still decide who may use them."""
    body = {"endpoint": endpoint, "subnet": subnet, "nat": not routed}
    network = Client(socket).post("/networks", body)["network"]
    if as_json:
        print_json(network)
    else:
        print_line(f"added: {endpoint}: {network['subnet']} ({network['association_id']})")


@app.command("remove")
def remove_network(
    endpoint: Endpoint,
    network: Annotated[
        str, typer.Argument(help="The subnet, or the association's id.", autocompletion=completion.networks)
    ],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Disassociate an endpoint from a subnet. The routes through it go too."""
    gone = Client(socket).delete("/networks", endpoint=endpoint, network=network)["network"]
    if as_json:
        print_json(gone)
    else:
        print_line(f"removed: {endpoint}: {gone['subnet']}")
