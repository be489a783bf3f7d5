"""Users of the file and of the store whose names people take for one."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from cvpnd.endpoints.accounts import Accounts
from cvpnd.store import StoredLocalUser


def test_a_user_of_the_file_who_is_one_of_the_store_in_another_spelling_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    accounts = Accounts(Mock(), Mock(table=[], radius={}), Mock())
    of_file = [SimpleNamespace(name=name, password_hash="", groups=()) for name in ("Anna", "bob")]
    file = SimpleNamespace(path="cvpnd.toml", local_users=of_file)
    stored = [StoredLocalUser(name, "", (), False, 0.0) for name in ("anna", "bob", "cara")]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            accounts.set_local_users(file, stored)  # type: ignore[arg-type]
    (told,) = caplog.messages
    assert told.startswith("user anna of cvpnctl and Anna of cvpnd.toml differ in spelling alone")
    accounts.close()
