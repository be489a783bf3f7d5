"""The command ``cvpnctl``: what stands before a noun, and what failures look like."""

from __future__ import annotations

import os
import sys

import typer

from cvpnd.ctl.client import Refused, Unreachable
from cvpnd.ctl.nouns import Nouns
from cvpnd.ctl.options import JsonOption, SocketOption
from cvpnd.version_option import VersionOption

REFUSED, MISUSED, UNREACHABLE = 1, 2, 3
EXIT_CODES = (
    "Exit codes: 0 done, 1 the daemon refused it (of explain, status and doctor: no, or not well), "
    "2 wrong use, 3 no daemon answers."
)

app = typer.Typer(
    name="cvpnctl",
    cls=Nouns,
    help="Look at and change a running cvpnd.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # it would take the name of a table, [[endpoint]], for markup and leave it out
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(socket: SocketOption, as_json: JsonOption = False, _version: VersionOption = False) -> None:
    # given before the noun they are the defaults of the same options behind it
    os.environ["CVPND_SOCKET"] = str(socket)
    if as_json:
        os.environ["CVPND_JSON"] = "1"


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
