"""The API's certificate that signs itself, while the daemon runs: what is there by now is shown, sooner or later."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvpnd.api.own_certificate import OwnCertificate
from cvpnd.service import Daemon


async def test_a_new_certificate_that_could_not_be_shown_at_once_is_shown_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renewed, shown = iter([False, True, False, False]), []

    async def until_step(_within_s: float) -> None:
        await asyncio.sleep(0)

    async def renew(_own: OwnCertificate, *, is_clock_right: bool) -> bool:
        assert is_clock_right
        try:
            return next(renewed)
        except StopIteration:
            raise asyncio.CancelledError from None

    def reload_certificate() -> None:
        shown.append("tried")
        if len(shown) == 1:
            raise OSError("too many open files")

    daemon = SimpleNamespace(
        https={"API": SimpleNamespace(reload_certificate=reload_certificate)},
        https_troubles={"API": "of a reload before", "portal": "its own"},
    )
    monkeypatch.setattr(OwnCertificate, "_renew", renew)
    own = OwnCertificate((Path("api.crt"), Path("api.key")), "127.0.0.1")
    with pytest.raises(asyncio.CancelledError):
        await own.keep(until_step, partial(Daemon.show_own_certificate, daemon))  # type: ignore[arg-type]
    assert len(shown) == 2 and daemon.https_troubles == {"portal": "its own"}
