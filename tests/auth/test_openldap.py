"""A real OpenLDAP server: who is let in under which name and with which groups, and which servers are not spoken to."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from helpers import certs, netns, odd_names
from helpers.netns import Namespace
from helpers.openldap import ADMIN, BASE, PORT, SLAPD, TLS_PORT, OpenLdap, group_dn, user_dn

from cvpnd.auth import health, ldap, ldap_bound
from cvpnd.auth.directory import Account, DirectoryError
from cvpnd.auth.identity import Refused
from cvpnd.auth.ldap_directory import LdapDirectory, open_directory
from cvpnd.config import DirectoryConfig, LdapUrl
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

pytestmark = pytest.mark.skipif(not SLAPD.exists() or os.geteuid() != 0, reason="make test unpacks slapd")

USERS = {"alice": "ecila", "bob": "bob's", "o'neil (x)*": "odd", "d\\a": "slash", "müller": "ümlaut", "locked": "x1"}
FULL = "LOGINS" in os.environ
MANAGED = ("2.16.840.1.113730.3.4.2", True, None)
"""A control: the referral itself is meant."""
GROUPS = {
    "engineers": ["alice"], "staff": ["engineers", "bob"], "everybody": ["staff"], "ring": ["everybody", "alice"],
    "others": ["bob"],
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenLdap]:
    directory = tmp_path_factory.mktemp("ldap")
    place = Namespace(f"{netns.unique_prefix()}-ldap", directory)
    try:
        server = OpenLdap(place, directory / "ldap").start()
        server.fill(USERS, GROUPS)
        yield server
    finally:
        place.close()


@pytest.fixture
def ask(server: OpenLdap) -> Callable[..., Account | Refused]:
    """Log in with the configuration of ``OpenLdap.toml``, or with parts of it replaced."""

    def run(user: str, password: str | bytes, verb: str = "log_in", **changes: object) -> Account | Refused:
        directory = opened(server, **changes)
        with server.place.entered():
            if verb == "look_up":
                return directory.look_up(user)
            return directory.log_in(user, Secret(password if isinstance(password, bytes) else password.encode()))

    return run


def opened(server: OpenLdap, **changes: object) -> LdapDirectory:
    table = tomllib.loads(server.toml())["directory"][0] | changes
    return open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))


def reason(outcome: object) -> str:
    assert isinstance(outcome, Refused), outcome
    return outcome.refusal


@pytest.mark.parametrize("typed", ["alice", "ALICE", "alice@example.org", "EXAMPLE\\alice", "example.org\\alice"])
def test_a_person_comes_under_each_name_that_people_type(ask: Callable[..., Account | Refused], typed: str) -> None:
    account = ask(typed, "ecila")
    assert isinstance(account, Account), account
    assert account.name == "alice"


@pytest.mark.parametrize("user", ["o'neil (x)*", "müller"])
def test_special_characters_find_their_own_entry(ask: Callable[..., Account | Refused], user: str) -> None:
    account = ask(user, USERS[user])
    assert isinstance(account, Account) and account.name == user


@pytest.mark.parametrize(
    "typed",
    ["*", "al*", "alice)(uid=*", "nobody", "OTHER\\alice", "alice@other.org", "\\alice", "EXAMPLE\\"],
)
def test_a_name_that_fits_nobody_is_unknown_whatever_it_does_to_a_filter(
    ask: Callable[..., Account | Refused], typed: str
) -> None:
    assert reason(ask(typed, "ecila")) == Refusal.USER_UNKNOWN


@pytest.mark.parametrize("password", ["", "wrong", "\0", "ecila\0", b"\xff\xfe", "ecila "])
def test_a_wrong_password_is_wrong_and_an_empty_one_too(
    ask: Callable[..., Account | Refused], password: str | bytes
) -> None:
    """A bind with an empty password succeeds as nobody (RFC 4513, 5.1.2)."""
    assert reason(ask("bob", password)) == Refusal.WRONG_PASSWORD


def test_groups_are_nested_and_known_by_dn_and_name(ask: Callable[..., Account | Refused]) -> None:
    for verb in ("log_in", "look_up"):
        account = ask("alice", "ecila", verb)
        assert isinstance(account, Account)
        names = {"engineers", "staff", "everybody", "ring"}
        assert account.groups == names | {group_dn(name) for name in names}


def test_a_group_cannot_be_called_like_another_ones_dn(ask: Callable[..., Account | Refused], server: OpenLdap) -> None:
    admin = server.admin()
    posing = "cn=everybody,ou=groups,dc=example,dc=com"
    assert admin.add(f"ou=posing,{BASE}", ["organizationalUnit"], {"ou": "posing"})
    dn = f"cn=pose,ou=groups,{BASE}"
    assert admin.add(dn, ["groupOfNames"], {"cn": [posing, "pose"], "member": user_dn("bob")}), admin.result
    account = ask("bob", "bob's")
    assert admin.delete(dn)
    assert isinstance(account, Account) and posing not in account.groups and dn in account.groups


def test_what_rules_call_groups_and_no_group_is_called_is_told_with_what_may_be_meant(server: OpenLdap) -> None:
    dn = group_dn("staff")
    names = ("staff", "Staff", dn, dn.upper(), "nobody's", "alice", user_dn("alice"), "cn=a*)(cn", "S-1-5-32-545")
    with server.place.entered():
        assert opened(server).unknown_groups(names) == {
            "Staff": "staff", dn.upper(): dn, "nobody's": "", "alice": "", user_dn("alice"): "", "cn=a*)(cn": "",
        }  # fmt: skip
        elsewhere = opened(server, group_base=f"ou=people,{BASE}").unknown_groups(["staff", dn])
        assert elsewhere == {"staff": "", dn: ""}
        refused = opened(server, bind_dn=user_dn("alice")).unknown_groups(names)
    assert reason(refused) == Refusal.DIRECTORY_UNAVAILABLE and user_dn("alice") in refused.detail


@pytest.mark.parametrize("verb", ["log_in", "look_up"])
def test_of_more_groups_than_count_the_first_do_and_of_longer_names_none(
    ask: Callable[..., Account | Refused], server: OpenLdap, verb: str
) -> None:
    """As with AWS: 200 groups, ids of 255 characters."""
    admin, base, bob = server.admin(), f"ou=many-{verb},{BASE}", user_dn("bob")
    assert admin.add(base, ["organizationalUnit"], {"ou": f"many-{verb}"})
    fits, too_long = ("x" * (length - len(f"cn=,{base}")) for length in (255, 256))
    for cn in (fits, too_long):
        assert admin.add(f"cn={cn},{base}", ["groupOfNames"], {"cn": cn, "member": bob}), admin.result
    account = ask("bob", "bob's", verb, group_base=base)
    assert isinstance(account, Account) and account.groups == {fits, too_long, f"cn={fits},{base}"}
    for number in range(205):
        cn = f"group{number}"
        assert admin.add(f"cn={cn},{base}", ["groupOfNames"], {"cn": cn, "member": bob}), admin.result
    account = ask("bob", "bob's", verb, group_base=base)
    assert isinstance(account, Account)
    names = {group for group in account.groups if group.startswith("group")}
    assert {f"cn={name},{base}" for name in names} == {g for g in account.groups if g.startswith("cn=group")}
    assert len(names) in range(198, 201), "of the first 200, two of which are those of 255 and 256 characters perhaps"


def test_users_and_groups_are_called_what_the_attributes_say_that_the_file_names(
    ask: Callable[..., Account | Refused], direct: LdapDirectory, server: OpenLdap
) -> None:
    server.change(user_dn("alice"), mail="a.smith@example.org")
    server.change(group_dn("engineers"), description="People who engineer")
    named: dict[str, Any] = {"user_attribute": "mail", "group_attribute": "description", "domains": []}
    account = ask("a.smith@example.org", "ecila", **named)
    assert isinstance(account, Account) and account.name == "a.smith@example.org"
    assert account.groups == {"People who engineer", *map(group_dn, ("engineers", "staff", "everybody", "ring"))}
    assert account == ask("A.Smith@example.org", "ecila", "look_up", **named)
    assert reason(ask("alice", "ecila", **named)) == Refusal.USER_UNKNOWN
    table = tomllib.loads(server.toml_direct())["directory"][0] | {"user_attribute": "cn"}
    assert DirectoryConfig.model_validate(table, context={"directory": server.directory}).direct_name.startswith("cn={")
    server.change(user_dn("alice"), mail=[])
    server.change(group_dn("engineers"), description=[])


def test_a_name_that_several_have_is_nobodys(ask: Callable[..., Account | Refused], server: OpenLdap) -> None:
    admin, dn = server.admin(), f"cn=twin,ou=people,{BASE}"
    assert admin.add(dn, ["inetOrgPerson"], {"cn": "twin", "sn": "twin", "uid": "alice", "userPassword": "twin"})
    answers = [ask("alice", password) for password in ("ecila", "twin")]
    assert admin.delete(dn)
    assert [reason(answer) for answer in answers] == 2 * [Refusal.USER_UNKNOWN]


def test_of_several_names_in_an_entry_none_is_another_persons(
    ask: Callable[..., Account | Refused], server: OpenLdap
) -> None:
    """In some directories people may write such attributes into their own entries."""
    admin, dn = server.admin(), f"cn=posix,ou=groups,{BASE}"
    assert admin.add(dn, ["posixGroup"], {"cn": "posix", "gidNumber": 7, "memberUid": "alice"})
    server.change(user_dn("bob"), uid=["alice", "bob"])
    bob = ask("bob", "bob's")
    assert isinstance(bob, Account) and bob.name == "bob" and not bob.groups & {"posix", dn}
    assert reason(ask("alice", "ecila")) == Refusal.USER_UNKNOWN, "nobody knows which of them is meant"
    server.change(user_dn("bob"), uid=["bob"], mail=["alice@mail.test", "bob@mail.test"])
    server.change(user_dn("alice"), mail="alice@mail.test")
    assert reason(ask("bob@mail.test", "bob's", user_attribute="mail")) == Refusal.USER_UNKNOWN
    server.change(user_dn("alice"), mail=[])
    bob = ask("bob@mail.test", "bob's", user_attribute="mail")
    assert isinstance(bob, Account) and bob.name == "alice@mail.test", "the first, which nobody else has"
    server.change(user_dn("bob"), mail=[])
    alice = ask("alice", "ecila")
    assert isinstance(alice, Account) and {"posix", dn} <= alice.groups
    assert admin.delete(dn)


@pytest.mark.parametrize("name", ["root\nalice", "alice\u200b", "\u202ealice", "a" * 256])
def test_a_name_that_could_pass_for_another_is_nobodys(
    ask: Callable[..., Account | Refused], server: OpenLdap, name: str
) -> None:
    """The directory finds the entry by another of its names, which says nothing of what else it is called."""
    server.change(user_dn("bob"), givenName=[name, "Robert"])
    answers = [ask("Robert", "bob's", verb, user_attribute="givenName") for verb in ("log_in", "look_up")]
    server.change(user_dn("bob"), givenName=[])
    assert [reason(answer) for answer in answers] == 2 * [Refusal.USER_UNKNOWN]


def test_the_stamp_follows_the_password(ask: Callable[..., Account | Refused], server: OpenLdap) -> None:
    before, again = ask("müller", "ümlaut"), ask("müller", "ümlaut", "look_up")
    assert isinstance(before, Account) and isinstance(again, Account) and before.stamp == again.stamp
    server.change(user_dn("müller"), description="somebody")
    again = ask("müller", "ümlaut")
    assert isinstance(again, Account) and before.stamp == again.stamp
    server.change(user_dn("müller"), userPassword="new")
    later = ask("müller", "", "look_up")
    assert isinstance(later, Account) and later.stamp != before.stamp and later.person == before.person != b""
    server.change(user_dn("müller"), userPassword="ümlaut")


def test_password_policy_has_its_reasons(ask: Callable[..., Account | Refused], server: OpenLdap) -> None:
    assert isinstance(ask("locked", "x1"), Account)
    for _ in range(3):
        assert reason(ask("locked", "wrong")) == Refusal.WRONG_PASSWORD
    assert reason(ask("locked", "x1")) == Refusal.ACCOUNT_LOCKED
    server.change(user_dn("locked"), pwdAccountLockedTime="000001010000Z")
    assert reason(ask("locked", "", "look_up")) == Refusal.ACCOUNT_DISABLED
    server.change(user_dn("locked"), pwdAccountLockedTime=[], pwdReset="TRUE")
    assert reason(ask("locked", "x1")) == Refusal.MUST_CHANGE_PASSWORD
    server.change(user_dn("locked"), pwdReset=[])
    assert isinstance(ask("locked", "x1"), Account)


@pytest.mark.parametrize(
    ("attribute", "outside", "inside", "looked_up", "by_password"),
    [
        ("pwdEndTime", "20200101000000Z", "29990101000000Z", Refusal.ACCOUNT_EXPIRED, Refusal.ACCOUNT_LOCKED),
        ("pwdStartTime", "29990101000000Z", "20200101000000.5Z", Refusal.ACCOUNT_EXPIRED, Refusal.ACCOUNT_LOCKED),
        ("nsAccountLock", "TRUE", "FALSE", Refusal.ACCOUNT_DISABLED, Refusal.ACCOUNT_DISABLED),
    ],
    ids=["over", "not-yet", "389-ds"],
)
def test_an_account_that_may_not_log_in_is_none_for_sessions_and_tokens_either(
    ask: Callable[..., Account | Refused],
    server: OpenLdap,
    attribute: str,
    outside: str,
    inside: str,
    looked_up: Refusal,
    by_password: Refusal,
) -> None:
    person = user_dn("locked")
    server.change(person, objectClass=["inetOrgPerson", "extensibleObject"], **{attribute: outside})
    refused = ask("locked", "", "look_up"), ask("locked", "x1")
    server.change(person, **{attribute: inside})
    let_in = ask("locked", "", "look_up"), ask("locked", "x1")
    server.change(person, objectClass=["inetOrgPerson"], **{attribute: []})
    assert tuple(map(reason, refused)) == (looked_up, by_password)
    assert all(isinstance(each, Account) for each in let_in), let_in


# -- without a service account ------------------------------------------------------------------------------


@pytest.fixture
def direct(server: OpenLdap) -> LdapDirectory:
    table = tomllib.loads(server.toml_direct())["directory"][0]
    return open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))


@pytest.mark.parametrize(
    ("typed", "name", "password"),
    [
        ("alice", "alice", "ecila"),
        ("EXAMPLE\\ALICE", "alice", "ecila"),
        ("alice@example.org", "alice", "ecila"),
        ("o'neil (x)*", "o'neil (x)*", "odd"),
        ("müller", "müller", "ümlaut"),
    ],
)
def test_users_bind_as_themselves_and_have_the_account_that_a_service_would_find(
    direct: LdapDirectory, ask: Callable[..., Account | Refused], server: OpenLdap, typed: str, name: str, password: str
) -> None:
    assert reason(direct.look_up(name)) == Refusal.USER_UNKNOWN, "before anybody has logged in"
    with server.place.entered():
        account = direct.log_in(typed, Secret(password.encode()))
    assert account == ask(name, password) and isinstance(account, Account) and account.name == name
    assert direct.look_up(name) == direct.look_up(typed) == account


@pytest.mark.parametrize(
    ("typed", "password", "wanted"),
    [
        ("alice", "wrong", Refusal.WRONG_PASSWORD),
        ("alice", "", Refusal.WRONG_PASSWORD),
        ("nobody", "ecila", Refusal.WRONG_PASSWORD),
        ("alice,ou=people", "ecila", Refusal.WRONG_PASSWORD),
        (f"alice,ou=people,{BASE}", "ecila", Refusal.WRONG_PASSWORD),
        ("*", "ecila", Refusal.WRONG_PASSWORD),
        ("OTHER\\alice", "ecila", Refusal.USER_UNKNOWN),
        ("EXAMPLE\\", "ecila", Refusal.USER_UNKNOWN),
        ("", "ecila", Refusal.USER_UNKNOWN),
    ],
)
def test_whoever_cannot_bind_is_not_let_in(
    direct: LdapDirectory, server: OpenLdap, typed: str, password: str, wanted: Refusal
) -> None:
    with server.place.entered():
        assert reason(direct.log_in(typed, Secret(password.encode()))) == wanted
    assert reason(direct.look_up("alice")) == Refusal.USER_UNKNOWN


def test_a_direct_bind_has_reasons_and_the_next_server_too(server: OpenLdap) -> None:
    table = tomllib.loads(server.toml_direct())["directory"][0]
    table["servers"] = ["ldaps://localhost:6361", f"ldap://localhost:{PORT}"]
    directory = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
    with server.place.entered():
        assert isinstance(directory.log_in("alice", Secret(b"ecila")), Account)
        assert list(directory.servers_up().values()) == [False, True]
        server.change(user_dn("locked"), pwdReset="TRUE")
        assert reason(directory.log_in("locked", Secret(b"x1"))) == Refusal.MUST_CHANGE_PASSWORD
        server.change(user_dn("locked"), pwdReset=[])
        table["user_base"] = f"ou=groups,{BASE}"
        elsewhere = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
        assert reason(elsewhere.log_in("alice", Secret(b"ecila"))) == Refusal.WRONG_PASSWORD


@pytest.mark.parametrize("bind", ["service", "direct"])
def test_no_name_and_no_password_speaks_against_the_server(server: OpenLdap, direct: LdapDirectory, bind: str) -> None:
    """Else anybody could have nobody let in."""
    directory = direct if bind == "direct" else opened(server)
    for number, name in enumerate(odd_names.names(40) if FULL else odd_names.names(30)[::5]):
        with server.place.entered():
            outcome = directory.log_in(name, Secret(odd_names.PASSWORDS[number % len(odd_names.PASSWORDS)]))
        assert reason(outcome) in (Refusal.USER_UNKNOWN, Refusal.WRONG_PASSWORD), (name, outcome)
    assert all(directory.servers_up().values())


@pytest.mark.parametrize("password", [b"", b"\0", b"\0ecila", b"ecila\0"])
def test_what_a_server_may_take_for_no_password_is_sent_to_none(
    server: OpenLdap, direct: LdapDirectory, password: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldap.LdapServers, "connect", lambda *_: pytest.fail("it was asked"))
    session = ldap.LdapSession(direct._servers, direct._servers.urls[0])
    assert session.bind_as(user_dn("alice"), Secret(password)).code == ldap.INVALID_CREDENTIALS
    assert reason(direct.log_in("alice", Secret(password))) == Refusal.WRONG_PASSWORD


def test_who_has_logged_in_is_known_after_a_reload_of_the_same_directory_and_of_no_other(
    server: OpenLdap, direct: LdapDirectory
) -> None:
    table = tomllib.loads(server.toml_direct())["directory"][0]

    def opened(**changes: object) -> LdapDirectory:
        return open_directory(DirectoryConfig.model_validate(table | changes, context={"directory": server.directory}))

    def logged_in_while(after: LdapDirectory, before: LdapDirectory) -> Account:
        after.succeed(before)
        with server.place.entered():
            account = before.log_in("alice", Secret(b"ecila"))  # which was under way meanwhile
        assert isinstance(account, Account)
        return account

    same = opened(timeout_s=7)
    assert logged_in_while(same, direct) == same.look_up("alice")
    refused = opened(unchecked_s=2 * direct._bound.unchecked_s)
    refused.succeed(same)
    back = same.anew()
    back.succeed(refused)
    assert back._bound is direct._bound and 2 * back._bound.unchecked_s == refused._unchecked_s
    elsewhere = opened(servers=[f"ldaps://localhost:{TLS_PORT + 1}"])
    for another in (opened(user_base=f"ou=other,{BASE}"), elsewhere):
        before = opened()
        logged_in_while(another, before)
        assert reason(another.look_up("alice")) == reason(before.look_up("alice")) == Refusal.USER_UNKNOWN
        assert not before._bound._open and before.take_password("alice") is None, "nobody would close it"


def test_who_has_bound_is_looked_at_on_that_connection_and_nobody_is_asked_for_a_password(
    direct: LdapDirectory, server: OpenLdap
) -> None:
    with server.place.entered():
        assert isinstance(direct.log_in("EXAMPLE\\Alice", Secret(b"ecila")), Account)
        assert isinstance(direct.log_in("bob", Secret(b"bob's")), Account)
        opened = [user.session for user, _ in direct._bound._open.values()]
        assert len(opened) == 2 and not any(each is None or each._searching.password for each in opened)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ldap.LdapServers, "connect", lambda *_: pytest.fail("it was asked"))
            server.change(group_dn("others"), member=[user_dn("alice")])
            alice, bob = direct.look_up("alice"), direct.look_up("bob")
            server.change(group_dn("others"), member=[user_dn("bob")])
            assert isinstance(alice, Account) and isinstance(bob, Account)
            assert "others" in alice.groups and "others" not in bob.groups
            server.change(user_dn("alice"), pwdAccountLockedTime="000001010000Z")
            assert reason(direct.look_up("EXAMPLE\\alice")) == Refusal.ACCOUNT_DISABLED
            server.change(user_dn("alice"), pwdAccountLockedTime=[])
            assert reason(direct.look_up("alice")) == Refusal.ACCOUNT_UNCHECKED, "until she logs in again"
            again = direct.look_up("bob")
            assert isinstance(again, Account) and "others" in again.groups and direct.unchecked() == 0
        assert isinstance(direct.log_in("alice", Secret(b"ecila")), Account)
        assert isinstance(direct.look_up("EXAMPLE\\alice"), Account)


def test_somebody_who_is_gone_and_made_anew_is_another(direct: LdapDirectory, server: OpenLdap) -> None:
    admin, dn = server.admin(), user_dn("gone")
    made = {"uid": "gone", "cn": "gone", "sn": "gone", "userPassword": "enog"}
    assert admin.add(dn, ["inetOrgPerson"], made)
    with server.place.entered():
        before = direct.log_in("gone", Secret(b"enog"))
    assert admin.delete(dn) and admin.add(dn, ["inetOrgPerson"], made)
    anew = direct.look_up("gone")
    assert isinstance(before, Account) and isinstance(anew, Account) and anew.stamp != before.stamp
    assert before.person and anew.person and before.person != anew.person
    assert admin.delete(dn)
    assert reason(direct.look_up("gone")) == Refusal.USER_UNKNOWN


def test_an_account_whose_connection_is_lost_is_as_it_was_for_a_while(direct: LdapDirectory, server: OpenLdap) -> None:
    now = [1000.0]
    direct._bound._clock = lambda: now[0]
    with server.place.entered():
        account = direct.log_in("alice", Secret(b"ecila"))
        server.stop()
        server.start()
        assert direct.look_up("alice") == account and direct.unchecked() == 1
        assert all(direct.servers_up().values()), "a server that has come back is none that failed"
        now[0] += direct._bound.unchecked_s
        assert reason(direct.look_up("alice")) == Refusal.ACCOUNT_UNCHECKED and direct.unchecked() == 0
        assert direct.log_in("alice", Secret(b"ecila")) == account == direct.look_up("alice")


def test_a_server_that_hangs_costs_one_of_those_who_have_bound_their_connection(
    server: OpenLdap,
) -> None:
    table = tomllib.loads(server.toml_direct())["directory"][0]
    table |= {"servers": [f"ldaps://localhost:{TLS_PORT}"], "timeout_s": 1}
    direct = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
    assert server.process is not None
    with server.place.entered():
        accounts = {user: direct.log_in(user, Secret(USERS[user].encode())) for user in ("alice", "bob", "müller")}
        server.process.signal(signal.SIGSTOP)
        try:
            assert {user: direct.look_up(user) for user in accounts} == accounts
        finally:
            server.process.signal(signal.SIGCONT)
        assert direct.unchecked() == 1 and not any(direct.servers_up().values())


def test_connections_of_those_who_have_bound_are_few_and_end_when_nobody_looks(
    direct: LdapDirectory, server: OpenLdap, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    bound = direct._bound
    bound._clock = lambda: now[0]
    monkeypatch.setattr(ldap_bound, "MOST_CONNECTIONS", 2)
    with server.place.entered():
        for user in ("alice", "bob", "alice", "müller"):
            assert isinstance(direct.log_in(user, Secret(USERS[user].encode())), Account)
            now[0] += 1
        assert [user.account.name for user, _ in bound._open.values()] == ["alice", "müller"]
        assert direct.unchecked() == 1, "bob"
        now[0] += bound.unused_s - 2
        assert isinstance(direct.look_up("alice"), Account)
        now[0] += 2
        assert isinstance(direct.look_up("alice"), Account)
        assert [user.account.name for user, _ in bound._open.values()] == ["alice"]
        ((alice, _),) = bound._open.values()
        assert alice.session is not None
        connection = alice.session._searching
        direct.close()
    assert connection is not None and connection.closed
    assert reason(direct.look_up("alice")) == Refusal.USER_UNKNOWN


def test_a_referral_is_followed_to_no_other_server(ask: Callable[..., Account | Refused], server: OpenLdap) -> None:
    """Whoever may write one would have people's passwords sent to a server of their own."""
    admin, dn = server.admin(), user_dn("elsewhere")
    with server.place.entered(), socket.create_server(("127.0.0.1", 0)) as foreign:
        foreign.setblocking(False)
        url = f"ldap://localhost:{foreign.getsockname()[1]}/{user_dn('alice')}"
        made = admin.add(dn, ["referral", "extensibleObject"], {"uid": "elsewhere", "ref": url}, [MANAGED])
        assert made, admin.result
        table = tomllib.loads(server.toml_direct())["directory"][0]
        direct = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
        assert isinstance(direct.log_in("elsewhere", Secret(b"ecila")), Refused)
        assert reason(ask("elsewhere", "ecila")) == Refusal.USER_UNKNOWN
        assert isinstance(ask("alice", "ecila"), Account)
        with pytest.raises(BlockingIOError):
            foreign.accept()
    assert admin.delete(dn, [MANAGED]), admin.result


