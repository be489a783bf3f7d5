"""``cvpnctl client-key``"""

from __future__ import annotations

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.options import JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import local_date, print_json, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """tls-crypt-v2 keys of clients. 'cvpnctl profile' makes them; revoking their certificate revokes them."""


@app.command("list")
def list_client_keys(
    socket: SocketOption,
    endpoint: OnlyEndpoint = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys that were handed out, and which of them are accepted."""
    client = Client(socket)
    keys = client.get("/client-keys", endpoint=endpoint)["client_keys"]
    if as_json:
        print_json(keys)
        return
    names = client.endpoint_names()
    print_table(
        ["ENDPOINT", "NAME", "CERTIFICATE", "FROM", "STATUS"],
        (
            [
                names.get(key["endpoint_id"], key["endpoint_id"]),
                key["name"],
                key["serial"],
                local_date(key["created_at"]),
                key["status"],
            ]
            for key in keys
        ),
        empty="no keys; 'cvpnctl profile NAME --issue' makes one where the endpoint has tls_crypt_v2",
    )
