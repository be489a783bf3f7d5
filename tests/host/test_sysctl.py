"""Settings of the kernel: which are changed for a plan, and what they are set back to."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from helpers.host_state import host_state
from helpers.lab import Lab
from helpers.tunnel_end import PARTNERS, PLANS, PORTS, STAFF, SUBNET_A, VPC_MAIN

from cvpnd.host import sysctl
from cvpnd.host.errors import HostError
from cvpnd.host.gateway import Association, HostGateway, HostPlan
from cvpnd.host.sysctl_files import at_start


async def test_rp_filter_is_loosened_only_where_it_would_drop_replies(lab: Lab, gateway: HostGateway) -> None:
    for name in ("lan", "lan2"):
        lab.gateway.sysctl(f"net/ipv4/conf/{name}/rp_filter", sysctl.STRICT)
    before = host_state()
    # 10.20.0.0/16 through lan is news to the main table; 10.30.0.0/24 through lan2 is not
    both = HostPlan((replace(STAFF, associations=(Association(SUBNET_A, (VPC_MAIN,)),)), PARTNERS), PORTS)
    await gateway.up(both)
    assert lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter") == sysctl.LOOSE
    assert lab.gateway.sysctl("net/ipv4/conf/lan2/rp_filter") == sysctl.STRICT
    # without the rest of the VPC the main table agrees, and the filter is as before
    await gateway.update(HostPlan((replace(STAFF, associations=(Association(SUBNET_A),)),), PORTS))
    assert lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter") == sysctl.STRICT
    await gateway.down()
    assert host_state() == before


async def test_setting_that_somebody_changed_meanwhile_stays_theirs(lab: Lab, gateway: HostGateway) -> None:
    lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter", sysctl.STRICT)
    await gateway.up(PLANS["staff"])
    lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter", "0")
    await gateway.down()
    assert lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter") == "0"


async def test_forwarding_that_somebody_switched_on_for_all_meanwhile_stays_on(lab: Lab, gateway: HostGateway) -> None:
    """The kernel copies it to each interface, where it was ours already."""
    await gateway.up(PLANS["staff"])
    assert lab.gateway.sysctl("net/ipv4/conf/lan/forwarding") == "1"
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    await gateway.down()
    assert lab.gateway.sysctl("net/ipv4/conf/lan/forwarding") == "1"
    await gateway.up(PLANS["staff"])
    lab.gateway.sysctl("net/ipv4/ip_forward", 0)
    await gateway.update(PLANS["staff"])
    assert lab.gateway.sysctl("net/ipv4/conf/lan/forwarding") == "1"
    await gateway.down()
    assert lab.gateway.sysctl("net/ipv4/conf/lan/forwarding") == "0"


def test_what_an_earlier_release_switched_on_is_switched_off(lab: Lab, tmp_path: Path) -> None:
    """Its record does not say what the setting for all interfaces was."""
    record, forwarding = tmp_path / "record.json", "net/ipv4/conf/lan/forwarding"
    sysctl.Sysctls(record).apply({forwarding: "1"})
    changes = json.loads(record.read_text())
    assert changes[forwarding].pop("of_all") == "0"
    record.write_text(json.dumps(changes))
    sysctl.Sysctls(record).restore()
    assert lab.gateway.sysctl(forwarding) == "0" and not record.exists()


def test_a_setting_that_the_host_has_at_its_start_too_stays(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sysctl.d").mkdir()
    (tmp_path / "sysctl.d" / "99-router.conf").write_text("# a router\nnet.ipv6.conf.all.forwarding = 1\n")
    monkeypatch.setattr(sysctl, "at_start", partial(at_start, etc=tmp_path))
    settings = sysctl.Sysctls(tmp_path / "record.json")
    settings.apply({"net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/lan/rp_filter": sysctl.LOOSE})
    settings.restore()
    assert lab.gateway.sysctl("net/ipv6/conf/all/forwarding") == "1"
    assert lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter") == "0"


@pytest.mark.parametrize(
    ("files", "value"),
    [
        ({}, None),
        ({"sysctl.conf": "net.ipv4.ip_forward=1"}, "1"),
        ({"sysctl.conf": "#net.ipv4.ip_forward=1\n;net.ipv4.ip_forward=1\nnet.ipv4.ip_forward"}, None),
        ({"sysctl.d/a.conf": "net/ipv4/conf/all/forwarding = 1", "sysctl.d/b.conf": "-net.ipv4.ip_forward = 0"}, "0"),
        ({"sysctl.d/a.conf": "net.ipv4.conf.*.forwarding = 1", "sysctl.d/b": "net.ipv4.ip_forward = 0"}, "1"),
        ({"sysctl.d/a.conf": "net.ipv4.ip_forward = 0", "sysctl.d/b.conf": "net.ipv4.conf.*.forwarding = 1"}, "0"),
    ],
)
def test_what_a_host_sets_at_its_start(tmp_path: Path, files: dict[str, str], value: str | None) -> None:
    (tmp_path / "sysctl.d").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert at_start("net/ipv4/conf/all/forwarding", tmp_path) == value


def test_ipv6_forwarding_of_older_kernels_is_host_wide_and_undone(lab: Lab, tmp_path: Path) -> None:
    """Before Linux 6.17 there is no other way; interfaces then must be told to go on heeding router advertisements."""
    lab.gateway.sysctl("net/ipv6/conf/wan1/accept_ra", 1)
    lab.gateway.sysctl("net/ipv6/conf/lan2/accept_ra", 0)
    before = host_state()
    record = tmp_path / "record.json"
    wanted, opened = sysctl.forwarding(sysctl.Sysctls(record), [], ["lan"], tuns_v6=["lan2"], per_interface_v6=False)
    assert opened.ipv6_everywhere
    sysctl.Sysctls(record).apply(wanted)
    assert lab.gateway.sysctl("net/ipv6/conf/all/forwarding") == "1"
    assert lab.gateway.sysctl("net/ipv6/conf/wan1/accept_ra") == "2"
    assert lab.gateway.sysctl("net/ipv6/conf/lan2/accept_ra") == "0"
    # asked again, by a process that only knows the record, it is the same wish
    again, opened = sysctl.forwarding(sysctl.Sysctls(record), [], ["lan"], tuns_v6=["lan2"], per_interface_v6=False)
    assert (again, opened.ipv6_everywhere) == (wanted, True)
    sysctl.Sysctls(record).restore()
    assert host_state() == before
    assert not record.exists()


def test_damaged_record_is_an_error_that_names_it(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text("{")
    with pytest.raises(HostError, match=r"record\.json: not readable"):
        sysctl.Sysctls(record)
