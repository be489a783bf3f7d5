"""Ending sessions: by whom it was done is written down, and a rehearsal ends none."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.auth.tokens import Revocations
from cvpnd.endpoints.connections import ConnectionOperations
from cvpnd.endpoints.operations import Rehearsed
from cvpnd.store import Store


async def test_a_rehearsal_ends_nobody_and_the_rest_is_recorded(tmp_path: Path) -> None:
    halted: list[str] = []
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        session: Any = SimpleNamespace(
            established=True, connection_id="c-1", username="", common_name="alice", token=None, endpoint=None
        )
        control = SimpleNamespace(
            table=[session],
            token_key=None,
            revocations=Revocations({}),
            halt=lambda connection, _end, _text: halted.append(connection.connection_id),
        )
        operations = ConnectionOperations(SimpleNamespace(store=store, control=control, endpoints=[]))
        with pytest.raises(Rehearsed), operations.rehearsal():
            await operations.terminate_connections(connection_id="c-1")
        assert (halted, store.audit_records(10)) == ([], [])
        assert await operations.terminate_connections(username="nobody") == []
        assert store.audit_records(10) == []
        assert await operations.terminate_connections(username="alice") == ["c-1"] == halted
        (record,) = store.audit_records(10)
        assert (record.action, record.details) == (
            "terminate-connections", {"connections": ["c-1"], "username": "alice"},
        )  # fmt: skip
