"""What others change on the host is put right, and told; who keeps changing it does not hold the daemon."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
from helpers.host_state import host_state, ip, output_of, unordered
from helpers.lab import Lab
from helpers.tunnel_end import PLANS
from helpers.watched import Watched

from cvpnd.host import firewall
from cvpnd.host import gateway as host_gateway
from cvpnd.host.gateway import HostGateway
from cvpnd.host.patience import FIRST_PAUSE_S
from cvpnd.host.routes import FIRST_TABLE


async def test_routes_return_with_an_interface_that_was_down(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])
    async with Watched(gateway.watch()) as watched:
        await asyncio.sleep(0.1)
        up = ip(f"route show table {FIRST_TABLE}")
        ip("link set lan down")
        assert "dev lan" not in ip(f"route show table {FIRST_TABLE}")
        ip("link set lan up")
        await watched.until(lambda: watched.lines and ip(f"route show table {FIRST_TABLE}") == up)
        assert all(line.startswith("subnet-a: ") for line in watched.lines)


async def test_what_others_flush_comes_back(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["both"])
    wanted = unordered(host_state())
    async with Watched(gateway.watch(), gateway.watch_firewall()) as watched:
        await asyncio.sleep(0.2)
        await gateway.update(PLANS["staff"])
        await gateway.update(PLANS["both"])
        assert watched.lines == [], "our own changes are nobody's attack"

        async def comes_back(told: int) -> None:
            await watched.until(lambda: len(watched.lines) >= told and unordered(host_state()) == wanted, 15)

        lab.gateway.run("nft", "flush", "ruleset")
        await comes_back(told=1)
        ip("rule delete priority 1000")
        ip("-6 rule delete priority 1000")
        await comes_back(told=2)
        assert {line.partition(" (")[0] for line in watched.lines} == {
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
            watched.changes.clear()
            lab.gateway.run(*change.split())
            await comes_back(told=1)
            assert any(words in line for line in watched.lines), watched.lines
        assert gateway.trouble == ""
        watched.changes.clear()
        ip(f"link delete {staff.tun}")
        await watched.until(lambda: watched.lines)
        gone = f"endpoint {staff.name}: somebody changed its device {staff.tun} (gone)"
        assert watched.lines == [gone], "and nothing is set up"


async def test_who_keeps_changing_things_and_who_changes_thousands_do_not_hold_the_daemon(
    lab: Lab, gateway: HostGateway
) -> None:
    await gateway.up(PLANS["staff"])
    async with Watched(gateway.watch(), gateway.watch_firewall()) as watched:
        told = watched.changes

        async def soon(condition: Callable[[], object]) -> None:
            await watched.until(condition, 30)

        # then the look at what happened before is over, which would tell of the first change too
        await asyncio.sleep(0.1)
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


async def test_firewall_comes_back_also_while_a_target_interface_is_gone(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(PLANS["staff"])
    async with Watched(gateway.watch(), gateway.watch_firewall()) as watched:
        await asyncio.sleep(0.2)
        ip("link set lan down")
        ip("link set lan name away")
        await watched.until(lambda: "there is no interface lan" in gateway.trouble)
        lab.gateway.run("nft", "flush", "ruleset")
        await watched.until(lambda: "table inet cvpnd" in output_of("nft", "list", "tables"))
        await gateway.down()
        await asyncio.sleep(0.2)
        assert "table inet cvpnd" not in output_of("nft", "list", "tables"), "our own removal is nobody's attack"


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
    async with Watched(gateway.watch_firewall()) as watched:
        await asyncio.sleep(2)
        delete_table_as(ports[-1])
        assert "cvpnd" not in output_of("nft", "list", "tables")
        await watched.until(lambda: watched.changes and "cvpnd" in output_of("nft", "list", "tables"))
        assert [change.what for change in watched.changes] == ["firewall"]
