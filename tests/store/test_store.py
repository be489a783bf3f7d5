"""The store on real databases, SQLite and PostgreSQL alike: transactions, audit, migrations, secrets."""

import asyncio
import dataclasses
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from helpers.postgresql import PostgreSql
from sqlalchemy import URL, create_engine, make_url, text

from cvpnd.store import (
    Actor,
    Answered,
    AuditRecord,
    DuplicateRule,
    NoSuchRule,
    SeenRequest,
    Store,
    StoredAccessKey,
    StoredAssociation,
    StoredAuthenticator,
    StoredCertificate,
    StoredClientKey,
    StoredCrlEdition,
    StoredEndpoint,
    StoredRoute,
    StoredRule,
    StoreError,
    acting,
    api_requests,
    client_keys,
)
from cvpnd.store.crl_editions import KEPT_S
from cvpnd.store.saml_logins import METADATA_KEPT_S
from cvpnd.store.tables import metadata

ENDPOINT = "cvpn-endpoint-0123456789abcdef0"
V4, V6 = ip_network("10.30.0.0/16"), ip_network("2001:db8::/32")
ROOT = Actor("uid:0", "admin-socket pid:1")


def sqlalchemy_url(url: str) -> URL:
    location = make_url(url)
    return location if location.drivername == "sqlite" else location.set(drivername="postgresql+psycopg")


def test_rules_survive_closing_and_are_listed_by_endpoint_in_order(url: str) -> None:
    with closing(Store.open(url)) as store:
        first = store.add_rule(ENDPOINT, V6, "eng", "lab; 'quoted' ünïcode", now=5.5)
        second = store.add_rule(ENDPOINT, V4, None)
        other = store.add_rule("another", V4, None)
    assert first == StoredRule(ENDPOINT, V6, "eng", "lab; 'quoted' ünïcode", 5.5)
    with closing(Store.open(url)) as store:
        assert store.rules() == [first, second, other]
        assert store.rules(ENDPOINT) == [first, second]
        assert store.rules("none") == []


def test_a_rule_exists_once_also_for_all_users(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.add_rule(ENDPOINT, V4, None)
        store.add_rule(ENDPOINT, V4, "eng")
        with pytest.raises(DuplicateRule, match=r"10\.30\.0\.0/16 for all users already"):
            store.add_rule(ENDPOINT, V4, None)
        with pytest.raises(DuplicateRule, match="for group eng already"):
            store.add_rule(ENDPOINT, V4, "eng", "another description")
        assert len(store.rules()) == 2
        assert len(store.audit_records()) == 2, "a refused change leaves no record"


def test_removing_takes_exactly_that_rule(url: str) -> None:
    with closing(Store.open(url)) as store:
        everybody = store.add_rule(ENDPOINT, V4, None)
        engineers = store.add_rule(ENDPOINT, V4, "eng")
        assert store.remove_rule(ENDPOINT, V4, None) == everybody
        assert store.rules() == [engineers]
        with pytest.raises(NoSuchRule, match=r"no rule 10\.30\.0\.0/16 for all users that was added at run time"):
            store.remove_rule(ENDPOINT, V4, None)
        with pytest.raises(NoSuchRule):
            store.remove_rule("another", V4, "eng")


def test_an_empty_group_is_not_a_way_to_everybody(url: str) -> None:
    with closing(Store.open(url)) as store:
        with pytest.raises(StoreError, match="authorization_rule_group_not_empty"):
            store.add_rule(ENDPOINT, V4, "")
        assert store.rules() == []


def test_every_change_is_recorded_with_who_and_whence(url: str) -> None:
    rule = {"endpoint_id": ENDPOINT, "network": "10.30.0.0/16", "group": "eng", "description": "d"}
    with closing(Store.open(url)) as store:
        store.add_rule(ENDPOINT, V4, "eng", "d", actor=ROOT, now=1.0)
        store.remove_rule(ENDPOINT, V4, "eng", now=2.0)
        assert store.audit_records() == [
            AuditRecord(2.0, "daemon", "revoke", "daemon", rule),
            AuditRecord(1.0, "uid:0", "authorize", "admin-socket pid:1", rule),
        ]
        assert store.audit_records(limit=1) == store.audit_records()[:1]


def test_client_keys_that_were_handed_out_are_kept_with_who_did_it(url: str) -> None:
    keys = [StoredClientKey(ENDPOINT, "alice", 2**160 - 1, 5.0), StoredClientKey("another", "bob", 7, 6.0)]
    with closing(Store.open(url)) as store:
        for key in keys:
            store.add_client_key(key, actor=ROOT)
    with closing(Store.open(url)) as store:
        assert store.client_keys() == keys
        details = {"endpoint_id": "another", "name": "bob", "serial": "7"}
        assert store.audit_records(1) == [AuditRecord(6.0, "uid:0", "issue-client-key", "admin-socket pid:1", details)]


def test_of_client_keys_the_latest_of_each_endpoint_are_remembered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_keys, "MOST_OF_ENDPOINT", 3)
    with closing(Store.open(url)) as store:
        for number in range(5):
            for endpoint in ("one", "two") if number < 2 else ("one",):
                store.add_client_key(StoredClientKey(endpoint, "anna", number, float(number)))
        kept = [(key.endpoint_id, key.serial) for key in store.client_keys()]
        assert sorted(kept) == [("one", 2), ("one", 3), ("one", 4), ("two", 0), ("two", 1)]


