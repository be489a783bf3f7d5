"""Logins against directories: what they cost, how long they take, and whom a guesser holds up."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest
from argon2 import extract_parameters

from cvpnd.auth.challenge import Asker, Proven
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.local_users import LocalUser, LocalUsers
from cvpnd.auth.logins import (
    FAILURE_TAKES_S,
    MOST_PENDING,
    MOST_PENDING_OF_PAIR,
    MOST_PENDING_OF_SOURCE,
    SecondFactor,
    UserLogins,
    left_of_failure,
)
from cvpnd.auth.passwords import _NOBODYS, MAX_PASSWORD_BYTES, hash_password, verify_password
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.throttle import FORGOTTEN_AFTER_S, FREE_FAILURES, FREE_FAILURES_OF_SOURCE, MAX_DELAY_S, LoginThrottle
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

HASH = hash_password("right")


@pytest.fixture
def users():
    table = LocalUsers()
    table.replace([LocalUser("anna", HASH, frozenset({"eng"})), LocalUser("gone", HASH, disabled=True)])
    return table


@pytest.fixture
async def logins(users):
    made = UserLogins({"local": users})
    yield made
    made.close()


async def log_in(logins, name, password, source="192.0.2.1", within_s=5.0):
    return await logins.log_in("local", name, Secret.of_text(password), source=source, within_s=within_s)


async def test_the_right_password_brings_the_account_with_its_groups(logins):
    answer = await log_in(logins, "anna", "right")
    assert isinstance(answer, Account)
    assert (answer.name, answer.groups) == ("anna", {"eng"})


@pytest.mark.parametrize("there", ["M\u00fcller", "Mu\u0308ller"])
def test_a_local_user_comes_in_however_the_system_composes_the_name_and_is_who_they_are_there(there):
    table = LocalUsers()
    table.replace([LocalUser(there, HASH), LocalUser("Muller", hash_password("another"))])
    for typed in ("M\u00fcller", "Mu\u0308ller"):
        for account in (table.log_in(typed, Secret(b"right")), table.look_up(typed)):
            assert isinstance(account, Account) and account.name == there
    table.replace([LocalUser("M\u00fcller", HASH), LocalUser("Mu\u0308ller", HASH)])
    assert table.look_up("Mu\u0308ller") == LocalUser("Mu\u0308ller", HASH).account, "exactly, where there are both"
    table.replace([LocalUser("Mu\u0308ller", HASH)])
    assert isinstance(table.still("M\u00fcller"), Refused) and isinstance(table.still("Mu\u0308ller"), Account)


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("anna", "wrong", Refusal.WRONG_PASSWORD),
        ("anna", "right" + "x" * MAX_PASSWORD_BYTES, Refusal.WRONG_PASSWORD),
        ("anna", "\udcff", Refusal.WRONG_PASSWORD),
        ("nobody", "right", Refusal.USER_UNKNOWN),
        ("ANNA", "right", Refusal.USER_UNKNOWN),
        ("anna ", "right", Refusal.USER_UNKNOWN),
        ("a\u202enna", "right", Refusal.USER_UNKNOWN),
        ("gone", "right", Refusal.ACCOUNT_DISABLED),
        ("gone", "wrong", Refusal.WRONG_PASSWORD),
    ],
)
async def test_whatever_is_wrong_is_answered_after_the_same_time(logins, name, password, reason):
    begun = time.monotonic()
    answer = await log_in(logins, name, password)
    assert isinstance(answer, Refused) and answer.refusal is reason
    assert time.monotonic() - begun >= FAILURE_TAKES_S  # a floor, which no slow machine can undo


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("", "right", Refusal.CREDENTIALS_MISSING),
        ("anna", "", Refusal.CREDENTIALS_MISSING),
        ("anna", "SCRV1:cmlnaHQ=:MTIzNDU2", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", "CRV1::state::123456", Refusal.CHALLENGE_UNEXPECTED),
    ],
)
async def test_what_is_no_password_never_reaches_the_directory(name, password, reason):
    class Never:
        at_once = 1

        def log_in(self, username, password):
            raise AssertionError("asked")

        look_up = log_in

    answer = await log_in(UserLogins({"local": Never()}), name, password)
    assert isinstance(answer, Refused) and answer.refusal is reason


def test_a_hash_of_nobody_is_never_right_and_costs_what_others_cost():
    assert extract_parameters(_NOBODYS) == extract_parameters(HASH)
    assert not verify_password(None, Secret(b""))
    assert not verify_password(None, Secret(b"right"))
    assert verify_password(HASH, Secret(b"right"))


class Hanging:
    """Answers once it is told to."""

    at_once = 4
    good_for_s = 900.0

    def __init__(self):
        self.go_on = threading.Event()
        self.asked = 0

    def log_in(self, username, password):
        self.asked += 1
        self.go_on.wait(30)
        return Account(username, frozenset())

    def unchecked(self):
        return 0

    def look_up(self, username):
        return self.log_in(username, b"")


async def test_a_hung_directory_holds_up_neither_the_loop_nor_another_directory_and_is_not_piled_upon(users):
    hanging = Hanging()
    logins = UserLogins({"slow": hanging, "local": users})
    try:
        waiting = [
            asyncio.create_task(logins.log_in("slow", f"u{n}", Secret(b"x"), source=f"192.0.2.{n % 3}", within_s=0.5))
            for n in range(MOST_PENDING + 10)
        ]
        await asyncio.sleep(0)
        assert isinstance(await log_in(logins, "anna", "right"), Account)
        reasons = [answer.refusal for answer in await asyncio.gather(*waiting)]
        assert reasons.count(Refusal.TOO_MANY_LOGINS) == 10
        assert reasons.count(Refusal.DIRECTORY_TIMEOUT) == MOST_PENDING
        assert hanging.asked <= hanging.at_once
        late = await logins.log_in("slow", "late", Secret(b"x"), source="192.0.2.1", within_s=0.5)
        assert late.refusal is Refusal.DIRECTORY_TIMEOUT, "its threads are still held"
        hanging.go_on.set()
        deadline = time.monotonic() + 10
        while logins.pending()["slow"] and time.monotonic() < deadline:  # noqa: ASYNC110 - threads set no event here
            await asyncio.sleep(0.01)
        answer = await logins.log_in("slow", "later", Secret(b"x"), source="192.0.2.1", within_s=5)
        assert answer == Account("later", frozenset())
        latency = logins.latencies()["slow"]
        assert sum(latency.counts) == hanging.asked and latency.sum >= 4 * 0.5, "those that nobody waited for, too"
    finally:
        hanging.go_on.set()
        logins.close()


async def test_whoever_hangs_up_before_the_answer_has_guessed_all_the_same(users):
    """Else passwords could be tried by connections that end at once, uncounted, until the account is locked."""
    logins = UserLogins({"local": users})
    try:
        for _ in range(FREE_FAILURES + 1):
            attempt = asyncio.create_task(log_in(logins, "anna", "wrong"))
            await asyncio.sleep(0.01)
            attempt.cancel()
            while logins.pending()["local"]:  # noqa: ASYNC110 - of what is under way nobody is told
                await asyncio.sleep(0.01)
        assert (await log_in(logins, "anna", "right")).refusal is Refusal.LOGIN_THROTTLED
    finally:
        logins.close()


async def test_what_nobody_waits_for_any_more_is_not_asked(users):
    """After a directory hung, its threads are there for those who come now."""
    hanging = Hanging()
    logins = UserLogins({"slow": hanging})
    try:
        waiting = [
            asyncio.create_task(logins.log_in("slow", f"u{n}", Secret(b"x"), source="192.0.2.1", within_s=0.2))
            for n in range(50)
        ]
        recalls = [
            asyncio.create_task(logins.recall("slow", f"r{n}", source="192.0.2.1", within_s=0.2)) for n in range(50)
        ]
        outcomes = await asyncio.gather(*waiting, *recalls)
        assert {outcome.refusal for outcome in outcomes} == {Refusal.DIRECTORY_TIMEOUT}
        async with asyncio.timeout(10):
            while logins.pending()["slow"] > hanging.at_once:  # noqa: ASYNC110 - of what is given up nobody is told
                await asyncio.sleep(0.01)
        assert logins.pending()["slow"] == hanging.asked == hanging.at_once
        hanging.go_on.set()
        answer = await logins.log_in("slow", "later", Secret(b"x"), source="192.0.2.1", within_s=5)
        assert answer == Account("later", frozenset()) and hanging.asked == hanging.at_once + 1
    finally:
        hanging.go_on.set()
        logins.close()


class Renaming:
    """Knows its one account by two names."""

    at_once = 1
    good_for_s = 900.0

    def __init__(self):
        self.answer = Account("anna", frozenset({"eng"}), b"1")

    def look_up(self, username):
        return self.answer

    def log_in(self, username, password):
        return self.answer


async def test_what_has_become_of_an_account_holds_under_all_names_it_has_logged_in_by():
    directory = Renaming()
    logins = UserLogins({"corp": directory})
    for name in ("anna@corp.example", "anna"):
        await logins.log_in("corp", name, Secret(b"right"), source="192.0.2.1", within_s=5)
    directory.answer = Account("anna", frozenset(), b"2")
    await logins.look_again("corp", "anna")
    assert logins.look_up("corp", "anna@corp.example") == directory.answer
    directory.answer = Refused(Refusal.ACCOUNT_DISABLED, "")
    await logins.look_again("corp", "anna")
    refused = await logins.recall("corp", "anna@corp.example", source="192.0.2.1", within_s=5)
    assert refused is not None and refused.refusal is Refusal.ACCOUNT_DISABLED
    assert isinstance(logins.look_up("corp", "anna@corp.example"), Refused)
    logins.close()


@pytest.mark.parametrize(
    ("then", "let_in"),
    [
        (Account("anna", frozenset({"eng"}), b"1"), True),
        (Account("anna", frozenset({"guests"}), b"1"), True),
        (Account("anna", frozenset({"eng"}), b"2"), False),
        (Account("anna", frozenset({"eng"}), b"1", b"somebody else"), False),
        (Refused(Refusal.ACCOUNT_DISABLED, ""), False),
    ],
)
async def test_what_becomes_of_an_account_while_its_second_factor_takes_its_time_counts(
    then: Account | Refused, let_in: bool
) -> None:
    """A push to a telephone takes half a minute, in which the account may be looked at again for another session."""
    directory, pushed, accepted = Renaming(), asyncio.Event(), asyncio.Event()
    logins = UserLogins({"corp": directory})

    def prove(directory: Renaming, username: str, password: Secret) -> Proven:
        asker = Asker("cvpn-endpoint-0123456789abcdef0", "corp", "", RevokedLogins().begin("", 0.0))
        return Proven(asker, username, directory.log_in(username, password), Secret(b"123456"))

    async def judge(proven: Proven) -> Account:
        pushed.set()
        await accepted.wait()
        return proven.account

    factor = SecondFactor(prove, judge)
    login = asyncio.create_task(
        logins.log_in("corp", "ANNA", Secret(b"x"), source="192.0.2.1", within_s=5, second_factor=factor)
    )
    await pushed.wait()
    directory.answer = then
    await logins.look_again("corp", "anna")
    accepted.set()
    answer = await login
    assert answer == then if let_in else isinstance(answer, Refused)
    known = logins.look_up("corp", "anna")
    assert known == then if isinstance(then, Account) else isinstance(known, Refused)
    logins.close()


async def test_each_way_to_write_a_name_is_a_guess_at_the_same_account(logins):
    names = itertools.cycle(["anna", "ANNA", "CORP\\anna", "\u00e1nn\u00e5@example.org", "\uff41nna"])
    await asyncio.gather(*(log_in(logins, next(names), "wrong") for _ in range(FREE_FAILURES + 1)))
    assert (await log_in(logins, "Anna", "wrong")).refusal is Refusal.LOGIN_THROTTLED


class Unreadable(LocalUsers):
    """The account is there and the password right, but whether it may log in cannot be read."""

    def log_in(self, username, password):
        return Refused(Refusal.ACCOUNT_UNCHECKED, "userAccountControl cannot be read")


async def test_a_right_password_of_an_account_whose_state_cannot_be_read_is_no_guess():
    logins = UserLogins({"local": Unreadable()})
    begun = time.monotonic()
    answers = await asyncio.gather(*(log_in(logins, "anna", "right") for _ in range(FREE_FAILURES + 2)))
    assert {answer.refusal for answer in answers} == {Refusal.ACCOUNT_UNCHECKED}
    assert time.monotonic() - begun >= FAILURE_TAKES_S, "it is answered like any other all the same"
    logins.close()


async def test_one_name_in_two_directories_is_two_accounts_for_whoever_guesses(users):
    """Else whoever owns the name in one of them could forget the wrong guesses at the other's, again and again."""
    others = LocalUsers()
    others.replace([LocalUser("anna", hash_password("of hers"))])
    logins = UserLogins({"local": users, "guests": others})

    async def at_guests(password):
        return await logins.log_in("guests", "anna", Secret.of_text(password), source="192.0.2.1", within_s=5.0)

    for _ in range(2):
        await asyncio.gather(*(log_in(logins, "anna", "guess") for _ in range(FREE_FAILURES)))
        assert isinstance(await at_guests("of hers"), Account)
    assert (await log_in(logins, "anna", "right")).refusal is Refusal.LOGIN_THROTTLED
    assert (await at_guests("guess")).refusal is Refusal.WRONG_PASSWORD
    logins.close()


