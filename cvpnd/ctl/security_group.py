"""``cvpnctl security-group``"""

from __future__ import annotations

from typing import Any

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """Security groups: what may be reached by protocol and port. cvpnd.toml declares them."""


@app.command("list")
def list_groups(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the security groups, who has them, and how many packets they kept back."""
    groups = Client(socket).get("/security-groups")["security_groups"]
    if as_json:
        print_json(groups)
        return
    print_table(
        ["ID", "NAME", "VPC", "ALLOWS", "ENDPOINTS (DENIED PACKETS)"],
        (
            [
                each["group"]["id"],
                each["name"],
                each["group"]["vpc"],
                " ".join(map(_spell, each["group"]["egress"])) or "nothing",
                " ".join(f"{name} ({count})" for name, count in each["denied"].items()) or "-",
            ]
            for each in groups
        ),
        empty="no security groups: cvpnd.toml declares no vpc",
    )


def _spell(egress: dict[str, Any]) -> str:
    protocol = "" if egress["protocol"] == "all" else f"{egress['protocol']}/"
    return f"{protocol}{egress['network']}" + (f":{egress['ports']}" if egress["ports"] else "")
