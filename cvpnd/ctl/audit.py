"""``cvpnctl audit``"""

from __future__ import annotations

import json
import sys
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
    found = Client(socket).get("/audit", limit=limit)
    records, extent = found["records"], found["extent"]
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
    if records:
        since = local_time(extent["since"])
        sys.stderr.write(f"{len(records)} of {extent['records']} entries, which reach back to {since}\n")