async def test_another_directory_under_the_same_name_knows_nobody_and_a_login_at_the_one_before_begins_anew(users):
    before = Renaming()
    logins = UserLogins({"corp": before})
    assert isinstance(await logins.log_in("corp", "anna", Secret(b"x"), source="192.0.2.1", within_s=5), Account)
    same = Renaming()
    logins.replace({"corp": same})
    assert isinstance(logins.look_up("corp", "anna"), Account)
    hanging = Hanging()
    logins.replace({"corp": hanging}, {"corp"})
    assert isinstance(logins.look_up("corp", "anna"), Refused)
    under_way = [
        asyncio.create_task(logins.log_in("corp", "anna", Secret(b"x"), source="192.0.2.1", within_s=5)),
        asyncio.create_task(logins.recall("corp", "bob", source="192.0.2.1", within_s=5)),
        asyncio.create_task(logins.look_again("corp", "cara")),
    ]
    while hanging.asked < len(under_way):  # noqa: ASYNC110 - threads set no event here
        await asyncio.sleep(0.01)
    logins.replace({"corp": same}, {"corp"})
    hanging.go_on.set()
    assert [answer.refusal for answer in await asyncio.gather(*under_way)] == 3 * [Refusal.SHUTTING_DOWN]
    assert isinstance(logins.look_up("corp", "anna"), Refused)
    logins.close()


