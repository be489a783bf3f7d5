"""What the shell offers for an argument: names that the daemon has. Without a daemon it offers nothing.

Some of these names are their holders' choice, in a certificate or at an identity provider, and the shell of whoever is
offered one is mostly root's. So a name that a shell might obey is not offered: bash writes it on the line as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from cvpnd.ctl.client import DEFAULT_SOCKET, Client, Refused, Unreachable

Completion = Callable[[typer.Context, str], list[str]]
_HARMLESS = re.compile(r"\w[\w@+.,:/=-]*")
Names = Callable[[Client, Mapping[str, Any]], Iterable[Any]]
"""The second: which endpoint the command line names already, as a query."""


def _offering(names: Names) -> Completion:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        path = context.params.get("socket") or os.environ.get("CVPND_SOCKET") or DEFAULT_SOCKET
        endpoint = context.params.get("endpoint")
        try:
            found = [str(name) for name in names(Client(Path(path)), {"endpoint": endpoint}) if name]
        except (Refused, Unreachable):
            return []
        return [name for name in dict.fromkeys(found) if name.startswith(incomplete) and _HARMLESS.fullmatch(name)]

    return complete


def _live(client: Client) -> list[dict[str, Any]]:
    return [each for each in client.get("/connections")["connections"] if each["status"] == "active"]


endpoints = _offering(
    lambda client, _: (each[key] for each in client.get("/endpoints")["endpoints"] for key in ("name", "endpoint_id"))
)
vpcs = _offering(lambda client, _: (each["id"] for each in client.get("/vpcs")["vpcs"]))
subnets = _offering(lambda client, _: (each["id"] for each in client.get("/subnets")["subnets"]))
networks = _offering(
    lambda client, of: (
        each[key] for each in client.get("/networks", **of)["networks"] for key in ("subnet", "association_id")
    )
)
targets = _offering(
    lambda client, of: [*(each["subnet"] for each in client.get("/networks", **of)["networks"]), "local"]
)
destinations = _offering(lambda client, of: (each["destination"] for each in client.get("/routes", **of)["routes"]))
ruled_networks = _offering(lambda client, of: (each["network"] for each in client.get("/rules", **of)["rules"]))
groups = _offering(lambda client, of: (each["group"] for each in client.get("/rules", **of)["rules"]))
connections = _offering(lambda client, _: (each["connection_id"] for each in _live(client)))
connected = _offering(lambda client, _: (each["username"] or each["common_name"] for each in _live(client)))
users = _offering(lambda client, _: (each["name"] for each in client.get("/users")["users"]))
certificates = _offering(lambda client, _: (each["name"] for each in client.get("/certificates")["certificates"]))
access_keys = _offering(lambda client, _: (each["access_key_id"] for each in client.get("/access-keys")["access_keys"]))
imported = _offering(lambda client, _: (each["arn"] for each in client.get("/imported-certificates")["certificates"]))
saml_providers = _offering(lambda client, _: (each["arn"] for each in client.get("/saml-providers")["saml_providers"]))
log_groups = _offering(lambda client, _: (each["name"] for each in client.get("/log-groups")["log_groups"]))
taggable = _offering(
    lambda client, _: [
        *(each["endpoint_id"] for each in client.get("/endpoints")["endpoints"] if each["origin"] == "store"),
        *(each["arn"] for each in client.get("/imported-certificates")["certificates"]),
    ]
)
