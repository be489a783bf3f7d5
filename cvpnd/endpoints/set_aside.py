"""Endpoints of a shared store that cannot be served here as it has them, and those of the file that cannot be served at
all, as after a lost device: no change of others waits for one.

Its port may be taken here, or a subnet not declared. One that listens already goes on doing so where it does, and is
in all else as the store says now, its revocation list and its authorities first of all; where that cannot be either, it
ends, as nobody here would know whom to let in. One that does not listen yet is not served."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from cvpnd.config import Listen
from cvpnd.endpoints.managed import EndpointFault, SetAside

log = logging.getLogger(__name__)

T = TypeVar("T")


class EndpointsAside:
    """On the event loop's thread, by whoever may change the gateway."""

    def __init__(self, listening: Callable[[str], tuple[Listen, ...]]) -> None:
        """``listening``: where an endpoint does that now, by its id."""
        self._listening = listening
        self.why: Mapping[str, str] = {}
        """By id."""

    def as_before(self) -> dict[str, SetAside]:
        """Those that are, however they go on."""
        return {endpoint_id: SetAside(self._listening(endpoint_id)) for endpoint_id in self.why}

    async def decide(self, check: Callable[[Mapping[str, SetAside]], Awaitable[T]]) -> T:
        """Anew, which they are: as few as let the others pass. Raises what ``check`` does for any other reason."""
        aside: dict[str, SetAside] = {}
        why: dict[str, str] = {}
        while True:
            try:
                checked = await check(aside)
                break
            except EndpointFault as fault:
                before = aside.get(fault.endpoint_id)
                if before is not None and not before.listen:
                    raise
                goes_on = SetAside(self._listening(fault.endpoint_id) if before is None else ())
                aside[fault.endpoint_id] = goes_on
                so = "it goes on listening where it did" if goes_on.listen else "nobody gets in by it"
                why[fault.endpoint_id] = f"{fault}; {so}"
        for endpoint_id, text in why.items():
            if text != self.why.get(endpoint_id):
                log.critical("%s: it cannot be served here as it should be", text)
        for endpoint_id in self.why.keys() - why.keys():
            log.warning("endpoint %s is again as it should be, or gone", endpoint_id)
        self.why = why
        return checked