async def test_a_name_with_its_realm_may_be_longer_than_a_name():
    logins = UserLogins({"corp": Renaming()})
    for typed, known in ((f"anna@{'x' * 200}", True), (f"anna@{'x' * 300}", False)):
        answer = await logins.log_in("corp", typed, Secret(b"right"), source="192.0.2.1", within_s=5)
        assert isinstance(answer, Account) is known
        assert isinstance(logins.look_up("corp", typed), Account) is known
    logins.close()


async def test_endless_names_are_guesses_too_and_take_no_more_memory_than_others(logins):
    await asyncio.gather(*(log_in(logins, f"{'n' * 1000}{n}", "wrong") for n in range(FREE_FAILURES + 1)))
    assert (await log_in(logins, "n" * 1000, "wrong")).refusal is Refusal.LOGIN_THROTTLED


async def test_one_source_does_not_take_the_places_of_all(users):
    hanging = Hanging()
    logins = UserLogins({"slow": hanging})
    try:
        ask = [
            asyncio.create_task(logins.log_in("slow", f"u{n}", Secret(b"x"), source="192.0.2.1", within_s=0.5))
            for n in range(MOST_PENDING_OF_SOURCE + 10)
        ]
        await asyncio.sleep(0)
        other = asyncio.create_task(logins.log_in("slow", "anna", Secret(b"x"), source="192.0.2.2", within_s=0.5))
        reasons = [answer.refusal for answer in await asyncio.gather(*ask)]
        assert reasons.count(Refusal.TOO_MANY_LOGINS) == 10
        assert (await other).refusal is Refusal.DIRECTORY_TIMEOUT, "it has waited like the others"
    finally:
        hanging.go_on.set()
        logins.close()


