"""A change that clients are given time for: what it takes away goes before that, what it gives comes with all else."""

from __future__ import annotations

import re
import time

import pytest
from helpers import certs
from helpers.lab import OTHER_LEG, TARGET_LEG

GRACE_S = 3.0
"""``LONGEST_GRACE_S``: the store is held meanwhile, so there is no more."""
FIRST_LISTEN, THEN_LISTEN = ("udp://0.0.0.0:1194",), "udp://0.0.0.0:1196"
RULE = '{ network = "10.20.0.0/16", all_groups = true }'
OTHER_RULE = '{ network = "10.30.0.0/16", all_groups = true }'
GROUP = """
[[security_group]]
id = "sg-https"
vpc = "vpc-other"
egress = [{ network = "10.30.0.0/16", protocol = "tcp", ports = "443" }]
"""


class Both:
    """Endpoints staff, which stays, with alice, and lab, which moves, with bob."""

    def __init__(self, site) -> None:
        toml = site.toml(listen=FIRST_LISTEN, daemon=f"shutdown_grace_s = {GRACE_S:g}")
        lab = "[[endpoint]]" + toml.partition("[[endpoint]]")[2]
        lab = lab.replace('"staff"', '"lab"').replace("10.100.0.0/22", "10.104.0.0/22").replace("1194", "1195")
        self.site = site
        self.staff, self.lab = toml, lab
        self.gateway = site._gateway = site.lab.gateway_process(toml + lab)
        self.alice = site.connect()
        self.bob = site.connect(
            certs.client("bob"), name="bob", port=1195, client=site.lab.clients[1], host="198.51.100.1"
        )

    def become(self, staff: str) -> float:
        """How long it took."""
        self.gateway.write_config(staff + self.lab.replace("udp://0.0.0.0:1195", THEN_LISTEN))
        begun = time.monotonic()
        self.gateway.ctl("reload")
        return time.monotonic() - begun

    def pings(self, host: str):
        return self.site.lab.client.start("ping", "-n", "-D", "-i", "0.1", "-W", "1", host, label=f"ping {host}")


def answered_at(ping) -> list[float]:
    return [float(at) for at in re.findall(r"\[([\d.]+)\] \d+ bytes from", ping.log())]


@pytest.mark.parametrize("taken", [f"{RULE}", f"{OTHER_RULE}, "], ids=["the rule", "one of two"])
def test_a_rule_that_is_taken_away_is_gone_before_others_are_given_time(site, taken):
    host = TARGET_LEG.host if taken == RULE else OTHER_LEG.host
    site_toml = site.toml
    site.toml = lambda *more, **options: site_toml(*more, **options).replace(RULE, f"{OTHER_RULE}, {RULE}")
    both = Both(site)
    ping = both.pings(host)
    ping.wait_for("bytes from")
    begun = time.time()
    took_s = both.become(both.staff.replace(taken, "", 1))
    time.sleep(1)
    ping.stop()
    before_end_s = begun + took_s - answered_at(ping)[-1]
    print(f"the latest answer came {before_end_s:.2f} s before the end of a change of {took_s:.2f} s")
    assert before_end_s >= GRACE_S, "bob was given time before that"
    assert both.alice.connected_count == 1


def test_no_client_reaches_meanwhile_what_neither_the_old_nor_the_new_lets_it(site):
    """The rule comes, and with it a security group that keeps the same packets back."""
    both = Both(site)
    ping = both.pings(OTHER_LEG.host)
    time.sleep(0.5)
    staff = both.staff.replace(RULE, f"{OTHER_RULE}, {RULE}")
    staff = staff.replace(
        'associate = ["subnet-a", "subnet-b"]',
        'associate = ["subnet-a", "subnet-b"]\nsecurity_groups = ["sg-https"]',
    )
    took_s = both.become(GROUP + staff)
    time.sleep(0.5)
    ping.stop()
    assert took_s >= GRACE_S, "bob was not given time"
    assert answered_at(ping) == []
    assert both.gateway.ctl_json("rule", "list", "staff")
    open_again = both.staff.replace(RULE, f"{OTHER_RULE}, {RULE}")
    both.gateway.write_config(open_again + both.lab.replace("udp://0.0.0.0:1195", THEN_LISTEN))
    both.gateway.ctl("reload")
    assert both.site.lab.client.ping(OTHER_LEG.host, 3, 0.1).received == 3, "the rule is in force by then"
