"""Codes on top of passwords: the real store, real local users, and a clock that is a number."""

from __future__ import annotations

import base64
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from cvpnd.auth.challenge import KEPT_OF_ACCOUNT, QUESTION_LIFETIME_S, Asker, Challenged, split_dynamic, split_static
from cvpnd.auth.identity import Refused
from cvpnd.auth.local_users import LocalUser, LocalUsers
from cvpnd.auth.passwords import hash_password
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.throttle import FREE_FAILURES, MAX_DELAY_S
from cvpnd.auth.totp import (
    STEP_S,
    Totp,
    _totp,
    new_recovery_codes,
    provisioning_uri,
    recovery_digest,
)
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.store import Store, StoredAuthenticator

SECRET = b"12345678901234567890"  # of RFC 6238's appendix B
LOGIN = RevokedLogins().begin("cvpn-endpoint-0123456789abcdef0", 0.0)
HERE = Asker(LOGIN.endpoint_id, "local", "", LOGIN)
CODES = new_recovery_codes()
NOW = 1_700_000_010.0
HASH = hash_password("right")


class Desk:
    def __init__(self, store: Store) -> None:
        self.now = NOW
        self.users = LocalUsers()
        self.users.replace([LocalUser(name, HASH) for name in ("anna", "bob", "carol")])
        self.totp = Totp(store, lambda: self.now, lambda: self.now)

    def log_in(self, password: str, name: str = "anna", asker: Asker = HERE) -> Refusal | str:
        """The account's name if it is let in."""
        answer = self.totp.log_in(asker, self.users, name, Secret.of_text(password))
        assert not isinstance(answer, Challenged), "use ask"
        return answer.refusal if isinstance(answer, Refused) else answer.name

    def ask(self, name: str = "anna", asker: Asker = HERE) -> str:
        """The state of the question that a right password brings."""
        answer = self.totp.log_in(asker, self.users, name, Secret(b"right"))
        assert isinstance(answer, Challenged) and answer.refusal is Refusal.MFA_REQUIRED
        kind, flags, state, user, text = answer.text.split(":", 4)
        assert (kind, flags, base64.b64decode(user).decode(), text) == ("CRV1", "R,E", name, "Enter MFA code ")
        return state


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'state.db'}")
    digests = tuple(recovery_digest(SECRET, Secret.of_text(each)) for each in CODES)
    for name in ("anna", "bob"):
        opened.enrol(StoredAuthenticator("local", name, SECRET, 0, digests, NOW))
    yield opened
    opened.close()


@pytest.fixture
def desk(store):
    return Desk(store)


def code(at: float = NOW) -> str:
    return _totp(SECRET).generate(int(at)).decode()


def static(password: str, answer: str) -> str:
    return "SCRV1:" + ":".join(base64.b64encode(each.encode()).decode() for each in (password, answer))


def test_codes_are_those_of_the_rfc():
    assert [code(at) for at in (59, 1_111_111_109, 1_234_567_890)] == ["287082", "081804", "005924"]
    uri = urlsplit(provisioning_uri(SECRET, "anna", "Lab VPN"))
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/Lab%20VPN:anna")
    assert base64.b32decode(parse_qs(uri.query)["secret"][0]) == SECRET


def test_a_right_code_lets_in_once_and_so_does_none_before_it(desk, store):
    assert desk.log_in(static("right", code())) == "anna"
    assert desk.log_in(static("right", code())) is Refusal.MFA_CODE_REUSED
    assert desk.log_in(static("right", code(NOW - STEP_S))) is Refusal.MFA_CODE_REUSED
    desk.totp = Totp(store, lambda: desk.now, lambda: desk.now)  # as after a restart, or on another gateway
    assert desk.log_in(static("right", code())) is Refusal.MFA_CODE_REUSED
    assert desk.log_in(static("right", code(NOW + STEP_S))) == "anna"
    assert desk.log_in(static("right", code()), "bob") == "bob"


