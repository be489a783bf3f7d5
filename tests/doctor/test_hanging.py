"""A daemon that hangs, and of whom so many wanted an answer that the kernel takes no more requests for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cvpnd.ctl.doctor import running_daemon
from cvpnd.doctor.bundle import UnknownSecretsError, write_bundle
from cvpnd.doctor.diagnosis import diagnose


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "admin.sock"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(2)
        with pytest.raises(BlockingIOError):
            for _ in range(10):
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        yield path


def test_it_is_told_as_such_at_once_and_not_as_one_that_is_away_or_elsewhere(crowded: Path, tmp_path: Path) -> None:
    config, bundle = tmp_path / "cvpnd.toml", tmp_path / "bundle.tar.gz"
    config.write_text('[daemon]\nstate = "postgresql://cvpnd@127.0.0.1:9/cvpnd"\n')  # PGPASSWORD may be with it
    begun = time.monotonic()
    daemon = running_daemon(crowded)
    assert daemon is not None and daemon["hangs"] and time.monotonic() < begun + 5
    (told,) = (each for each in diagnose(config, daemon) if each.check == "daemon")
    assert (told.level, told.what) == ("problem", "cvpnd: it runs, and does not answer: it hangs, or is stopped")
    with pytest.raises(UnknownSecretsError, match="hangs, which process it is"):
        write_bundle(bundle, config, daemon, lambda _: None)
    assert not bundle.exists()
