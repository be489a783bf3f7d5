"""Logins at a real Active Directory controller with the stock client, certificate and password: nested groups by SID
open exactly their networks, live sessions follow the directory, and each reason to say no is in the log."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from helpers import certs
from helpers.lab import wait_until
from helpers.samba import BASE, INSTALLED, PASSWORD, SambaAd, user_dn

pytestmark = pytest.mark.skipif(not INSTALLED or "SAMBA" not in os.environ, reason="make test-samba runs it")

DOCS = Path(__file__).parents[2] / "docs"
CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
CORP = '{ type = "directory-service-authentication", directory = "corp", username_is_common_name = true }'
PASSWORDS = '{ type = "directory-service-authentication", directory = "corp" }'
RECHECK_S = 2
REFUSED = {
    "disabled": "account-disabled", "expired": "account-expired", "old": "password-expired",
    "must": "must-change-password", "locked": "account-locked", "hours": "logon-hours", "nobody": "user-unknown",
}  # fmt: skip


@pytest.fixture
def domain(site):
    """subnet-a is for the SID of others, where bob is, and subnet-b for that of staff, where alice is by engineers."""
    samba = SambaAd(site.lab.gateway, site.lab.directory / "dc")
    samba.local(
        "domain", "passwordsettings", "set", "--max-pwd-age=2", "--min-pwd-age=0", "--account-lockout-threshold=3"
    )
    for name in ("alice", "bob", *REFUSED):
        if name != "nobody":
            samba.local("user", "create", name, PASSWORD)
    for group, member in (("engineers", "alice"), ("staff", "engineers"), ("others", "bob")):
        samba.local("group", "add", group)
        samba.local("group", "addmembers", group, member)
    samba.local("user", "disable", "disabled")
    samba.local("user", "setexpiry", "expired", "--days=0")
    samba.local("user", "setpassword", "must", f"--newpassword={PASSWORD}", "--must-change-at-next-login")
    samba.local("user", "setpassword", "old", f"--newpassword={PASSWORD}", at="-10 days")
    samba.start()
    samba.change(user_dn("hours"), logonHours=bytes(21))
    for _ in range(3):
        samba.bind("locked", "wrong")
    toml = site.toml("hand_window_s = 20").replace(f"[{CERTIFICATE}]", f"[{CERTIFICATE}, {CORP}]")
    rules = ", ".join(
        f'{{ network = "{network}", group = "{samba.sid(group)}" }}'
        for network, group in (("10.20.0.0/16", "others"), ("10.30.0.0/16", "staff"))
    )
    toml = toml.replace('authorize = [{ network = "10.20.0.0/16", all_groups = true }]', f"authorize = [{rules}]")
    site._gateway = site.lab.gateway_process(toml + samba.toml(f"recheck_s = {RECHECK_S}"))
    return samba


def test_groups_by_sid_open_exactly_their_networks_and_sessions_follow_the_domain(site, domain, connect, ping):
    gateway, other = site.gateway, site.lab.clients[1]
    elsewhere = {"client": other, "host": "198.51.100.1"}

    def reached(client=None) -> tuple[bool, bool]:
        return ping("10.20.0.10", 1, client) == 1.0, ping("10.30.0.10", 1, client) == 1.0

    wrong = connect("alice", PASSWORD, certificate=certs.client("bob"), name="thief", **elsewhere)
    wrong.wait_for("AUTH_FAILED")
    assert gateway.refusals() == ["username-not-common-name"]
    wrong.kill()
    alice = connect("LAB\\alice", PASSWORD, certificate=certs.client("alice"), name="alice").wait_connected()
    bob = connect("bob@lab.test", PASSWORD, certificate=certs.client("bob"), name="bob", **elsewhere).wait_connected()
    assert (reached(), reached(other)) == ((False, True), (True, False))
    entries = gateway.connection_log()[1:]
    assert {(e["username"], e["common-name"], e["authentication-method"]) for e in entries} == {
        (name, name, "certificate+directory") for name in ("alice", "bob")
    }

    domain.move("alice", "engineers", "others")
    wait_until(lambda: reached() == (True, False), 10 * RECHECK_S, "alice's new group, and not her old one")
    domain.move("engineers", "staff", None)
    domain.move("bob", "others", "staff")
    wait_until(lambda: reached(other) == (False, True), 10 * RECHECK_S, "bob's new group, and not his old one")
    assert (alice.connected_count, bob.connected_count) == (1, 1)

    domain.change(user_dn("bob"), userAccountControl="514")
    bob.wait_for("Account disabled", 5 * RECHECK_S)
    ended = [c for c in gateway.ctl_json("connection", "list") if c["username"] == "bob"]
    assert [c["end_reason"] for c in ended] == ["account-disabled"]
    assert reached() == (True, False) and alice.connected_count == 1


def test_each_reason_of_the_domain_is_in_the_log_and_the_client_hears_the_same_for_all(site, domain, connect):
    gateway = site.gateway
    clients = [
        connect(name, PASSWORD, certificate=certs.client(name), name=name, client=site.lab.clients[index % 2],
                host=("192.0.2.1", "198.51.100.1")[index % 2])
        for index, name in enumerate(REFUSED)
    ]  # fmt: skip
    heard = {client.wait_for(r"AUTH: Received control message: (.*)", 20)[1] for client in clients}
    assert heard == {"AUTH_FAILED"}
    wait_until(lambda: len(gateway.refusals()) == len(REFUSED), 5)
    reasons = {entry["username"]: entry["connection-attempt-failure-reason"] for entry in gateway.connection_log()}
    assert reasons == REFUSED
    assert PASSWORD not in gateway.log() and BASE in str(gateway.connection_log())


def test_after_a_kill_who_has_bound_is_asked_only_where_the_domain_says_no(site, domain, connect, ping):
    """Without a service account: the gateway binds with the password that the client's token opens."""
    gateway, people = site.gateway, {}
    lines = [line for line in gateway.config_path.read_text().splitlines() if not line.startswith("bind_")]
    gateway.write_config("\n".join([*lines, 'bind = "direct"', ""]))
    gateway.ctl("reload")
    for name, typed, client, host in (
        ("alice", "LAB\\alice", None, None), ("bob", "bob@lab.test", site.lab.clients[1], "198.51.100.1")
    ):  # fmt: skip
        own = {"client": client, "host": host} if client else {}
        options = ("--auth-retry", "none", "--auth-nocache")
        people[name] = connect(typed, PASSWORD, *options, certificate=certs.client(name), name=name, **own)
        people[name].wait_connected(20)
        people[name].login_file.write_text(f"{typed}\nforgotten\n")

    def start() -> None:
        gateway.start()
        for each in people.values():
            each.process.signal(signal.SIGUSR1)

    gateway.kill()
    start()
    for each in people.values():
        each.wait_connected(40, times=2)
    assert ping("10.30.0.10") == 1.0 and ping("10.20.0.10", client=site.lab.clients[1]) == 1.0
    assert [entry["authentication-method"] for entry in gateway.connection_log()[-2:]] == 2 * ["certificate+token"]
    gateway.kill()
    domain.change(user_dn("alice"), unicodePwd='"Another-of-2026"'.encode("utf-16-le"))
    domain.change(user_dn("bob"), userAccountControl="514")
    start()
    for each in people.values():
        each.wait_for("AUTH_FAILED,SESSION", 40)
    wait_until(lambda: {"token-invalid", "account-disabled"} <= set(gateway.refusals()), 5)
    tokens = [e for e in gateway.connection_log() if e["authentication-method"] == "certificate+token"]
    why = {entry["username"]: entry["connection-attempt-failure-reason"] for entry in tokens[-2:]}
    # the controller goes on taking an old password for an hour; the token is of that one, and worth nothing with it
    assert why == {"LAB\\alice": "token-invalid", "bob@lab.test": "account-disabled"}


