"""A daemon in another PID namespace than who asks about it: its own number for itself is somebody else's here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.lab import wait_until
from helpers.memory_operations import MemoryOperations, admin_server

from cvpnd.ctl.client import Client
from cvpnd.ctl.doctor import running_daemon
from cvpnd.doctor.facts import gather

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a PID namespace")

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
DAEMON = """
import os, sys, time
from pathlib import Path
from helpers.memory_operations import MemoryOperations, admin_server
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with admin_server(MemoryOperations(), Path(sys.argv[1])):
    time.sleep(60)
"""


@contextmanager
def contained(sock: Path) -> Iterator[int]:
    """One that answers there, as nobody; how it is called here."""
    command = [*UNSHARE, sys.executable, "-P", "-c", DAEMON, str(sock)]
    with subprocess.Popen(command, env=ENVIRONMENT) as unshare:
        try:
            wait_until(lambda: running_daemon(sock), 20, "the daemon answers")  # its socket is there before it listens
            (child,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
            yield int(child)
        finally:
            unshare.kill()


def test_it_is_known_by_what_the_kernel_calls_it_here(open_directory: Path) -> None:
    sock = open_directory / "admin.sock"
    os.chown(open_directory, 65534, 65534)
    with contained(sock) as pid:
        client = Client(sock)
        assert client.get("/status")["status"]["pid"] != pid, "what it says itself"
        assert client.daemon_pid == pid
        daemon = running_daemon(sock)
        assert daemon is not None and daemon["pid"] == pid
        user = gather(open_directory / "cvpnd.toml", daemon).user
        assert user is not None and (user.name, user.uid) == ("nobody", 65534)


def test_where_it_cannot_be_seen_that_is_told_and_no_bundle_is_written(tmp_path: Path) -> None:
    sock, config = tmp_path / "admin.sock", tmp_path / "cvpnd.toml"
    config.write_text('[daemon]\nstate = "postgresql://cvpnd@db/cvpnd"\n')

    def ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*UNSHARE, sys.executable, "-P", "-m", "cvpnd.ctl", "--socket", str(sock), *arguments]
        return subprocess.run(
            [*command, "--config", str(config)], capture_output=True, text=True, env=ENVIRONMENT, timeout=60
        )

    with admin_server(MemoryOperations(), sock):
        found = json.loads(ctl("doctor", "--json").stdout)
        (told,) = (each for each in found if each["check"] == "daemon")
        assert "another PID namespace" in told["what"] and told["fix"] == "run cvpnctl doctor where it runs"
        assert not [each for each in found if each["check"] == "files" and each["level"] != "ok"]
        bundle = tmp_path / "bundle.tar.gz"
        refused = ctl("support-bundle", "--output", str(bundle))
        assert refused.returncode == 2 and "another PID namespace" in refused.stderr.replace("\n", " ")
        assert not bundle.exists()
