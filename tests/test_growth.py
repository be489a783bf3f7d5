"""Years of names: what is counted or remembered by one ends with it, or the oldest does. Each is told ten thousand, and
then holds no more than after the first thousand."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from helpers import saml_idp

from cvpnd.auth import throttle
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.throttle import LoginThrottle
from cvpnd.config import HandlerConfig
from cvpnd.dataplane.api import NO_STATS
from cvpnd.endpoints.refusals import REMEMBERED_S, Allowance
from cvpnd.handlers.desk import Handlers
from cvpnd.handlers.opening import open_handler
from cvpnd.ops.client_metrics import UserTraffic
from cvpnd.reasons import End, Refusal
from cvpnd.server.handshakes import HandshakeStages
from cvpnd.server.tally import Tally
from cvpnd.store import Store

FIRST, ALL = 1_000, 10_000
MOST_MORE = 100
"""Objects: some are made when they are asked for first."""


def held(root: object) -> int:
    """Objects that are reachable from it, but for code and what all share."""
    seen, todo = {id(root)}, [root]
    while todo:
        for each in gc.get_referents(todo.pop()):
            if id(each) not in seen and not isinstance(each, type | types.ModuleType | types.FunctionType):
                seen.add(id(each))
                todo.append(each)
    return len(seen)


def stays_small(root: object, cycle: Callable[[int], None]) -> None:
    for number in range(FIRST):
        cycle(number)
    before = held(root)
    for number in range(FIRST, ALL):
        cycle(number)
    assert held(root) <= before + MOST_MORE


def test_what_is_held_is_seen() -> None:
    kept: list[str] = []
    with pytest.raises(AssertionError):
        stays_small(kept, lambda number: kept.append(f"{number}"))


def test_connect_handlers() -> None:
    handlers = Handlers()

    def replace(number: int) -> None:
        name = f"AWSClientVPN-{number}"
        handlers.replace([open_handler(HandlerConfig.model_validate({"name": name, "python": "json:loads"}))])
        assert list(handlers.seconds()) == [name]

    stays_small(handlers, replace)


def test_traffic_of_users() -> None:
    traffic = UserTraffic(lambda _endpoint, _user: False, most=400)

    def end(number: int) -> None:
        traffic.add("staff", f"user-{number}", 1, 2)
        traffic.add(f"lab-{number}", "anna", 1, 2)

    stays_small(traffic, end)
    assert traffic.sums()["staff", f"user-{ALL - 1}"] == (1, 2)
    of_staff = [sums for (endpoint, _), sums in traffic.sums().items() if endpoint == "staff"]
    assert [sum(each) for each in zip(*of_staff, strict=True)] == [ALL, 2 * ALL], "nothing is lost of who is away"


def test_traffic_of_users_who_are_connected_is_theirs_however_many_others_come_and_go() -> None:
    """Nor does what counts for those of a quiet endpoint run backwards."""
    connected: set[str] = set()
    traffic = UserTraffic(lambda _endpoint, user: user in connected, most=100)
    counters: dict[tuple[str, str], tuple[int, int]] = {}
    for number in range(150):
        traffic.add("quiet", f"user-{number}", 10, 10)
    for number in range(20):
        traffic.add("staff", f"regular-{number}", 1000, 1000)
        connected.add(f"regular-{number}")
    for number in range(1000):
        traffic.add("staff", f"visitor-{number}", 1, 1)
        now = traffic.sums()
        counters |= {key: now[key] for key in now if key[1] == "" or key[1] in connected}
        assert all(now[key] >= sums for key, sums in counters.items()), number
        assert len(now) <= 100 + 20 + 2
    assert len(counters) == 22
    connected.clear()
    for number in range(1000, 1200):
        traffic.add("staff", f"visitor-{number}", 1, 1)
    assert traffic.sums()["staff", ""] >= (20_000, 20_000) and len(traffic.sums()) <= 102


def test_counts_of_endpoints() -> None:
    tally = Tally()
    counters = [each for each in vars(tally).values() if isinstance(each, Mapping)]
    stages = tally.stages
    assert isinstance(stages, HandshakeStages) and len(counters) >= 8

    def come_and_go(number: int) -> None:
        endpoint = f"cvpn-endpoint-{number}"
        tally.refusals[endpoint, Refusal.CERTIFICATE_REVOKED] += 1
        tally.ends[endpoint, End.CLIENT_EXIT] += 1
        tally.logins[endpoint, "certificate", "refused"] += 1
        for each in (tally.established, tally.renegotiations, tally.sessions, tally.downloads):
            each[endpoint] += 1
        tally.carried(endpoint, NO_STATS)
        assert all(each for each in counters), "each is counted in"
        tally.forget(endpoint)
        assert not any(each for each in counters)

    stays_small(tally, come_and_go)


def test_identity_providers(tmp_path: Path) -> None:
    idp = parse_metadata(saml_idp.metadata())
    logins = SamlLogins(Store.open(f"sqlite:///{tmp_path}/state.db"), bytes(32))

    def replace(number: int) -> None:
        logins.replace({f"corp-{number}": SamlProvider(f"corp-{number}", idp)})
        _, results = logins.responses(f"corp-{number}")
        results[Refusal.SAML_REQUEST_UNKNOWN] += 1

    stays_small(logins, replace)
    logins.close()


def test_passwords_that_are_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "KEPT", 500)
    guarded = LoginThrottle()
    stays_small(guarded, lambda number: guarded.failed(f"192.0.2.{number % 256}", f"user-{number}", number))


def test_keys_whose_requests_are_refused() -> None:
    now = 0.0
    allowance = Allowance(lambda: now)

    def refuse(number: int) -> None:
        nonlocal now
        now += REMEMBERED_S / 500
        allowance.ask(f"AKIA{number}")

    stays_small(allowance, refuse)