def test_the_lines_of_the_guide_let_people_of_a_domain_in(site, connect, ping):
    """With its service account and its unit of people: only names and addresses are those of the lab."""
    samba = SambaAd(site.lab.gateway, site.lab.directory / "dc")
    for unit in ("Services", "People"):
        samba.local("ou", "add", f"OU={unit}")
    samba.local("user", "create", "cvpnd", "Service-of-2026", "--userou=OU=Services")
    samba.local("user", "create", "anna", PASSWORD, "--userou=OU=People")
    samba.local("group", "add", "engineering")
    samba.local("group", "addmembers", "engineering", "anna")
    samba.start()
    etc = site.lab.directory / "gateway"
    etc.mkdir(exist_ok=True)
    (etc / "corp-ca.crt").write_bytes((samba.directory / "ca.crt").read_bytes())
    (etc / "corp.password").write_text("Service-of-2026\n")
    (etc / "corp.password").chmod(0o600)
    chapter = (DOCS / "authentication.md").read_text().partition("## Active Directory")[2]
    lines = re.search(r"^```toml\n(.*?)^\[\[endpoint", chapter, re.M | re.S)[1]
    for there, here in (
        ("dc1.example.com", "localhost"), ("dc2.example.com", "localhost:636"), ("DC=example,DC=com", BASE),
        ('"EXAMPLE", "example.com"', '"LAB", "lab.test"'),
    ):  # fmt: skip
        assert there in lines
        lines = lines.replace(there, here)
    toml = site.toml("hand_window_s = 20").replace(f"[{CERTIFICATE}]", f"[{PASSWORDS}]")
    toml = toml.replace("all_groups = true", 'group = "engineering"')
    site._gateway = site.lab.gateway_process(toml + lines)
    anna = connect("EXAMPLE\\anna", PASSWORD, name="stranger")
    anna.wait_for("AUTH_FAILED")
    assert site.gateway.refusals() == ["user-unknown"]
    anna.kill()
    connect("anna", PASSWORD, name="anna").wait_connected()
    assert ping("10.20.0.10", 1) == 1.0
    assert "directory corp" not in site.gateway.ctl("doctor", check=False).stdout
    site.gateway.write_config(site.gateway.config_path.read_text().replace('"engineering"', '"Engineering"'))
    told = site.gateway.ctl("doctor", check=False).stdout
    assert "no group is called Engineering: the rule for it at staff" in told and "write engineering, as" in told
