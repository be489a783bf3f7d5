"""Ending sessions: by whom it was done is written down, and a rehearsal ends none."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.auth.logins import UserLogins
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.tokens import Token
from cvpnd.endpoints.connections import ConnectionOperations
from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.operations import Rehearsed
from cvpnd.server.steady_clock import SteadyClock
from cvpnd.store import Store


def session(connection_id: str, *, username: str = "", common_name: str = "", login: object = None) -> Any:
    """``login``: that is under way still."""
    return SimpleNamespace(
        established=login is None,
        login=login,
        connection_id=connection_id,
        username=username,
        common_name=common_name,
        token=None,
        endpoint=None,
    )


def operations_on(store: Store, *sessions: Any) -> tuple[ConnectionOperations, list[str]]:
    """And the ids of those that are ended."""
    halted: list[str] = []
    control: Any = SimpleNamespace(
        table=sessions,
        token_key=None,
        users=UserLogins({}),
        revoked_logins=RevokedLogins(),
        clock=SteadyClock(),
        halt=lambda connection, _end, _text: halted.append(connection.connection_id),
        refuse=lambda connection, reason, detail: halted.append(f"{connection.connection_id} {reason}: {detail}"),
    )
    config = SimpleNamespace(directories=[SimpleNamespace(domains=("LAB", "lab.test"))])
    gateway: Any = SimpleNamespace(store=store, control=control, endpoints=[], config=config)
    return ConnectionOperations(gateway), halted


async def test_one_connection_is_one_and_a_user_is_nobody_else(tmp_path: Path) -> None:
    sessions = (
        session("c-1", common_name="alice"),  # who has a certificate only has no user name
        session("c-2", common_name="bob"),
        session("c-3", username="carol"),
        session("c-4", username="dora", common_name="laptop"),
    )
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        operations, halted = operations_on(store, *sessions)
        with pytest.raises(OperationError, match="no such active connection"):
            await operations.terminate_connections(connection_id="c-9")
        for nobody in ({"username": ""}, {"connection_id": ""}):
            with pytest.raises(OperationError):
                await operations.terminate_connections(**nobody)
        assert halted == []
        assert await operations.terminate_connections(connection_id="c-1") == ["c-1"] == halted
        assert await operations.terminate_connections(username="carol") == ["c-3"] == halted[1:]
        assert await operations.terminate_connections(username="laptop") == ["c-4"] == halted[2:]


@pytest.mark.parametrize(
    "spelled", ["Müller", "MÜLLER", "mu\u0308ller", " müller ", "LAB\\müller", "lab\\MÜLLER", "Müller@LAB.test"]
)
async def test_a_user_is_ended_however_the_name_is_spelled(tmp_path: Path, spelled: str) -> None:
    sessions = session("c-1", username="Müller"), session("c-2", username="muller"), session("c-3", username="LAB")
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        operations, halted = operations_on(store, *sessions)
        control = operations._gateway.control
        control.token_key = object()
        token = Token.new(0.0, 60, mark=control.revoked_logins.mark("e", "corp", "Müller"))
        of_another = Token.new(0.0, 60, mark=control.revoked_logins.mark("e", "corp", "muller"))
        assert await operations.terminate_connections(username=spelled) == ["c-1"] == halted
        again = RevokedLogins()
        again.replace(store.revoked_logins(), 0.0)
        for revoked in (control.revoked_logins, again):
            assert revoked.covers(token, "e", "corp", "Müller")
            assert not revoked.covers(of_another, "e", "corp", "muller")


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", " ", "a" * 256])
async def test_a_name_that_nobody_can_have_ends_nobody_and_is_not_kept(tmp_path: Path, name: str) -> None:
    """PostgreSQL takes no NUL, nor a name of some thousand characters: others' ends would wait for it for ever."""
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        operations, ended = operations_on(store, session("cvpn-connection-1", username="alice"))
        with pytest.raises(OperationError, match="username"):
            await operations.terminate_connections(username=name)
        assert not ended and not operations.unstored


async def test_a_rehearsal_ends_nobody_and_the_rest_is_recorded(tmp_path: Path) -> None:
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        operations, halted = operations_on(store, session("c-1", common_name="alice"))
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


async def test_logins_that_are_under_way_end_with_the_sessions_of_their_user_also_before_anybody_knows_whose_they_are(
    tmp_path: Path,
) -> None:
    attempts = (
        session("c-1", username="alice", login=object()),
        session("c-2", username="ALICE", login=object()),  # as it was typed
        session("c-3", username="bob", common_name="laptop", login=object()),
    )
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        operations, ended = operations_on(store, *attempts)
        control = operations._gateway.control
        under_way = control.revoked_logins.begin("cvpn-endpoint-0123456789abcdef0", control.clock.now())
        assert await operations.terminate_connections(username="alice") == ["c-1", "c-2"]
        assert under_way.is_ended("local", "alice") and not under_way.is_ended("local", "bob", "laptop")
        assert await operations.terminate_connections(username="laptop") == ["c-3"]
        assert under_way.is_ended("local", "bob", "laptop")
        assert ended == [f"{each} terminated: its login was under way" for each in ("c-1", "c-2", "c-3")]
