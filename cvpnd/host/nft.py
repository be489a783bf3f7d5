"""The program nft: started, waited for, and ended. Whatever goes wrong with it is a ``HostError``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from cvpnd.host.errors import NEEDS_CAPABILITY, HostError

TIMEOUT_S = 7.0
"""A change takes milliseconds. A stop in the middle of one waits for three: the counters, the old table, its removal.
They have to fit into the unit's TimeoutStopSec."""
WHOLE_CHANGE_S = 12.0
"""That one change waits for it in all, also to be taken back: whoever waits for the answer, or for a turn, is kept no
longer by an nft that hangs."""
LEAST_S = 1.0
"""For what is asked after that: where it does not hang any more, that is plenty."""
_REAPED_S = 1.0
"""After it was killed: a process that the kernel does not let go is left to the kernel."""


class NftHangsError(HostError):
    """What it was asked last may be done or not."""


@dataclass(slots=True)
class _Patience:
    left_s: float = WHOLE_CHANGE_S


_of_change: ContextVar[_Patience | None] = ContextVar("of_change", default=None)


@contextlib.contextmanager
def one_change() -> Iterator[None]:
    """All that is asked of it inside is waited for ``WHOLE_CHANGE_S`` at most."""
    mark = _of_change.set(_Patience())
    try:
        yield
    finally:
        _of_change.reset(mark)


@contextlib.contextmanager
def _waiting() -> Iterator[float]:
    """For how many seconds."""
    patience, time = _of_change.get() or _Patience(), asyncio.get_running_loop().time
    begun = time()
    try:
        yield min(TIMEOUT_S, max(LEAST_S, patience.left_s))
    finally:
        patience.left_s -= time() - begun


async def run(text: str, *arguments: str) -> tuple[str, int]:
    """What it says to ``text``, and the number of its process. Nothing of it is left, also after a cancellation."""
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise HostError("nft is not installed on this host: install the package nftables")
    try:
        with _waiting() as patience_s:
            async with asyncio.timeout(patience_s):
                process = await asyncio.create_subprocess_exec(
                    program,
                    *arguments,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    process_group=0,  # Ctrl-C at a terminal is for us, who then need it once more
                )
                try:
                    output, errors = await process.communicate(text.encode())
                finally:
                    if process.returncode is None:
                        await _end(process)
    except TimeoutError:
        raise NftHangsError(
            f"{program} has not answered within {patience_s:.3g} s and was ended: nft list tables shows whether it "
            "does by hand; if not, this machine is short of memory or time, or something holds the kernel's nftables"
        ) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: no thread to wait for it
        why = error.strerror if isinstance(error, OSError) else error
        raise HostError(
            f"{program} cannot be started: {why}; it takes memory, room for a process (TasksMax of the unit) "
            "and a few open files (LimitNOFILE)"
        ) from error
    if process.returncode:
        raise HostError(f"nft: {_reason(process.returncode, errors.decode(errors='replace').strip())}")
    return output.decode(errors="replace"), process.pid


async def listed(*arguments: str) -> list[dict[str, Any]]:
    """The entries of one of its listings."""
    output, _ = await run("", "-j", *arguments)
    try:
        return list(json.loads(output)["nftables"])
    except (ValueError, LookupError, TypeError) as error:
        raise HostError(f"nft {' '.join(arguments)}: what it answers is no listing ({error})") from error


def _reason(code: int, message: str) -> str:
    if "Operation not permitted" in message:
        return NEEDS_CAPABILITY
    ended = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with {code}"
    return message or ended


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAPED_S):
            await process.wait()
