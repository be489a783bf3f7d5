"""What is left of a client's connections when it leaves: the next to have its address gets none of it."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network

import pytest
from helpers import certs
from helpers.crowd import crowd_command
from helpers.lab import CLIENT_LEGS, TARGET_LEG, OpenVpnClient, wait_until

from cvpnd.policy.leases import LeasePool

CLIENT_CIDR = "10.100.0.0/22"
SECRET = b"for the one who asked"
ROUTED = 'associate = [{ subnet = "subnet-a", nat = false }]'


@pytest.fixture(params=["translated", "routed"])
def start(request, site):
    """Starts the gateway, on a host that tracks a stream of datagrams for as long as any restart takes."""
    site.lab.gateway.sysctl("net/netfilter/nf_conntrack_udp_timeout", 300)
    if request.param == "routed":
        site.lab.target.ip_batch(f"route add {CLIENT_CIDR} via {TARGET_LEG.gateway}")

    def run(more: str = "", **options):
        toml = site.toml(more, **options)
        if request.param == "routed":
            toml = toml.replace('associate = ["subnet-a", "subnet-b"]', ROUTED)
        site._gateway = site.lab.gateway_process(toml)
        return site.gateway

    return run


@contextmanager
def stream(site, client: OpenVpnClient) -> Iterator[socket.socket]:
    """The client asks, and the target answers for ever: each look into the socket sends one more."""
    with (
        site.lab.target.socket(kind=socket.SOCK_DGRAM) as target,
        client.namespace.socket(kind=socket.SOCK_DGRAM) as asking,
    ):
        target.bind((TARGET_LEG.host, 5000))
        target.settimeout(3)
        asking.bind((client.address, 4000))
        asking.sendto(b"ask", (TARGET_LEG.host, 5000))
        _, back = target.recvfrom(100)
        target.connect(back)
        target.send(SECRET)
        asking.settimeout(3)
        assert asking.recv(100) == SECRET
        yield target


def reached_by(target: socket.socket, client: OpenVpnClient, seconds: float = 1.0) -> int:
    """How many packets of the stream get to that client's machine."""
    seen, until = 0, time.monotonic() + seconds
    with client.namespace.socket(kind=socket.SOCK_RAW, protocol=socket.IPPROTO_UDP) as listening:
        listening.settimeout(0.05)
        while time.monotonic() < until:
            try:
                target.send(SECRET)
                seen += SECRET in listening.recv(2000)
            except (TimeoutError, ConnectionRefusedError):
                continue
    return seen


def same_choice(other: str) -> str:
    """Another name whose first address is that one's."""
    network = IPv4Network(CLIENT_CIDR)
    wanted = LeasePool(network).acquire(other)
    return next(name for n in range(100_000) if LeasePool(network).acquire(name := f"person{n}") == wanted)


def second_machine(site) -> dict:
    return {"client": site.lab.clients[1], "host": CLIENT_LEGS[1].gateway}


def test_who_gets_the_only_free_address_gets_nothing_of_who_left_it(site, start):
    limits = "limits = { handshakes = 2000, handshakes_per_source = 2000, sessions_per_identity = 2000 }"
    gateway = start(limits, ping_s=10, ping_restart_s=60)  # one process plays the crowd, and may be busy for long
    pool = int(gateway.metrics()['cvpnd_lease_pool_size{endpoint="staff"}'])
    alice = site.connect(certs.client("alice"), name="alice")
    address = alice.address
    command, env = crowd_command(site.lab, "--count", str(pool - 1), "--tcp", "--hold", "600", client=1)
    site.lab.clients[1].start(*command, env=env, label="crowd")
    used = 'cvpnd_lease_pool_used{endpoint="staff"}'
    wait_until(lambda: gateway.metrics()[used] == pool, 90, "a full pool")
    with stream(site, alice) as target:
        assert reached_by(target, alice) > 0, "which makes the silence below mean something"
        alice.stop()
        bob = site.connect(certs.client("bob"), name="bob")
        assert bob.address == address
        assert reached_by(target, bob) == 0
    assert site.lab.client.ping(TARGET_LEG.host).received == 3
    assert set(gateway.refusals()) == {"NA"}, "and had to wait for nothing"


def test_connections_of_before_a_crash_are_nobodys(site, start):
    gateway = start()
    alice = site.connect(certs.client("alice"), name="alice")
    address = alice.address
    with stream(site, alice) as target:
        alice.stop()
        gateway.kill()
        gateway.start()
        name = same_choice("alice")
        bob = site.connect(certs.client(name), name="bob", **second_machine(site))
        assert bob.address == address
        assert reached_by(target, bob) == 0


def test_device_that_comes_back_to_its_address_finds_its_connections_there(site, start):
    start()
    alice = site.connect(certs.client("alice"), name="alice")
    address = alice.address
    with stream(site, alice) as target:
        alice.stop()
        again = site.connect(certs.client("alice"), name="again")
        assert again.address == address
        assert reached_by(target, again) > 0


def test_connections_of_before_a_restart_stay_their_clients(site, start):
    gateway = start()
    alice = site.connect(certs.client("alice"), name="alice")
    address = alice.address
    with stream(site, alice) as target:
        record = gateway.directory / "leases.json"
        gateway.stop()
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
        gateway.start()
        assert not record.exists()
        bob = site.connect(certs.client(same_choice("alice")), name="bob", **second_machine(site))
        alice.wait_connected(30, times=2)
        assert (alice.address, bob.address != address) == (address, True)
        assert reached_by(target, bob) == 0
        assert reached_by(target, alice) > 0


def test_connections_of_before_a_start_that_failed_stay_their_clients(site, start):
    gateway = start()
    alice = site.connect(certs.client("alice"), name="alice")
    address = alice.address
    with stream(site, alice) as target:
        gateway.stop()
        record = (gateway.directory / "leases.json").read_text()
        with site.lab.gateway.socket() as taken:  # found out when this endpoint has been made
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("0.0.0.0", 1194))
            taken.listen()
            gateway.start(wait=False)
            assert gateway.running.wait() == 1
        assert (gateway.directory / "leases.json").read_text() == record
        gateway.start()
        alice.wait_connected(30, times=2)
        assert alice.address == address
        assert reached_by(target, alice) > 0


def test_quiet_tcp_connection_outlasts_a_restart(site, start):
    """One over which the target sends meanwhile does not where addresses are translated and nobody else has rules for
    that: the gateway host takes what comes for its own, and resets it."""
    gateway = start()
    alice = site.connect(certs.client("alice"), name="alice")
    with site.lab.target.socket() as listening, alice.namespace.socket() as client:
        listening.bind((TARGET_LEG.host, 5000))
        listening.listen()
        client.bind((alice.address, 0))
        client.settimeout(5)
        client.connect((TARGET_LEG.host, 5000))
        target, _ = listening.accept()
        with target:
            gateway.stop()
            gateway.start()
            alice.wait_connected(30, times=2)
            target.settimeout(20)
            client.settimeout(20)
            target.send(b"after the restart")
            assert client.recv(100) == b"after the restart"
            client.send(b"and back")
            assert target.recv(100) == b"and back"