def test_a_code_counts_one_step_before_and_after_its_own(desk):
    outcomes = []
    for name, steps in (("anna", -2), ("anna", 2), ("anna", -1), ("bob", 1)):
        outcomes.append(desk.log_in(static("right", code(NOW + steps * STEP_S)), name))
    assert outcomes == [Refusal.MFA_CODE_WRONG, Refusal.MFA_CODE_WRONG, "anna", "bob"]
    first = NOW - NOW % STEP_S
    for now, good in ((first + 2 * STEP_S - 0.01, True), (first + 2 * STEP_S, False)):
        desk.now = now + 10 * STEP_S
        wanted = "anna" if good else Refusal.MFA_CODE_WRONG
        assert desk.log_in(static("right", code(first + 10 * STEP_S))) == wanted


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("anna", static("wrong", "000000"), Refusal.WRONG_PASSWORD),
        ("nobody", static("right", "000000"), Refusal.USER_UNKNOWN),
        ("anna", static("", "000000"), Refusal.CREDENTIALS_MISSING),
        ("anna", "SCRV1:", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", "SCRV1:cmlnaHQ=", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", "SCRV1:cmlnaHQ=:MTIzNDU2:MTIzNDU2", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", "SCRV1:cmlnaHQ:MTIzNDU2", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", "CRV1::", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", f"CRV1::::{code()}", Refusal.CHALLENGE_UNEXPECTED),
        ("anna", static("right", "12345٣"), Refusal.MFA_CODE_WRONG),
        ("anna", static("right", "1234567"), Refusal.MFA_CODE_WRONG),
        ("anna", static("right", " "), Refusal.MFA_CODE_WRONG),
        ("anna", static("right", "-"), Refusal.MFA_CODE_WRONG),
        ("carol", static("right", "123456"), Refusal.MFA_NOT_ENROLLED),
        ("carol", "right", Refusal.MFA_NOT_ENROLLED),
    ],
)
def test_whatever_is_wrong_has_its_reason(desk, name, password, reason):
    assert desk.log_in(password, name) is reason


def test_a_code_may_be_typed_in_groups(desk):
    assert desk.log_in(static("right", f" {code()[:3]} {code()[3:]}")) == "anna"


def test_a_recovery_code_lets_in_once(desk, store):
    typed = CODES[3].upper().replace("-", " ")
    assert desk.log_in(static("right", typed)) == "anna"
    assert desk.log_in(static("right", typed)) is Refusal.MFA_CODE_WRONG
    assert [e.recovery_codes for e in store.enrolled_users()] == [len(CODES) - 1, len(CODES)]
    assert desk.log_in(f"CRV1::{desk.ask()}::{CODES[4]}") == "anna"


def test_who_has_a_name_has_not_the_authenticator_of_who_had_it_before(desk, store):
    digests = tuple(recovery_digest(SECRET, Secret.of_text(each)) for each in CODES)
    assert store.enrol(StoredAuthenticator("local", "anna", SECRET, 0, digests, NOW, b"the first"))
    desk.users.replace([LocalUser("anna", HASH, person=b"the second"), LocalUser("bob", HASH, person=b"whoever")])
    for sent in ("right", static("right", code()), static("right", CODES[0])):
        assert desk.log_in(sent) is Refusal.MFA_NOT_ENROLLED
    desk.users.replace([LocalUser("anna", HASH, person=b"the first"), LocalUser("bob", HASH, person=b"whoever")])
    assert desk.log_in(static("right", code())) == "anna"
    assert desk.log_in(static("right", CODES[0])) == "anna"
    assert desk.log_in(static("right", code()), "bob") == "bob", "who enrolled when nobody was told apart"


@pytest.mark.parametrize("kind", ["code", "recovery code"])
def test_of_logins_that_race_with_one_code_one_is_let_in(desk, store, monkeypatch, kind):
    """All of them have read that it is unused before any takes it."""
    at_once, read = threading.Barrier(4), store.authenticator

    def read_together(*whose):
        enrolled = read(*whose)
        at_once.wait(20)
        return enrolled

    monkeypatch.setattr(store, "authenticator", read_together)
    typed, reason = (code(), Refusal.MFA_CODE_REUSED) if kind == "code" else (CODES[5], Refusal.MFA_CODE_WRONG)
    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(desk.log_in, [static("right", typed)] * 4))
    assert sorted(outcomes) == sorted(["anna", *[reason] * 3])


def test_the_answer_to_a_question_is_taken_once_from_whom_it_was_put_to_while_it_is_fresh(desk):
    elsewhere = Asker("cvpn-endpoint-0123456789abcdef1", "local", "", LOGIN)
    certified = Asker(HERE.endpoint_id, "local", "00", LOGIN)
    for name, asker in (("bob", HERE), ("anna", elsewhere), ("anna", certified)):
        state = desk.ask()
        assert desk.log_in(f"CRV1::{state}::{code()}", name, asker) is Refusal.CHALLENGE_UNEXPECTED
        assert desk.log_in(f"CRV1::{state}::{code()}") is Refusal.CHALLENGE_UNEXPECTED, "shown to somebody else"
    state = desk.ask()
    assert desk.log_in(f"CRV1::{state}::000000") is Refusal.MFA_CODE_WRONG
    assert desk.log_in(f"CRV1::{state}::{code()}") is Refusal.CHALLENGE_UNEXPECTED
    late = desk.ask()
    desk.now += QUESTION_LIFETIME_S + 1
    assert desk.log_in(f"CRV1::{late}::{code(desk.now)}") is Refusal.CHALLENGE_UNEXPECTED
    assert desk.log_in(f"CRV1::{desk.ask()}::{code(desk.now)}") == "anna"


