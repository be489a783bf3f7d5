"""``cvpnctl saml-provider``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.files import read_text
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import local_time, print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)

Arn = Annotated[str, typer.Argument(help="Its ARN.", autocompletion=completion.saml_providers)]
MetadataFile = Annotated[Path, typer.Argument(help="File of its SAML metadata; - is standard input.")]


@app.callback()
def _nouns() -> None:
    """SAML identity providers, by their metadata."""


@app.command("list")
def list_providers(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List them."""
    providers = Client(socket).get("/saml-providers")["saml_providers"]
    if as_json:
        print_json(providers)
        return
    rows = (
        [
            each["arn"],
            each["origin"],
            local_time(each["created_at"]),
            local_time(each["valid_until"]),
            str(len(each["metadata"])),
        ]
        for each in providers
    )
    print_table(["ARN", "ORIGIN", "CREATED", "GOOD UNTIL", "METADATA>"], rows, empty="no SAML providers")


@app.command("show")
def show_provider(arn: Arn, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Print an identity provider's metadata."""
    (provider,) = Client(socket).get("/saml-providers", arn=arn)["saml_providers"]
    if as_json:
        print_json(provider)
        return
    for line in provider["metadata"].splitlines():
        print_line(line)


@app.command("create")
def create_provider(
    name: Annotated[str, typer.Argument(help="A name for it.")],
    metadata: MetadataFile,
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Keep an identity provider's metadata."""
    made = Client(socket).post("/saml-providers", {"name": name, "metadata": read_text(metadata)})["saml_provider"]
    _say(made["arn"], as_json)


@app.command("update")
def update_provider(arn: Arn, metadata: MetadataFile, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Replace an identity provider's metadata."""
    Client(socket).put("/saml-providers", {"arn": arn, "metadata": read_text(metadata)})
    _say(arn, as_json)


@app.command("delete")
def delete_provider(arn: Arn, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Forget an identity provider."""
    Client(socket).delete("/saml-providers", arn=arn)
    _say(arn, as_json)


def _say(arn: str, as_json: bool) -> None:
    if as_json:
        print_json({"arn": arn})
    else:
        print_line(arn)
