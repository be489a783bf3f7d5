"""The package, built once for all that install it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


OLDER_BY = 40
"""Commits."""


def build(sources: Path, version: str, **more: str) -> Path:
    environment = {**os.environ, "DEB_VERSION": version, "DEB_OPTIONS": "-Zgzip -z1", **more}
    done = subprocess.run([sources / "packaging/build-deb"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sources / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def packages() -> list[Path]:
    """Of one version and of the next by somebody with an odd name, with the same in both."""
    next_one = {"DEB_REUSE": "1", "DEBFULLNAME": r"Smith & Sons | \1"}
    return [build(REPOSITORY, "0.1.0~test1"), build(REPOSITORY, "0.1.0~test2", **next_one)]


@pytest.fixture(scope="session")
def older_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it was some commits ago, by its own way of building it."""
    git = ["git", "-C", str(REPOSITORY)]
    command = [*git, "rev-list", "--first-parent", "--max-count=1", f"--skip={OLDER_BY}", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        pytest.skip(f"a clone without the {OLDER_BY} commits before this one")
    sources = tmp_path_factory.mktemp("older")
    archive = subprocess.run([*git, "archive", found], capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract", "--directory", sources], input=archive, check=True)
    return build(sources, "0.1.0~older")
