"""Passwords kept for who shows the token of their login: nobody else opens them, and they go with the login."""

from __future__ import annotations

import base64
import binascii
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.auth.kept_passwords import KeptPasswords
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.tokens import Token, TokenOwner
from cvpnd.secret import Secret
from cvpnd.store import Store
from cvpnd.store.kept_passwords import MOST_OF_ACCOUNT

OWNER = TokenOwner("cvpn-endpoint-0123456789abcdef0", "corp totp", "EXAMPLE\\anna", "ab", b"")
PASSWORD = Secret(b"the canary")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/state.db")
    yield opened
    opened.close()


@pytest.fixture
def kept(store: Store) -> KeptPasswords:
    return KeptPasswords(store, bytes(32))


def login(kept: KeptPasswords, username: str = "anna", directory: str = "corp", at: float = 0) -> Token:
    token = Token.new(time.time() + at, 60, with_secret=True)
    kept.keep(token, OWNER, directory, username, PASSWORD)
    return token


@pytest.mark.parametrize("password", ["", "x", "the canary", "\udcff\udcfe", "p" * 1024])
def test_what_was_kept_comes_back_for_the_token_that_it_was_kept_for(kept: KeptPasswords, password: str) -> None:
    token = Token.new(time.time(), 60, with_secret=True)
    kept.keep(token, OWNER, "corp", "anna", Secret.of_text(password))
    assert kept.open(token, OWNER) == Secret.of_text(password)


def test_it_opens_for_nobody_else(kept: KeptPasswords, store: Store) -> None:
    token, other = login(kept), login(kept)
    for wrong in (
        replace(token, secret=other.secret), replace(other, secret=token.secret), replace(token, secret=b""),
        replace(token, secret=bytes([token.secret[0] ^ 1]) + token.secret[1:]), Token.new(time.time(), 60),
    ):  # fmt: skip
        assert kept.open(wrong, OWNER) is None
    for owner in (
        replace(OWNER, endpoint_id="another"), replace(OWNER, directory="corp"), replace(OWNER, username="anna"),
        replace(OWNER, certificate_fingerprint=""),
    ):  # fmt: skip
        assert kept.open(token, owner) is None
    assert KeptPasswords(store, bytes(31) + b"x").open(token, OWNER) is None
    assert kept.open(token, OWNER) == PASSWORD


def test_every_changed_bit_of_it_opens_nothing(kept: KeptPasswords, store: Store) -> None:
    token, now = login(kept), time.time()
    sealed = store.kept_password(token.login_id.hex(), now)
    assert sealed is not None
    store.forget_password(token.login_id.hex())
    for at in (0, 12, 13, len(sealed) - 17, len(sealed) - 1):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        store.keep_password(token.login_id.hex(), "corp", "anna", changed, now, now + 60, now)
        assert kept.open(token, OWNER) is None
        store.forget_password(token.login_id.hex())
    for short in (b"", sealed[:12], sealed[:28]):
        store.keep_password(token.login_id.hex(), "corp", "anna", short, now, now + 60, now)
        assert kept.open(token, OWNER) is None
        store.forget_password(token.login_id.hex())


def test_neither_the_password_nor_its_length_nor_what_opens_it_is_on_the_disk(
    kept: KeptPasswords, store: Store, tmp_path: Path
) -> None:
    token = login(kept)
    disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token.login_id.hex().encode() in disk
    assert bytes(PASSWORD) not in disk and token.secret not in disk and token.secret.hex().encode() not in disk
    short, long = (Token.new(time.time(), 60, with_secret=True) for _ in range(2))
    kept.keep(short, OWNER, "corp", "anna", Secret(b"x"))
    kept.keep(long, OWNER, "corp", "anna", Secret(b"x" * 62))
    lengths = {len(store.kept_password(each.login_id.hex(), 0) or b"") for each in (short, long)}
    assert lengths == {12 + 64 + 16}


