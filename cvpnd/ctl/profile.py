"""``cvpnctl profile``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.files import check_writable, write_file
from cvpnd.ctl.options import JsonOption, SocketOption, WhichEndpoint
from cvpnd.ctl.output import print_json, print_line


def make_profile(
    name: Annotated[str, typer.Argument(help="The client's name, its certificate's common name.")],
    socket: SocketOption,
    endpoint: WhichEndpoint = None,
    kind: Annotated[str, typer.Option("--for", help="The kind of client: openvpn, aws …")] = "openvpn",
    issue: Annotated[bool, typer.Option("--issue", help="Issue the certificate too.")] = False,
    serial: Annotated[
        str | None,
        typer.Option(help="Number of a certificate issued elsewhere, for its tls-crypt-v2 key.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write to this file (0600); default: print.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a client's ready .ovpn profile."""
    if output is not None:
        check_writable(output, force=force, otherwise="choose another name or overwrite it with --force")
    wanted = {"name": name, "endpoint": endpoint, "kind": kind, "issue": issue, "serial": serial}
    answer = Client(socket).post("/profiles", wanted)
    if output is not None:
        write_file(output, answer["profile"])
        if as_json:
            print_json({"output": str(output)})
        else:
            print_line(f"written: {output}")
    elif as_json:
        print_json(answer)
    else:
        sys.stdout.write(answer["profile"])
