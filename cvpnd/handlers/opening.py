"""From the configuration to handlers that can be asked."""

from __future__ import annotations

import stat

from cvpnd.config import HandlerConfig
from cvpnd.handlers.desk import Handler
from cvpnd.handlers.executable import ExecutableHandler
from cvpnd.handlers.python import PythonHandler
from cvpnd.handlers.trusted_path import problem_with


class HandlerError(Exception):
    """A handler cannot be asked; the text names it and the fix."""


def open_handler(settings: HandlerConfig) -> Handler:
    """Reads files and imports modules: call it from a thread. Raises ``HandlerError``."""
    try:
        if settings.executable is not None:
            _check_executable(settings)
            return ExecutableHandler(settings)
        if settings.python is not None:
            return PythonHandler(settings)
        from cvpnd.handlers.web import WebHandler  # with httpx: who asks nobody does without its time and memory

        return WebHandler(settings)
    except (OSError, ValueError) as error:
        raise HandlerError(f"handler {settings.name}: {error}") from error


def _check_executable(settings: HandlerConfig) -> None:
    assert settings.executable is not None  # noqa: S101 - the caller's promise
    status = settings.executable.stat()
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise ValueError(f"{settings.executable} is no program; chmod +x it, or name another")
    if (problem := problem_with(settings.executable)) is not None:
        raise ValueError(problem)
