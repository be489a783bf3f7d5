"""What ``journalctl -x`` says of the connection log's entries; test_booted.py has it say so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cvpnd.ops.journal import MESSAGE_IDS

REPOSITORY = Path(__file__).parents[2]
CATALOG = (REPOSITORY / "systemd/cvpnd.catalog").read_text()
OF_OURS = {
    *("CVPND_CLIENT_IP", "CVPND_CONNECTION_ATTEMPT_FAILURE_REASON", "CVPND_CONNECTION_DURATION_SECONDS"),
    *("CVPND_CONNECTION_END_REASON", "CVPND_DEVICE_IP", "CVPND_EGRESS_BYTES", "CVPND_ENDPOINT_NAME"),
    "CVPND_INGRESS_BYTES",
}
"""Fields in which no client can write what a terminal obeys: journalctl fills them in as they are."""


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="systemd is not installed")
def test_systemd_knows_every_message_id_and_each_says_where_the_cure_is(tmp_path: Path) -> None:
    directory = tmp_path / "usr/lib/systemd/catalog"
    directory.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(REPOSITORY / "systemd/cvpnd.catalog", directory)

    def journalctl(*options: str) -> str:
        done = subprocess.run(
            ["journalctl", f"--root={tmp_path}", *options], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout

    journalctl("--update-catalog")
    listed = dict(line.split(" ", 1) for line in journalctl("--list-catalog").splitlines())
    assert listed.keys() == set(MESSAGE_IDS.values())
    assert all(text.startswith("cvpnd: ") for text in listed.values())


def test_what_it_refers_to_is_there_and_no_client_writes_on_the_terminal() -> None:
    assert set(re.findall(r"@(\w+)@", CATALOG)) <= OF_OURS
    for named in re.findall(r"/usr/share/doc/cvpnd/(docs/\S+\.md)", CATALOG):
        assert (REPOSITORY / named).is_file(), named
    troubleshooting = (REPOSITORY / "docs/troubleshooting.md").read_text()
    headings = re.findall(r'table "([^"]+)"', CATALOG)
    assert headings and all(f"\n## {each}\n" in troubleshooting for each in headings)
    assert all(len(line) <= 120 for line in CATALOG.splitlines())
