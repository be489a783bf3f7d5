"""``cvpnctl explain``"""

from __future__ import annotations

from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption, WhichEndpoint
from cvpnd.ctl.output import print_facts, print_json, print_line

DENIED = 1


def explain(
    user: Annotated[str, typer.Argument(help="User or certificate name.", autocompletion=completion.connected)],
    destination: Annotated[str, typer.Argument(help="The address that they want to reach.")],
    socket: SocketOption,
    endpoint: WhichEndpoint = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Suppose that the user is in this group; may be repeated.", autocompletion=completion.groups),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a user may reach an address, and which rule and route decide. Exit code 0: allowed, 1: denied."""
    explanation = Client(socket).get(
        "/explain", user=user, destination=destination, endpoint=endpoint, group=group or None
    )["explanation"]
    if as_json:
        print_json(explanation)
    else:
        print_line(explanation["sentence"])
        rule, route = explanation["rule"], explanation["route"]
        wanted = explanation["deciding_groups"]
        print_facts(
            [
                ("  rule", f"{rule['network']} ({rule['origin']})" if rule else "none matches"),
                ("  is for", "all users" if "*" in wanted else ", ".join(wanted) or "-"),
                ("  user's groups", ", ".join(explanation["groups"]) or "none"),
                ("  route", f"{route['destination']} by {route['target']}" if route else "none: unreachable"),
            ]
        )
        if explanation.get("let_through") is not None:
            through = ", ".join(explanation["let_through"]) or "nothing of it"
            print_line(f"  security groups let through {through}")
    if not explanation["allowed"]:
        raise typer.Exit(DENIED)
