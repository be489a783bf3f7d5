"""Logins that somebody has ended: tokens of before, and what is under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cvpnd.auth.revoked_logins import LONGEST_LOGIN_S, RevokedLogins
from cvpnd.auth.tokens import Token

STAFF, GUESTS = "cvpn-endpoint-0123456789abcdef0", "cvpn-endpoint-0123456789abcdef1"


def stored(marks: Mapping[str, bytes], at: float = 0.0) -> dict[str, tuple[bytes, float]]:
    """As the store has them."""
    return {subject: (mark, at) for subject, mark in marks.items()}


def reads_the_store() -> RevokedLogins:
    """As a process has them that has begun on an empty one."""
    revoked = RevokedLogins()
    revoked.replace({}, 0.0)
    return revoked


def test_a_revoked_login_ends_alone_and_a_revoked_user_with_all_logins_of_before():
    """Of before, not of an earlier time: the same second, another day, a clock that was put back are all the same."""
    revoked = RevokedLogins()
    token = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    other = replace(token, login_id=bytes(12))
    assert not revoked.covers(token, STAFF, "corp", "anna")
    revoked.add(RevokedLogins.new_marks({RevokedLogins.of_login(token)}), 1.0)
    assert revoked.covers(token, STAFF, "corp", "anna") and not revoked.covers(other, STAFF, "corp", "anna")
    before = [other]
    user, at_staff = RevokedLogins.of_user("anna"), RevokedLogins.of_user_at(STAFF, "anna")
    for subject in (user, RevokedLogins.of_account("corp", "anna"), at_staff, user):
        revoked.add(RevokedLogins.new_marks({subject}), 1.0)
        assert all(revoked.covers(each, STAFF, "corp", "anna") for each in before)
        assert not revoked.covers(other, STAFF, "corp", "bob")
        later = replace(other, mark=revoked.mark(STAFF, "corp", "anna"))
        assert not revoked.covers(later, STAFF, "corp", "anna")
        before.append(later)
    elsewhere = RevokedLogins()
    marks = RevokedLogins.new_marks({RevokedLogins.of_account("corp", "anna"), RevokedLogins.of_user_at(STAFF, "bob")})
    elsewhere.add(marks, 1.0)
    assert elsewhere.covers(other, STAFF, "corp", "anna") and not elsewhere.covers(other, STAFF, "guests", "anna")
    assert elsewhere.covers(other, STAFF, "corp", "bob") and not elsewhere.covers(other, GUESTS, "corp", "bob")


@pytest.mark.parametrize(
    ("subject", "ended"),
    [
        (RevokedLogins.of_user("anna"), True),
        (RevokedLogins.of_user("laptop"), True),
        (RevokedLogins.of_user_at(STAFF, "anna"), True),
        (RevokedLogins.of_user_at(STAFF, "laptop"), True),
        (RevokedLogins.of_account("corp", "anna"), True),
        (RevokedLogins.of_account("corp", "laptop"), False),
        (RevokedLogins.of_account("local", "anna"), False),
        (RevokedLogins.of_user_at(GUESTS, "anna"), False),
        (RevokedLogins.of_user("bob"), False),
        (RevokedLogins.of_user(""), False),
    ],
)
def test_a_login_that_is_under_way_ends_with_those_of_its_user_and_a_later_one_does_not(subject: str, ended: bool):
    revoked = RevokedLogins()
    before = revoked.begin(STAFF, 9.0)
    revoked.add(RevokedLogins.new_marks({subject}), 10.0)
    assert before.is_ended("corp", "anna", "laptop") is ended
    assert revoked.begin(STAFF, 10.0).is_ended("corp", "anna", "laptop") is ended, "no clock tells which was first"
    assert not revoked.begin(STAFF, 10.1).is_ended("corp", "anna", "laptop")


def test_what_another_gateway_has_ended_ends_logins_here_and_what_is_known_ends_none_again():
    revoked = reads_the_store()
    marks = RevokedLogins.new_marks({RevokedLogins.of_user("anna")})
    before = revoked.begin(STAFF, 1.0)
    revoked.replace(stored(marks), 2.0)
    later = revoked.begin(STAFF, 3.0)
    revoked.replace(stored(marks), 4.0)
    assert before.is_ended("corp", "anna") and not later.is_ended("corp", "anna")
    revoked.replace({}, 5.0)  # read before it was written; whoever has written it adds it again
    assert before.is_ended("corp", "anna")
    revoked.add(marks, 6.0)
    assert later.is_ended("corp", "anna")


def test_what_was_ended_before_a_start_counts_from_when_it_was_ended():
    """A login in a browser outlives the process that began it: it was refused if anybody had ever ended its user."""
    revoked, marks = RevokedLogins(), RevokedLogins.new_marks({RevokedLogins.of_user("anna")})
    of_before = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    later = RevokedLogins.new_marks({RevokedLogins.of_user("bob")})
    revoked.replace(stored(later, at=99.0) | stored(marks, at=50.0), 60.0)
    assert revoked.covers(of_before, STAFF, "corp", "anna")
    assert revoked.begin(STAFF, 50.0).is_ended("corp", "anna")
    assert not revoked.begin(STAFF, 51.0).is_ended("corp", "anna")
    assert revoked.begin(STAFF, 60.0).is_ended("corp", "bob") and not revoked.begin(STAFF, 61.0).is_ended("corp", "bob")
    again = RevokedLogins.new_marks({RevokedLogins.of_user("anna")})
    revoked.replace(stored(later, at=99.0) | stored(again, at=52.0), 70.0)
    assert revoked.begin(STAFF, 70.0).is_ended("corp", "anna"), "since then it counts from when it was heard of"


def test_what_ended_long_ago_takes_no_memory_and_ends_tokens_all_the_same():
    revoked = RevokedLogins()
    of_before = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    login = revoked.begin(STAFF, 1.0)
    revoked.add(RevokedLogins.new_marks({RevokedLogins.of_user("anna")}), 2.0)
    revoked.add(RevokedLogins.new_marks({RevokedLogins.of_user("bob")}), 3.0)
    revoked.add(RevokedLogins.new_marks({RevokedLogins.of_user("anna")}), 2.0 + LONGEST_LOGIN_S)
    assert login.is_ended("corp", "anna") and login.is_ended("corp", "bob")
    revoked.add(RevokedLogins.new_marks({RevokedLogins.of_user("carol")}), 4.0 + LONGEST_LOGIN_S)
    assert login.is_ended("corp", "anna"), "ended again since"
    assert not login.is_ended("corp", "bob")
    assert revoked.covers(of_before, STAFF, "corp", "bob")


def test_what_the_store_does_not_have_yet_holds_whatever_is_read_there():
    """A change that was under way reads the store again before an end that waits for its turn is written."""
    revoked = reads_the_store()
    token = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    marks = RevokedLogins.new_marks({RevokedLogins.of_user("anna")})
    revoked.add(marks, 1.0)
    revoked.hold(marks)
    revoked.replace({}, 2.0)
    assert revoked.covers(token, STAFF, "corp", "anna")
    revoked.release(marks)
    revoked.replace(stored(marks), 3.0)
    assert revoked.covers(token, STAFF, "corp", "anna")
    revoked.replace({}, 4.0)
    assert not revoked.covers(token, STAFF, "corp", "anna"), "the store knows better from then on"


def test_what_two_gateways_have_ended_before_they_heard_of_each_other_ends_tokens_of_both():
    """Whichever mark the store has last: what was written with either was written before the other's end."""
    revoked, user = reads_the_store(), RevokedLogins.of_user("anna")
    here, there = RevokedLogins.new_marks({user}), RevokedLogins.new_marks({user})
    revoked.add(here, 1.0)
    revoked.hold(here)
    between = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    at_the_other = RevokedLogins()
    at_the_other.add(there, 1.0)
    of_there = Token.new(1_700_000_000, 60, mark=at_the_other.mark(STAFF, "corp", "anna"))
    assert revoked.replace(stored(there), 2.0) == {user}
    held = revoked.unwritten({user, RevokedLogins.of_user("bob")})
    assert held.keys() == {user} and held[user] not in (here[user], there[user])
    assert revoked.covers(between, STAFF, "corp", "anna") and revoked.covers(of_there, STAFF, "corp", "anna")
    later = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    assert revoked.replace(stored(there), 3.0) == set()
    revoked.release(held)
    assert revoked.replace(stored(held), 4.0) == set(), "its own"
    assert not revoked.covers(later, STAFF, "corp", "anna")


def test_what_was_written_although_nobody_said_so_is_no_news():
    """As a database may, whose answer to the end of a transaction is lost."""
    revoked, marks = reads_the_store(), RevokedLogins.new_marks({RevokedLogins.of_user("anna")})
    revoked.add(marks, 1.0)
    revoked.hold(marks)
    token = Token.new(1_700_000_000, 60, mark=revoked.mark(STAFF, "corp", "anna"))
    assert revoked.replace(stored(marks), 2.0) == set() and revoked.unwritten(marks) == marks
    assert not revoked.covers(token, STAFF, "corp", "anna")
