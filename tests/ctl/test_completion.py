"""Names that a shell is offered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.ctl import completion

NAMES = ("anna@example.org", "müller", "cn=eng,ou=groups,dc=example", "10.0.0.0/8", "2001:db8::/32", "o.neil+vpn_1")
OBEYED = (
    "$(id)",
    "x;id",
    "a`id`",
    "\\$(id)",
    "a b",
    "a\nid",
    "-rf",
    "--socket=x",
    "=ls",
    "~root",
    "a*",
    "{a,b}",
    "o'neil",
    "a|b",
    "a&b",
    "!x",
)


def test_names_that_a_shell_would_obey_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = [{"status": "active", "username": name, "common_name": ""} for name in (*OBEYED, *NAMES)]
    monkeypatch.setattr(completion, "Client", lambda _: SimpleNamespace(get=lambda *_: {"connections": connections}))
    context: Any = SimpleNamespace(params={})
    assert completion.connected(context, "") == list(NAMES)
    assert completion.connected(context, "an") == ["anna@example.org"]
    assert completion.connected(context, "$") == []