# -- servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [f"ldap://localhost:{PORT}", f"ldaps://localhost:{TLS_PORT}"])
def test_both_ways_into_tls(ask: Callable[..., Account | Refused], url: str) -> None:
    assert isinstance(ask("alice", "ecila", servers=[url]), Account)


@pytest.mark.parametrize(
    "url", [f"ldap://127.0.0.2:{PORT}", f"ldaps://127.0.0.2:{TLS_PORT}", f"ldaps://ip6-localhost:{TLS_PORT}"]
)
def test_a_server_of_another_name_hears_no_password(
    ask: Callable[..., Account | Refused], server: OpenLdap, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: real("127.0.0.1", *rest))
    refused = ask("alice", "ecila", servers=[url])
    assert reason(refused) == Refusal.DIRECTORY_UNAVAILABLE and "certificate" in refused.detail.lower()  # type: ignore[union-attr]


def test_a_server_of_another_authority_hears_no_password(
    ask: Callable[..., Account | Refused], server: OpenLdap
) -> None:
    other = server.directory / "other.crt"
    other.write_bytes(certs.authority("Another CA").certificate_pem)
    for url in (f"ldap://localhost:{PORT}", f"ldaps://localhost:{TLS_PORT}"):
        refused = ask("alice", "ecila", servers=[url], ca=str(other))
        assert reason(refused) == Refusal.DIRECTORY_UNAVAILABLE and "certificate" in refused.detail  # type: ignore[union-attr]


