"""Faults that firewalls and routes have nothing to do with, planted one by one beside a daemon, and each told with its
fix; and what is no fault is not told."""

from __future__ import annotations

import signal
import sys

from cvpnd.ctl.client import Client
from cvpnd.doctor.diagnosis import diagnose

BURST = (
    f"{sys.executable} -c 'import socket; to_clients = socket.socket(type=socket.SOCK_DGRAM)\n"
    'for _ in range(3000): to_clients.sendto(bytes(999), ("10.100.0.9", 9))\''
)
TUNNEL = "tmpl src 192.0.2.1 dst 192.0.2.9 proto esp mode tunnel"
FAULTS = {
    "ip xfrm policy add src 10.0.0.0/8 dst 10.20.0.0/16 dir fwd action block priority 7": (
        "problem: ipsec: an IPsec policy from 10.0.0.0/8 to 10.20.0.0/16 takes packets between clients of staff",
        "ip xfrm policy flush",
    ),
    f"ip xfrm policy add src 10.20.0.0/24 dst 0.0.0.0/0 dir out {TUNNEL}": (
        "problem: ipsec: an IPsec policy from 10.20.0.0/24 to 0.0.0.0/0 takes packets between clients of staff",
        "ip xfrm policy flush",
    ),
    "ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto icmp type 8 dir fwd priority 1; ip xfrm policy add "
    f"src 10.20.0.0/16 dst 0.0.0.0/0 dir fwd priority 9 mark 0 mask 0xffffffff {TUNNEL}": (
        "problem: ipsec: an IPsec policy from 10.20.0.0/16 to 0.0.0.0/0 takes packets between clients of staff",
        "ip xfrm policy flush",
    ),
    f"ip xfrm policy add src 10.20.0.0/16 dst 0.0.0.0/0 dir fwd priority 9 {TUNNEL}; ip xfrm policy add "
    "src 0.0.0.0/0 dst 0.0.0.0/0 dev wan1 dir fwd priority 1": (
        "problem: ipsec: an IPsec policy from 10.20.0.0/16 to 0.0.0.0/0 takes packets between clients of staff",
        "ip xfrm policy flush",
    ),
    "ip link set wan1 down": (
        "warning: interfaces: wan1 has 192.0.2.1 and is down: nobody gets in there",
        "ip link set wan1 up; ip -6 address add 2001:db8:1::1/64 dev wan1 nodad",
    ),
    "ip address del 198.51.100.1/24 dev wan2": (
        "problem: ports: endpoint staff listens on udp://198.51.100.1:443, whose address this host has lost",
        "ip address add 198.51.100.1/24 dev wan2",
    ),
    "ip route add default via 192.0.2.2; ip route add default via 198.51.100.2 metric 9; "
    "sysctl -qw net.ipv4.conf.wan2.rp_filter=1": (
        "warning: rp_filter: answers from 198.51.100.1 to the Internet go through wan1, so that the kernel drops what "
        "clients send there by wan2",
        "ip route flush exact 0.0.0.0/0; sysctl -qw net.ipv4.conf.wan2.rp_filter=0",
    ),
    "prlimit --pid {pid} --nofile=20:": (
        "problem: files: cvpnd has ",
        "prlimit --pid {pid} --nofile=1024:",
    ),
    "tc qdisc add dev cvpn0 root tbf rate 8kbit burst 2k latency 1ms; {burst}": (
        "warning: shaping: cvpn0 has a queue of somebody else's (tbf), which dropped ",
        "tc qdisc del dev cvpn0 root",
    ),
    "{burst}": (  # the daemon stands still, and its device holds a thousand
        "warning: buffers: staff: the kernel dropped ",
        "true",
    ),
}
HARMLESS = (
    # route-based: by an xfrm interface, and by a VTI
    f"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd if_id 42 {TUNNEL}",
    f"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 7 {TUNNEL}",
    # of others, and exempt from them
    f"ip xfrm policy add src 10.77.0.0/16 dst 10.20.0.0/16 dir fwd {TUNNEL}",
    "ip xfrm policy add src 10.100.0.0/22 dst 10.0.0.0/8 dir fwd priority 1",
    "ip xfrm policy add src 10.0.0.0/8 dst 10.100.0.0/22 dir fwd priority 1",
    f"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd priority 9 {TUNNEL}",
    # two ways to the Internet, each with the answers to what comes by it
    "ip route add default via 192.0.2.2; ip route add default via 198.51.100.2 metric 9",
    "ip route add default via 198.51.100.2 table 77; ip rule add from 198.51.100.1 lookup 77",
    "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "tc qdisc add dev wan1 root tbf rate 8mbit burst 20k latency 9ms; tc qdisc replace dev cvpn0 root pfifo limit 9",
    "ip link add docker0 type veth peer name idle; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up",
)


def test_each_fault_beside_firewalls_and_routes_is_told_and_nothing_on_a_host_that_is_well(site) -> None:
    gateway = site.start(listen=("udp://0.0.0.0:1194", "udp://198.51.100.1:443"))
    (site.directory / "server.key").chmod(0o600)
    host = site.lab.gateway
    status = Client(gateway.admin_socket).get("/status")["status"]

    def do(script: str) -> None:
        host.run("sh", "-ec", script.format(pid=status["pid"], burst=BURST))

    def doctor() -> list[str]:
        with host.entered():
            found = diagnose(gateway.config_path, status)
        told = [f"{each.level}: {each.check}: {each.what}" for each in found if each.level != "ok" and each.fix]
        return [each for each in told if "keeps this host's clock" not in each]

    missed = {}
    gateway.running.signal(signal.SIGSTOP)  # it would put right what it can
    try:
        assert doctor() == []
        for harmless in HARMLESS:
            do(harmless)
            assert doctor() == [], harmless
        do("ip xfrm policy flush; ip rule del from 198.51.100.1; ip route flush exact 0.0.0.0/0; ip link del docker0")
        do("tc qdisc del dev wan1 root; tc qdisc del dev cvpn0 root; sysctl -qw net.ipv4.conf.all.rp_filter=0")
        for fault, (words, cure) in FAULTS.items():
            before = doctor()
            do(fault)
            found = doctor()
            do(cure)
            if before or not any(words in each for each in found):
                missed[fault] = before, found
        outside = {each.what: each.fix for each in diagnose(gateway.config_path, status) if each.check == "daemon"}
    finally:
        gateway.running.signal(signal.SIGCONT)
    assert [each for each in outside if "another network namespace" in each], outside
    assert f"nsenter --net --target {status['pid']} cvpnctl doctor" in outside.values()
    assert missed == {}
