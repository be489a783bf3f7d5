"""Passwords after a login, right or wrong: the daemon's own memory, all of it, is searched for them.

What is found nowhere is found of the token, which the daemon does keep: the search works. ``make test-logins`` runs the
ways that ``make test`` leaves away."""

from __future__ import annotations

import base64
import os
import secrets

import pytest
from helpers import lab
from helpers.freeradius import BY_CHALLENGE, FREERADIUS, SENT_CODE, FreeRadius, toml
from helpers.lab import wait_until
from helpers.openldap import SLAPD
from helpers.process_memory import found_in_memory
from helpers.totp import code_of, static

from cvpnd.auth.passwords import hash_password

pytestmark = pytest.mark.skipif(
    not SLAPD.exists() or not FREERADIUS.exists() or os.geteuid() != 0, reason="make test unpacks slapd and freeradius"
)
FULL = "LOGINS" in os.environ


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch, tmp_path):
    """What a lab's daemon otherwise writes down of its secrets (``witness``) leaves copies of them."""
    monkeypatch.setattr(lab, "HELPERS", tmp_path)


def canary() -> str:
    return f"Kanari-{secrets.token_hex(20)}"


def left_of(gateway, *texts: str) -> list[str]:
    """Of each text, also as a part of base64 and after its first eight characters, which a block that is used again may
    have lost."""
    found = []
    for text in texts:
        raw = text.encode()
        for form in (raw[8:], *(base64.b64encode(raw[at:])[:40] for at in range(3))):
            found += found_in_memory(gateway.running.popen.pid, form)
    return found


ONE_CODE = """
        if (&User-Password == "{code}") {{
            update control {{ &Auth-Type := Accept }}
        }}
"""


@pytest.mark.parametrize("mfa", ["radius", "radius-challenge"])
@pytest.mark.skipif(not FULL, reason="make test-logins runs it")
def test_neither_password_nor_code_of_a_radius_login_is_left(site, start_corp, connect, mfa):
    """Codes of forty digits and more, so that what is found is one."""
    right, wrong, code, bad = (canary() for _ in range(4))
    asks = BY_CHALLENGE.replace('"right"', f'"{right}"').replace(SENT_CODE, code)
    corp = start_corp({"alice": right}, {"eng": ["alice"]})
    FreeRadius(
        site.lab.gateway, site.lab.directory / "radius", 18120,
        asks if "challenge" in mfa else ONE_CODE.format(code=code),
    ).start()  # fmt: skip
    gateway = site.gateway
    text = gateway.config_path.read_text().replace('mfa = "off"', f'mfa = "{mfa}"')
    gateway.write_config(text + toml(site.lab.directory, 18120, of="corp"))
    gateway.ctl("reload")
    connect("alice", static(wrong, code), name="wrong").wait_for("AUTH_FAILED")
    connect("alice", static(right, bad), name="bad").wait_for("AUTH_FAILED")
    if "challenge" in mfa:
        state = connect("alice", right, name="asked").wait_for(r"AUTH_FAILED,CRV1:R,E:(\S+):\S+:Code")[1]
        connect("alice", f"CRV1::{state}::{code}", name="right").wait_connected()
    else:
        connect("alice", static(right, code), name="right").wait_connected()
    assert {"wrong-password", "mfa-code-wrong"} <= set(gateway.refusals()), corp
    assert left_of(gateway, right, wrong, code, bad) == []
    assert found_in_memory(gateway.running.popen.pid, b"SESS_ID_AT_")


@pytest.mark.parametrize("way", ["direct", *(["service", "service+totp", "local"] if FULL else [])])
def test_no_password_is_left_in_the_daemons_memory(site, start_corp, connect, way):
    right, wrong = canary(), canary()
    mfa = "totp" if "totp" in way else "off"
    start_corp({"alice": right}, {"eng": ["alice"]}, mfa=mfa, bind="direct" if way == "direct" else "service")
    gateway, typed = site.gateway, [wrong, right]
    if way == "local":
        toml = gateway.config_path.read_text().replace('directory = "corp", mfa', 'directory = "local", mfa')
        gateway.write_config(toml + f'[[local_users]]\nname = "alice"\npassword_hash = "{hash_password(right)}"\n')
        gateway.reload()
    if mfa == "totp":
        enrolment = gateway.ctl_json("user", "totp", "enrol", "alice", "--directory", "corp")
        typed = [static(wrong, "000000"), static(right, code_of(enrolment))]
    connect("alice", typed[0], name="wrong").wait_for("AUTH_FAILED")
    wait_until(lambda: "wrong-password" in gateway.refusals(), 5)
    connect("alice", typed[1], name="right").wait_connected()
    assert left_of(gateway, right, wrong) == []
    assert found_in_memory(gateway.running.popen.pid, b"SESS_ID_AT_")