def test_a_question_is_over_with_the_logins_of_its_user(desk):
    """Their password was right before that, and a code alone lets nobody in."""
    revoked = RevokedLogins()
    asked = Asker(HERE.endpoint_id, "local", "", revoked.begin(HERE.endpoint_id, 1.0))
    states = [desk.ask(asker=asked) for _ in range(2)]
    bobs = desk.ask("bob", asked)
    revoked.add(RevokedLogins.new_marks({RevokedLogins.of_user("anna")}), 2.0)
    answers = Asker(HERE.endpoint_id, "local", "", revoked.begin(HERE.endpoint_id, 3.0))
    for state in states:
        assert desk.log_in(f"CRV1::{state}::{code()}", asker=answers) is Refusal.TERMINATED
    assert desk.log_in(f"CRV1::{bobs}::{code()}", "bob", answers) == "bob"
    assert desk.log_in(f"CRV1::{desk.ask(asker=answers)}::{code()}", asker=answers) == "anna"


def test_an_account_that_changes_while_a_code_is_asked_is_not_let_in_as_it_was(desk):
    states = [desk.ask() for _ in range(3)]
    desk.users.replace([LocalUser("anna", HASH, disabled=True)])
    assert desk.log_in(f"CRV1::{states[0]}::{code()}") is Refusal.ACCOUNT_DISABLED
    desk.users.replace([LocalUser("anna", hash_password("another"))])
    assert desk.log_in(f"CRV1::{states[1]}::{code()}") is Refusal.WRONG_PASSWORD
    desk.users.replace([])
    assert desk.log_in(f"CRV1::{states[2]}::{code()}") is Refusal.USER_UNKNOWN


def test_of_one_account_few_questions_are_open_and_of_another_as_many(desk):
    bobs = desk.ask("bob")
    states = [desk.ask() for _ in range(KEPT_OF_ACCOUNT + 1)]
    assert desk.log_in(f"CRV1::{states[0]}::{code()}") is Refusal.CHALLENGE_UNEXPECTED
    assert desk.log_in(f"CRV1::{states[1]}::{code()}") == "anna"
    assert desk.log_in(f"CRV1::{bobs}::{code()}", "bob") == "bob"


def test_who_guesses_codes_with_the_right_password_is_slowed_and_the_owner_has_recovery_codes(desk):
    wrong = (f"{n:06}" for n in itertools.count() if f"{n:06}" not in {code(NOW + d * STEP_S) for d in range(-2, 30)})
    for _ in range(FREE_FAILURES + 1):
        assert desk.log_in(static("right", next(wrong))) is Refusal.MFA_CODE_WRONG
    assert desk.log_in(static("right", code())) is Refusal.MFA_THROTTLED
    assert desk.log_in(static("wrong", code())) is Refusal.WRONG_PASSWORD
    assert desk.log_in(static("right", CODES[0])) == "anna"
    assert desk.log_in(static("right", code()), "bob") == "bob"
    desk.now += MAX_DELAY_S
    assert desk.log_in(static("right", code(desk.now))) == "anna"


def test_the_database_alone_has_neither_secret_nor_recovery_codes(store, tmp_path):
    store.close()
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("state.db"))
    assert SECRET not in files and base64.b32encode(SECRET) not in files
    assert not any(each.encode() in files for each in CODES)
    (tmp_path / "state.key").unlink()
    again = Store.open(f"sqlite:///{tmp_path / 'state.db'}")
    with pytest.raises(Exception, match=r"state\.key is gone"):
        Desk(again).log_in(static("right", code()))
    again.close()


def test_answers_are_taken_apart_whatever_they_are():
    assert split_static(Secret.of_text(static("a:b", "1:2"))) == (Secret(b"a:b"), Secret(b"1:2"))
    assert split_static(Secret(b"SCRV1:/w==:")) == (Secret(b"\xff"), Secret())
    assert split_dynamic(Secret(b"CRV1::state::a::b:")) == ("state", Secret(b"a::b:"))
    for text in ("", "SCRV1", "SCRV1::::", "SCRV1:=:=", "SCRV1:é:é", "right", "SCRV1:YQ:YQ==", "SCRV1:YQ==:Y Q="):
        assert split_static(Secret.of_text(text)) is None
    assert split_dynamic(Secret(b"CRV1::state")) is None and split_dynamic(Secret(b"CRV1:R:x::y")) is None
