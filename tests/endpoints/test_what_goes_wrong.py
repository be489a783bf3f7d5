"""What goes wrong beside an operation: somebody is told, and nobody stays in or keeps a key because of it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import certs

from cvpnd import chores
from cvpnd.auth.directory import Account
from cvpnd.auth.files import CertificateSettings
from cvpnd.auth.identity import Refused
from cvpnd.auth.watch import TrustKeeper
from cvpnd.endpoints.access import AccessOperations, using
from cvpnd.endpoints.accounts import Accounts
from cvpnd.endpoints.gateway import Gateway
from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.operations import Change, OperationsBase
from cvpnd.endpoints.profiles import ProfileOperations
from cvpnd.endpoints.running import RunningEndpoint
from cvpnd.pki.authority import Authority
from cvpnd.pki.issue import issue_client
from cvpnd.pki.revocation import ensure_crl
from cvpnd.reasons import Refusal
from cvpnd.store import Store, StoredAccessKey


async def test_a_chore_that_fails_is_begun_again_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "BEGUN_AGAIN_AFTER_S", 0)
    begun, done = 0, asyncio.Event()

    async def look() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise KeyError("planted")
        done.set()

    chores.Chores().keep(look)
    await asyncio.wait_for(done.wait(), 5)
    assert [record.levelname for record in caplog.records] == ["CRITICAL"] * 2
    assert "look failed and begins again" in caplog.text


async def test_one_account_that_nobody_can_look_at_does_not_keep_the_others_in() -> None:
    asked: list[str] = []
    accounts: Any = Accounts.__new__(Accounts)
    accounts._unanswered, accounts._directories = {}, {"corp": None}
    accounts._logged_in = lambda _directory: {"anna", "bert", "cara"}
    accounts._follow = lambda _directory, _username, _account: None

    async def look_again(_directory: str, username: str) -> Account | Refused:
        asked.append(username)
        if username == "cara":
            accounts._directories = {}  # as a reload does
        unanswered = Refused(Refusal.DIRECTORY_UNAVAILABLE, "timeLimitExceeded")
        return unanswered if username == "anna" else Account(username, frozenset())

    accounts._control = SimpleNamespace(users=SimpleNamespace(look_again=look_again))
    await accounts._look_again("corp")
    assert asked == ["anna"], "whoever asks again at once may wait for as long"
    await accounts._look_again("corp")
    assert asked == ["anna", "bert", "cara"], "and nobody once the directory is gone"


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_key_that_is_deleted_while_keys_are_read_is_good_for_nothing_afterwards(
    tmp_path: Path, *, elsewhere: bool
) -> None:
    async def follow() -> None:
        pass

    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        gateway: Any = SimpleNamespace(store=store, follow=follow)
        operations = AccessOperations(gateway)
        key, _ = await operations.create_access_key("admin")
        read, go_on, keys = threading.Event(), threading.Event(), store.access_keys

        def slow() -> list[StoredAccessKey]:
            found = keys()
            read.set()
            assert go_on.wait(5)
            return found

        store.access_keys = slow  # type: ignore[method-assign]
        reading = asyncio.create_task(operations.credential(key.access_key_id, 100.0))
        assert await asyncio.to_thread(read.wait, 5)
        if elsewhere:  # at another gateway on the same store, whose change is followed
            assert store.delete_access_key(key.access_key_id)
            await operations._follow()
        else:
            await operations.delete_access_key(key.access_key_id)
        go_on.set()
        assert await reading is None
        assert await operations.credential(key.access_key_id, 100.0) is None


async def test_a_change_that_waits_for_its_turn_is_not_made_once_its_key_is_deleted(tmp_path: Path) -> None:
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        operations = AccessOperations(SimpleNamespace(store=store))  # type: ignore[arg-type]
        (gone, _), (there, _) = [await operations.create_access_key("admin") for _ in range(2)]

        async def create(key_id: str) -> str:
            using.set(await operations.credential(key_id, time.monotonic()))
            view, _ = await operations.create_access_key("admin", "made")
            return view.access_key_id

        async with operations._changing:
            deleting = asyncio.create_task(operations.delete_access_key(gone.access_key_id))
            await asyncio.sleep(0)
            late, other = (asyncio.create_task(create(each.access_key_id)) for each in (gone, there))
            await asyncio.sleep(0.1)
        await deleting
        with pytest.raises(OperationError, match="credentials"):
            await late
        made = await other
        left = {each.access_key_id for each in await operations.list_access_keys()}
        assert left == {there.access_key_id, made}


async def test_a_revocation_that_an_endpoint_cannot_read_is_no_success(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "pki", "Acme CA")
    ensure_crl(authority)
    issue_client(authority, "anna", 10)
    (certificate, private_key), bundle = certs.server().write(tmp_path, "server"), tmp_path / "ca.crt"
    bundle.write_bytes(certs.authority().certificate_pem)
    keeper = TrustKeeper(CertificateSettings(certificate=certificate, private_key=private_key, client_ca=bundle))
    served: Any = SimpleNamespace(
        trust_keeper=keeper, trust=None, judged_by=None, settings=SimpleNamespace(legacy_cbc_ciphers=())
    )
    nothing: Any = None
    gateway: Any = SimpleNamespace(
        config=SimpleNamespace(pki=SimpleNamespace(directory=authority.directory)),
        endpoints=[served],
        _running={"e": RunningEndpoint(served, nothing, nothing)},
    )
    gateway.reload_trust = lambda: Gateway.reload_trust(gateway)
    operations = ProfileOperations(gateway)
    assert (await operations.revoke_certificate("anna", None)).status == "revoked"
    certificate.write_text("half")
    with pytest.raises(OperationError, match=r"anna is on the CRL, but .*server\.crt"):
        await operations.revoke_certificate("anna", None)


async def test_what_is_in_force_is_taken_back_whatever_becomes_of_the_transaction() -> None:
    def rollback() -> None:
        raise RuntimeError("planted")

    change, taken_back = Change(), asyncio.Event()
    change.undo(taken_back.set)
    gateway: Any = SimpleNamespace()
    with pytest.raises(RuntimeError, match="planted"):
        await OperationsBase(gateway)._take_back(rollback, change)
    assert taken_back.is_set()
