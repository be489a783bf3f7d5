"""A real Active Directory controller (Samba): names, reasons, and nested groups by SID and by name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator

import pytest
from helpers import netns, odd_names
from helpers.netns import Namespace
from helpers.samba import BASE, INSTALLED, PASSWORD, SambaAd, user_dn

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.ldap_directory import open_directory
from cvpnd.config import DirectoryConfig
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

pytestmark = pytest.mark.skipif(not INSTALLED, reason="make test-samba installs Samba")

DIRECT: dict[str, object] = {"bind": "direct", "bind_dn": None, "bind_password_file": None}
USERS = (
    "alice", "bob", "disabled", "expired", "old", "must", "locked", "hours", "hidden", "unseen", "half", "o'neil (x)",
)  # fmt: skip
TOKEN_GROUPS = "b7c69e6d-2cc7-11d2-854e-00a0c983f608"
"""The attribute's schemaIDGUID, as the next."""
USER_ACCOUNT_CONTROL = "bf967a68-0de6-11d0-a285-00aa003049e2"
ACCOUNT_EXPIRES = "bf967915-0de6-11d0-a285-00aa003049e2"
PWD_LAST_SET = "bf967a0a-0de6-11d0-a285-00aa003049e2"
UNREADABLE = {
    "hidden": [TOKEN_GROUPS], "unseen": [USER_ACCOUNT_CONTROL], "half": [ACCOUNT_EXPIRES, PWD_LAST_SET],
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaAd]:
    directory = tmp_path_factory.mktemp("samba")
    place = Namespace(f"{netns.unique_prefix()}-dc", directory)
    try:
        samba = SambaAd(place, directory / "dc")
        samba.local(
            "domain", "passwordsettings", "set", "--max-pwd-age=2", "--min-pwd-age=0", "--account-lockout-threshold=3"
        )
        for name in USERS:
            samba.local("user", "create", name, PASSWORD)
        for group in ("engineers", "staff", "others"):
            samba.local("group", "add", group)
        samba.local("group", "addmembers", "engineers", "alice")
        samba.local("group", "addmembers", "staff", "engineers")
        samba.local("group", "addmembers", "others", "bob")
        samba.local("ou", "add", "OU=People")
        samba.local("user", "create", "anna", PASSWORD, "--userou=OU=People")
        samba.local("group", "addmembers", "engineers", "anna")
        for name, attributes in UNREADABLE.items():
            for attribute in attributes:
                samba.local(
                    "dsacl", "set", f"--objectdn={user_dn(name)}", f"--sddl=(OD;;RP;{attribute};;WD)", "--action=deny"
                )
        samba.local("user", "disable", "disabled")
        samba.local("user", "setexpiry", "expired", "--days=0")
        samba.local("user", "setpassword", "must", f"--newpassword={PASSWORD}", "--must-change-at-next-login")
        samba.local("user", "setpassword", "old", f"--newpassword={PASSWORD}", at="-10 days")
        samba.start()
        samba.change(user_dn("hours"), logonHours=bytes(21))
        yield samba
    finally:
        place.close()


@pytest.fixture
def ask(server: SambaAd) -> Callable[..., Account | Refused]:
    def run(user: str, password: str = PASSWORD, verb: str = "log_in", **changes: object) -> Account | Refused:
        table = tomllib.loads(server.toml())["directory"][0] | changes
        directory = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
        with server.place.entered():
            return directory.look_up(user) if verb == "look_up" else directory.log_in(user, Secret(password.encode()))

    return run


@pytest.mark.parametrize(
    "typed", ["alice", "Alice", "LAB\\alice", "lab.test\\alice", "alice@lab.test", "ALICE@LAB.TEST"]
)
@pytest.mark.parametrize("url", ["ldaps://localhost", "ldap://localhost"])
def test_a_person_comes_under_each_name_that_people_type(
    ask: Callable[..., Account | Refused], typed: str, url: str
) -> None:
    account = ask(typed, servers=[url])
    assert isinstance(account, Account) and account.name == "alice", account


