"""A network behind a router that does NAT, as at home, in a hotel or on a telephone: the lab's first client is the
router, and the machines behind it are made here.

    machine1 ─veth─ home1 ┐
    machine2 ─veth─ home2 ┤  router (masquerade)  eth0 ──veth── wan1  gateway
"""

from __future__ import annotations

from helpers.lab import CLIENT_LEGS, Lab
from helpers.netns import Namespace

PUBLIC = CLIENT_LEGS[0].host
"""The one address that the gateway sees of all of them."""


class Home:
    """Its machines end with the ``with``; the router is the lab's."""

    def __init__(self, lab: Lab, machines: int = 1) -> None:
        self.router = lab.client
        self.router.sysctl("net/ipv4/ip_forward", 1)
        self.machines = [self._machine(lab, number) for number in range(1, machines + 1)]
        self.masquerade()

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.close()

    def _machine(self, lab: Lab, number: int) -> Namespace:
        machine = Namespace(f"{self.router.name.rpartition('-')[0]}-machine{number}", lab.directory)
        self.router.ip_batch(
            f"link add home{number} index {200 + number} type veth peer name eth0 netns {machine.name}",
            f"address add 192.168.{number}.1/24 dev home{number}",
            f"link set home{number} up",
        )
        machine.ip_batch(
            f"address add 192.168.{number}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via 192.168.{number}.1",
        )
        return machine

    def masquerade(self, ports: str = "") -> None:
        """From now on new flows get source ports of this range; their own where they can, if it is empty."""
        to = f" to :{ports}" if ports else ""
        rule = f"meta l4proto {{ tcp, udp }} masquerade{to}" if ports else "masquerade"
        self.router.run("nft", "-f", "-", input=f"""
            table ip home
            delete table ip home
            table ip home {{
                chain nat {{ type nat hook postrouting priority srcnat; oifname "eth0" {rule}; }}
            }}""")  # fmt: skip

    def forget(self) -> None:
        """All flows, as by a restart."""
        self.router.run("conntrack", "--flush")

    def remember_for(self, seconds: int) -> None:
        """Flows of UDP without a packet."""
        for name in ("udp_timeout", "udp_timeout_stream"):
            self.router.sysctl(f"net/netfilter/nf_conntrack_{name}", seconds)