def test_metadata_that_nobody_has_fetched_for_long_is_forgotten(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.keep_saml_metadata("old", "https://old", "<old/>", 0.0)
        store.keep_saml_metadata("new", "https://new", "<new/>", METADATA_KEPT_S - 1)
        assert store.saml_metadata("old", "https://old") == "<old/>"
        store.keep_saml_metadata("new", "https://new", "<new/>", METADATA_KEPT_S + 1)
        assert store.saml_metadata("old", "https://old") is None
        assert store.saml_metadata("new", "https://new") == "<new/>"


def test_the_actor_of_a_request_reaches_a_store_called_in_a_thread(url: str) -> None:
    async def request(store: Store) -> None:
        acting.set(ROOT)
        await asyncio.to_thread(store.add_rule, ENDPOINT, V4, None)

    with closing(Store.open(url)) as store:
        asyncio.run(request(store))
        assert store.audit_records()[0].who == "uid:0"


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_migrations_make_the_tables_that_the_code_describes(url: str) -> None:
    Store.open(url).close()
    engine = create_engine(sqlalchemy_url(url))
    with engine.connect() as connection:
        # SQLite's reflection shows no expression in an index; the unique index is tested by what it refuses
        assert [
            difference
            for difference in compare_metadata(MigrationContext.configure(connection), metadata)
            if "authorization_rule_unique" not in str(difference)
        ] == []
    engine.dispose()


def test_a_request_is_new_once_for_every_gateway_and_after_every_restart(url: str) -> None:
    with closing(Store.open(url)) as store, closing(Store.open(url)) as other:
        assert store.see_request("a" * 64, "198.51.100.1 4000", 1000.0, kept_s=600) is None
        assert other.see_request("a" * 64, "203.0.113.1 1", 1001.0, kept_s=600) == SeenRequest(
            "198.51.100.1 4000", 1000.0
        )
    with closing(Store.open(url)) as store:
        assert store.see_request("a" * 64, "203.0.113.1 1", 1599.0, kept_s=600) is not None
        assert store.see_request("b" * 64, "203.0.113.1 1", 1601.0, kept_s=600) is None
        assert store.see_request("a" * 64, "203.0.113.1 1", 1e9, kept_s=600) is not None, "one of the latest"


def test_old_requests_are_forgotten_when_there_are_many_later_ones(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_requests, "KEPT_LONGER", 10)
    with closing(Store.open(url)) as store:
        for number in range(20):
            assert store.see_request(str(number), "one", float(number), kept_s=15) is None
        assert [store.see_request(str(number), "one", 20.0, kept_s=15) is None for number in (3, 4, 5, 19)] == [
            True, True, False, False,
        ]  # fmt: skip


def test_many_threads_change_at_once_and_each_change_has_its_record(url: str) -> None:
    failures: list[BaseException] = []

    def change(number: int) -> None:
        try:
            for index in range(10):
                store.add_rule(ENDPOINT, ip_network(f"10.{number}.{index}.0/24"), None)
                store.remove_rule(ENDPOINT, ip_network(f"10.{number}.{index}.0/24"), None)
                store.add_rule(ENDPOINT, ip_network(f"10.{number}.{index}.0/24"), "eng")
        except BaseException as error:
            failures.append(error)

    with closing(Store.open(url)) as store:
        threads = [threading.Thread(target=change, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert (len(store.rules()), len(store.audit_records(limit=1000))) == (40, 120)


def test_processes_that_open_a_new_store_at_once_migrate_it_once(url: str) -> None:
    script = """
        import sys
        from cvpnd.store import Store
        print("ready", flush=True)
        sys.stdin.read()
        Store.open(sys.argv[1]).close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), url]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0] * 8
    engine = create_engine(sqlalchemy_url(url))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [("0015",)]
    engine.dispose()


def test_killed_at_any_moment_rules_and_records_agree(url: str) -> None:
    script = """
        import sys
        from ipaddress import ip_network
        from cvpnd.store import Store
        store = Store.open(sys.argv[1])
        number = len(store.rules())
        while True:
            store.add_rule("e", ip_network((number << 8, 24)), None)
            number += 1
            print(number, flush=True)
    """
    answered = 0
    for changes in (1, 2, 5, 9, 14):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), url], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(changes):
            answered = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        answered = max([answered, *(int(line) for line in child.stdout.read().split("\n")[:-1] if line)])
        child.stdout.close()
        child.wait()
        with closing(Store.open(url)) as store:
            rules, records = store.rules(), store.audit_records(limit=100_000)
        assert len(rules) == len(records) >= answered
        assert {str(rule.network) for rule in rules} == {record.details["network"] for record in records}


# -- managed endpoints --------------------------------------------------------------------------------------


def managed(**changes) -> StoredEndpoint:
    given = {"client_cidr": "10.100.0.0/22", "listen": ["udp://0.0.0.0:443"], "split_tunnel": True}
    return dataclasses.replace(StoredEndpoint(ENDPOINT, "staff", given, "arn:s", "arn:c", "", 1.0), **changes)


def test_a_managed_endpoint_comes_back_with_all_that_belongs_to_it(url: str) -> None:
    associations = (StoredAssociation("cvpn-assoc-2", "subnet-b", True, 2.0), StoredAssociation("a1", "s", False, 3.0))
    routes = (StoredRoute("10.9.0.0/16", "subnet-b", "d", 4.0), StoredRoute("10.100.0.0/22", "local", "", 5.0))
    with closing(Store.open(url)) as store:
        store.add_endpoint(managed())
        for association in associations:
            store.add_association(ENDPOINT, association)
        for route in routes:
            store.add_route(ENDPOINT, route)
        store.set_crl(ENDPOINT, "first", 6.0)
        store.set_crl(ENDPOINT, "second", 7.0)
        store.change_endpoint(ENDPOINT, settings={"client_cidr": "10.100.0.0/22"}, server_certificate="arn:n", vpc="v")
    with closing(Store.open(url)) as store:
        expected = managed(
            settings={"client_cidr": "10.100.0.0/22"},
            server_certificate="arn:n",
            vpc="v",
            associations=associations,
            routes=routes,
            crl="second",
        )
        assert store.managed_endpoints() == [expected]
        store.remove_association(ENDPOINT, "cvpn-assoc-2")
        (left,) = store.managed_endpoints()
        assert (left.associations, left.routes) == (associations[1:], routes[1:]), "its routes went with it"
        with pytest.raises(StoreError, match="not in the store any more"):
            store.remove_association(ENDPOINT, "cvpn-assoc-2")
        with pytest.raises(StoreError):
            store.delete_endpoint(ENDPOINT)  # still associated
        store.remove_association(ENDPOINT, "a1")
        store.add_rule(ENDPOINT, V4, None)
        store.set_tags(ENDPOINT, {"a": "b"})
        elsewhere = {"user anna": b"2", f"user-at {ENDPOINT}0 anna": b"3"}
        store.revoke_logins({f"user-at {ENDPOINT} anna": b"1"} | elsewhere, 1.0)
        store.delete_endpoint(ENDPOINT)
        assert (store.managed_endpoints(), store.rules(), store.tags()) == ([], [], {})
        assert store.revoked_logins() == {subject: (mark, 1.0) for subject, mark in elsewhere.items()}


def test_names_and_associations_exist_once(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.add_endpoint(managed())
        with pytest.raises(StoreError):
            store.add_endpoint(managed(id="another"))
        store.add_association(ENDPOINT, StoredAssociation("a", "subnet-a", True, 1.0))
        with pytest.raises(StoreError):
            store.add_association(ENDPOINT, StoredAssociation("b", "subnet-a", True, 1.0))
        store.add_route(ENDPOINT, StoredRoute("10.9.0.0/16", "subnet-a", "", 1.0))
        with pytest.raises(StoreError):
            store.add_route(ENDPOINT, StoredRoute("10.9.0.0/16", "subnet-a", "again", 1.0))
        records = [record.action for record in store.audit_records()]
        assert records == ["add-route", "associate", "create-endpoint"], "what was refused left no record"


def test_a_gateway_that_dies_inside_a_change_does_not_hold_up_the_others(
    postgresql: PostgreSql, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host is gone: nobody closes its connection, and it says nothing more."""
    monkeypatch.setattr("cvpnd.store.postgresql.IDLE_TIMEOUT_S", 1)
    url = postgresql.new_database("abandoned")
    with closing(Store.open(url, key_file)) as dead, closing(Store.open(url, key_file)) as alive:
        change = dead.begin()
        with change.joined():
            dead.add_rule(ENDPOINT, V4, None)
        alive.add_rule(ENDPOINT, V6, None)
        assert [rule.network for rule in alive.rules()] == [V6]
        with pytest.raises(StoreError):
            change.commit()
        dead.add_rule(ENDPOINT, V4, None)


def test_several_changes_are_one_transaction_that_others_see_when_it_is_over(url: str) -> None:
    async def change(store: Store, keep: bool) -> tuple[int, int]:
        transaction = await asyncio.to_thread(store.begin)
        over = asyncio.Event()

        async def stay() -> None:
            """With the context of the change, as a listener that it has opened."""
            await over.wait()
            await asyncio.to_thread(store.tidy_passwords, [], 0.0)

        with transaction.joined():
            stayed = asyncio.create_task(stay())
            await asyncio.to_thread(store.add_rule, ENDPOINT, V4, None)
            with pytest.raises(DuplicateRule):
                await asyncio.to_thread(store.add_rule, ENDPOINT, V4, None)
            await asyncio.to_thread(store.add_rule, ENDPOINT, V6, None)
            inside = len(await asyncio.to_thread(store.rules))
        outside = len(await asyncio.to_thread(store.rules))
        await asyncio.to_thread(transaction.commit if keep else transaction.rollback)
        over.set()
        if keep:
            await stayed
        else:
            with pytest.raises(StoreError):
                await stayed
        return inside, outside

    with closing(Store.open(url)) as store:
        assert asyncio.run(change(store, keep=False)) == (2, 0)
        assert (store.rules(), store.audit_records()) == ([], [])
        assert asyncio.run(change(store, keep=True)) == (2, 0)
        assert (len(store.rules()), len(store.audit_records())) == (2, 2)


# -- secrets ------------------------------------------------------------------------------------------------


CERTIFICATE = StoredCertificate("arn:1", "certificate", "chain", 1.0, 1.0)
KEY = StoredAccessKey("AKIA1", "anna", "admin", 1.0)


def test_secrets_come_back_with_the_key_file_and_are_nowhere_without_it(url: str, key_file: Path) -> None:
    with closing(Store.open(url, key_file)) as store:
        store.put_certificate(CERTIFICATE, b"PRIVATE-KEY-MATERIAL")
        store.add_access_key(KEY, b"ACCESS-SECRET")
        assert "SECRET" not in str(store.audit_records()) and "PRIVATE" not in str(store.audit_records())
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    with closing(Store.open(url, key_file)) as store:
        assert store.private_key("arn:1") == b"PRIVATE-KEY-MATERIAL"
        assert (store.access_keys(), store.access_secrets()) == ([KEY], {"AKIA1": b"ACCESS-SECRET"})
        assert store.imported_certificates() == [CERTIFICATE]
        again = dataclasses.replace(CERTIFICATE, certificate="new", imported_at=2.0)
        store.put_certificate(again, b"other key")
        assert (store.imported_certificates(), store.private_key("arn:1")) == ([again], b"other key")
        assert store.delete_access_key("AKIA1") and not store.delete_access_key("AKIA1")
    engine = create_engine(sqlalchemy_url(url))
    with engine.connect() as connection:
        (sealed,) = connection.execute(text("SELECT private_key FROM certificate")).one()
        assert b"other key" not in bytes(sealed)
    engine.dispose()


@pytest.mark.parametrize("harm", ["gone", "another", "short", "open"])
def test_a_key_file_that_is_not_the_right_one_is_said_by_name(url: str, key_file: Path, harm: str) -> None:
    with closing(Store.open(url, key_file)) as store:
        store.put_certificate(CERTIFICATE, b"key")
    match harm:
        case "gone":
            key_file.unlink()
        case "another":
            key_file.write_bytes(bytes(32))
        case "short":
            key_file.write_bytes(b"short")
        case "open":
            key_file.chmod(0o640)
    with closing(Store.open(url, key_file)) as store:
        with pytest.raises(StoreError, match=r"state\.key"):
            store.private_key("arn:1")
        with pytest.raises(StoreError, match=r"state\.key"):
            store.add_access_key(KEY, b"secret")
        assert store.access_keys() == []
    assert key_file.exists() == (harm != "gone"), "a key is made for an empty store only"


def test_a_secret_in_another_ones_row_is_not_taken_for_it(url: str, key_file: Path) -> None:
    with closing(Store.open(url, key_file)) as store:
        store.add_access_key(KEY, b"one")
        store.add_access_key(dataclasses.replace(KEY, id="AKIA2", name="bob"), b"two")
        with store._write() as connection:
            connection.execute(
                text(
                    "UPDATE access_key SET secret = (SELECT secret FROM access_key WHERE name = 'bob') "
                    "WHERE id = 'AKIA1'"
                )
            )
        with pytest.raises(StoreError, match="access key AKIA1 was sealed with another key, or changed"):
            store.access_secrets()


# -- tags, answers, log groups ------------------------------------------------------------------------------


def test_tags_are_set_replaced_and_removed(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.set_tags("r", {"b": "1", "a": "2"})
        store.set_tags("r", {"b": "3"})
        assert store.tags() == {"r": {"a": "2", "b": "3"}}
        store.remove_tags("r", ["b", "none"])
        assert store.tags() == {"r": {"a": "2"}}
        store.remove_tags("r", None)
        assert store.tags() == {}


def test_an_answer_is_remembered_by_action_and_token(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.remember_answer("create", "t", Answered("digest", {"id": "x", "n": [1]}), 1000.0)
        assert store.answered("create", "t", 1000.0) == Answered("digest", {"id": "x", "n": [1]})
        assert store.answered("create", "u", 1000.0) is None and store.answered("delete", "t", 1000.0) is None
        assert store.answered("create", "t", 1000.0 + 86_400) is None


def test_log_groups_have_streams(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.add_log_group("/vpn", 1.0)
        store.add_log_stream("/vpn", "b", 2.0)
        store.add_log_stream("/vpn", "a", 3.0)
        (group,) = store.log_groups()
        assert (group.name, list(group.streams.items())) == ("/vpn", [("a", 3.0), ("b", 2.0)])
        with pytest.raises(StoreError):
            store.add_log_stream("/none", "a", 1.0)


def test_a_code_that_reaches_several_gateways_at_once_is_taken_by_one(url: str, key_file: Path) -> None:
    stores = [Store.open(url, key_file) for _ in range(2)]
    try:
        new = StoredAuthenticator("local", "anna", b"secret of anna", 0, ("first", "second"), 1.0, b"\0\xff")
        assert not stores[0].enrol(new)
        assert stores[1].authenticator("local", "anna") == new
        assert stores[1].authenticator("office", "anna") is None
        with ThreadPoolExecutor(8) as threads:
            steps = list(threads.map(lambda n: stores[n % 2].take_step("local", "anna", 7), range(8)))
            codes = list(threads.map(lambda n: stores[n % 2].take_recovery_code("local", "anna", "first"), range(8)))
        assert sorted(steps) == sorted(codes) == [False] * 7 + [True]
        assert not stores[0].take_step("local", "anna", 6) and stores[0].take_step("local", "anna", 8)
        assert stores[0].take_recovery_code("local", "anna", "second")
        assert not stores[1].take_recovery_code("local", "anna", "second")
        assert stores[0].enrol(new) and stores[1].remove_authenticator("local", "anna")
        assert stores[0].authenticator("local", "anna") is None and not stores[0].take_step("local", "anna", 9)
        assert "secret" not in repr(new)
    finally:
        for store in stores:
            store.close()


def test_revocation_lists_of_files_are_remembered_by_endpoint_and_file_until_nobody_uses_them(url: str) -> None:
    first, uncounted = StoredCrlEdition("a1", "CN=One", 1000.5, 2**159), StoredCrlEdition("b2", "CN=Two", 2000.0, None)
    with closing(Store.open(url)) as store:
        store.put_crl_editions("one", "/crl.pem", [first, uncounted], 0.0)
        store.put_crl_editions("two", "/crl.pem", [first], KEPT_S / 2)
        assert store.crl_editions("one", "/other.pem") == []
    with closing(Store.open(url)) as store:
        assert sorted(store.crl_editions("one", "/crl.pem"), key=str) == sorted([first, uncounted], key=str)
        store.put_crl_editions("two", "/crl.pem", [uncounted], KEPT_S + 1)
        assert store.crl_editions("one", "/crl.pem") == []
        assert store.crl_editions("two", "/crl.pem") == [uncounted]