def test_a_server_without_starttls_hears_nothing_but_the_wish(server: OpenLdap) -> None:
    with server.place.entered(), socket.create_server(("127.0.0.1", 0)) as plain:
        url = LdapUrl(False, "localhost", plain.getsockname()[1])
        directory = opened(server, servers=[str(url)], timeout_s=1)
        heard = bytearray()

        def answer() -> None:
            with plain.accept()[0] as sock:
                sock.settimeout(3)
                request = sock.recv(4096)
                heard.extend(request)
                number = request[2 : 4 + request[3]]
                refused = bytes([0x78, 0x07, 0x0A, 0x01, 0x02, 0x04, 0, 0x04, 0])
                sock.sendall(bytes([0x30, len(number) + len(refused)]) + number + refused)
                try:
                    while more := sock.recv(4096):
                        heard.extend(more)
                except OSError:
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        refused = directory.log_in("alice", Secret(b"ecila"))
        thread.join()
    assert reason(refused) == Refusal.DIRECTORY_UNAVAILABLE
    assert b"1.3.6.1.4.1.1466.20037" in heard and b"ecila" not in heard and ADMIN.encode() not in heard


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_answers_byte_by_byte_is_given_up_and_the_next_one_asked(server: OpenLdap, tls: bool) -> None:
    """Before TLS anybody on the way may do so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.directory / "ldap.crt", server.directory / "ldap.key")
    hung_up = threading.Event()
    with server.place.entered(), socket.create_server(("127.0.0.1", 0)) as slow:
        urls = [f"ldap{'s' * tls}://localhost:{slow.getsockname()[1]}", f"ldaps://localhost:{TLS_PORT}"]
        directory = opened(server, servers=urls, timeout_s=1)

        def answer() -> None:
            plain, _ = slow.accept()
            with context.wrap_socket(plain, server_side=True) if tls else plain as sock:
                sock.recv(4096)
                try:
                    for byte in b"\x30\x84\x7f\xff\xff\xff" + bytes(60):
                        sock.sendall(bytes([byte]))
                        sock.settimeout(0.25)
                        with suppress(TimeoutError):
                            if not sock.recv(1):
                                raise ConnectionResetError
                except OSError:
                    pass
                else:
                    return
                hung_up.set()

        thread = threading.Thread(target=answer)
        thread.start()
        account = directory.log_in("alice", Secret(b"ecila"))
        thread.join()
    assert isinstance(account, Account) and hung_up.is_set()
    assert list(directory.servers_up().values()) == [False, True]


def test_whatever_a_server_answers_is_no_yes_and_raises_nothing(server: OpenLdap) -> None:
    """What slapd has said, with bytes of it changed, to a service account's bind, a search and a user's bind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.directory / "ldap.crt", server.directory / "ldap.key")
    upstream = ssl.create_default_context(cafile=server.directory / "ca.crt")
    dice = random.Random(7)
    outcomes: Counter[str] = Counter()

    def between(listening: socket.socket) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(plain, dice.randrange(3)), daemon=True).start()

    def relay(plain: socket.socket, spoilt: int) -> None:
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as near:
            far = upstream.wrap_socket(socket.create_connection(("127.0.0.1", TLS_PORT)), server_hostname="localhost")
            with far:
                for number in range(10):
                    if not (request := near.recv(65536)):
                        return
                    far.sendall(request)
                    answer = bytearray(far.recv(65536))
                    if number == spoilt:
                        for _ in range(dice.choice((1, 1, 2, 8))):
                            answer[dice.randrange(len(answer))] = dice.randrange(256)
                    near.sendall(answer)

    with server.place.entered(), socket.create_server(("127.0.0.1", 0)) as listening:
        acceptor = threading.Thread(target=between, args=(listening,), daemon=True)
        acceptor.start()
        for _ in range(150 if FULL else 6):
            directory = opened(server, servers=[f"ldaps://localhost:{listening.getsockname()[1]}"], timeout_s=1)
            outcome = directory.log_in("alice", Secret(b"wrong"))
            outcomes[reason(outcome)] += 1
            directory.close()
    print(outcomes)
    assert set(outcomes) <= {"wrong-password", "directory-unavailable", "user-unknown"}
    assert outcomes["directory-unavailable"] > 0