@pytest.mark.parametrize("typed", ["*", "ali*", "OTHER\\alice", "alice@other.test", "alice)(objectClass=*", "LAB\\"])
def test_a_name_that_fits_nobody_is_unknown(ask: Callable[..., Account | Refused], typed: str) -> None:
    outcome = ask(typed)
    assert isinstance(outcome, Refused) and outcome.refusal is Refusal.USER_UNKNOWN


def test_special_characters_find_their_own_entry(ask: Callable[..., Account | Refused]) -> None:
    account = ask("o'neil (x)")
    assert isinstance(account, Account) and account.name == "o'neil (x)"


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("bob", "wrong", Refusal.WRONG_PASSWORD),
        ("bob", "", Refusal.WRONG_PASSWORD),
        ("disabled", PASSWORD, Refusal.ACCOUNT_DISABLED),
        ("expired", PASSWORD, Refusal.ACCOUNT_EXPIRED),
        ("old", PASSWORD, Refusal.PASSWORD_EXPIRED),
        ("must", PASSWORD, Refusal.MUST_CHANGE_PASSWORD),
        ("hours", PASSWORD, Refusal.LOGON_HOURS),
    ],
)
def test_each_sub_code_is_a_reason(
    ask: Callable[..., Account | Refused], user: str, password: str, reason: Refusal
) -> None:
    outcome = ask(user, password)
    assert isinstance(outcome, Refused) and outcome.refusal is reason, outcome


def test_a_locked_account(ask: Callable[..., Account | Refused]) -> None:
    for _ in range(3):
        ask("locked", "wrong")
    outcome = ask("locked")
    assert isinstance(outcome, Refused) and outcome.refusal is Refusal.ACCOUNT_LOCKED


def test_nested_groups_by_sid_and_by_name(ask: Callable[..., Account | Refused], server: SambaAd) -> None:
    sids = {name: server.sid(name) for name in ("engineers", "staff", "others")}
    assert all(sid.startswith("S-1-5-21-") for sid in sids.values())
    for verb in ("log_in", "look_up"):
        account = ask("alice", PASSWORD, verb)
        assert isinstance(account, Account)
        assert {"engineers", "staff", sids["engineers"], sids["staff"]} <= account.groups
        assert not {"others", sids["others"]} & account.groups
        assert any(group.endswith("-513") for group in account.groups), "the primary group, Domain Users"


@pytest.mark.parametrize("changes", [{}, DIRECT], ids=["service", "direct"])
def test_a_group_has_its_name_wherever_in_the_domain_it_is(
    ask: Callable[..., Account | Refused], changes: dict[str, object]
) -> None:
    people = f"OU=People,{BASE}"
    account = ask("anna", user_base=people, **changes)
    assert isinstance(account, Account)
    assert {"engineers", "staff", "Domain Users", "Users"} <= account.groups and "others" not in account.groups
    account = ask("anna", user_base=people, group_base=f"CN=Builtin,{BASE}", **changes)
    assert isinstance(account, Account)
    assert {group for group in account.groups if not group.startswith("S-1-")} == {"Users"}
    account = ask("anna", user_base=people, group_attribute="cn", **changes)  # of which there may be several
    assert isinstance(account, Account) and all(group.startswith("S-1-") for group in account.groups)


