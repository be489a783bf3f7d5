"""Mutation tests: the same code with one line changed must fail what the unchanged code passes.

A mutant is made from the module's own text, so it stops existing, loudly, when the line it is about does.
"""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock


def changed(source: str, old: str, new: str) -> str:
    assert source.count(old) == 1, f"not there exactly once: {old}"
    return source.replace(old, new)


@dataclass(frozen=True)
class Mutant:
    module: ModuleType
    function: str
    """``Class.method``, or of the module itself."""
    old: str
    new: str

    @contextmanager
    def in_place(self) -> Iterator[None]:
        source = changed(inspect.getsource(self.module), self.old, self.new)
        copy = dict(self.module.__dict__)
        exec(compile(source, f"mutant of {self.module.__name__}", "exec"), copy)
        owner, _, name = self.function.partition(".")
        if not name:
            patch = mock.patch.object(self.module, owner, copy[owner])
        else:
            patch = mock.patch.object(getattr(self.module, owner), name, copy[owner].__dict__[name])
        with patch:
            yield


class CTests:
    """The C core and its tests, compiled once into ``directory``; a mutant replaces one object."""

    FLAGS = ("gcc", "-std=c11", "-D_GNU_SOURCE", "-w", "-I")

    def __init__(self, root: Path, directory: Path) -> None:
        self._native = root / "native"
        self._directory = directory
        with_python = {self._native / "module.c", self._native / "binding.c", *self._native.glob("*_object.c")}
        sources = [path for path in self._native.glob("*.c") if path not in with_python]
        tests = root / "tests/native"
        self._compile(*sources, *tests.glob("test_*.c"), tests / "fixture.c", "-I", tests)
        self._core = {path.name: directory / f"{path.stem}.o" for path in (*sources, tests / "fixture.c")}

    def _compile(self, *arguments: str | Path) -> None:
        subprocess.run([*self.FLAGS, self._native, "-c", *arguments], cwd=self._directory, check=True)

    def passes(self, test: str, file: str = "", old: str = "", new: str = "") -> bool:
        """Whether ``test`` passes, with ``old`` as ``new`` in ``file`` if one is given."""
        objects = dict(self._core)
        if file:
            mutant = self._directory / f"mutant_{file}"
            mutant.write_text(changed((self._native / file).read_text(), old, new))
            self._compile(mutant)
            objects[file] = mutant.with_suffix(".o")
        program = self._directory / "program"
        link = ["gcc", "-o", program, self._directory / f"{test}.o", *objects.values(), "-lcrypto", "-lpthread"]
        subprocess.run(link, check=True)
        return subprocess.run([program], capture_output=True, timeout=60).returncode == 0
