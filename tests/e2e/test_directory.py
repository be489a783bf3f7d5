"""Logins at a real OpenLDAP server with the stock client: nested groups open networks, live sessions follow the
directory, and nobody is asked again after a restart."""

from __future__ import annotations

import os
import signal

import pytest
from helpers.crowd import Crowd, errors
from helpers.lab import wait_until
from helpers.openldap import SLAPD, group_dn, user_dn

pytestmark = pytest.mark.skipif(not SLAPD.exists() or os.geteuid() != 0, reason="make test unpacks slapd")

USERS = {"alice": "right", "bob": "right", "carol": "right"}
GROUPS = {"engineers": ["alice"], "eng": ["engineers", "carol"]}
RECHECK_S = 2


@pytest.fixture
def corp(start_corp):
    """alice is of eng by another group."""
    return start_corp(USERS, GROUPS, endpoint="hand_window_s = 10", directory=f"recheck_s = {RECHECK_S}\ntimeout_s = 3")


def test_groups_of_the_directory_open_networks_and_live_sessions_follow_it(site, corp, connect, ping):
    gateway, other = site._gateway, site.lab.clients[1]
    alice = connect("EXAMPLE\\alice", "right", name="alice").wait_connected()
    bob = connect("bob", "right", client=other, host="198.51.100.1").wait_connected()
    assert ping() == ping("10.30.0.10") == ping(client=other) == 1.0
    assert ping("10.30.0.10", client=other, count=1) == 0.0
    assert {c["username"] for c in gateway.ctl_json("connection", "list")} == {"alice", "bob"}
    assert gateway.metrics()['cvpnd_directory_server_up{directory="corp",server="ldap://localhost:3890"}'] == 1

    corp.change(group_dn("engineers"), member=[user_dn("bob")])
    wait_until(lambda: ping("10.30.0.10", client=other, count=1) == 1.0, 15, "bob's new group")
    wait_until(lambda: ping("10.30.0.10", count=1) == 0.0, 15, "alice's lost one")
    assert (alice.connected_count, bob.connected_count) == (1, 1)

    corp.change(user_dn("bob"), pwdAccountLockedTime="000001010000Z")
    bob.wait_for("Account disabled")
    ended = [c for c in gateway.ctl_json("connection", "list") if c["username"] == "bob"]
    assert [c["end_reason"] for c in ended] == ["account-disabled"]
    connect("bob", "right", client=other, host="198.51.100.1", name="again").wait_for("AUTH_FAILED")
    wait_until(lambda: "account-disabled" in gateway.refusals(), 5)
    connect("carol", "", client=other, host="198.51.100.1", name="empty").wait_for("AUTH_FAILED|empty|ERROR")
    assert alice.connected_count == 1

    admin, made = corp.admin(), {"cn": "alice", "sn": "alice", "userPassword": "right"}
    assert admin.delete(user_dn("alice")) and admin.add(user_dn("alice"), ["inetOrgPerson"], made)
    alice.wait_for("Account disabled")  # another person has her name, and not her session
    assert [c["end_reason"] for c in gateway.ctl_json("connection", "list") if c["username"] == "alice"] == [
        "account-disabled"
    ]


def test_accounts_that_nobody_else_may_look_at_are_followed_too(site, start_corp, connect, ping):
    """Without a service account. Once a connection is lost, its session goes on for a while, and its user logs in."""
    gateway_lines = "recheck_s = 1\nunchecked_s = 3\ntimeout_s = 3"
    corp = start_corp(USERS, GROUPS, endpoint="hand_window_s = 10", directory=gateway_lines, bind="direct")
    gateway, other = site.gateway, site.lab.clients[1]
    alice = connect("alice", "right", "--auth-nocache", name="alice").wait_connected()
    bob = connect("bob", "right", client=other, host="198.51.100.1").wait_connected()
    assert ping("10.30.0.10") == 1.0 and ping("10.30.0.10", client=other, count=1) == 0.0
    corp.change(group_dn("engineers"), member=[user_dn("bob")])
    wait_until(lambda: ping("10.30.0.10", client=other, count=1) == 1.0, 10, "bob's new group")
    wait_until(lambda: ping("10.30.0.10", count=1) == 0.0, 10, "alice's lost one")
    assert (alice.connected_count, bob.connected_count) == (1, 1)
    corp.change(user_dn("bob"), pwdAccountLockedTime="000001010000Z")
    bob.wait_for("Account disabled")

    alice.login_file.write_text("alice\nforgotten\n")
    corp.stop()
    corp.start()
    wait_until(lambda: gateway.metrics()['cvpnd_directory_unchecked_accounts{directory="corp"}'] == 1, 5)
    wait_until(lambda: alice.connected_count == 2, 20, "by her token, for which the gateway has bound again")
    ended = [c for c in gateway.ctl_json("connection", "list") if c["username"] == "alice" and c["end_reason"]]
    assert [c["end_reason"] for c in ended] == ["account-unchecked"]
    assert "account-unchecked" not in gateway.refusals()
    assert gateway.connection_log()[-1]["authentication-method"] == "token"
    assert "alice cannot be looked at any more" in gateway.log()


