"""``cvpnctl rule``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client
from cvpnd.ctl.files import read_text
from cvpnd.ctl.options import Endpoint, JsonOption, OnlyEndpoint, SocketOption
from cvpnd.ctl.output import print_json, print_line, print_table

app = typer.Typer(help="Authorization rules: who may reach which network.", no_args_is_help=True)

Network = Annotated[
    str, typer.Argument(help="The target network, e.g. 10.30.0.0/16.", autocompletion=completion.ruled_networks)
]
Group = Annotated[
    str | None,
    typer.Option(help="The group that the rule is for.", show_default=False, autocompletion=completion.groups),
]
AllGroups = Annotated[bool, typer.Option("--all-groups", help="The rule is for all users.")]


@app.command("list")
def list_rules(
    socket: SocketOption,
    endpoint: OnlyEndpoint = None,
    as_json: JsonOption = False,
) -> None:
    """List the rules in force. The longest matching network decides, whoever its rules name."""
    client = Client(socket)
    rules = client.get("/rules", endpoint=endpoint)["rules"]
    if as_json:
        print_json(rules)
        return
    names = client.endpoint_names()
    print_table(
        ["ENDPOINT", "NETWORK", "FOR", "ORIGIN", "DESCRIPTION"],
        (
            [
                names.get(rule["endpoint_id"], rule["endpoint_id"]),
                rule["network"],
                _whom(rule),
                rule["origin"],
                rule["description"],
            ]
            for rule in rules
        ),
        empty="no rules: nobody may reach anything; add one with 'cvpnctl rule add'",
    )


@app.command("add")
def add_rule(
    endpoint: Endpoint,
    network: Network,
    socket: SocketOption,
    group: Group = None,
    all_groups: AllGroups = False,
    description: Annotated[str, typer.Option(help="A note for people.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Allow a network to a group or to all users. In force at once, also for connected clients."""
    _check_who(group, all_groups)
    rule = Client(socket).post(
        "/rules",
        {
            "endpoint": endpoint,
            "network": network,
            "group": group,
            "all_groups": all_groups,
            "description": description,
        },
    )["rule"]
    _print_rule("added", rule, endpoint, as_json)


@app.command("import")
def import_rules(
    endpoint: Endpoint,
    file: Annotated[
        Path,
        typer.Argument(help="JSON list of {network, group | all_groups, description}; - is stdin."),
    ],
    socket: SocketOption,
    as_json: JsonOption = False,
) -> None:
    """Add many at once: all of them, or none."""
    try:
        rules = json.loads(read_text(file))
    except ValueError as error:
        raise typer.BadParameter(f"{file}: is not JSON: {error}") from None
    imported = Client(socket).post("/rules/import", {"endpoint": endpoint, "rules": rules})["imported"]
    if as_json:
        print_json({"imported": imported})
    else:
        print_line(f"imported: {endpoint}: {imported} rules")


@app.command("remove")
def remove_rule(
    endpoint: Endpoint,
    network: Network,
    socket: SocketOption,
    group: Group = None,
    all_groups: AllGroups = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a rule that was added at run time. In force at once, also for connected clients."""
    _check_who(group, all_groups)
    rule = Client(socket).delete(
        "/rules", endpoint=endpoint, network=network, group=group, all_groups="true" if all_groups else None
    )["rule"]
    _print_rule("removed", rule, endpoint, as_json)


def _check_who(group: str | None, all_groups: bool) -> None:
    if (group is not None) == all_groups:
        raise typer.BadParameter("give either --group NAME or --all-groups")


def _print_rule(done: str, rule: dict[str, Any], endpoint: str, as_json: bool) -> None:
    if as_json:
        print_json(rule)
    else:
        print_line(f"{done}: {endpoint}: {rule['network']} for {_whom(rule)}")


def _whom(rule: dict[str, Any]) -> str:
    return "all users" if rule["group"] is None else f"group {rule['group']}"
