"""auth-token: good for whom it was written, for as long as was said, and for nobody and nothing else."""

from __future__ import annotations

import base64
import hmac
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.tokens import PREFIX, Token, TokenKey, TokenOwner, looks_like_token
from cvpnd.secret import Secret

KEY = TokenKey(bytes(range(32)))
OWNER = TokenOwner("cvpn-endpoint-0123456789abcdef0", "local", "anna", "", b"stamp")
TOKEN = Token(bytes(12), 1_700_000_000, 28_800, 500, b"marked")
TEXT = KEY.write(TOKEN, OWNER)


def test_a_token_comes_back_as_it_was_written_and_fits_every_client():
    assert KEY.read(TEXT, OWNER) == TOKEN
    assert (
        looks_like_token(Secret.of_text(TEXT))
        and len(TEXT) <= 127
        and TEXT.isprintable()
        and not set(TEXT) & set(', "')
    )


@pytest.mark.parametrize(
    "other",
    [
        replace(OWNER, endpoint_id="cvpn-endpoint-0123456789abcdef1"),
        replace(OWNER, directory="office"),
        replace(OWNER, username="bob"),
        replace(OWNER, username="ann", certificate_fingerprint="a"),
        replace(OWNER, certificate_fingerprint="00"),
        replace(OWNER, stamp=b"another password"),
    ],
)
def test_a_token_of_somebody_else_is_none(other):
    assert KEY.read(TEXT, other) is None


V14 = "SESS_ID_AT_0123456789abcdefAAAAAAAAAAAAAAAAAAAAAE5JsQJOVfo8jnI3RL3tBaR5NkE4yPfcylFUHmHSc5Bu"


def test_v14_a_token_of_the_reference_has_our_form_and_is_nobodys_here():
    """All-zero key, "test user name", time 0 (openvpn-wire.md V-14). The HMAC of the reference covers the user name and
    the fields; ours also covers where the login was made, so its tokens are none of ours even under one key."""
    raw = base64.b64decode(V14.removeprefix(PREFIX))
    assert hmac.digest(bytes(32), b"test user name" + raw[:28], "sha256") == raw[28:]
    assert raw[12:28] == bytes(16) and looks_like_token(Secret.of_text(V14))
    for owner in (OWNER, TokenOwner("", "", "test user name", "", b"")):
        assert TokenKey(bytes(32)).read(V14, owner) is None


def test_a_token_of_another_key_is_none():
    assert TokenKey(bytes(32)).read(TEXT, OWNER) is None


def test_every_changed_bit_makes_it_none():
    raw = base64.b64decode(TEXT.removeprefix(PREFIX))
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert KEY.read(PREFIX + base64.b64encode(changed).decode(), OWNER) is None


def test_a_token_with_a_secret_is_as_good_and_as_easily_spoilt():
    token = Token.new(1_700_000_000.5, 60, steady=7.5, mark=b"123456", with_secret=True)
    text = KEY.write(token, OWNER)
    assert KEY.read(text, OWNER) == Token.claimed(text) == token and len(token.secret) == 18
    assert len(text) <= 127 and text.isprintable() and token.secret.hex() not in repr(token)
    raw = base64.b64decode(text.removeprefix(PREFIX))
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert KEY.read(PREFIX + base64.b64encode(changed).decode(), OWNER) is None
    assert KEY.read(PREFIX + base64.b64encode(raw[:34] + raw[52:]).decode(), OWNER) is None


@given(st.text() | st.text().map(PREFIX.__add__) | st.integers(0, len(TEXT)).map(lambda end: TEXT[:end]))
def test_whatever_else_is_sent_is_none_and_raises_nothing(text):
    assert text == TEXT or KEY.read(text, OWNER) is None


def of_the_release_before(login_id: bytes, logged_in_at: int, expires_at: int, secret: bytes = b"") -> str:
    """As cvpnd wrote tokens before there was a steady clock."""
    fields = struct.pack(">12sQQ", login_id, logged_in_at, expires_at) + secret
    words = (OWNER.endpoint_id, OWNER.directory, OWNER.username, OWNER.certificate_fingerprint)
    parts = [b"cvpnd auth-token 1", *(word.encode() for word in words), OWNER.stamp, fields]
    message = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return PREFIX + base64.b64encode(fields + hmac.digest(bytes(range(32)), message, "sha256")).decode()


@pytest.mark.parametrize("secret", [b"", bytes(18)])
def test_a_token_of_the_release_before_is_good_unless_logins_of_its_user_were_ended_since_ever(secret):
    text = of_the_release_before(b"login id -12", 1_700_000_000, 1_700_003_600, secret)
    token = KEY.read(text, OWNER)
    assert token == Token.claimed(text) == Token(b"login id -12", 1_700_000_000, 3600, secret=secret)
    assert not RevokedLogins().covers(token, OWNER.endpoint_id, "local", "anna")
    for subject in (RevokedLogins.of_user("anna"), RevokedLogins.of_login(token)):
        revoked = RevokedLogins()
        revoked.add({subject: b"marked"}, 1.0)
        assert revoked.covers(token, OWNER.endpoint_id, "local", "anna")
    assert KEY.read(KEY.write(token, OWNER), OWNER) == token


def test_the_clock_that_says_more_says_how_old_a_login_is_and_one_that_is_behind_says_it_too():
    token = Token.new(1_000_000.0, 3600, steady=500.0)
    assert token.age_s(1_000_010.0, 510.0) == 10
    assert token.age_s(1_000_010.0, 900.0) == 400, "the wall clock was put back"
    assert token.age_s(1_007_200.0, 510.0) == 7200, "no gateway ran meanwhile"
    assert token.age_s(992_800.0, 510.0) == 7200, "it was ahead, or is behind"


def test_two_logins_of_one_user_have_two_ids():
    assert Token.new(1.0, 60).login_id != Token.new(1.0, 60).login_id
    assert replace(Token.new(100.9, 60, steady=5.9), login_id=b"") == Token(b"", 100, 60, 5)
