"""Set up, change, take back, pick up after a killed predecessor: compared by what `ip`, `nft` and /proc/sys show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from helpers.host_state import host_state, ip, output_of
from helpers.lab import REPOSITORY, Lab, wait_until
from helpers.netns import Process
from helpers.tunnel_end import PARTNERS, PLANS, PORTS, STAFF, SUBNET_A, VPC_MAIN

from cvpnd.host import firewall, sysctl
from cvpnd.host import gateway as host_gateway
from cvpnd.host.errors import HostError
from cvpnd.host.gateway import Association, ExtraRoute, HostChange, HostGateway, HostPlan, Subnet
from cvpnd.host.patience import FIRST_PAUSE_S
from cvpnd.host.routes import FIRST_TABLE, PROTOCOL
from cvpnd.host.sysctl_files import at_start

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


def unordered(state: dict[str, str]) -> dict[str, list[str]]:
    """Rules of one priority are in the order in which they were added."""
    return {key: sorted(text.splitlines()) for key, text in state.items()}


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


async def test_routes_return_with_an_interface_that_was_down(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])
    lines: list[str] = []

    async def follow() -> None:
        async for change in gateway.watch():
            lines.append(change.text)

    watching = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    up = ip(f"route show table {FIRST_TABLE}")
    ip("link set lan down")
    assert "dev lan" not in ip(f"route show table {FIRST_TABLE}")
    ip("link set lan up")
    for _ in range(50):
        if lines and ip(f"route show table {FIRST_TABLE}") == up:
            break
        await asyncio.sleep(0.1)
    assert ip(f"route show table {FIRST_TABLE}") == up
    assert lines
    assert all(line.startswith("subnet-a: ") for line in lines)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_what_others_flush_comes_back(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["both"])
    wanted = unordered(host_state())
    lines: list[str] = []

    async def follow(source: AsyncIterator[HostChange]) -> None:
        async for change in source:
            lines.append(change.text)

    watching = [asyncio.create_task(follow(source)) for source in (gateway.watch(), gateway.watch_firewall())]
    await asyncio.sleep(0.2)
    await gateway.update(PLANS["staff"])
    await gateway.update(PLANS["both"])
    assert lines == [], "our own changes are nobody's attack"

    async def comes_back(told: int) -> None:
        for _ in range(50):
            await asyncio.sleep(0.1)
            if len(lines) >= told and unordered(host_state()) == wanted:
                return
        for each in watching:
            if each.done():
                each.result()
        assert unordered(host_state()) == wanted, lines

    lab.gateway.run("nft", "flush", "ruleset")
    await comes_back(told=1)
    ip("rule delete priority 1000")
    ip("-6 rule delete priority 1000")
    await comes_back(told=2)
    assert {line.partition(" (")[0] for line in lines} == {
        "somebody removed cvpnd's nftables table",
        "somebody removed our routing rules",
    }
    (staff, _) = PLANS["both"].endpoints
    for change, words in (
        (f"ip link set {staff.tun} down", f"changed its device {staff.tun} (down): put right"),
        (f"ip address flush dev {staff.tun}", f"changed its device {staff.tun} (changed): put right"),
        (f"ip link set {staff.tun} mtu 1300", f"changed its device {staff.tun} (changed): put right"),
        (f"ip route flush table {FIRST_TABLE}", "routes were gone: put right"),
        ("sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.ip_forward=0", "forwarding (sysctl): put right"),
        ("sysctl -q -w net.ipv6.conf.all.forwarding=0", "forwarding (sysctl): put right"),
        (
            "sysctl -q -w net.ipv6.conf.all.forwarding=1 net.ipv6.conf.all.forwarding=0",
            "forwarding (sysctl): put right",
        ),
        ("nft flush table inet cvpnd", "somebody changed cvpnd's nftables table: it is in place again"),
        ("nft flush chain inet cvpnd spoofing", "changed cvpnd's"),
        ("nft insert rule inet cvpnd from_clients accept", "changed cvpnd's"),
        ("nft add table inet cvpnd { flags dormant ; }", "changed cvpnd's"),
    ):
        lines.clear()
        lab.gateway.run(*change.split())
        await comes_back(told=1)
        assert any(words in line for line in lines), lines
    assert gateway.trouble == ""
    lines.clear()
    ip(f"link delete {staff.tun}")
    for _ in range(50):
        if lines:
            break
        await asyncio.sleep(0.1)
    assert lines == [f"endpoint {staff.name}: somebody changed its device {staff.tun} (gone)"], "and nothing is set up"
    for task in watching:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


async def test_who_keeps_changing_things_and_who_changes_thousands_do_not_hold_the_daemon(
    lab: Lab, gateway: HostGateway
) -> None:
    await gateway.up(PLANS["staff"])
    told: list[HostChange] = []

    async def follow(source: AsyncIterator[HostChange]) -> None:
        async for change in source:
            told.append(change)

    async def soon(true: Callable[[], bool]) -> None:
        for _ in range(300):
            if true():
                return
            await asyncio.sleep(0.1)
        assert true(), told

    watching = [asyncio.create_task(follow(source)) for source in (gateway.watch(), gateway.watch_firewall())]
    await asyncio.sleep(0.1)  # then the look at what happened before is over, which would tell of the first change too
    await soon(lambda: gateway._look_at is None and not gateway._busy.locked())
    for number in range(9):  # each is put right, whoever removes it however often; what is said of it ends
        await soon(lambda: "from_clients" in output_of("nft", "list", "ruleset"))
        await soon(lambda number=number: len(told) >= number)
        lab.gateway.run("nft", "flush", "ruleset")
    await soon(lambda: len(told) >= 9 and "from_clients" in output_of("nft", "list", "ruleset"))
    assert [bool(change.text) for change in told] == [True] * 5 + [False] * 4
    assert told[4].text.endswith("for the 5th time: somebody keeps doing it, and no more is said of it")
    told.clear()

    pauses = []
    for number in range(7):
        not_before = gateway._patience.due("forwarding")
        lab.gateway.sysctl("net/ipv4/conf/lan/forwarding", "0")
        await soon(lambda number=number: len(told) > number)
        assert asyncio.get_running_loop().time() >= not_before
        struggle = gateway._patience._struggles["forwarding"]
        pauses.append(struggle.due - struggle.latest)
    assert [bool(change.text) for change in told] == [True] * 5 + [False] * 2
    assert told[4].text.endswith("no more is said of it")
    # as the gateway counts them: when this one hears of it is also a matter of what else the machine does
    assert pauses == pytest.approx([0, 0, 0, 0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S])
    # what is put right beside it would be no change to tell of
    await soon(lambda: lab.gateway.sysctl("net/ipv4/conf/lan/forwarding") == "1" and not gateway.trouble)
    told.clear()

    # Thousands of changes of somebody else's in one go: what was lost among them is seen
    flood = "\n".join(f"route add 10.9{n % 10}.{n // 10 % 250}.{n // 2500}/32 dev lan2" for n in range(2500))
    (lab.directory / "flood").write_text(flood)
    adding = await asyncio.create_subprocess_exec("ip", "-batch", lab.directory / "flood")
    await adding.wait()
    ip("rule delete priority 1000")
    await soon(lambda: any(change.what == "rules" for change in told) and f"lookup {FIRST_TABLE}" in ip("rule"))
    for task in watching:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


async def test_firewall_comes_back_also_while_a_target_interface_is_gone(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])

    async def follow(source: AsyncIterator[HostChange]) -> None:
        async for _ in source:
            pass

    async def soon(true: Callable[[], bool]) -> None:
        for _ in range(50):
            if true():
                return
            await asyncio.sleep(0.1)
        assert true()

    watching = [asyncio.create_task(follow(source)) for source in (gateway.watch(), gateway.watch_firewall())]
    await asyncio.sleep(0.2)
    ip("link set lan down")
    ip("link set lan name away")
    await soon(lambda: "there is no interface lan" in gateway.trouble)
    lab.gateway.run("nft", "flush", "ruleset")
    await soon(lambda: "table inet cvpnd" in output_of("nft", "list", "tables"))
    await gateway.down()
    await asyncio.sleep(0.2)
    assert "table inet cvpnd" not in output_of("nft", "list", "tables"), "our own removal is nobody's attack"
    for task in watching:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


def delete_table_as(port: int) -> None:
    """``nft delete table inet cvpnd`` by a process of that number, as of another container."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, firewall.NETLINK_NETFILTER) as kernel:
        kernel.bind((port, 0))
        header, about = struct.Struct("=IHHII"), struct.Struct(">BBH")
        begin = header.pack(20, 16, 0x1, 0, 0) + about.pack(0, 0, firewall.NFNL_SUBSYS_NFTABLES)
        end = header.pack(20, 17, 0x1, 2, 0) + about.pack(0, 0, firewall.NFNL_SUBSYS_NFTABLES)
        name = struct.pack("=HH", 10, firewall.NFTA_TABLE_NAME) + b"cvpnd\0\0\0"
        delete = header.pack(20 + len(name), firewall.NFNL_SUBSYS_NFTABLES << 8 | 2, 0x5, 1, 0)
        kernel.send(begin + delete + about.pack(1, 0, 0) + name + end)
        answer = kernel.recv(4096)
        assert struct.unpack_from("=i", answer, 16)[0] == 0, answer


