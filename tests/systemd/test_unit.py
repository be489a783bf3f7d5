"""The unit and its snippets, judged by systemd's own tools; test_booted.py starts them for real."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
EXPOSURE_AT_MOST = 20
"""In tenths, as --threshold takes it. What is left is the network, which is the job."""

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with an executable that exists here: verify looks for it."""
    text = (SYSTEMD / "cvpnd.service").read_text()
    assert "ExecStart=/opt/cvpnd/bin/cvpnd " in text
    path = tmp_path / "cvpnd.service"
    path.write_text(text.replace("/opt/cvpnd/bin/cvpnd", sys.executable))
    return path


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)


def test_systemd_has_nothing_to_say_about_the_unit(unit: Path) -> None:
    result = verify(unit)
    assert (result.returncode, result.stderr) == (0, "")


def test_systemd_has_nothing_to_say_about_the_drop_in_for_handlers_either(unit: Path) -> None:
    drop_in = unit.parent / "cvpnd.service.d"
    drop_in.mkdir()
    shutil.copy(SYSTEMD / "handler-user.conf", drop_in)
    result = verify(unit)
    assert (result.returncode, result.stderr) == (0, "")
    (drop_in / "handler-user.conf").write_text("[Service]\nAmbientCapability=CAP_KILL\n")
    assert "AmbientCapability" in verify(unit).stderr, "it was not read"


def test_a_misspelt_key_would_be_seen(unit: Path) -> None:
    """verify exits with 0 for these, hence the look at stderr above."""
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in verify(unit).stderr


def test_the_unit_stays_hardened(unit: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_AT_MOST}", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty system in which sysusers has made the user."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    subprocess.run(["systemd-sysusers", f"--root={root}", SYSTEMD / "cvpnd.sysusers.conf"], check=True)
    return root


def test_sysusers_makes_a_user_without_a_shell(root: Path) -> None:
    [entry] = [line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("cvpnd:")]
    assert entry.endswith(":/var/lib/cvpnd:/usr/sbin/nologin")
    assert "\ncvpnd:" in "\n" + (root / "etc/group").read_text()


def test_tmpfiles_gives_the_daemon_its_keys_and_nobody_else(root: Path) -> None:
    """What `cvpnd init --dir /etc/cvpnd` leaves, run by root under any umask."""
    configuration = root / "etc/cvpnd"
    (configuration / "pki/issued").mkdir(parents=True)
    files = ["cvpnd.toml", "pki/ca.key", "pki/issued/client1.crt"]
    for name in files:
        (configuration / name).write_text("…")
        (configuration / name).chmod(0o644)
    result = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={root}", SYSTEMD / "cvpnd.tmpfiles.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")

    passwd = (root / "etc/passwd").read_text()
    user = int(next(line for line in passwd.splitlines() if line.startswith("cvpnd:")).split(":")[2])

    def owner_and_mode(name: str) -> tuple[int, str]:
        status = (configuration / name).stat()
        return status.st_uid, f"{status.st_mode & 0o7777:o}"

    assert owner_and_mode(".") == (0, "750")
    assert owner_and_mode("cvpnd.toml") == (0, "640")
    assert owner_and_mode("pki") == (user, "700")
    assert owner_and_mode("pki/issued") == (user, "700")
    assert owner_and_mode("pki/ca.key") == (user, "600")
    assert owner_and_mode("pki/issued/client1.crt") == (user, "600")
