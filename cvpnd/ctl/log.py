"""``cvpnctl log``"""

from __future__ import annotations

import difflib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client, patiently
from cvpnd.ctl.options import JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import local_time, print_json, print_line, print_table
from cvpnd.ops.journal import kind
from cvpnd.ops.recent_log import MOST as MOST_AT_ONCE
from cvpnd.reasons import End, Refusal

app = typer.Typer(no_args_is_help=True)

POLL_S = 0.5
WORDS = tuple(map(str, (*Refusal, *End)))

Group = Annotated[str, typer.Argument(help="The log group.", autocompletion=completion.log_groups)]


@app.callback()
def _nouns() -> None:
    """Log groups and their streams, which endpoints write their connections to."""


@app.command("list")
def list_groups(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List log groups and streams."""
    groups = Client(socket).get("/log-groups")["log_groups"]
    if as_json:
        print_json(groups)
        return
    print_table(
        ["GROUP", "STREAMS", "CREATED"],
        (
            [group["name"], " ".join(s["name"] for s in group["streams"]) or "-", local_time(group["created_at"])]
            for group in groups
        ),
        empty="no log groups; every connection is in connections.log",
    )


@app.command("create")
def create(
    group: Group,
    socket: SocketOption,
    stream: Annotated[str | None, typer.Option(help="A stream in a group that exists.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a log group, or with --stream a stream in it."""
    if stream is None:
        Client(socket).post("/log-groups", {"name": group})
    else:
        Client(socket).post("/log-streams", {"group": group, "name": stream})
    if as_json:
        print_json({"group": group, "stream": stream})
    else:
        print_line(f"created {group}" + ("" if stream is None else f" {stream}"))


@app.command("show")
def show(
    group: Group,
    socket: SocketOption,
    stream: Annotated[str | None, typer.Option(help="Only this one.", show_default=False)] = None,
    since: Annotated[float, typer.Option(help="Seconds since the epoch.")] = 0,
    limit: Annotated[int, typer.Option(help="The newest.", min=1, max=10_000)] = 100,
    as_json: JsonOption = False,
) -> None:
    """Print what is in a log group."""
    events = Client(socket).get("/log-events", group=group, stream=stream, since=since, limit=limit)["events"]
    if as_json:
        print_json(events)
        return
    for event in events:
        print_line(event["message"])


@app.command("follow")
def follow(
    socket: SocketOption,
    endpoint: OnlyEndpoint = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="Only of this user or certificate name.", show_default=False, autocompletion=completion.connected
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            help="Only with this reason, e.g. crl-expired.",
            show_default=False,
            autocompletion=lambda incomplete: [word for word in WORDS if word.startswith(incomplete)],
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only refused attempts.")] = False,
    last: Annotated[
        int, typer.Option("--last", "-n", help="Begin with so many of before.", min=0, max=MOST_AT_ONCE)
    ] = 10,
    once: Annotated[bool, typer.Option("--once", help="Print those and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print who comes, who is refused and who goes, as it happens; a daemon that is restarted is waited for."""
    if reason is not None and reason not in WORDS:
        near = difflib.get_close_matches(reason, WORDS, 1)
        fix = f"did you mean {near[0]}?" if near else "docs/troubleshooting.md has them all"
        raise typer.BadParameter(f"nothing is ever refused or ended for {reason}; {fix}", param_hint="--reason")
    wanted = {"endpoint": endpoint, "user": user, "reason": reason, "failed": failed or None}
    try:
        for entries in _as_they_come(Client(socket), last, wanted):
            for entry in entries:
                if as_json:
                    print(json.dumps(entry), flush=True)
                else:
                    print_line(_in_words(entry))
                    sys.stdout.flush()
            if once:
                return
    except KeyboardInterrupt:
        return


def _as_they_come(client: Client, last: int, wanted: Mapping[str, object]) -> Iterator[list[dict[str, str]]]:
    """Those of before, and then without end. Only a daemon that has answered once is waited for."""
    answer = client.get("/recent-log", limit=max(1, last), **wanted)
    yield answer["entries"] if last else []
    while True:
        time.sleep(POLL_S)
        answer = patiently(partial(_since, answer, client, wanted), POLL_S)
        yield answer["entries"]


def _since(answer: Mapping[str, Any], client: Client, wanted: Mapping[str, object]) -> dict[str, Any]:
    came = client.get("/recent-log", after=answer["newest"], limit=MOST_AT_ONCE, **wanted)
    if came["log_id"] == answer["log_id"]:
        return came
    return client.get("/recent-log", limit=MOST_AT_ONCE, **wanted)  # another daemon's, which counts anew


def _in_words(entry: dict[str, str]) -> str:
    """A line for people: when, what, who, from where, why."""
    what = {"successful": "connected", "failed": "refused", "reset": "ended"}.get(kind(entry), kind(entry))
    names = [name for name in (entry["username"], entry["common-name"]) if name not in ("N/A", "NA")]
    why = [entry[key] for key in ("connection-attempt-failure-reason", "connection-end-reason", "detail")]
    reasons = list(dict.fromkeys(word for word in why if word != "NA"))
    who = " / ".join(dict.fromkeys(names)) or "-"
    return (
        f"{entry['connection-last-update-time']}  {what:9}  {entry['endpoint-name']}  {who}"
        f"  {entry['device-ip']}:{entry['port']}/{entry['transport-protocol']}  {entry['client-ip']}"
        f"  {': '.join(reasons)}"
    ).rstrip()