def test_the_next_server_is_asked_and_the_dead_one_left_alone_for_a_while(server: OpenLdap) -> None:
    dead, live = LdapUrl(True, "localhost", 6361), LdapUrl(True, "localhost", TLS_PORT)
    directory = opened(server, servers=[str(dead), str(live)])
    now = [1000.0]
    directory._servers = replace(directory._servers, clock=lambda: now[0])
    asked: list[int] = []
    real = ldap.LdapServers.connect

    def watched(self: ldap.LdapServers, url: LdapUrl, *rest: str) -> object:
        asked.append(url.port)
        return real(self, url, *rest)

    with pytest.MonkeyPatch.context() as patch, server.place.entered():
        patch.setattr(ldap.LdapServers, "connect", watched)
        for _ in range(3):
            assert isinstance(directory.look_up("alice"), Account)
        assert asked == [6361, TLS_PORT], "one connection for all"
        assert directory.servers_up() == {str(dead): False, str(live): True}
        now[0] += health.FIRST_BACK_OFF_S
        assert isinstance(directory.look_up("alice"), Account)
        assert asked[2:] == [6361]
        now[0] += health.FIRST_BACK_OFF_S
        assert isinstance(directory.look_up("alice"), Account)
        assert asked[3:] == [], "longer each time"
        now[0] += ldap.KEPT_S
        assert isinstance(directory.look_up("alice"), Account)
        assert asked[3:] == [6361, TLS_PORT], "nor is a connection kept for ever"


