"""``cvpnctl connection``"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client, segment
from cvpnd.ctl.options import JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import local_time, print_facts, print_json, print_line, print_table, size

app = typer.Typer(help="Connections of clients, live and of the last hour.", no_args_is_help=True)


@app.command("list")
def list_connections(socket: SocketOption, endpoint: OnlyEndpoint = None, as_json: JsonOption = False) -> None:
    """List connections, live and of the last hour."""
    connections = Client(socket).get("/connections", endpoint=endpoint)["connections"]
    if as_json:
        print_json(connections)
        return
    print_table(
        ["ID", "ENDPOINT", "NAME", "ADDRESS", "FROM", "DEVICE", "SINCE", "IN>", "OUT>", "STATUS"],
        (
            [
                connection["connection_id"],
                connection["endpoint_name"],
                _who(connection),
                connection["client_ip"] or "-",
                _from(connection),
                connection["device_type"] or "-",
                local_time(connection["connected_at"]),
                size(connection["ingress_bytes"]),
                size(connection["egress_bytes"]),
                _status(connection),
            ]
            for connection in connections
        ),
        empty="nobody is connected",
    )


@app.command("show")
def show_connection(
    connection_id: Annotated[
        str, typer.Argument(help="As 'connection list' shows it.", autocompletion=completion.connections)
    ],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Show all about one connection."""
    connection = Client(socket).get(f"/connections/{segment(connection_id)}")["connection"]
    if as_json:
        print_json(connection)
        return
    print_facts(
        [
            ("id", connection["connection_id"]),
            ("endpoint", f"{connection['endpoint_name']} ({connection['endpoint_id']})"),
            ("status", _status(connection)),
            ("common name", connection["common_name"] or "-"),
            ("username", connection["username"] or "-"),
            ("method", connection["method"] or "-"),
            ("address", connection["client_ip"] or "-"),
            ("from", _from(connection)),
            ("device", connection["device_type"] or "-"),
            ("cipher", connection["cipher"] or "-"),
            ("posture", ", ".join(connection["posture_compliance_statuses"] or ()) or "-"),
            ("connected", local_time(connection["connected_at"])),
            ("ended", local_time(connection["ended_at"])),
            ("in", f"{size(connection['ingress_bytes'])}, {connection['ingress_packets']} packets"),
            ("out", f"{size(connection['egress_bytes'])}, {connection['egress_packets']} packets"),
            ("denied", f"{connection['denied_packets']} packets, by the rules; see 'cvpnctl explain'"),
        ]
    )


@app.command("terminate")
def terminate_connection(
    socket: SocketOption,
    connection_id: Annotated[
        str | None, typer.Argument(help="As 'connection list' shows it.", autocompletion=completion.connections)
    ] = None,
    username: Annotated[
        str | None,
        typer.Option(help="End all connections of this user or certificate name.", autocompletion=completion.connected),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="With --username: only on this endpoint.", autocompletion=completion.endpoints),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """End one connection, or all of a user. The client may connect again."""
    if (connection_id is None) == (username is None):
        raise typer.BadParameter("give either a connection id or --username")
    if endpoint is not None and username is None:
        raise typer.BadParameter("--endpoint goes with --username")
    client = Client(socket)
    if connection_id is not None:
        answer = client.delete(f"/connections/{segment(connection_id)}")
    else:
        answer = client.post("/connections/terminate", {"username": username, "endpoint": endpoint})
    if as_json:
        print_json(answer)
        return
    for ended in answer["terminated"]:
        print_line(f"terminated {ended}")


def _who(connection: dict[str, Any]) -> str:
    return str(connection["username"] or connection["common_name"] or "-")


def _from(connection: dict[str, Any]) -> str:
    host = connection["device_ip"]
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{connection['port']}/{connection['transport']}"


def _status(connection: dict[str, Any]) -> str:
    reason = connection["end_reason"]
    return f"{connection['status']} ({reason})" if reason else str(connection["status"])
