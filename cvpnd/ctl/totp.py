"""``cvpnctl user totp``"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cvpnd.ctl.client import Client, segment
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import local_time, print_facts, print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user's name.")]
DirectoryOption = Annotated[str, typer.Option("--directory", help="The directory that the user is of.")]
IssuerOption = Annotated[str, typer.Option("--issuer", help="What the app shows beside the user's name.")]


@app.callback()
def _nouns() -> None:
    """Authenticator apps, whose codes endpoints with mfa = "totp" ask besides the password."""


@app.command("enrol")
def enrol(
    name: Name,
    socket: SocketOption,
    directory: DirectoryOption = "local",
    issuer: IssuerOption = "cvpnd",
    as_json: JsonOption = False,
) -> None:
    """Set up an authenticator app: a QR code for it, and recovery codes, shown this once. Takes the place of the one
    that the user has; their logins of before end."""
    body = {"directory": directory, "name": name, "issuer": issuer}
    made = Client(socket).post("/authenticators", body)["enrolment"]
    if as_json:
        print_json(made)
        return
    _print_qr_code(made["uri"])
    print_facts([("app", made["uri"]), *(("recovery code", code) for code in made["recovery_codes"])])
    sys.stderr.write("Each recovery code lets in once, in place of a code of the app. None of this is shown again.\n")


@app.command("list")
def list_authenticators(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List who has an authenticator."""
    found = Client(socket).get("/authenticators")["authenticators"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["NAME", "DIRECTORY", "RECOVERY CODES>", "SINCE"],
        ([a["username"], a["directory"], str(a["recovery_codes"]), local_time(a["created_at"])] for a in found),
        empty="nobody; set one up with 'cvpnctl user totp enrol NAME'",
    )


@app.command("remove")
def remove(name: Name, socket: SocketOption, directory: DirectoryOption = "local", as_json: JsonOption = False) -> None:
    """Remove a user's authenticator. Where a code is asked they cannot log in until they have another."""
    Client(socket).delete(f"/authenticators/{segment(directory)}/{segment(name)}")
    if as_json:
        print_json({"removed": name})
    else:
        print_line(f"removed the authenticator of {name}")


def _print_qr_code(text: str) -> None:
    import qrcode

    code = qrcode.QRCode(border=2)
    code.add_data(text)
    code.print_ascii(invert=sys.stdout.isatty())  # dark terminals; a file is read on light paper
