"""Clients behind a router that does NAT, the kernel's own: it forgets flows and gives their ports to others, and there
are several behind one address."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import certs
from helpers.home import PUBLIC, Home
from helpers.lab import wait_until

pytestmark = pytest.mark.skipif(shutil.which("conntrack") is None, reason="needs conntrack")

OWN_PORT = 40_000


@pytest.fixture
def home(site: Any, request: pytest.FixtureRequest) -> Iterator[Home]:
    with Home(site.lab, getattr(request, "param", 1)) as home:
        yield home


def places(gateway: Any) -> dict[str, tuple[str, int]]:
    """By the name in the certificate, from where each is seen."""
    live = [each for each in gateway.ctl_json("connection", "list") if each["status"] == "active"]
    return {each["common_name"]: (each["device_ip"], each["port"]) for each in live}


def test_a_transfer_goes_on_whenever_the_router_forgets_its_flows(site: Any, home: Home) -> None:
    gateway = site.start()
    site.lab.start_servers()
    (machine,) = home.machines
    client = site.connect(client=machine)
    machine.start_ping("10.20.0.10", 0.1)  # the answer to a first packet may still go where the last one came from
    ports, stop = set(), threading.Event()

    def forgetful() -> None:
        first = 41_000
        while not stop.wait(1.5):
            home.masquerade(f"{first}-{first + 99}")
            home.forget()
            first += 100

    router = threading.Thread(target=forgetful)
    router.start()
    try:
        for times in range(60):  # a fast machine has done three before the router forgets twice
            site.lab.download(machine, "10.20.0.10", 20 << 20)
            ports.add(places(gateway)["alice"][1])
            site.lab.upload(machine, "10.20.0.10", 20 << 20)
            ports.add(places(gateway)["alice"][1])
            if times >= 2 and len(ports) >= 3:
                break
    finally:
        stop.set()
        router.join()
    assert len(ports) >= 3
    assert client.connected_count == 1


@pytest.mark.parametrize("home", [2], indirect=True)
def test_two_clients_behind_one_address_that_take_each_others_port(site: Any, home: Home) -> None:
    """Both come from the same port of their own, which the router can keep for one of them; after it has forgotten
    them, it is the other's. Keys are renewed all the while."""
    gateway = site.start("renegotiate_s = 5")
    names = ("alice", "bob")
    clients = [
        site.connect(certs.client(name), "--lport", str(OWN_PORT), binding="", name=name, client=machine)
        for name, machine in zip(names, home.machines, strict=True)
    ]
    addresses = [client.address for client in clients]
    assert addresses[0] != addresses[1]

    def keeps_it(name: str) -> bool:
        seen = places(gateway)
        assert {host for host, _ in seen.values()} == {PUBLIC}
        (other,) = {*names} - {name}
        return seen[name][1] == OWN_PORT != seen[other][1]

    wait_until(lambda: keeps_it("alice"), 10, "the first one's port")
    for first in (1, 0, 1, 0):
        clients[1 - first].process.signal(signal.SIGSTOP)
        home.forget()
        home.machines[first].ping("10.20.0.10", 1, 0.1)  # not answered: the gateway knows the other one there
        clients[1 - first].process.signal(signal.SIGCONT)
        wait_until(lambda first=first: keeps_it(names[first]), 10, f"{names[first]} at the other's port")
        for machine in home.machines:
            assert machine.ping("10.20.0.10", 5, 0.1).received == 5
        time.sleep(2)
    renewed = gateway.metrics()['cvpnd_renegotiations_total{endpoint="staff"}']
    assert renewed >= 2
    assert [client.connected_count for client in clients] == [1, 1]
    assert [client.address for client in clients] == addresses


def test_an_idle_client_can_be_reached_behind_a_router_that_forgets_soon(site: Any, home: Home) -> None:
    """After three times what pings are apart: as a router that gives UDP 30 seconds, and ``ping_s`` as it is."""
    gateway = site.start(ping_s=1, ping_restart_s=6)
    (machine,) = home.machines
    home.remember_for(3)
    site.connect(client=machine)
    with site.lab.target.socket() as listening:
        listening.bind(("10.20.0.10", 9000))
        listening.listen()
        asking = machine.connect(("10.20.0.10", 9000))
        answering, _ = listening.accept()
        before = places(gateway)
        time.sleep(9)
        with asking, answering:
            answering.sendall(b"late")
            asking.settimeout(1)
            assert asking.recv(4) == b"late"
    assert places(gateway) == before, "through the flow that it came by"


def test_a_client_behind_a_router_that_forgets_sooner_than_it_pings_stays(site: Any, home: Home) -> None:
    gateway = site.start(ping_s=4, ping_restart_s=12)
    (machine,) = home.machines
    home.remember_for(1)
    client = site.connect(client=machine)
    seen = set()
    for number in range(4):
        first = 41_000 + 100 * number
        home.masquerade(f"{first}-{first + 99}")
        time.sleep(4.5)
        assert machine.ping("10.20.0.10", 3, 0.1).received >= 2  # the answer to what shows the move may miss it
        seen.add(places(gateway)["alice"])
    assert len(seen) == 4
    assert client.connected_count == 1
