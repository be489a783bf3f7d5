"""What a process of ours comes to know that nobody is to read anywhere, and the command lines of what it starts.

Whoever types a password, shows a token or a code, or posts a SAML response hands it to one of few functions: those are
listened at, so that no test can forget to say what its secrets are. Each is written at once, as the process may be
killed at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[[str, Any], None]


def testify(path: str) -> None:
    """Into a file of this process's own at ``path``, a JSON line each."""
    file = os.open(f"{path}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def say(kind: str, what: Any) -> None:
        os.write(file, (json.dumps([kind, what]) + "\n").encode())

    say("command", sys.orig_argv)
    if "cvpnd" in sys.orig_argv:
        listen(say)
        for secret in _kept():
            say("secret", [secret, "what a daemon's file, or its environment, keeps secret"])


def _kept() -> set[str]:
    """Also what libpq finds by itself, which none of the lab's files need to name."""
    from cvpnd.doctor.redaction import secrets_of

    with contextlib.suppress(OSError, ValueError):  # the daemon will say so itself
        config = Path(sys.orig_argv[sys.orig_argv.index("--config") + 1])
        return {secret for secret in secrets_of(config, lambda: os.environ) if secret}
    return set()


def listen(say: Say) -> None:
    from cvpnd.auth.tokens import TokenKey
    from cvpnd.portal import requests
    from cvpnd.wire.events import CredentialsReceived, QuestionAnswered

    def told(call: Callable[..., Any], repeat: Callable[..., None]) -> Callable[..., Any]:
        def listened_to(*arguments: Any, **named: Any) -> Any:
            answer = call(*arguments, **named)
            repeat(answer, *arguments, **named)
            return answer

        return listened_to

    def credentials(_: None, event: CredentialsReceived, *__: Any, **___: Any) -> None:
        say("password", [event.username, text_of(event.password)])

    def answered(_: None, event: QuestionAnswered, *__: Any, **___: Any) -> None:
        say("password", ["", text_of(event.answer)])

    CredentialsReceived.__init__ = told(CredentialsReceived.__init__, credentials)
    QuestionAnswered.__init__ = told(QuestionAnswered.__init__, answered)
    TokenKey.write = told(TokenKey.write, lambda token, *_: say("token", text_of(token)))

    of_portal = requests.read_form

    async def read_form(*arguments: Any, **named: Any) -> dict[str, str]:
        fields = await of_portal(*arguments, **named)
        for name, value in fields.items():
            if name not in ("username", "RelayState"):
                say("password", [fields.get("username", ""), value])
        return fields

    requests.read_form = read_form

    def started(_: None, __: Any, command: Any, *___: Any, **named: Any) -> None:
        say("command", [str(word) for word in (command if isinstance(command, list | tuple) else [command])])
        if named.get("env"):
            say("command", [f"{name}={value}" for name, value in named["env"].items()])

    subprocess.Popen.__init__ = told(subprocess.Popen.__init__, started)


def text_of(secret: Any) -> str:
    """Of a str, of bytes, or of what wipes itself."""
    return secret if isinstance(secret, str) else bytes(secret).decode(errors="replace")
