"""Three gateways on one PostgreSQL, one of them with a clock that is minutes off: all change at once and one is killed
in the middle of that; nothing that was answered is lost, and nobody gets what nobody asked for."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from helpers.lab import Lab, wait_until
from helpers.postgresql import PostgreSql, installed
from helpers.shared_state import PROMPT_S, Host, token_of
from helpers.wall_clock import LIBRARY, WallClock

pytestmark = [
    pytest.mark.skipif(
        not installed() or LIBRARY is None, reason="PostgreSQL or faketime is not installed, or this is not root"
    ),
    pytest.mark.timeout(300),
]

Rules = set[tuple[str, str]]
"""Network and group."""
QUOTAS = "[quotas]\nrules = 2000\n"
SOON_S = 60
"""For what takes a second where three daemons do not share two cores."""


def rules_of(host: Host) -> Rules:
    return {(rule["network"], rule["group"]) for rule in host.get("/rules")["rules"]}


def fewest_own(rules: Rules) -> int:
    """Of any of the three."""
    return min(sum(network.startswith(f"10.{60 + number}.") for network, _ in rules) for number in range(3))


def change(host: Host, number: int, begin: threading.Barrier, over: threading.Event) -> tuple[Rules, Rules]:
    """One rule after the other of its own, every other one of which it takes back, and some that all three add. Which
    of its own are there by what it was answered, and which may be, as it was not."""
    there: Rules = set()
    unsure: Rules = set()
    begin.wait(PROMPT_S)
    for turn in range(200):
        if over.is_set():
            break
        mine = {"endpoint": "lab", "network": f"10.{60 + number}.{turn}.0/24", "group": "staff"}
        shared = {"endpoint": "lab", "network": f"10.90.{turn}.0/24", "group": "staff"}
        rule = (mine["network"], mine["group"])
        try:
            if host.rest.post("/rules", json=mine).is_success:
                there.add(rule)
            host.rest.post("/rules", json=shared)
            if turn % 2 and host.rest.delete("/rules", params=mine).is_success:
                there.discard(rule)
        except httpx.TransportError:
            unsure.add(rule)
            break
    return there - unsure, unsure


def test_what_is_answered_is_so_at_all_of_them_also_when_one_is_killed_meanwhile(tmp_path: Path) -> None:
    with PostgreSql() as server, Lab() as first, Lab() as second, Lab() as third:
        state, key = server.everywhere(server.new_database("three")), tmp_path / "state.key"
        clock = WallClock(tmp_path / "wall-clock")
        clock.set("-5m")
        here, there = Host(first, state, key, QUOTAS), Host(second, state, key, QUOTAS)
        behind = Host(third, state, key, QUOTAS, **clock.environment)
        hosts = (here, there, behind)
        endpoint = here.serve_people("alice")
        here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})
        for host in (there, behind):
            wait_until(lambda host=host: "'available'" in str(host.get("/endpoints")), SOON_S, "the endpoint")
        begin, over = threading.Barrier(len(hosts) + 1), threading.Event()
        with ThreadPoolExecutor(len(hosts)) as pool:
            working = [pool.submit(change, host, number, begin, over) for number, host in enumerate(hosts)]
            begin.wait(PROMPT_S)
            try:
                wait_until(lambda: fewest_own(rules_of(here)) > 1, SOON_S, "changes of all three")
                there.gateway.kill()
                wait_until(working[1].done, SOON_S, "that one of them is gone")
                before = len(rules_of(here))
                wait_until(lambda: len(rules_of(here)) > before + 5, SOON_S, "that the others go on")
            finally:
                over.set()
            answered = [each.result(SOON_S) for each in working]
        there.gateway.start()
        wait_until(lambda: rules_of(here) == rules_of(there) == rules_of(behind), SOON_S, "the same everywhere")
        have = rules_of(here)
        own = {rule for rule in have if not rule[0].startswith("10.90.")}
        certain = set[tuple[str, str]]().union(*(each for each, _ in answered))
        unsure = set[tuple[str, str]]().union(*(each for _, each in answered))
        assert certain <= own, "lost"
        assert own <= certain | unsure, "that nobody asked for, or that was taken back"
        listed = Counter(str(rule) for rule in here.get("/rules")["rules"])
        assert max(listed.values()) == 1
        order = [[(rule["network"], rule["group"]) for rule in host.get("/rules")["rules"]] for host in hosts]
        assert order[0] == order[1] == order[2], "in one order"
        print(f"{len(have)} rules, of {[len(done) for done, _ in answered]} answered ones")
        _ended_at_one(hosts, state, key, endpoint)
        for host in hosts:
            host.gateway.stop()


def _ended_at_one(hosts: tuple[Host, ...], state: str, key: Path, endpoint: str) -> None:
    """By the one whose clock is behind: the tokens of before at all, and none of later ones."""
    *_, behind = hosts
    token = token_of("alice", state, key, endpoint)
    sessions = [host.client(password=token) for host in hosts]
    behind.done("POST", "/connections/terminate", {"username": "alice"})
    for session in sessions:
        session.wait_for("Terminated by the administrator", SOON_S)
    for host in hosts:
        host.client(password=token, wait=False).wait_for("AUTH_FAILED,SESSION: token expired", SOON_S)
    later = token_of("alice", state, key, endpoint)
    for host in hosts:
        host.client(password=later).stop()
