"""``cvpnctl certificate``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.files import check_writable, read_text, write_file
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
            check_writable(path, force=False, otherwise="move it away, or name another folder with --output")
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
    name: Annotated[
        str | None, typer.Argument(help="The client's name.", autocompletion=completion.certificates)
    ] = None,
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


# -- imported ones ------------------------------------------------------------------------------------------


@app.command("import")
def import_certificate(
    certificate: Annotated[Path, typer.Argument(help="PEM file of the certificate.")],
    private_key: Annotated[Path, typer.Argument(help="PEM file of its private key, without a passphrase.")],
    socket: SocketOption,
    chain: Annotated[
        Path | None, typer.Option(help="PEM file of the authorities that it comes from.", show_default=False)
    ] = None,
    arn: Annotated[
        str | None,
        typer.Option(help="In place of the one with this ARN.", show_default=False, autocompletion=completion.imported),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import a certificate for endpoints that are made at run time. Its key is kept sealed, and shown to nobody."""
    body = {
        "certificate": read_text(certificate),
        "private_key": read_text(private_key),
        "chain": "" if chain is None else read_text(chain),
        "arn": arn,
    }
    imported = Client(socket).post("/imported-certificates", body)["certificate"]
    if as_json:
        print_json({"arn": imported["arn"]})
    else:
        print_line(imported["arn"])


@app.command("imported")
def list_imported(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List imported certificates."""
    certificates = Client(socket).get("/imported-certificates")["certificates"]
    if as_json:
        print_json(certificates)
        return
    print_table(
        ["ARN", "IMPORTED", "IN USE BY"],
        ([each["arn"], local_date(each["imported_at"]), " ".join(each["in_use_by"]) or "-"] for each in certificates),
        empty="no imported certificates",
    )


@app.command("show")
def show_imported(
    arn: Annotated[str, typer.Argument(help="Of an imported certificate.", autocompletion=completion.imported)],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Print an imported certificate and its chain, PEM. Its key is shown to nobody."""
    (found,) = Client(socket).get("/imported-certificates", arn=arn)["certificates"]
    if as_json:
        print_json(found)
    else:
        sys.stdout.write("".join(f"{pem.strip()}\n" for pem in (found["certificate"], found["chain"]) if pem))


@app.command("delete")
def delete_imported(
    arn: Annotated[
        str,
        typer.Argument(help="Of an imported certificate that no endpoint uses.", autocompletion=completion.imported),
    ],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Delete an imported certificate and its key."""
    Client(socket).delete("/imported-certificates", arn=arn)
    if as_json:
        print_json({"deleted": arn})
    else:
        print_line(f"deleted {arn}")
