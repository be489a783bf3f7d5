"""Local users that come and go at run time, and what must not be left of those who had their names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.users import UserOperations
from cvpnd.store import Store, StoredAuthenticator


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as opened:
        yield opened


def operations_on(store: Store, *of_file: str) -> UserOperations:
    async def refresh() -> None: ...

    config = SimpleNamespace(local_users=[SimpleNamespace(name=name, groups=()) for name in of_file], path="cvpnd.toml")
    gateway: Any = SimpleNamespace(store=store, config=config, refresh=refresh)
    return UserOperations(gateway)


def enrol(store: Store, directory: str, username: str) -> None:
    store.enrol(StoredAuthenticator(directory, username, bytes(20), 0, (), time.time()))


def enrolled(store: Store) -> set[tuple[str, str]]:
    return {(each.directory, each.username) for each in store.enrolled_users()}


async def test_a_new_user_has_no_authenticator_that_somebody_left_who_had_the_name(store: Store) -> None:
    """Such as one whom the file had: whoever has that telephone is not who is added now."""
    for directory, username in (("local", "anna"), ("local", "bert"), ("corp", "anna")):
        enrol(store, directory, username)
    operations = operations_on(store)
    await operations.add_user("anna", "correct horse", ["staff"])
    assert enrolled(store) == {("local", "bert"), ("corp", "anna")}


async def test_who_is_not_added_leaves_the_authenticator_of_who_is_there(store: Store) -> None:
    operations = operations_on(store, "anna")
    enrol(store, "local", "anna")
    for name in ("anna", "ANNA", " anna"):
        with pytest.raises(OperationError):
            await operations.add_user(name, "correct horse", [])
    assert enrolled(store) == {("local", "anna")} and not store.local_users()


async def test_a_user_who_is_removed_takes_the_authenticator_along(store: Store) -> None:
    operations = operations_on(store)
    await operations.add_user("anna", "correct horse", [])
    for directory in ("local", "corp"):
        enrol(store, directory, "anna")
    await operations.remove_user("anna")
    assert enrolled(store) == {("corp", "anna")} and not store.local_users()


@pytest.mark.parametrize(
    ("password", "groups", "says"),
    [
        ("", [], "a password has"),
        ("p" * 1025, [], "a password has"),
        ("right", [f"group-{number}" for number in range(201)], "201 groups"),
        ("right", [" "], "no name of a group"),
        ("right", ["a\nb"], "no name of a group"),
        ("right", ["g" * 256], "no name of a group"),
    ],
)
async def test_passwords_and_groups_have_bounds_when_they_are_given_and_when_they_are_changed(
    store: Store, password: str, groups: list[str], says: str
) -> None:
    operations = operations_on(store)
    with pytest.raises(OperationError, match=says):
        await operations.add_user("anna", password, groups)
    assert not store.local_users()
    await operations.add_user("anna", "correct horse", ["g" * 255, *(f"group-{number}" for number in range(199))])
    before = store.local_users()
    with pytest.raises(OperationError, match=says):
        await operations.change_user("anna", password=password, groups=groups)
    assert store.local_users() == before


async def test_users_of_the_file_are_changed_there(store: Store) -> None:
    operations = operations_on(store, "anna")
    for change in (operations.change_user("anna", disabled=True), operations.remove_user("anna")):
        with pytest.raises(OperationError, match=r"declared in cvpnd\.toml"):
            await change
