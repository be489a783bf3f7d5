"""``cvpnctl support-bundle``"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cvpnd.ctl.client import Client
from cvpnd.ctl.doctor import ConfigOption, config_path, running_daemon
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.ctl.output import print_json, print_line


def support_bundle(
    socket: SocketOption,
    output: Annotated[Path | None, typer.Option(help="The archive to write (.tar.gz).", show_default=False)] = None,
    config: ConfigOption = None,
    no_logs: Annotated[bool, typer.Option("--no-logs", help="Leave logs and connections out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an archive for whoever helps: status, doctor, settings of the host and logs. Keys, passwords and other
    secrets are not in it."""
    from cvpnd.doctor.bundle import UnknownSecretsError, write_bundle  # as in doctor

    path = output or Path(f"cvpnd-support-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    daemon = running_daemon(socket)
    try:
        names = write_bundle(path, config_path(config, daemon), daemon, Client(socket).get, no_logs=no_logs)
    except UnknownSecretsError as error:
        raise typer.BadParameter(str(error), param_hint="--config") from None
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--output") from None
    if as_json:
        print_json({"path": str(path), "parts": names})
        return
    print_line(f"written: {path}, {len(names)} parts; read it before you send it")
