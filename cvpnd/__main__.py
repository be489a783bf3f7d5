"""The daemon's command line: ``init``, ``check``, ``run`` and ``clean``. Everything else is ``cvpnctl``'s.

Exit codes: 0 done, 1 the configuration or the host does not allow it (said on stderr), 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cvpnd.config import Config, ConfigError, DaemonConfig, check_files, load
from cvpnd.version_option import VersionOption

DEFAULT_CONFIG = Path("/etc/cvpnd/cvpnd.toml")

app = typer.Typer(
    name="cvpnd",
    help="A self-hosted Client VPN gateway for OpenVPN clients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The TOML file.", dir_okay=False)]


@app.callback()
def common(_version: VersionOption = False) -> None: ...


@app.command()
def init(
    directory: Annotated[Path, typer.Option("--dir", help="Where to put everything.")] = DEFAULT_CONFIG.parent,
    name: Annotated[
        str | None, typer.Option(help="The name or address that clients connect to, e.g. vpn.example.com.")
    ] = None,
) -> None:
    """Make a PKI, a first client profile and a commented cvpnd.toml fitted to this host. Never overwrites."""
    from cvpnd.bootstrap import BootstrapError, initialise

    try:
        typer.echo(str(initialise(directory, name)))
    except BootstrapError as error:
        _fail(str(error))


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Validate the configuration and the files it names, without touching the host."""
    from cvpnd.doctor.trust import exposed_files

    settings = _load(config)
    for path, what in exposed_files(settings.path, settings):
        typer.echo(f"{config}: warning: {what}; chmod o= {path}", err=True)
    count = len(settings.endpoints)
    typer.echo(f"{config}: valid, {count} endpoint{'' if count == 1 else 's'}")


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Serve in the foreground until SIGTERM or Ctrl-C. SIGHUP reloads; a failed reload keeps what was running."""
    from cvpnd.event_loop import EventLoop
    from cvpnd.service import DaemonError, serve

    settings = _load(config)
    try:
        with ExitStack() as stack:
            stack.callback(logging.shutdown)  # what led to the end stands before what is said of it
            stack.enter_context(asyncio.Runner(loop_factory=EventLoop)).run(serve(settings))
    except DaemonError as error:
        _fail(str(error))


@app.command()
def clean(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take back what a gateway that was killed has left on this host: nftables table, routes, rules and settings."""
    from cvpnd.host.errors import HostError
    from cvpnd.host.gateway import HostGateway

    try:
        daemon = load(config).daemon
    except ConfigError:  # it ran with another
        daemon = DaemonConfig()
    try:
        asyncio.run(HostGateway(daemon.admin_socket.parent).clean())
    except HostError as error:
        _fail(str(error))


def _load(path: Path) -> Config:
    try:
        settings = load(path)
        check_files(settings)
    except ConfigError as error:
        _fail(str(error))
    return settings


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
