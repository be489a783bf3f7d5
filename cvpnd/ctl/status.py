"""``cvpnctl status`` and ``cvpnctl top``"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Annotated, Any

import typer

from cvpnd.ctl.client import Client, patiently
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import GAP, duration, local_time, print_json, print_line, print_table, size

WRONG = 1
RATE_OVER_S = 0.5
"""How long ``status`` looks at the counters to say how fast they grow."""
DAY_S = 86_400
LINES_BESIDE_ROWS = 3
"""Of ``top``: its head, the headings, and where the cursor is."""
LEAST_COLUMNS = 3


def status(socket: SocketOption, as_json: JsonOption = False) -> None:
    """Show how the gateway is, what is wrong and what to do. Exit code 0: all is well, 1: something is wrong."""
    client = Client(socket)
    before = client.get("/status")["status"]
    if as_json:
        print_json(before)
    else:
        time.sleep(RATE_OVER_S)
        now = client.get("/status")["status"]
        _print_head(before, now)
        _print_endpoints(before, now)
        _print_problems(now)
    if before["problems"]:
        raise typer.Exit(WRONG)


def top(
    socket: SocketOption,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2, max=3600)] = 2.0,
    count: Annotated[int, typer.Option(help="How many looks; 0: until Ctrl-C.", min=0)] = 0,
    rows: Annotated[int, typer.Option(help="How many connections, the busiest first.", min=1, max=1000)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the busiest connections and threads, again and again, as many as fit in the terminal. --json: a line for
    each look. A daemon that is restarted is waited for."""
    client = Client(socket)
    looks = 0
    redraws = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    try:
        before = _look(client)
        while count == 0 or looks < count:
            time.sleep(interval)
            now = patiently(partial(_look, client), interval)
            if now[0]["started_at"] != before[0]["started_at"]:  # another daemon's, which counts anew
                before = now
                continue
            look = _top(before, now, rows)
            if as_json:
                print(json.dumps(look))
            else:
                if redraws:
                    sys.stdout.write("\x1b[H\x1b[2J")
                elif looks:
                    print()
                _print_top(look, redraws)
            sys.stdout.flush()
            before = now
            looks += 1
    except KeyboardInterrupt:
        return


# -- status ---------------------------------------------------------------------------------------------------


def _print_head(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    up = duration(now["now"] - now["started_at"])
    connections = sum(endpoint["connections"] for endpoint in now["endpoints"])
    print_line(
        f"cvpnd {now['version']}, up {up}, configuration {now['config_path']} (revision {now['revision']}), "
        f"{now['workers']} workers, {now['crypto']}"
    )
    busy = ", ".join(f"{name} {share:.0%}" for name, share in _busy(before, now))
    print_line(f"{connections} connected; busy: {busy or 'nothing'}")
    print()


def _busy(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Threads that use more than a hundredth of a core."""
    seconds = now["now"] - before["now"] or 1.0
    for name, spent in sorted(now["thread_seconds"].items()):
        share = (spent - before["thread_seconds"].get(name, spent)) / seconds
        if share > 0.01:
            yield name, share


def _print_endpoints(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    earlier = {endpoint["name"]: endpoint for endpoint in before["endpoints"]}
    seconds = now["now"] - before["now"] or 1.0
    print_table(
        ["ENDPOINT", "LISTENS ON", "NOW>", "LEASES>", "IN>", "OUT>", "REFUSED>", "CRL", "CERT"],
        (
            [
                endpoint["name"],
                " ".join(endpoint["listen"]),
                str(endpoint["connections"]),
                f"{endpoint['leases_used']}/{endpoint['leases']}",
                _rate(earlier.get(endpoint["name"]), endpoint, "ingress_bytes", seconds),
                _rate(earlier.get(endpoint["name"]), endpoint, "egress_bytes", seconds),
                str(endpoint["refused"]),
                _days(endpoint["crl_expires_at"], now["now"]),
                _days(endpoint["server_certificate_expires_at"], now["now"]),
            ]
            for endpoint in now["endpoints"]
        ),
        empty="no endpoints",
    )


def _print_problems(now: Mapping[str, Any]) -> None:
    print()
    if not now["problems"]:
        print_line("all is well")
    for problem in now["problems"]:
        print_line(f"{problem['severity'].upper()}: {problem['subject']}: {problem['what']}")
        print_line(f"    {problem['fix']}")


def _rate(before: Mapping[str, Any] | None, now: Mapping[str, Any], key: str, seconds: float) -> str:
    grown = 0 if before is None else max(0, now[key] - before[key])
    return f"{size(int(grown / seconds))}/s"


def _days(at: float | None, now: float) -> str:
    if at is None:
        return "-"
    return "expired" if at <= now else f"{(at - now) / DAY_S:.1f} days"


# -- top ------------------------------------------------------------------------------------------------------


Look = tuple[dict[str, Any], dict[str, Any]]
"""The status, and the live connections by id."""


def _look(client: Client) -> Look:
    connections = client.get("/connections")["connections"]
    active = {each["connection_id"]: each for each in connections if each["status"] == "active"}
    return client.get("/status")["status"], active


def _top(before: Look, now: Look, rows: int) -> dict[str, Any]:
    (status_before, earlier), (status_now, connections) = before, now
    seconds = status_now["now"] - status_before["now"] or 1.0

    def speed(connection: Mapping[str, Any], key: str) -> float:
        last = earlier.get(connection["connection_id"])
        return 0.0 if last is None else max(0, connection[key] - last[key]) / seconds

    speeds = [
        connection
        | {
            "ingress_bytes_per_second": speed(connection, "ingress_bytes"),
            "egress_bytes_per_second": speed(connection, "egress_bytes"),
        }
        for connection in connections.values()
    ]
    speeds.sort(key=lambda c: -(c["ingress_bytes_per_second"] + c["egress_bytes_per_second"]))
    return {
        "now": status_now["now"],
        "connected": len(connections),
        "busy": dict(_busy(status_before, status_now)),
        "problems": len(status_now["problems"]),
        "connections": speeds[:rows],
    }


def _print_top(look: Mapping[str, Any], cut: bool) -> None:
    """``cut``: to what the terminal shows at once, the columns that say most first."""
    busy = ", ".join(f"{name} {share:.0%}" for name, share in look["busy"].items())
    wrong = look["problems"]
    head = f"{local_time(look['now'])}  {look['connected']} connected  busy: {busy or 'nothing'}" + (
        f"  {wrong} problem{'' if wrong == 1 else 's'}: cvpnctl status" if wrong else ""
    )
    headings = ["IN>", "OUT>", "NAME", "ADDRESS", "ENDPOINT", "SINCE", "ID"]
    rows = [
        [
            f"{size(int(connection['ingress_bytes_per_second']))}/s",
            f"{size(int(connection['egress_bytes_per_second']))}/s",
            connection["username"] or connection["common_name"] or "-",
            connection["client_ip"] or "-",
            connection["endpoint_name"],
            local_time(connection["connected_at"]),
            connection["connection_id"],
        ]
        for connection in look["connections"]
    ]
    if cut:
        columns, lines = shutil.get_terminal_size()
        rows = rows[: max(1, lines - LINES_BESIDE_ROWS)]
        widths = [max(map(len, column)) + GAP for column in zip(headings, *rows, strict=True)]
        shown = max(LEAST_COLUMNS, sum(total <= columns + GAP for total in accumulate(widths)))
        headings, rows = headings[:shown], [row[:shown] for row in rows]
        head = head[:columns]
    print_line(head)
    print_table(headings, rows, empty="nobody is connected")
