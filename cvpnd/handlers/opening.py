"""From the configuration to handlers that can be asked."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass

from cvpnd.config import HandlerConfig
from cvpnd.handlers.desk import Handler
from cvpnd.handlers.executable import ExecutableHandler
from cvpnd.handlers.python import PythonHandler
from cvpnd.handlers.schema import ConnectRequest, HandlerFailed
from cvpnd.handlers.trusted_path import UntrustedPathError, problem_with
from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)


class HandlerError(Exception):
    """A handler cannot be asked; the text names it and the fix."""


@dataclass(frozen=True)
class _Untrusted:
    """In place of a module in whose place others could put another. It lets nobody in, but endpoints without it, and
    those that did not ask so much before, are served."""

    settings: HandlerConfig
    trouble: str

    @property
    def read_from_files(self) -> str:
        return self.trouble

    def look(self) -> None:
        """What is imported and what is not is decided when the file is read."""

    async def call(self, request: ConnectRequest) -> bytes:  # noqa: ARG002 - it makes no difference
        raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, self.trouble)


def open_handler(settings: HandlerConfig) -> Handler:
    """Reads files and imports modules: call it from a thread. Raises ``HandlerError``."""
    try:
        if settings.executable is not None:
            _check_executable(settings)
            return ExecutableHandler(settings)
        if settings.python is not None:
            return _python_handler(settings)
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
        if status.st_mode & stat.S_IWOTH or status.st_uid not in (0, os.geteuid()):
            raise ValueError(problem)
        _tell(settings, problem)  # it is asked again when it is to be run


def _python_handler(settings: HandlerConfig) -> Handler:
    try:
        return PythonHandler(settings)
    except UntrustedPathError as error:
        _tell(settings, f"{error}, and reload")
        return _Untrusted(settings, str(error))


def _tell(settings: HandlerConfig, problem: str) -> None:
    log.error("handler %s lets nobody in: %s", settings.name, problem)
