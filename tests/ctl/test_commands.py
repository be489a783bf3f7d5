"""``cvpnctl`` has a command for every operation of the REST API, and each of them speaks JSON."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from helpers.command_tree import commands
from helpers.memory_operations import MemoryOperations
from starlette.routing import Mount
from typer.testing import CliRunner

import cvpnd.ctl
from cvpnd.api.rest.app import build_admin_app
from cvpnd.api.rest.openapi import Operation
from cvpnd.ctl.__main__ import MISUSED, app
from cvpnd.ctl.client import Unreachable

FOR_PROGRAMS = {("GET", "/health"), ("GET", "/openapi.json")}
WITHOUT_JSON = {"user hash"}
"""One line, which goes into the file."""


def asked_for() -> Iterator[tuple[str, str]]:
    for source in Path(cvpnd.ctl.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                path = re.sub(r"\{[^}]*\}", "{}", ast.unparse(node.args[0])).strip("f'\"")
                if path.startswith("/"):
                    yield node.func.attr.upper(), path


def test_every_operation_has_a_command() -> None:
    (mount,) = (route for route in build_admin_app(MemoryOperations()).routes if isinstance(route, Mount))
    there = {(r.method, r.path) for r in mount.routes if isinstance(r, Operation)} - FOR_PROGRAMS
    assert len(there) > 50
    assert {(method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path in there} - {*asked_for()} == set()


def test_every_command_says_what_it_does_and_speaks_json() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert {name for name, command in found.items() if not command.help} == set()
    assert len(found) > 50
    without = {name for name, command in found.items() if all("--json" not in each.opts for each in command.params)}
    assert without == WITHOUT_JSON


def test_help_shows_every_word_of_what_it_says_of_commands_and_options() -> None:
    for name, command in commands(typer.main.get_command(app)):
        shown = _words(CliRunner().invoke(app, [*name.split(), "--help"], terminal_width=200).output)
        for text in (command.help, *(each.help for each in command.params)):
            assert _words(text or "") in shown, name


def _words(text: str) -> str:
    return " ".join(text.replace("\b", "").split())


def test_every_command_without_a_daemon_is_out_of_reach_or_wrong_use_and_no_mistake_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed with a word for each argument that it needs, at a socket that is none and with an empty standard input."""
    monkeypatch.chdir(tmp_path)
    asked = 0
    for name, command in commands(typer.main.get_command(app)):
        if name == "doctor":
            continue  # which looks at the host then
        words = ["zz"] * sum(each.required for each in command.params if each.param_type_name == "argument")
        done = CliRunner().invoke(app, [*name.split(), *words], env={"CVPND_SOCKET": str(tmp_path / "none")})
        assert isinstance(done.exception, Unreachable | SystemExit), (name, done.exception)
        assert isinstance(done.exception, Unreachable) or done.exit_code == MISUSED, (name, done.output)
        asked += isinstance(done.exception, Unreachable)
    assert asked > 40 and list(tmp_path.iterdir()) == []


def test_an_endpoint_is_an_argument_and_an_option_only_beside_what_a_command_is_about() -> None:
    found = 0
    for name, command in commands(typer.main.get_command(app)):
        kinds = {each.name: each.param_type_name for each in command.params}
        if "endpoint" in kinds:
            found += 1
            others = [each for each, kind in kinds.items() if kind == "argument" and each != "endpoint"]
            first = next((each.name for each in command.params if each.param_type_name == "argument"), None)
            assert (kinds["endpoint"] == "argument" and first == "endpoint") or others, name
    assert found > 20