def test_a_no_of_the_directory_takes_those_of_the_account_too_that_are_no_younger(kept: KeptPasswords) -> None:
    old, refused, younger = login(kept, at=-2), login(kept), login(kept, at=2)
    others, elsewhere = login(kept, "bob", at=-2), login(kept, directory="labs", at=-2)
    kept.forget(refused)
    assert [kept.open(each, OWNER) for each in (old, refused)] == [None, None]
    assert [kept.open(each, OWNER) for each in (younger, others, elsewhere)] == 3 * [PASSWORD]
    kept.forget(refused)


def test_of_one_account_the_newest_are_kept(kept: KeptPasswords) -> None:
    """Whoever has a password may log in as often as they like."""
    bobs, many = login(kept, "bob", at=-9), [login(kept, at=number / 10 - 8) for number in range(MOST_OF_ACCOUNT + 8)]
    elsewhere = login(kept, directory="labs", at=-9)
    opened = [kept.open(each, OWNER) for each in many]
    assert opened.count(PASSWORD) == MOST_OF_ACCOUNT and opened[-1] == PASSWORD
    assert sum(each is None for each in opened[:8]) >= 8 - 10 / 2, "the oldest go, to the second"
    assert kept.open(bobs, OWNER) == kept.open(elsewhere, OWNER) == PASSWORD


def test_it_goes_with_the_login(kept: KeptPasswords, store: Store) -> None:
    one, other, bobs, gone = login(kept), login(kept), login(kept, "bob"), login(kept, "bob", at=-61)
    now = time.time()
    assert kept.open(gone, OWNER) is None
    store.revoke_logins(RevokedLogins.new_marks({RevokedLogins.of_login(one)}), 0.0)
    assert [kept.open(each, OWNER) for each in (one, other)] == [None, PASSWORD]
    store.revoke_logins(RevokedLogins.new_marks({RevokedLogins.of_user("anna")}), 0.0)
    assert [kept.open(each, OWNER) for each in (other, bobs)] == [None, PASSWORD]
    store.revoke_logins(RevokedLogins.new_marks({RevokedLogins.of_user("Bo")}), 0.0)
    annas = login(kept, "Anna")  # as another directory writes it
    store.revoke_logins(RevokedLogins.new_marks({RevokedLogins.of_user(each) for each in ("ANNA", "anna")}), 0.0)
    assert [kept.open(each, OWNER) for each in (annas, bobs)] == [None, PASSWORD]
    store.forget_passwords_of("labs", "bob")
    store.tidy_passwords({"corp"}, now)
    assert kept.open(bobs, OWNER) == PASSWORD
    store.tidy_passwords(set(), now)
    assert kept.open(bobs, OWNER) is None
    last = login(kept, "bob")
    store.forget_passwords_of("corp", "bob")
    assert kept.open(last, OWNER) is None


@given(st.binary(max_size=70) | st.text("AQz09+/=: é").map(str.encode))
def test_base64_is_read_as_the_library_reads_it(data: bytes) -> None:
    for text in (data, base64.b64encode(data)):
        try:
            if len(text) % 4:  # of which the library overlooks some, "////=" for one
                raise binascii.Error
            wanted = base64.b64decode(text, validate=True)
        except binascii.Error:
            assert Secret(text).from_base64() is None
        else:
            assert Secret(text).from_base64() == Secret(wanted)
            assert Secret(data).without(b" -") == Secret(data.replace(b" ", b"").replace(b"-", b"").lower())


def test_a_secret_is_not_shown_nor_written_and_is_empty_once_wiped() -> None:
    secret = Secret.of_text("the canary")
    inside = secret._data
    assert repr(secret) == str(secret) == "Secret(…)" and f"{[secret]}" == "[Secret(…)]"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret == Secret(b"the canary") != Secret(b"the canarY") and secret != b"the canary"
    again = secret.copy()
    secret.wipe()
    assert inside == bytes(10) and not secret and bytes(again) == b"the canary"
    view = again.view()
    del again
    assert view == b"the canary", "it is good for as long as somebody has it"
    data = view.obj
    view.release()
    data.__del__()
    assert data == bytes(10)