async def test_who_has_the_number_of_a_process_of_ours_is_no_less_a_stranger(
    lab: Lab, gateway: HostGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process numbers are those of a container, and containers may share the network."""
    ports: list[int] = []
    put = firewall.put

    async def noted(batch: dict[str, object]) -> int:
        ports.append(await put(batch))
        return ports[-1]

    monkeypatch.setattr(firewall, "put", noted)
    monkeypatch.setattr(host_gateway, "OURS_S", 1.0)
    await gateway.up(PLANS["staff"])
    told: list[HostChange] = []

    async def follow() -> None:
        async for change in gateway.watch_firewall():
            told.append(change)

    watching = asyncio.create_task(follow())
    await asyncio.sleep(2)
    delete_table_as(ports[-1])
    assert "cvpnd" not in output_of("nft", "list", "tables")
    for _ in range(50):
        if told and "cvpnd" in output_of("nft", "list", "tables"):
            break
        await asyncio.sleep(0.1)
    assert [change.what for change in told] == ["firewall"] and "cvpnd" in output_of("nft", "list", "tables")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_host_with_ipv6_switched_off_works(lab: Lab, gateway: HostGateway) -> None:
    for name in ("all", "default"):
        lab.gateway.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
    before = host_state()
    await gateway.up(HostPlan((PARTNERS,), PORTS))
    await gateway.down()
    assert host_state() == before


# -- sysctl ------------------------------------------------------------------------------------------------


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
