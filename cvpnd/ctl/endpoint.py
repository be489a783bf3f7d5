"""``cvpnctl endpoint``"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from cvpnd.ctl import completion
from cvpnd.ctl.client import Client, segment
from cvpnd.ctl.options import Endpoint, JsonOption, SocketOption, pair
from cvpnd.ctl.output import local_time, print_facts, print_json, print_line, print_table

app = typer.Typer(no_args_is_help=True)

Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of an [[endpoint]] table with its value as JSON or plain text, e.g. split_tunnel=true; repeatable. "
        "An empty value goes back to the default.",
        show_default=False,
    ),
]

Vpc = Annotated[
    str | None,
    typer.Option(help="The vpc that its subnets will be of.", show_default=False, autocompletion=completion.vpcs),
]

SelfServicePortal = Annotated[
    bool | None,
    typer.Option(
        "--self-service-portal/--no-self-service-portal",
        help="Whether people download its profile from the portal.",
        show_default=False,
    ),
]


@app.callback()
def _nouns() -> None:
    """Endpoints that clients connect to."""


@app.command("list")
def list_endpoints(socket: SocketOption, as_json: JsonOption = False) -> None:
    """List the endpoints."""
    endpoints = Client(socket).get("/endpoints")["endpoints"]
    if as_json:
        print_json(endpoints)
        return
    print_table(
        ["NAME", "ID", "STATUS", "CLIENT CIDR", "LISTEN", "TUNNEL", "INTERFACE", "CONNECTIONS>"],
        (
            [
                endpoint["name"],
                endpoint["endpoint_id"],
                endpoint["status"],
                endpoint["client_cidr"],
                " ".join(endpoint["listen"]),
                "split" if endpoint["split_tunnel"] else "full",
                endpoint["interface"],
                str(endpoint["connections"]),
            ]
            for endpoint in endpoints
        ),
        empty="no endpoints; declare one in cvpnd.toml, or make one with 'cvpnctl endpoint create'",
    )


@app.command("show")
def show_endpoint(endpoint: Endpoint, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Show one endpoint."""
    _print(Client(socket).get(f"/endpoints/{segment(endpoint)}")["endpoint"], as_json)


@app.command("create")
def create_endpoint(
    client_cidr: Annotated[str, typer.Argument(help="Clients get their addresses from here, e.g. 10.100.0.0/22.")],
    socket: SocketOption,
    server_certificate: Annotated[
        str,
        typer.Option(
            help="ARN of an imported certificate that it shows to clients.", autocompletion=completion.imported
        ),
    ],
    client_certificate: Annotated[
        str | None,
        typer.Option(
            help="Clients need a certificate: ARN of an imported one with the authority of theirs.",
            show_default=False,
            autocompletion=completion.imported,
        ),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(
            help="Clients need a password: id of the directory that knows it, local or one of cvpnd.toml.",
            show_default=False,
        ),
    ] = None,
    saml_provider: Annotated[
        str | None,
        typer.Option(
            help="Clients log in with a browser: ARN of a SAML provider, or the id of one of cvpnd.toml.",
            show_default=False,
            autocompletion=completion.saml_providers,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name; without one, its id.", show_default=False)] = None,
    transport: Annotated[str, typer.Option(help="udp, or tcp.")] = "udp",
    port: Annotated[int, typer.Option(help="Where it listens.")] = 443,
    vpc: Vpc = None,
    self_service_portal: SelfServicePortal = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="KEY=VALUE", help="A note on it; repeatable.", show_default=False),
    ] = None,
    settings: Setting = None,
    as_json: JsonOption = False,
) -> None:
    """Make an endpoint. It listens at once, and lives in the state database."""
    chosen = _settings(settings, self_service_portal)
    if "authentication" not in chosen:
        chosen["authentication"] = _methods(client_certificate, directory, saml_provider)
    body = {
        "name": name,
        "server_certificate": server_certificate,
        "client_certificate": client_certificate,
        "client_cidr": client_cidr,
        "transport": transport,
        "port": port,
        "vpc": vpc,
        "settings": chosen,
        "tags": dict(pair(tag) for tag in tags or ()),
    }
    _print(Client(socket).post("/endpoints", body)["endpoint"], as_json)


