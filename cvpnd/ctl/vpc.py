"""``cvpnctl vpc`` and ``cvpnctl subnet``"""

from __future__ import annotations

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_table

vpcs = typer.Typer(help="Networks that this host has a leg in. cvpnd.toml declares them.", no_args_is_help=True)
subnets = typer.Typer(help="What endpoints can be associated with. cvpnd.toml declares them.", no_args_is_help=True)


@vpcs.callback()
def _vpcs() -> None: ...


@subnets.callback()
def _subnets() -> None: ...


@vpcs.command("list")
def list_vpcs(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the vpcs."""
    found = Client(socket).get("/vpcs")["vpcs"]
    if as_json:
        print_json(found)
        return
    rows = ([each["id"], " ".join(each["cidr"])] for each in found)
    print_table(["ID", "CIDR"], rows, empty="no vpcs; declare one in cvpnd.toml")


@subnets.command("list")
def list_subnets(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the subnets."""
    found = Client(socket).get("/subnets")["subnets"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["ID", "VPC", "CIDR", "ZONE", "INTERFACE"],
        (
            [
                each["id"],
                each["vpc"],
                " ".join(cidr for cidr in (each["cidr"], each["cidr_v6"]) if cidr),
                each["zone"] or "-",
                each["interface"],
            ]
            for each in found
        ),
        empty="no subnets; declare one in cvpnd.toml",
    )
