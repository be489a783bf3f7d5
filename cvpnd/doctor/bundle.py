"""An archive for whoever helps: how the gateway is and what the host has, without its secrets.

Each part is gathered by itself; one that cannot be had says so in its place. User names, addresses and what the
connection log says are in it, as nothing can be found without them: ``no_logs`` leaves logs and connections out."""

from __future__ import annotations

import io
import json
import os
import platform
import stat
import subprocess
import tarfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cvpnd.config import Config, ConfigError, load
from cvpnd.doctor.diagnosis import diagnose
from cvpnd.doctor.libpq import environment_of
from cvpnd.doctor.redaction import Scrubber, redacted, secrets_of

COMMAND_S = 20
LOG_BYTES = 1024 * 1024
JOURNAL_LINES = 5000
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "host/links.txt": ("ip", "-details", "-statistics", "link"),
    "host/addresses.txt": ("ip", "address"),
    "host/routes.txt": ("ip", "route", "show", "table", "all"),
    "host/routes-ipv6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "host/rules.txt": ("ip", "rule"),
    "host/nftables.txt": ("nft", "list", "ruleset"),
    "host/sockets.txt": ("ss", "-lntup"),
    "host/kernel-settings.txt": (
        "sysctl",
        "-a",
        "--pattern",
        r"^net\.(core|ipv4\.(ip_|conf)|ipv6\.conf|netfilter)",
    ),
    "host/service.txt": ("systemctl", "status", "--no-pager", "cvpnd"),
}
LOGS: Mapping[str, tuple[str, ...]] = {
    "log/journal.txt": ("journalctl", "--no-pager", "--unit", "cvpnd", "--lines", str(JOURNAL_LINES)),
}
ANSWERS = ("endpoints", "rules", "routes", "security-groups", "audit")
ANSWERS_OF_CLIENTS = ("connections", "recent-log")
Ask = Callable[[str], Mapping[str, Any]]
"""A path below ``/v1`` -> the daemon's answer. Raises what the caller of ``write_bundle`` wants to be told of."""


class UnknownSecretsError(Exception):
    """The text says why nobody knows what to leave out."""


def write_bundle(
    path: Path, config_path: Path, daemon: Mapping[str, Any] | None, ask: Ask, *, no_logs: bool = False
) -> list[str]:
    """Returns the names of its parts. The archive (tar.gz) has mode 0600. Raises ``OSError``, also if it exists,
    and ``UnknownSecretsError``."""
    try:
        scrub = Scrubber(secrets_of(config_path, lambda: {} if daemon is None else _environment(daemon)))
    except PermissionError as error:
        raise UnknownSecretsError(
            f"{error.filename}: {error.strerror}; what is in it is to be left out of the archive: run this with sudo"
        ) from None
    except OSError as error:
        raise UnknownSecretsError(
            f"{error.filename}: {error.strerror}; the file says which secrets are to be left out"
        ) from None
    now = time.time()
    stem = path.name.partition(".")[0]
    names = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, gather in _parts(config_path, daemon, ask, no_logs):
            try:
                text = gather()
            except Exception as error:  # the rest is as useful without it
                text = f"could not be had: {type(error).__name__}: {error}\n"
            data = scrub(text).encode()
            entry = tarfile.TarInfo(f"{stem}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
            archive.addfile(entry, io.BytesIO(data))
            names.append(name)
    return names


def _environment(daemon: Mapping[str, Any]) -> Mapping[str, str]:
    if not daemon["pid"] and "hangs" in daemon:
        raise UnknownSecretsError(
            "the daemon hangs, which process it is cannot be told, and secrets in its environment are to be left out "
            "of the archive: systemctl restart cvpnd, then run this again"
        )
    if not daemon["pid"]:
        raise UnknownSecretsError(
            "the daemon runs in another PID namespace than this, as in a container, and its environment cannot be read "
            "from here; secrets in there are to be left out of the archive: run this where it runs"
        )
    return environment_of(daemon["pid"])


def _parts(
    config_path: Path, daemon: Mapping[str, Any] | None, ask: Ask, no_logs: bool
) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "about.json", _about
    yield "configuration.json", lambda: _json(redacted(tomllib.loads(config_path.read_text())))
    yield "doctor.json", lambda: _json([asdict(finding) for finding in diagnose(config_path, daemon)])
    if daemon is not None:
        yield "status.json", lambda: _json(daemon)
    if daemon is not None and "hangs" not in daemon:
        for answer in ANSWERS if no_logs else (*ANSWERS, *ANSWERS_OF_CLIENTS):
            yield f"{answer}.json", lambda answer=answer: _json(ask(f"/{answer}"))  # type: ignore[misc]
        yield "metrics.txt", lambda: _metrics(load(config_path))
    for name, command in COMMANDS.items() if no_logs else (*COMMANDS.items(), *LOGS.items()):
        yield name, lambda command=command: _output(command)  # type: ignore[misc]
    if not no_logs:
        yield "log/connections.log", lambda: _tail(_log_directory(config_path) / "connections.log")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"


def _about() -> str:
    release = platform.freedesktop_os_release()
    return _json(
        {
            "cvpnd": version("cvpnd"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "system": release.get("PRETTY_NAME", ""),
            "cores": os.cpu_count(),
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )


def _output(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def _metrics(config: Config) -> str:
    if config.metrics.listen is None:
        return "metrics.listen is off\n"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{config.metrics.listen}/metrics", timeout=COMMAND_S) as answer:
        return str(answer.read().decode())


def _log_directory(config_path: Path) -> Path:
    try:
        return load(config_path).daemon.log_directory
    except ConfigError:
        return Path("/var/log/cvpnd")


def _tail(path: Path) -> str:
    """The file is the daemon's, and the reader mostly root: it may not lead to somebody else's."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return f"{path} is no file\n"
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode(errors="replace")
    return text if size <= LOG_BYTES else text.partition("\n")[2]
