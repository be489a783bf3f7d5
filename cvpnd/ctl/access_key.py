"""``cvpnctl access-key``"""

from __future__ import annotations

from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client, segment
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import local_time, print_facts, print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """Keys to the AWS-compatible API."""


@app.command("list")
def list_keys(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the keys; their secrets are told nobody again."""
    keys = Client(socket).get("/access-keys")["access_keys"]
    if as_json:
        print_json(keys)
        return
    print_table(
        ["ID", "ROLE", "NAME", "CREATED"],
        ([key["access_key_id"], key["role"], key["name"], local_time(key["created_at"])] for key in keys),
        empty="no access keys; make one with 'cvpnctl access-key create --role admin'",
    )


@app.command("create")
def create_key(
    socket: SocketOption,
    role: Annotated[str, typer.Option(help="admin, or read-only.")],
    name: Annotated[str, typer.Option(help="Whose it is, for people and the audit record.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its secret is shown once, now."""
    made = Client(socket).post("/access-keys", {"role": role, "name": name})
    key, secret = made["access_key"], made["secret_access_key"]
    if as_json:
        print_json({"access_key_id": key["access_key_id"], "secret_access_key": secret})
        return
    print_facts([("access key id", key["access_key_id"]), ("secret access key", secret), ("role", key["role"])])


@app.command("delete")
def delete_key(
    access_key_id: Annotated[str, typer.Argument(help="Its id, AKIA….", autocompletion=completion.access_keys)],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Delete a key. Requests signed with it are refused at once."""
    Client(socket).delete(f"/access-keys/{segment(access_key_id)}")
    if as_json:
        print_json({"deleted": access_key_id})
    else:
        print_line(f"deleted {access_key_id}")
