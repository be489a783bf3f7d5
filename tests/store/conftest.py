"""A store on a database that is new for each test: an SQLite file, or a database of a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.postgresql import PostgreSql, installed

_numbers = itertools.count()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state.db"


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSql]:
    if not installed():
        pytest.skip("PostgreSQL is not installed (Debian package postgresql), or this is not root")
    with PostgreSql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    return request.getfixturevalue("postgresql").new_database(f"state{next(_numbers)}")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "key" / "state.key"
