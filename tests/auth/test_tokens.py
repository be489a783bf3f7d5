"""auth-token: good for whom it was written, for as long as was said, and for nobody and nothing else."""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.auth.tokens import PREFIX, Revocations, Token, TokenKey, TokenOwner, looks_like_token
from cvpnd.secret import Secret

KEY = TokenKey(bytes(range(32)))
OWNER = TokenOwner("cvpn-endpoint-0123456789abcdef0", "local", "anna", "", b"stamp")
TOKEN = Token(bytes(12), 1_700_000_000, 1_700_028_800)
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
    assert (len(V14), raw[12:28]) == (len(TEXT), bytes(16)) and looks_like_token(Secret.of_text(V14))
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
    token = Token.new(1_700_000_000.5, 60, with_secret=True)
    text = KEY.write(token, OWNER)
    assert KEY.read(text, OWNER) == Token.claimed(text) == token and len(token.secret) == 18
    assert len(text) <= 127 and text.isprintable() and token.secret.hex() not in repr(token)
    raw = base64.b64decode(text.removeprefix(PREFIX))
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert KEY.read(PREFIX + base64.b64encode(changed).decode(), OWNER) is None
    assert KEY.read(PREFIX + base64.b64encode(raw[:28] + raw[46:]).decode(), OWNER) is None


@given(st.text() | st.text().map(PREFIX.__add__) | st.integers(0, len(TEXT)).map(lambda end: TEXT[:end]))
def test_whatever_else_is_sent_is_none_and_raises_nothing(text):
    assert text == TEXT or KEY.read(text, OWNER) is None


def test_a_revoked_login_ends_alone_and_a_revoked_user_with_all_logins_up_to_then():
    other, later = replace(TOKEN, login_id=bytes(11) + b"x"), replace(TOKEN, logged_in_at=TOKEN.logged_in_at + 10)
    revoked = Revocations()
    assert not revoked.covers(TOKEN, "corp", "anna")
    revoked.add({Revocations.of_login(TOKEN)}, 0.0)
    assert revoked.covers(TOKEN, "corp", "anna") and not revoked.covers(other, "corp", "anna")
    revoked = Revocations({Revocations.of_user("anna"): TOKEN.logged_in_at + 0.5})
    assert revoked.covers(TOKEN, "corp", "anna") and revoked.covers(other, "corp", "anna")
    assert not revoked.covers(later, "corp", "anna") and not revoked.covers(TOKEN, "corp", "bob")
    revoked = Revocations({Revocations.of_account("corp", "anna"): TOKEN.logged_in_at})
    assert revoked.covers(TOKEN, "corp", "anna") and not revoked.covers(later, "corp", "anna")
    assert not revoked.covers(TOKEN, "guests", "anna") and not revoked.covers(TOKEN, "corp", "bob")


def test_two_logins_of_one_user_have_two_ids():
    assert Token.new(1.0, 60).login_id != Token.new(1.0, 60).login_id
    assert replace(Token.new(100.9, 60), login_id=b"") == Token(b"", 100, 160)
