"""The doctor asked by who may not read the daemon's files: what is kept from them is no fault of the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import certs

SCRIPT = """
import json, os, sys
from pathlib import Path
from cvpnd.doctor.diagnosis import diagnose
config = Path(sys.argv[1])
diagnose(config, None)  # everything is imported now, which nobody might not be allowed to read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps([[each.check, each.level, each.what, each.fix] for each in diagnose(config, None)]))
"""
CONFIG = """
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = ["udp://0.0.0.0:1194"]
server_certificate = { certificate = "pki/server.crt", private_key = "pki/server.key" }
authentication = [{ type = "certificate-authentication", client_ca = "pki/ca.crt" }]
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_files_of_the_daemon_are_counted_and_nothing_is_to_be_replaced_or_given_away(open_directory: Path) -> None:
    (open_directory / "cvpnd.toml").write_text(CONFIG)
    (open_directory / "pki").mkdir(mode=0o700)
    server = certs.server()
    (open_directory / "pki/server.crt").write_bytes(server.certificate_pem)
    (open_directory / "pki/server.key").write_bytes(server.private_key_pem)
    (open_directory / "pki/ca.crt").write_bytes(certs.authority().certificate_pem)
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(open_directory / "cvpnd.toml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = {check: rest for check, *rest in json.loads(done.stdout)}
    assert found["configuration"] == [
        "warning",
        "3 of the files that it names are not this user's",
        "run cvpnctl doctor with sudo",
    ]
    assert found["certificates"][0] == "ok"
    only_root = ["unknown", "only root may", "run cvpnctl doctor with sudo"]
    assert [check for check, rest in found.items() if rest == only_root] == ["ipsec", "kernel", "firewall", "files"]
    (open_directory / "pki").chmod(0o701)
    (open_directory / "pki/server.crt").unlink()
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(open_directory / "cvpnd.toml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [rest for check, *rest in json.loads(done.stdout) if check == "configuration"]
    assert [level for level, *_ in told] == ["problem"] and "server.crt does not exist" in told[0][1], told
