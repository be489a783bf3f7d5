"""A function in this process, called like a Lambda function's: ``function(event)`` or ``function(event, context)``, the
event being the request as a dictionary, the context None.

Each call has a thread of its own. One that does not come back cannot be ended; it is no longer waited for, but counts
against the handler's concurrency until it does. Daemon threads, because none may keep the gateway from stopping."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvpnd.config import HandlerConfig
from cvpnd.handlers.schema import LARGEST_ANSWER, ConnectRequest, HandlerFailed
from cvpnd.handlers.trusted_path import UntrustedPathError, problem_with
from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)


class PythonHandler:
    read_from_files: object = None
    trouble = ""

    def __init__(self, settings: HandlerConfig) -> None:
        """Imports the module. Raises ``ValueError`` if that does not lead to a function, ``UntrustedPathError``."""
        assert settings.python is not None  # noqa: S101 - the caller's promise
        self.settings = settings
        self._function = _find(settings.python, settings)
        self._lock = threading.Lock()
        self._held = 0
        """Threads that have not come back; guarded by the lock."""

    def look(self) -> None:
        """What was imported stays what it was, whoever may write to its file since."""

    async def call(self, request: ConnectRequest) -> bytes:
        with self._lock:
            if self._held >= self.settings.concurrency:
                raise HandlerFailed(
                    Refusal.CLIENT_CONNECT_HANDLER_THROTTLED, f"{self._held} earlier calls have not come back"
                )
            self._held += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        arguments = json.loads(request.payload()), loop, answer
        try:
            threading.Thread(target=self._run, args=arguments, name=self.settings.name, daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._held -= 1
            raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, str(error)) from None
        return await answer

    def _run(self, event: dict[str, Any], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[bytes]) -> None:
        outcome: bytes | HandlerFailed
        try:
            outcome = _as_json(self._function(event))
        except HandlerFailed as failed:
            outcome = failed
        except BaseException as error:  # SystemExit too: it is the thread's, not ours
            log.exception("handler %s", self.settings.name)
            outcome = HandlerFailed(
                Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR, f"it raised {type(error).__name__}"
            )
        finally:
            with self._lock:
                self._held -= 1
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, answer, outcome)


def _settle(answer: asyncio.Future[bytes], outcome: bytes | HandlerFailed) -> None:
    if answer.done():  # nobody waits any more
        return
    if isinstance(outcome, HandlerFailed):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _as_json(answer: object) -> bytes:
    try:
        data = json.dumps(answer).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE, f"no JSON: {error}") from None
    if len(data) > LARGEST_ANSWER:
        raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE, f"more than {LARGEST_ANSWER} bytes")
    return data


def _find(name: str, settings: HandlerConfig) -> Callable[[dict[str, Any]], object]:
    module_name, _, function_name = name.partition(":")
    if settings.python_path is not None and (problem := problem_with(settings.python_path)) is not None:
        sys.path[:] = [each for each in sys.path if each != str(settings.python_path)]  # libraries look there too
        raise UntrustedPathError(problem)
    if settings.python_path is not None and str(settings.python_path) not in sys.path:
        sys.path.append(str(settings.python_path))  # behind all others: nothing of ours may be shadowed
    try:
        _check_files(module_name, settings)
        function = getattr(importlib.import_module(module_name), function_name)
    except UntrustedPathError:
        raise
    except Exception as error:
        raise ValueError(f'python = "{name}" cannot be imported: {type(error).__name__}: {error}') from error
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(f'python = "{name}" is no plain function; name one')
    try:
        inspect.signature(function).bind({}, None)
    except TypeError:
        return function  # type: ignore[no-any-return]
    return lambda event: function(event, None)


def _check_files(module_name: str, settings: HandlerConfig) -> None:
    """Of the operator's modules, before they are imported: what is beside the daemon's own is as safe as that. Raises
    ``UntrustedPathError``."""
    names = module_name.split(".")
    for count in range(1, len(names) + 1):
        spec = importlib.util.find_spec(".".join(names[:count]))  # which imports the packages around it
        if spec is None or not spec.has_location or spec.origin is None or settings.python_path is None:
            continue
        origin, compiled = Path(spec.origin), Path(spec.cached or spec.origin)
        if not origin.is_relative_to(settings.python_path):
            continue
        for place in (origin, compiled if compiled.exists() else compiled.parent):  # what is compiled is taken first
            if place.exists() and (problem := problem_with(place)) is not None:
                raise UntrustedPathError(problem)
