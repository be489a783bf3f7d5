"""The API's certificate that signs itself, while the daemon runs: what is there by now is shown, sooner or later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvpnd.service import Daemon

FILES = Path("api.crt"), Path("api.key")


async def test_a_new_certificate_that_could_not_be_shown_at_once_is_shown_at_the_next_look():
    renewed, shown = iter([False, True, False, False]), []

    async def until_step(_within_s: float) -> None:
        await asyncio.sleep(0)

    async def renew(*_files_and_host: object) -> bool:
        try:
            return next(renewed)
        except StopIteration:
            raise asyncio.CancelledError from None

    def reload_certificate() -> None:
        shown.append("tried")
        if len(shown) == 1:
            raise OSError("too many open files")

    daemon = SimpleNamespace(
        gateway=SimpleNamespace(timekeeper=SimpleNamespace(until_step=until_step)),
        renew_api_certificate=renew,
        https={"API": SimpleNamespace(reload_certificate=reload_certificate)},
        https_troubles={"API": "of a reload before", "portal": "its own"},
    )
    with pytest.raises(asyncio.CancelledError):
        await Daemon.keep_api_certificate(daemon, FILES, "127.0.0.1")  # type: ignore[arg-type]
    assert len(shown) == 2 and daemon.https_troubles == {"portal": "its own"}
