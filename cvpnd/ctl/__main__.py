"""The command ``cvpnctl``: its nouns, and what failures look like."""

from __future__ import annotations

import os
import sys

import typer

from cvpnd.ctl import (
    access_key,
    audit,
    certificate,
    client_key,
    connection,
    crl,
    doctor,
    endpoint,
    explain,
    log,
    network,
    profile,
    reload,
    route,
    rule,
    saml_provider,
    security_group,
    status,
    support_bundle,
    tag,
    user,
    vpc,
)
from cvpnd.ctl.client import Refused, Unreachable
from cvpnd.ctl.options import JsonOption, SocketOption

REFUSED, MISUSED, UNREACHABLE = 1, 2, 3
EXIT_CODES = (
    "Exit codes: 0 done, 1 the daemon refused it (of explain, status and doctor: no, or not well), "
    "2 wrong use, 3 no daemon answers."
)

app = typer.Typer(
    name="cvpnctl",
    help="Look at and change a running cvpnd.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # it would take the name of a table, [[endpoint]], for markup and leave it out
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(socket: SocketOption, as_json: JsonOption = False) -> None:
    # given before the noun they are the defaults of the same options behind it
    os.environ["CVPND_SOCKET"] = str(socket)
    if as_json:
        os.environ["CVPND_JSON"] = "1"


app.add_typer(endpoint.app, name="endpoint")
app.add_typer(network.app, name="network")
app.add_typer(connection.app, name="connection")
app.add_typer(rule.app, name="rule")
app.add_typer(route.app, name="route")
app.add_typer(vpc.vpcs, name="vpc")
app.add_typer(vpc.subnets, name="subnet")
app.add_typer(security_group.app, name="security-group")
app.add_typer(saml_provider.app, name="saml-provider")
app.add_typer(certificate.app, name="certificate")
app.add_typer(crl.app, name="crl")
app.add_typer(client_key.app, name="client-key")
app.add_typer(log.app, name="log")
app.add_typer(tag.app, name="tag")
app.add_typer(user.app, name="user")
app.add_typer(access_key.app, name="access-key")
app.command("status")(status.status)
app.command("top")(status.top)
app.command("doctor")(doctor.doctor)
app.command("support-bundle")(support_bundle.support_bundle)
app.command("profile")(profile.make_profile)
app.command("explain")(explain.explain)
app.command("audit")(audit.audit)
app.command("reload")(reload.reload)


def main() -> None:
    """The console script."""
    if sys.stdout is None:  # and what is opened next would take its number
        sys.stderr.write("cvpnctl: standard output is closed; nothing was done\n")
        sys.exit(MISUSED)
    answer = sys.stdout
    try:
        try:
            app(prog_name="cvpnctl")
        except SystemExit:
            if sys.stdout is not answer:  # typer's way with a pipe that nobody reads any more, and its 1 means no here
                sys.exit(MISUSED)
            raise
        finally:
            sys.stdout.flush()
    except Refused as refusal:
        sys.stderr.write(f"cvpnctl: {refusal}\n")
        sys.exit(REFUSED)
    except Unreachable as failure:
        sys.stderr.write(f"cvpnctl: {failure}\n")
        sys.exit(UNREACHABLE)
    except OSError as failure:  # of a disk that is full, say
        if failure.filename is not None:  # another file's, and a mistake of ours
            raise
        sys.stderr.write(f"cvpnctl: the answer cannot be written: {failure.strerror}; what was asked may be done\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more, and says so
        sys.exit(MISUSED)


if __name__ == "__main__":
    main()