@pytest.mark.parametrize("changes", [{}, DIRECT], ids=["service", "direct"])
def test_a_group_counts_whatever_has_to_be_escaped_in_its_dn(
    ask: Callable[..., Account | Refused], server: SambaAd, changes: dict[str, object]
) -> None:
    base = r"OU=\#R\,D\=x\?,DC=lab,DC=test"
    admin, way = server.admin(), "direct" if changes else "service"
    admin.add(base, "organizationalUnit")
    there = [
        f"{escaped}-{way}"
        for escaped in (r"\#lead", r"a\=b", r"what\?", r"one\, two", r"a\+b", r"\"q\"\;\<\>", r"a\\b")
    ]
    for number, escaped in enumerate(there):
        attributes = {"sAMAccountName": f"odd-{way}-{number}", "member": f"CN=anna,OU=People,{BASE}"}
        assert admin.add(f"CN={escaped},{base}", "group", attributes), admin.result
    admin.unbind()
    account = ask("anna", user_base=f"OU=People,{BASE}", **changes)
    assert isinstance(account, Account)
    assert {f"odd-{way}-{number}" for number in range(len(there))} <= account.groups
    table = tomllib.loads(server.toml())["directory"][0] | changes | {"user_base": base}
    directory = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
    assert directory.group_base == BASE


def test_what_becomes_of_a_person_in_the_domain(ask: Callable[..., Account | Refused], server: SambaAd) -> None:
    """Who is enabled again, renamed or moved is who they were; who is made anew is another with the same name."""
    server.local("user", "create", "pam", PASSWORD)
    before = ask("pam", verb="look_up")
    assert isinstance(before, Account) and before.person
    server.local("user", "disable", "pam")
    assert isinstance(refused := ask("pam"), Refused) and refused.refusal is Refusal.ACCOUNT_DISABLED
    server.local("user", "enable", "pam")
    assert ask("pam", verb="look_up") == before == ask("pam")
    server.local("user", "move", "pam", f"OU=People,{BASE}")
    moved = ask("pam", verb="look_up")
    assert isinstance(moved, Account) and (moved.name, moved.person) == ("pam", before.person)
    outside = ask("pam", verb="look_up", user_base=f"CN=Users,{BASE}")
    assert isinstance(outside, Refused) and outside.refusal is Refusal.USER_UNKNOWN
    server.change(f"CN=pam,OU=People,{BASE}", sAMAccountName="pamela")
    assert isinstance(ask("pam", verb="look_up"), Refused)
    renamed = ask("pamela", verb="look_up")
    assert isinstance(renamed, Account) and (renamed.name, renamed.person) == ("pamela", before.person)
    server.local("user", "delete", "pamela")
    assert isinstance(ask("pamela", verb="look_up"), Refused)
    server.local("user", "create", "pam", PASSWORD)
    anew = ask("pam")
    assert isinstance(anew, Account) and anew.name == "pam"
    assert anew.person != before.person and anew.stamp not in (before.stamp, moved.stamp)


def test_whose_groups_may_not_be_read_comes_in_without_any(
    ask: Callable[..., Account | Refused], caplog: pytest.LogCaptureFixture
) -> None:
    for verb in ("log_in", "look_up"):
        account = ask("hidden", PASSWORD, verb)
        assert isinstance(account, Account) and account.name == "hidden" and not account.groups, account
    assert "tokenGroups of CN=hidden" in caplog.text and "Windows Authorization Access Group" in caplog.text


def test_of_whom_nobody_would_see_that_they_are_disabled_is_not_let_in(ask: Callable[..., Account | Refused]) -> None:
    """As where only some may read Account Restrictions: a token of before would be good whatever became of them."""
    for verb in ("log_in", "look_up"):
        outcome = ask("unseen", PASSWORD, verb)
        assert isinstance(outcome, Refused) and outcome.refusal is Refusal.ACCOUNT_UNCHECKED, outcome
        assert "userAccountControl of CN=unseen" in outcome.detail and "Account Restrictions" in outcome.detail


def test_what_else_nobody_would_see_of_an_account_is_told(
    ask: Callable[..., Account | Refused], caplog: pytest.LogCaptureFixture
) -> None:
    for verb in ("log_in", "look_up"):
        account = ask("half", PASSWORD, verb)
        assert isinstance(account, Account) and account.name == "half", account
    assert "accountExpires of CN=half" in caplog.text and "pwdLastSet of CN=half" in caplog.text
    caplog.clear()
    assert isinstance(ask("alice"), Account) and "cannot be read" not in caplog.text


