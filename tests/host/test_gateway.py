"""Set up, change, take back, pick up after a killed predecessor: compared by what `ip`, `nft` and /proc/sys show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from helpers.host_state import host_state, ip, output_of, unordered
from helpers.lab import REPOSITORY, Lab, wait_until
from helpers.netns import Process
from helpers.tunnel_end import PARTNERS, PLANS, PORTS, STAFF, SUBNET_A, VPC_MAIN

from cvpnd.host.errors import HostError
from cvpnd.host.gateway import Association, ExtraRoute, HostGateway, HostPlan, Subnet
from cvpnd.host.routes import FIRST_TABLE, PROTOCOL

ENVIRONMENT = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
FOREIGN_TABLE = """
table ip neighbour {
    chain forward {
        type filter hook forward priority 0; policy accept;
        ip saddr 172.31.0.0/16 accept
    }
}
"""


def predecessor(lab: Lab, runtime_dir: Path, plan: str) -> Process:
    """A process of its own that has the host set up."""
    process = lab.gateway.start(
        sys.executable, "-m", "helpers.tunnel_end", runtime_dir, plan, label="predecessor", env=ENVIRONMENT
    )
    process.wait_for("^up")
    return process


def add_neighbours() -> None:
    """What other software might have on the host, at the very places that we would like to use."""
    subprocess.run(["nft", "-f", "-"], input=FOREIGN_TABLE, text=True, check=True)
    ip(f"route add 10.77.0.0/16 dev lan table {FIRST_TABLE} proto static")
    for family in ("-4", "-6"):
        ip(f"{family} rule add iif lan2 table 77 priority 1000")


async def test_everything_is_undone_at_the_end(lab: Lab, gateway: HostGateway) -> None:
    add_neighbours()
    before = host_state()
    await gateway.up(PLANS["both"])
    during = host_state()
    assert {key for key in before if during[key] != before[key]} >= {
        "nft",
        "rules -4",
        "rules -6",
        "routes -4",
        "links",
    }
    await gateway.down()
    assert host_state() == before
    await gateway.down()
    assert host_state() == before


async def test_neighbours_are_left_alone_while_up(lab: Lab, gateway: HostGateway) -> None:
    add_neighbours()
    before = host_state()
    await gateway.up(PLANS["both"])
    during = host_state()
    for key in ("rules -4", "rules -6", "routes -4", "routes -6"):
        assert set(before[key].splitlines()) <= set(during[key].splitlines())
    assert before["nft"].strip() in during["nft"]
    # the table that somebody uses is not joined
    assert f"lookup {FIRST_TABLE} " not in during["rules -4"]
    assert f"iif cvpn0 lookup {FIRST_TABLE + 1} " in during["rules -4"]


async def test_same_plan_again_changes_nothing(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["both"])
    once = host_state()
    await gateway.update(PLANS["both"])
    assert host_state() == once


async def test_a_change_on_a_host_that_is_known_comes_to_the_same_and_looks_at_nothing_else(
    lab: Lab, gateway: HostGateway
) -> None:
    branch = ExtraRoute(IPv4Network("10.50.0.0/16"), SUBNET_A)
    await gateway.up(PLANS["both"])
    wanted = unordered(host_state())
    await gateway.down()
    await gateway.up(PLANS["staff"])
    ip(f"route delete 10.20.0.0/16 table {FIRST_TABLE}")  # by somebody, behind our back
    await gateway.update(HostPlan((replace(STAFF, routes=(branch,)),), PORTS), look=False)
    table = ip(f"route show table {FIRST_TABLE}")
    assert "10.50.0.0/16 " in table and "10.20.0.0/16 " not in table
    await gateway.update(PLANS["both"], look=False)  # an endpoint more: the tables of others have to be looked at
    assert unordered(host_state()) == wanted
    await gateway.update(PLANS["staff"], look=False)
    await gateway.update(PLANS["both"], look=False)
    assert unordered(host_state()) == wanted
    with pytest.raises(HostError, match="there is no interface nowhere"):
        lost = replace(STAFF, associations=(Association(replace(SUBNET_A, interface="nowhere")),))
        await gateway.update(HostPlan((lost,), PORTS), look=False)
    assert unordered(host_state()) == wanted


async def test_what_a_killed_predecessor_left_is_replaced(lab: Lab, gateway: HostGateway, runtime_dir: Path) -> None:
    add_neighbours()
    clean = host_state()
    await gateway.up(PLANS["staff"])
    fresh = host_state()
    await gateway.down()

    predecessor(lab, runtime_dir, "both").kill()
    wait_until(lambda: "cvpn0" not in ip("link"), what="the kernel removes a dead process's TUN devices")
    left = host_state()
    assert {key for key in clean if left[key] != clean[key]} >= {"nft", "rules -4", "rules -6", "routes -4"}
    assert left["/proc/sys/net/ipv4/conf/lan2/forwarding"] == "1"

    await gateway.up(PLANS["staff"])
    assert host_state() == fresh
    await gateway.down()
    assert host_state() == clean


async def test_what_a_killed_gateway_left_is_taken_back_without_another_start(lab: Lab, runtime_dir: Path) -> None:
    add_neighbours()
    clean = host_state()
    killed = predecessor(lab, runtime_dir, "both")
    up = host_state()
    for directory in (runtime_dir, runtime_dir / "another"):
        with pytest.raises(HostError, match="running"):
            await HostGateway(directory).clean()
    assert host_state() == up != clean, "of one that runs it takes nothing"
    killed.kill()
    wait_until(lambda: "cvpn0" not in ip("link"), what="the kernel removes a dead process's TUN devices")
    for _ in range(2):
        await HostGateway(runtime_dir).clean()
        assert host_state() == clean


async def test_second_gateway_is_refused_while_the_first_runs(
    lab: Lab, gateway: HostGateway, runtime_dir: Path
) -> None:
    first = predecessor(lab, runtime_dir, "both")
    before = host_state()
    with pytest.raises(HostError, match=f"running already.*{first.pid}"):
        await gateway.up(PLANS["staff"])
    await gateway.down()
    assert host_state() == before
    with pytest.raises(HostError, match=f"running on this host already.*{first.pid}"):
        await HostGateway(runtime_dir / "another").up(PLANS["staff"])
    assert host_state() == before
    first.kill()
    await gateway.up(PLANS["staff"])


async def test_a_device_without_ipv6_and_with_an_mtu_too_small_for_it(lab: Lab, gateway: HostGateway) -> None:
    """Below 1280 bytes the kernel has no settings of IPv6 for it."""
    narrow = replace(PARTNERS, mtu=1250)
    await gateway.up(HostPlan((STAFF, narrow), PORTS))
    assert json.loads(ip("-j link show cvpn1"))[0]["mtu"] == 1250
    assert lab.gateway.sysctl("net/ipv6/conf/cvpn0/seg6_enabled") == "0"
    await gateway.update(HostPlan((replace(STAFF, client_cidr_v6=None, mtu=1250), narrow), PORTS))
    assert json.loads(ip("-j link show cvpn0"))[0]["mtu"] == 1250


async def test_update_keeps_devices_of_endpoints_that_stay(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])
    queues = gateway.tun_queues("staff")
    index = json.loads(ip("-j link show cvpn0"))[0]["ifindex"]

    await gateway.update(PLANS["both"])
    assert json.loads(ip("-j link show cvpn0"))[0]["ifindex"] == index
    assert "10.50.0.0/16" in ip(f"route show table {FIRST_TABLE}")
    assert "10.101.0.1/22" in ip("address show cvpn1")

    # another client CIDR and MTU for the same device, and the other endpoint gone
    moved = replace(STAFF, client_cidr=IPv4Network("10.110.0.0/22"), client_cidr_v6=None, mtu=1300)
    await gateway.update(HostPlan((moved,), PORTS))
    shown = json.loads(ip("-j address show cvpn0"))[0]
    assert (shown["ifindex"], shown["mtu"]) == (index, 1300)
    assert [(a["local"], a["prefixlen"]) for a in shown["addr_info"]] == [("10.110.0.1", 22)]
    assert "cvpn1" not in ip("link")
    assert "cvpn1" not in output_of("nft", "list", "ruleset")
    assert "10.50.0.0/16" not in ip(f"route show table {FIRST_TABLE}")

    # and IPv6 comes back to a device that is up
    await gateway.update(PLANS["staff"])
    assert "fd99::1/64" in ip("address show cvpn0")
    for queue in queues:
        os.close(queue)


async def test_device_has_as_many_queues_as_asked_non_blocking(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])
    queues = gateway.tun_queues("staff")
    assert len(queues) == STAFF.queues
    assert not any(os.get_blocking(queue) or os.get_inheritable(queue) for queue in queues)
    for queue in queues:
        os.close(queue)


async def test_device_goes_even_if_somebody_holds_a_queue(lab: Lab, gateway: HostGateway) -> None:
    before = host_state()
    await gateway.up(PLANS["staff"])
    queues = gateway.tun_queues("staff")
    await gateway.down()
    assert host_state() == before
    for queue in queues:
        os.close(queue)


async def test_missing_interface_is_named_with_its_subnet_and_nothing_changes(lab: Lab, gateway: HostGateway) -> None:
    nowhere = Subnet("subnet-z", IPv4Network("10.99.0.0/24"), "eth7")
    plan = HostPlan((replace(STAFF, associations=(*STAFF.associations, Association(nowhere))),), PORTS)
    before = host_state()
    with pytest.raises(HostError, match="subnet-z: there is no interface eth7"):
        await gateway.up(plan)
    await gateway.down()
    assert host_state() == before

    await gateway.up(PLANS["staff"])
    running = host_state()
    with pytest.raises(HostError, match="subnet-z: there is no interface eth7"):
        await gateway.update(plan)
    assert host_state() == running


async def test_interface_that_is_down_is_named_and_update_goes_back(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])
    ip("link set lan2 down")
    running = host_state()
    with pytest.raises(HostError, match=r"subnet-b: route 10\.30\.0\.0/24 through lan2: the interface is down"):
        await gateway.update(PLANS["both"])
    assert host_state() == running


async def test_device_name_that_is_taken_is_not_joined(lab: Lab, gateway: HostGateway) -> None:
    ip("tuntap add cvpn0 mode tun multi_queue")
    before = host_state()
    with pytest.raises(HostError, match="cvpn0: there is a device of that name already"):
        await gateway.up(PLANS["staff"])
    await gateway.down()
    assert host_state() == before


def set_up_in_a_shell(lab: Lab, runtime_dir: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "-m", "helpers.tunnel_end", str(runtime_dir)]
    return lab.gateway.run(*prefix, *script, env=ENVIRONMENT, check=False)


def test_missing_nft_is_named_with_its_package(lab: Lab, runtime_dir: Path) -> None:
    before = host_state()
    hide = 'for f in /usr/sbin/nft /usr/bin/nft; do [ -e $f ] && mount --bind /dev/null $f; done; exec "$@"'
    done = set_up_in_a_shell(lab, runtime_dir, "unshare", "-m", "sh", "-c", hide, "sh")
    assert done.returncode == 1
    assert "install the package nftables" in done.stderr
    assert host_state() == before


def test_missing_capability_is_named(lab: Lab, runtime_dir: Path) -> None:
    done = set_up_in_a_shell(lab, runtime_dir, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    assert done.returncode == 1
    assert "CAP_NET_ADMIN is missing" in done.stderr


async def test_host_with_ipv6_switched_off_works(lab: Lab, gateway: HostGateway) -> None:
    for name in ("all", "default"):
        lab.gateway.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
    before = host_state()
    await gateway.up(HostPlan((PARTNERS,), PORTS))
    await gateway.down()
    assert host_state() == before


def test_protocol_number_is_nobody_elses() -> None:
    registered = Path("/etc/iproute2/rt_protos")
    if not registered.exists():
        registered = Path("/usr/share/iproute2/rt_protos")
    numbers = {line.split()[0] for line in registered.read_text().splitlines() if line and line[0].isdigit()}
    assert str(PROTOCOL) not in numbers
    assert "186" in numbers  # bgp: the file is what we think it is


def test_gateway_of_another_family_is_not_used() -> None:
    two_families = replace(SUBNET_A, gateway=IPv4Address("10.20.0.254"))
    paths = replace(STAFF, associations=(Association(two_families, (VPC_MAIN, *STAFF.client_cidrs[1:])),)).paths()
    assert [(str(path.destination), path.gateway) for path in paths] == [
        ("10.20.0.0/24", None),
        ("10.20.0.0/16", IPv4Address("10.20.0.254")),
        ("fd99::/64", None),
    ]