def test_a_connection_that_ended_while_it_was_kept_is_nobodys_trouble(server: OpenLdap) -> None:
    directory = opened(server, servers=[f"ldaps://localhost:{TLS_PORT}"])
    (kept,) = directory._servers._kept.values()
    with server.place.entered():
        assert isinstance(directory.look_up("alice"), Account)
        ((_, connection),) = kept
        server.stop()
        server.start()
        assert isinstance(directory.log_in("alice", Secret(b"ecila")), Account)
        assert connection.closed and all(directory.servers_up().values())
        ((_, connection),) = kept
        ended = connection.socket
        ended.shutdown(socket.SHUT_RDWR)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ldap, "_quiet", lambda _: True)  # as if it ended just after that
            assert isinstance(directory.look_up("alice"), Account)
        assert ended.fileno() == -1 and all(directory.servers_up().values())


def test_of_a_server_that_hangs_one_kept_connection_is_waited_for_and_no_more(server: OpenLdap) -> None:
    directory = opened(server, servers=[f"ldaps://localhost:{TLS_PORT}"], timeout_s=1)
    assert server.process is not None
    with server.place.entered():
        assert isinstance(directory.look_up("alice"), Account)
        server.process.signal(signal.SIGSTOP)
        try:
            assert reason(directory.look_up("alice")) == Refusal.DIRECTORY_UNAVAILABLE
        finally:
            server.process.signal(signal.SIGCONT)
        assert not any(directory.servers_up().values()) and not any(directory._servers._kept.values())
        assert isinstance(directory.look_up("alice"), Account)


def test_a_service_account_that_is_refused_is_nobodys_wrong_password(
    ask: Callable[..., Account | Refused], server: OpenLdap
) -> None:
    wrong = server.directory / "wrong.password"
    wrong.write_text("wrong\n")
    refused = ask("alice", "ecila", bind_password_file=str(wrong))
    assert reason(refused) == Refusal.DIRECTORY_UNAVAILABLE and ADMIN in refused.detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bind_password_file": "/nowhere/file"}, "directory corp: bind_password_file /nowhere/file"),
        ({"ca": "/nowhere/ca"}, "directory corp: ca /nowhere/ca"),
    ],
)
def test_files_that_cannot_be_used_are_named(server: OpenLdap, changes: dict[str, str], words: str) -> None:
    with pytest.raises(DirectoryError, match=words):
        opened(server, **changes)