@pytest.mark.parametrize("typed", ["alice", "Alice", "LAB\\alice", "alice@lab.test", "ALICE@LAB.TEST"])
def test_without_a_service_account_users_bind_as_themselves(ask: Callable[..., Account | Refused], typed: str) -> None:
    found = ask("alice")
    account = ask(typed, **DIRECT)
    assert isinstance(found, Account) and account == found, account


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("bob", "wrong", Refusal.WRONG_PASSWORD),
        ("nobody", PASSWORD, Refusal.WRONG_PASSWORD),
        ("disabled", PASSWORD, Refusal.ACCOUNT_DISABLED),
        ("must", PASSWORD, Refusal.MUST_CHANGE_PASSWORD),
        ("OTHER\\alice", PASSWORD, Refusal.USER_UNKNOWN),
    ],
)
def test_a_direct_bind_has_the_same_reasons(
    ask: Callable[..., Account | Refused], user: str, password: str, reason: Refusal
) -> None:
    outcome = ask(user, password, **DIRECT)
    assert isinstance(outcome, Refused) and outcome.refusal is reason, outcome


@pytest.mark.parametrize("changes", [{}, DIRECT], ids=["service", "direct"])
def test_no_name_and_no_password_speaks_against_the_server(server: SambaAd, changes: dict[str, object]) -> None:
    table = tomllib.loads(server.toml())["directory"][0] | changes
    directory = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
    for number, name in enumerate(odd_names.names(100)):
        with server.place.entered():
            outcome = directory.log_in(name, Secret(odd_names.PASSWORDS[number % len(odd_names.PASSWORDS)]))
        assert isinstance(outcome, Refused), name
        assert outcome.refusal in (Refusal.USER_UNKNOWN, Refusal.WRONG_PASSWORD), (name, outcome)
    assert all(directory.servers_up().values())


def test_who_is_not_below_the_user_base_binds_in_vain(ask: Callable[..., Account | Refused]) -> None:
    outcome = ask("alice", **DIRECT, user_base=f"CN=Builtin,{BASE}")
    assert isinstance(outcome, Refused) and outcome.refusal is Refusal.USER_UNKNOWN, outcome


def test_who_has_bound_is_looked_at_on_that_connection(server: SambaAd) -> None:
    table = tomllib.loads(server.toml())["directory"][0] | DIRECT
    directory = open_directory(DirectoryConfig.model_validate(table, context={"directory": server.directory}))
    others = f"CN=others,CN=Users,{BASE}"
    with server.place.entered():
        before = directory.log_in("LAB\\Bob", Secret(PASSWORD.encode()))
    assert isinstance(before, Account) and "others" in before.groups
    server.change(others, member=user_dn("alice"))
    after = directory.look_up("bob")
    server.change(others, member=user_dn("bob"))
    assert isinstance(after, Account) and after.stamp == before.stamp
    assert not {"others", server.sid("others")} & after.groups
    server.change(user_dn("bob"), userAccountControl="514")
    outcome = directory.look_up("bob")
    server.change(user_dn("bob"), userAccountControl="512")
    assert isinstance(outcome, Refused) and outcome.refusal is Refusal.ACCOUNT_DISABLED, outcome
    assert directory.unchecked() == 0


def test_disabled_is_seen_without_a_password(ask: Callable[..., Account | Refused], server: SambaAd) -> None:
    assert isinstance(ask("bob", verb="look_up"), Account)
    server.change(user_dn("bob"), userAccountControl="514")
    outcome = ask("bob", verb="look_up")
    assert isinstance(outcome, Refused) and outcome.refusal is Refusal.ACCOUNT_DISABLED
    server.change(user_dn("bob"), userAccountControl="512")
