"""Logins at a real OpenLDAP server with the stock client: nested groups open networks, live sessions follow the
directory, and neither a restart nor a directory that hangs touches a tunnel."""

from __future__ import annotations

import os
import signal

import pytest
from helpers.lab import wait_until
from helpers.openldap import SLAPD, OpenLdap, group_dn, user_dn

pytestmark = pytest.mark.skipif(not SLAPD.exists() or os.geteuid() != 0, reason="make test unpacks slapd")

CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
CORP = '{ type = "directory-service-authentication", directory = "corp" }'
USERS = {"alice": "right", "bob": "right", "carol": "right"}
GROUPS = {"engineers": ["alice"], "eng": ["engineers", "carol"]}
RECHECK_S = 2


@pytest.fixture
def corp(site):
    """subnet-b is for the group eng, of which alice is by another group, and subnet-a for everybody."""
    ldap = OpenLdap(site.lab.gateway, site.lab.directory / "ldap").start()
    ldap.fill(USERS, GROUPS)
    toml = site.toml("hand_window_s = 10").replace(f"[{CERTIFICATE}]", f"[{CORP}]")
    toml = toml.replace("authorize = [", 'authorize = [{ network = "10.30.0.0/16", group = "eng" }, ')
    toml = toml.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
    site._gateway = site.lab.gateway_process(toml + ldap.toml(f"recheck_s = {RECHECK_S}\ntimeout_s = 3"))
    return ldap


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


def test_nobody_is_asked_again_after_a_restart_and_a_hung_directory_touches_no_tunnel(site, corp, connect, ping):
    gateway, other = site._gateway, site.lab.clients[1]
    alice = connect("alice", "right", "--auth-retry", "none", "--auth-nocache", name="alice")
    alice.wait_connected()
    alice.login_file.write_text("alice\nforgotten\n")
    gateway.stop()
    gateway.start()
    alice.wait_connected(times=2)
    assert ping("10.30.0.10") == 1.0, "her groups were looked up for her token"

    pinging = site.lab.client.start_ping("10.20.0.10", 0.02)
    corp.process.signal(signal.SIGSTOP)
    try:
        hung = connect("bob", "right", client=other, host="198.51.100.1")
        hung.wait_for("AUTH: Received control message: AUTH_FAILED,TEMP", 20)
        wait_until(lambda: {"directory-timeout", "directory-unavailable"} & set(gateway.refusals()), 5)
    finally:
        corp.process.signal(signal.SIGCONT)
    assert pinging.finish().lost == 0
    hung.wait_for("Initialization Sequence Completed", 30)  # it was told to come again
    assert alice.connected_count == 2 and ping() == 1.0
    assert "right" not in gateway.log() and "of the service" not in gateway.log()