@app.command("modify")
def modify_endpoint(
    endpoint: Endpoint,
    socket: SocketOption,
    server_certificate: Annotated[
        str | None,
        typer.Option(help="ARN of another one.", show_default=False, autocompletion=completion.imported),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Another one; sends clients back.", show_default=False)] = None,
    vpc: Vpc = None,
    self_service_portal: SelfServicePortal = None,
    settings: Setting = None,
    as_json: JsonOption = False,
) -> None:
    """Change an endpoint that was made at run time. In force at once."""
    body: dict[str, object] = {"settings": _settings(settings, self_service_portal)}
    if server_certificate is not None:
        body["server_certificate"] = server_certificate
    body |= {key: value for key, value in {"port": port, "vpc": vpc}.items() if value is not None}
    _print(Client(socket).patch(f"/endpoints/{segment(endpoint)}", body)["endpoint"], as_json)


@app.command("delete")
def delete_endpoint(endpoint: Endpoint, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Delete an endpoint that was made at run time. It must have no network any more; its clients are sent away."""
    deleted = Client(socket).delete(f"/endpoints/{segment(endpoint)}")["endpoint"]
    if as_json:
        print_json(deleted)
    else:
        print_line(f"deleted {deleted['name']}")


@app.command("export")
def export_profile(endpoint: Endpoint, socket: SocketOption, as_json: JsonOption = False) -> None:
    """Print the profile that all its clients share; each appends its own certificate and key."""
    answer = Client(socket).get(f"/endpoints/{segment(endpoint)}/profile")
    if as_json:
        print_json(answer)
    else:
        sys.stdout.write(answer["profile"])


def _settings(pairs: list[str] | None, self_service_portal: bool | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if self_service_portal is None else {"self_service_portal": self_service_portal}
    for given in pairs or ():
        key, text = pair(given)
        try:
            found[key] = json.loads(text) if text else None
        except ValueError:
            found[key] = text
    return found


def _methods(client_certificate: str | None, directory: str | None, saml_provider: str | None) -> list[dict[str, str]]:
    if directory is not None and saml_provider is not None:
        raise typer.BadParameter("give --directory or --saml-provider, not both; --client-certificate goes with either")
    methods = []
    if client_certificate is not None:
        methods.append({"type": "certificate-authentication"})
    if directory is not None:
        methods.append({"type": "directory-service-authentication", "directory": directory})
    if saml_provider is not None:
        methods.append({"type": "federated-authentication", "saml_provider": saml_provider})
    if not methods:
        raise typer.BadParameter("say how clients log in: --client-certificate, and --directory or --saml-provider")
    return methods


def _spell_method(method: dict[str, str]) -> str:
    kind = method["type"].removesuffix("-authentication")
    return " ".join([kind, *(value for key, value in method.items() if key != "type")])


def _print(endpoint: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
        return
    log = endpoint["connection_log"]
    print_facts(
        [
            ("name", endpoint["name"]),
            ("id", endpoint["endpoint_id"]),
            ("status", endpoint["status"]),
            ("belongs to", "the state database" if endpoint["origin"] == "store" else "cvpnd.toml"),
            ("description", endpoint["description"] or "-"),
            ("client cidr", endpoint["client_cidr"]),
            ("listens on", " ".join(endpoint["listen"])),
            ("found as", endpoint["remote"] or "the name in its certificate"),
            ("tunnel", "split" if endpoint["split_tunnel"] else "full"),
            ("dns servers", " ".join(endpoint["dns_servers"]) or "-"),
            ("vpc", endpoint["vpc"] or "-"),
            ("certificate", endpoint["server_certificate"]),
            ("logs in by", ", ".join(map(_spell_method, endpoint["authentication"]))),
            ("clients from", endpoint["client_certificate"] or "-"),
            ("self-service", endpoint["self_service_url"] or "-"),
            ("handler", endpoint["connect_handler"] or "-"),
            ("egress groups", " ".join(endpoint["security_groups"]) or "-"),
            ("sessions last", f"{endpoint['session_timeout_s']} s" if endpoint["session_timeout_s"] else "for ever"),
            ("connection log", f"{log['group']} {log['stream']}" if log else "-"),
            ("tags", " ".join(f"{key}={value}" for key, value in endpoint["tags"].items()) or "-"),
            ("set", " ".join(f"{key}={json.dumps(value)}" for key, value in endpoint["settings"].items()) or "-"),
            ("created", local_time(endpoint["created_at"])),
            ("connections", str(endpoint["connections"])),
        ]
    )