@pytest.mark.parametrize(("took", "left"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (1.25, 0.75), (7.5, 0.5)])
def test_a_failure_that_took_long_is_answered_at_a_whole_second_too(took, left):
    assert FAILURE_TAKES_S == 1.0 and left_of_failure(took) == pytest.approx(left)


async def test_attempts_that_come_all_at_once_are_throttled_like_those_that_come_one_by_one(logins):
    answers = await asyncio.gather(*(log_in(logins, "anna", "wrong") for _ in range(MOST_PENDING_OF_PAIR)))
    reasons = [answer.refusal for answer in answers]
    assert reasons.count(Refusal.WRONG_PASSWORD) == FREE_FAILURES + 1
    assert reasons.count(Refusal.LOGIN_THROTTLED) == len(reasons) - FREE_FAILURES - 1
    assert (await log_in(logins, "anna", "right")).refusal is Refusal.LOGIN_THROTTLED
    assert isinstance(await log_in(logins, "anna", "right", source="198.51.100.7"), Account), "from elsewhere"


def test_five_thousand_wrong_passwords_from_one_source_slow_only_that_source():
    throttle, now, looked_at = LoginThrottle(), 0.0, 0
    throttle.succeeded("office", "bob")
    for _ in range(5000):
        now += 0.1
        if throttle.wait_s("office", "anna", now) == 0:
            throttle.failed("office", "anna", now)
            looked_at += 1
    assert looked_at < 20
    assert 0 < throttle.wait_s("office", "anna", now) <= MAX_DELAY_S
    assert throttle.wait_s("home", "anna", now) == 0
    assert throttle.wait_s("office", "bob", now) == 0
    assert throttle.wait_s("office", "anna", now + MAX_DELAY_S) == 0, "never for good"


def test_a_source_that_tries_many_accounts_is_slowed_except_for_who_logged_in_from_there():
    throttle = LoginThrottle()
    throttle.succeeded("office", "bob")
    for number in range(FREE_FAILURES_OF_SOURCE + 6):
        throttle.failed("office", f"guess{number}", 1.0)
    assert throttle.wait_s("office", "carol", 1.0) > 10
    assert throttle.wait_s("office", "bob", 1.0) == 0
    assert throttle.wait_s("home", "carol", 1.0) == 0


def test_failures_are_forgotten_with_time_and_by_success():
    throttle = LoginThrottle()
    for _ in range(FREE_FAILURES + 3):
        throttle.failed("home", "anna", 1.0)
    assert throttle.wait_s("home", "anna", 1.0) == 8
    later = 2.0 + FORGOTTEN_AFTER_S
    throttle.failed("home", "anna", later)
    assert throttle.wait_s("home", "anna", later) == 0
    for _ in range(FREE_FAILURES + 3):
        throttle.failed("home", "anna", later)
    throttle.succeeded("home", "anna")
    throttle.failed("home", "anna", later)
    assert throttle.wait_s("home", "anna", later) == 0
