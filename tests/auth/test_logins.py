"""Logins against directories: what they cost, how long they take, and whom a guesser holds up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.local_users import LocalUser, LocalUsers
from cvpnd.auth.logins import FAILURE_TAKES_S, MOST_PENDING, MOST_PENDING_OF_PAIR, UserLogins
from cvpnd.auth.passwords import MAX_PASSWORD_BYTES, hash_password, verify_password
from cvpnd.auth.throttle import FORGOTTEN_AFTER_S, FREE_FAILURES, FREE_FAILURES_OF_SOURCE, MAX_DELAY_S, LoginThrottle
from cvpnd.reasons import Refusal

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
    return await logins.log_in("local", name, password, source=source, within_s=within_s)


async def test_the_right_password_brings_the_account_with_its_groups(logins):
    answer = await log_in(logins, "anna", "right")
    assert isinstance(answer, Account)
    assert (answer.name, answer.groups) == ("anna", {"eng"})


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
        def log_in(self, username, password):
            raise AssertionError("asked")

        look_up = log_in

    answer = await log_in(UserLogins({"local": Never()}), name, password)
    assert isinstance(answer, Refused) and answer.refusal is reason


def test_a_hash_of_nobody_is_never_right():
    assert not verify_password(None, b"")
    assert not verify_password(None, b"right")
    assert verify_password(HASH, b"right")


class Hanging:
    """Answers once it is told to."""

    def __init__(self):
        self.go_on = threading.Event()
        self.asked = 0

    def log_in(self, username, password):
        self.asked += 1
        self.go_on.wait(30)
        return Account(username, frozenset())

    def look_up(self, username):
        return Account(username, frozenset())


async def test_a_hung_directory_holds_up_neither_the_loop_nor_another_directory_and_is_not_piled_upon(users):
    hanging = Hanging()
    logins = UserLogins({"slow": hanging, "local": users})
    try:
        waiting = [
            asyncio.create_task(logins.log_in("slow", f"u{n}", "x", source="192.0.2.1", within_s=0.5))
            for n in range(MOST_PENDING + 10)
        ]
        await asyncio.sleep(0)
        assert isinstance(await log_in(logins, "anna", "right"), Account)
        reasons = [answer.refusal for answer in await asyncio.gather(*waiting)]
        assert reasons.count(Refusal.TOO_MANY_LOGINS) == 10
        assert reasons.count(Refusal.DIRECTORY_TIMEOUT) == MOST_PENDING
        assert hanging.asked <= 4
        late = await logins.log_in("slow", "late", "x", source="192.0.2.1", within_s=0.5)
        assert late.refusal is Refusal.TOO_MANY_LOGINS, "its threads are still held"
        hanging.go_on.set()
        deadline = time.monotonic() + 10
        while logins.pending()["slow"] and time.monotonic() < deadline:  # noqa: ASYNC110 - threads set no event here
            await asyncio.sleep(0.01)
        answer = await logins.log_in("slow", "later", "x", source="192.0.2.1", within_s=5)
        assert answer == Account("later", frozenset())
    finally:
        hanging.go_on.set()
        logins.close()


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
