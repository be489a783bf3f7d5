"""``cvpnctl user``"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cvpnd.ctl import completion, totp
from cvpnd.ctl.client import Client, segment
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)
app.add_typer(totp.app, name="totp")

Name = Annotated[str, typer.Argument(help="The user's name, as it is typed at login.", autocompletion=completion.users)]
GroupOption = Annotated[list[str] | None, typer.Option("--group", help="A group of theirs; may be repeated.")]


@app.callback()
def _nouns() -> None:
    """Users of the directory "local", for sites without another one. Passwords are asked for, or read from standard
    input where that is no terminal."""


def _password() -> str:
    """Never on the command line, where every user of the host could read it."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise typer.BadParameter(
            "standard input is no terminal, where the password would be asked for, and has no line with it; run this "
            "in a terminal, or write the password into its standard input",
            param_hint="the password",
        )
    return password


@app.command("list")
def list_users(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the users."""
    users = Client(socket).get("/users")["users"]
    if as_json:
        print_json(users)
        return
    print_table(
        ["NAME", "GROUPS", "STATUS", "FROM"],
        ([user["name"], ", ".join(user["groups"]), user["status"], user["origin"]] for user in users),
        empty="no users; make one with 'cvpnctl user add NAME'",
    )


@app.command("add")
def add_user(name: Name, socket: SocketOption, group: GroupOption = None, as_json: JsonOption = False) -> None:
    """Add a user, who can log in at once."""
    made = Client(socket).post("/users", {"name": name, "password": _password(), "groups": group or []})["user"]
    _show(made, f"added {name}", as_json)


@app.command("password")
def set_password(name: Name, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Give a user another password."""
    _change(socket, name, {"password": _password()}, f"{name} has another password", as_json)


@app.command("groups")
def set_groups(name: Name, socket: SocketOption, group: GroupOption = None, as_json: JsonOption = False) -> None:
    """Put a user into these groups and no others. Live sessions follow at once."""
    _change(socket, name, {"groups": group or []}, f"{name} is in: {', '.join(group or []) or 'no group'}", as_json)


@app.command("disable")
def disable(name: Name, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Keep a user out. Live sessions end at once."""
    _change(socket, name, {"disabled": True}, f"disabled {name}", as_json)


@app.command("enable")
def enable(name: Name, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Let a user in again."""
    _change(socket, name, {"disabled": False}, f"enabled {name}", as_json)


@app.command("remove")
def remove_user(name: Name, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Remove a user. Live sessions end at once."""
    Client(socket).delete(f"/users/{segment(name)}")
    if as_json:
        print_json({"removed": name})
    else:
        print_line(f"removed {name}")


@app.command("hash")
def make_hash() -> None:
    """Make the password_hash of one of [[local_users]] in cvpnd.toml. Asks no daemon."""
    from cvpnd.auth.passwords import hash_password  # with argon2, which no other command needs

    print_line(hash_password(_password()))


def _change(socket: Any, name: str, change: dict[str, Any], said: str, as_json: bool) -> None:
    _show(Client(socket).patch(f"/users/{segment(name)}", change)["user"], said, as_json)


def _show(user: dict[str, Any], said: str, as_json: bool) -> None:
    if as_json:
        print_json(user)
    else:
        print_line(said)
