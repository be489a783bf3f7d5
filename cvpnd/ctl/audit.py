"""``cvpnctl audit``"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import local_time, print_json, print_table


def audit(
    socket: SocketOption,
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1, max=10_000)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Who changed what, when and from where."""
    records = Client(socket).get("/audit", limit=limit)["records"]
    if as_json:
        print_json(records)
        return
    print_table(
        ["WHEN", "WHO", "FROM", "WHAT", "DETAILS"],
        (
            [local_time(r["at"]), r["who"], r["source"], r["action"], json.dumps(r["details"], sort_keys=True)]
            for r in records
        ),
        empty="nothing has been changed at run time",
    )
