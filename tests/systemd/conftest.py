"""The package, built once for all that install it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def packages() -> list[Path]:
    """Of one version and of the next, with the same in both."""

    def build(version: str, **more: str) -> Path:
        environment = {**os.environ, "DEB_VERSION": version, "DEB_OPTIONS": "-Zgzip -z1", **more}
        done = subprocess.run([REPOSITORY / "packaging/build-deb"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return REPOSITORY / done.stdout.splitlines()[-1]

    return [build("0.1.0~test1"), build("0.1.0~test2", DEB_REUSE="1")]
