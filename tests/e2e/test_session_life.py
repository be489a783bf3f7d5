"""How long and how many: idle timeout, a longest time that is lowered, sessions per person, with the stock client."""

from __future__ import annotations

import re

from helpers import certs
from helpers.lab import wait_until
from helpers.other_releases import generation

LIFE = """
session_timeout_s = 36000
idle_timeout_s = 4
idle_bytes = 1000
limits = { sessions_per_identity = 1 }
"""


def test_a_person_has_one_session_that_ends_when_idle_or_when_the_longest_time_is_lowered(site, ping):
    gateway = site.start(LIFE)
    other = {"client": site.lab.clients[1], "host": site.lab.gateway_address_of(1, 4)}
    alice, bob = certs.client("alice"), certs.client("bob")
    first = site.connect(alice)
    second = site.connect(alice, wait=False, name="second", **other)
    second.wait_for("AUTH_FAILED" if generation() >= (2, 6) else "reset command .*Too many sessions of this user")
    second.stop()
    assert gateway.refusals()[0] == "NA" and set(gateway.refusals()[1:]) == {"identity-session-limit"}

    first.wait_for("halt command was pushed by server|Halt command was pushed by server", 15)
    (idle, *_) = gateway.ctl_json("connection", "list")
    assert (idle["common_name"], idle["end_reason"]) == ("alice", "idle-timeout"), "and it is still to be seen"

    replaced = gateway.config_path.read_text().replace("idle_timeout_s = 4", "idle_timeout_s = 0")
    gateway.write_config(replaced.replace("_identity = 1", '_identity = 1, too_many_of_identity = "replace-oldest"'))
    gateway.reload()
    wait_until(lambda: gateway.metrics()["cvpnd_reload_revision"] >= 2)
    older = site.connect(bob, name="older")
    newer = site.connect(bob, name="newer", **other)
    older.wait_for("Halt command was pushed by server", 10)
    assert ping(client=other["client"]) == 1.0

    gateway.write_config(re.sub("session_timeout_s = 36000", "session_timeout_s = 1", gateway.config_path.read_text()))
    gateway.reload()
    newer.wait_for("Halt command was pushed by server .'Session timeout'", 10)
    ends = {each["end_reason"] for each in gateway.ctl_json("connection", "list")}
    assert ends == {"idle-timeout", "identity-session-limit", "session-timeout"}