def test_nobody_is_asked_again_after_a_restart(site, corp, connect, ping):
    gateway = site.gateway
    alice = connect("alice", "right", "--auth-retry", "none", "--auth-nocache", name="alice")
    alice.wait_connected()
    alice.login_file.write_text("alice\nforgotten\n")
    gateway.stop()
    gateway.start()
    alice.wait_connected(times=2)
    assert ping("10.30.0.10") == 1.0, "her groups were looked up for her token"
    methods = [(entry["username"], entry["authentication-method"]) for entry in gateway.connection_log()]
    assert list(dict.fromkeys(methods)) == [("alice", "directory"), ("alice", "token")]
    assert gateway.metrics()['cvpnd_logins_total{endpoint="staff",method="token",result="accepted"}'] == 1


@pytest.mark.parametrize("keep", [True, False])
def test_who_has_bound_is_not_asked_again_either_unless_the_file_says_so(site, start_corp, connect, ping, keep):
    """kill -9 in between. Each token opens what was kept for it, until the directory says no."""
    directory = f"recheck_s = 1\ntimeout_s = 3\nkeep_passwords = {str(keep).lower()}"
    corp = start_corp(USERS, GROUPS, endpoint="hand_window_s = 10", directory=directory, bind="direct")
    gateway, people = site.gateway, {}
    for name, client, host in (("alice", None, None), ("bob", site.lab.clients[1], "198.51.100.1")):
        own = {"client": client, "host": host} if client else {}
        people[name] = connect(name, "right", "--auth-retry", "none", "--auth-nocache", name=name, **own)
        people[name].wait_connected()
        people[name].login_file.write_text(f"{name}\nforgotten\n")

    def come_back() -> None:
        gateway.start()
        for each in people.values():
            if each.process.running:
                each.process.signal(signal.SIGUSR1)

    gateway.kill()
    come_back()
    if not keep:
        for each in people.values():
            each.wait_for("AUTH_FAILED,SESSION")
        wait_until(lambda: gateway.refusals().count("user-unknown") == 2, 5)
        return
    for each in people.values():
        each.wait_connected(times=2)
    assert ping("10.30.0.10") == 1.0
    assert [entry["authentication-method"] for entry in gateway.connection_log()[-2:]] == 2 * ["token"]
    corp.change(group_dn("engineers"), member=[user_dn("bob")])
    wait_until(lambda: ping("10.30.0.10", count=1) == 0.0, 10, "her account is looked at as before")
    state = gateway.directory / "state.db"
    assert b"right" not in b"".join(path.read_bytes() for path in state.parent.glob("state.db*"))

    gateway.kill()
    corp.change(user_dn("alice"), userPassword="another")
    corp.change(user_dn("bob"), pwdAccountLockedTime="000001010000Z")
    come_back()  # once: what was kept is gone with the directory's first no, which a kill would take out of the log
    for each in people.values():
        each.wait_for("AUTH_FAILED,SESSION")
    refused = {"wrong-password", "account-disabled"}
    wait_until(lambda: refused <= set(gateway.refusals()), 5)
    why = {e["username"]: e for e in gateway.connection_log() if e["authentication-method"] == "token"}
    assert why["alice"]["connection-attempt-failure-reason"] == "wrong-password"
    assert why["bob"]["connection-attempt-failure-reason"] in ("account-disabled", "account-locked")
    assert all(each.connected_count == 2 for each in people.values())


def test_a_login_that_is_under_way_when_its_endpoint_goes_is_told_to_come_back(site, corp):
    gateway, logging_in = site.gateway, 'cvpnd_directory_logins_pending{directory="corp"}'

    def told_while(change, *, pending: int) -> list[str]:
        waiting = Crowd(site.lab, [("alice", "right")], "--timeout", "9")
        wait_until(lambda: gateway.metrics()[logging_in] == pending, 10)
        change()
        return errors(waiting.report())

    corp.process.signal(signal.SIGSTOP)
    try:
        gateway.write_config(gateway.config_path.read_text().replace("10.100.0.0/22", "10.104.0.0/22"))
        told = told_while(lambda: gateway.ctl("reload"), pending=1)
        told += told_while(gateway.stop, pending=2)  # the directory still has the first
    finally:
        corp.process.signal(signal.SIGCONT)
    assert len(told) == 2 and all(text.startswith("AUTH_FAILED,TEMP") for text in told), told
    assert gateway.refusals() == ["shutting-down", "shutting-down"]
