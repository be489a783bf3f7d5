"""``cvpnctl certificate``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.files import check_writable, write_file
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import local_date, print_json, print_line, print_table

app = typer.Typer(help="Client certificates of the gateway's own authority.", no_args_is_help=True)


@app.command("list")
def list_certificates(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the certificates that were issued."""
    certificates = Client(socket).get("/certificates")["certificates"]
    if as_json:
        print_json(certificates)
        return
    print_table(
        ["NAME", "SERIAL", "FROM", "UNTIL", "STATUS"],
        (
            [
                certificate["name"],
                certificate["serial"],
                local_date(certificate["not_before"]),
                local_date(certificate["not_after"]),
                certificate["status"],
            ]
            for certificate in certificates
        ),
        empty="no certificates; issue one with 'cvpnctl certificate issue NAME'",
    )


@app.command("issue")
def issue_certificate(
    name: Annotated[str, typer.Argument(help="The client's name, the certificate's common name.")],
    socket: SocketOption,
    days: Annotated[int | None, typer.Option(help="How long it is valid.", show_default="825")] = None,
    output: Annotated[Path, typer.Option(help="Folder for NAME.crt and NAME.key (0600).")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Issue a client certificate. Its key is nowhere but in the file written here.

    With --json both are printed and no file is written. 'cvpnctl profile NAME --issue' makes a ready profile instead.
    """
    if Path(name).name != name:
        raise typer.BadParameter(f"{name!r} cannot be a file's name")
    files = {"certificate": output / f"{name}.crt", "private_key": output / f"{name}.key"}
    if not as_json:
        for path in files.values():
            check_writable(path, force=False)
    issued = Client(socket).post("/certificates", {"name": name} | ({} if days is None else {"days": days}))
    if as_json:
        print_json(issued)
        return
    for member, path in files.items():
        write_file(path, issued[member], mode=0o600 if member == "private_key" else 0o644)
        print_line(f"written: {path}")


@app.command("revoke")
def revoke_certificate(
    socket: SocketOption,
    name: Annotated[str | None, typer.Argument(help="The client's name.")] = None,
    serial: Annotated[str | None, typer.Option(help="Or one certificate, by its serial number in hex.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a certificate; connections made with it end at once."""
    if (name is None) == (serial is None):
        raise typer.BadParameter("give either a name or --serial")
    revoked = Client(socket).post("/certificates/revoke", {"name": name, "serial": serial})["certificate"]
    if as_json:
        print_json(revoked)
    else:
        print_line(f"revoked: {revoked['name']}, serial {revoked['serial']}")
