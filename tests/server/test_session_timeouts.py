"""How long sessions last: the longest time, a shorter one that takes effect on those there are, and idleness."""

from __future__ import annotations

import time
from ipaddress import ip_network

import pytest
from helpers import saml_idp
from helpers.packets import udp
from helpers.served import Client, Served, wait_until

from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.tokens import Token
from cvpnd.policy.model import Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.reasons import End
from cvpnd.server.session_timeouts import SessionTimeouts


@pytest.fixture
async def timeouts(served: Served):
    made = SessionTimeouts(served.control)
    served.control.on_established = made.begin
    yield made
    made.stop()


def allow(served: Served, **settings: int) -> None:
    served.endpoint.settings = served.endpoint.settings.model_copy(update=settings)


def connections(served: Served):
    return [connection for connection in served.control.table if connection.established]


async def test_lowering_the_longest_time_ends_sessions_that_are_over_it_and_no_other(served, timeouts):
    old, new = await Client(served.udp).connect(), await Client(served.udp).connect()
    first, second = connections(served)
    first.logged_in_at -= 600
    allow(served, session_timeout_s=300)
    timeouts.changed(served.endpoint)
    assert await old.until(lambda: old.light.failed is not None)
    assert [c.end_reason for c in served.ended] == [End.SESSION_TIMEOUT]
    assert connections(served) == [second]
    second.logged_in_at -= 299.5
    timeouts.changed(served.endpoint)
    assert await wait_until(lambda: len(served.ended) == 2)
    assert second.end_reason is End.SESSION_TIMEOUT
    old.close()
    new.close()


@pytest.mark.parametrize("allowed_s", [0, 300])
async def test_a_session_ends_when_the_identity_provider_said_that_the_login_does(served, timeouts, allowed_s):
    """Which its token says; one of a directory login that ends earlier, as its key is older, ends no session."""
    by_browser, by_password = await Client(served.udp).connect(), await Client(served.udp).connect()
    first, second = connections(served)
    first.token = second.token = Token.new(time.time(), 1)
    first.vouched_by = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
    allow(served, session_timeout_s=allowed_s)
    timeouts.changed(served.endpoint)
    assert await wait_until(lambda: bool(served.ended), 3)
    assert [c.end_reason for c in served.ended] == [End.SESSION_TIMEOUT]
    assert connections(served) == [second]
    by_browser.close()
    by_password.close()


async def test_a_session_over_which_too_little_passes_is_ended_and_pings_do_not_keep_it(served, timeouts):
    allow(served, idle_timeout_s=1, idle_bytes=1000)
    idle, busy = await Client(served.udp).connect(), await Client(served.udp).connect()
    served.endpoint.set_rules(served.plane, RuleTable([Rule(ip_network("10.20.0.0/16"), None, "", "file")]), ())
    first, second = connections(served)
    source = str(second.grant.lease.v4)
    begun = time.monotonic()

    def passing() -> bool:
        busy.light.send_tunnel_packet(udp(source, "10.20.0.7", payload=b"x" * 400))
        busy.step()
        return not first.established

    assert await idle.until(passing, 4)
    assert time.monotonic() - begun >= 0.7
    assert first.end_reason is End.IDLE_TIMEOUT and second.established
    assert await idle.until(lambda: idle.light.failed is not None)
    assert await wait_until(lambda: not second.established, 4), "nothing passes over it any more"
    idle.close()
    busy.close()


async def test_sessions_without_a_limit_cost_nothing(served, timeouts):
    client = await Client(served.udp).connect()
    assert timeouts._due == [] and timeouts._watched == {}
    allow(served, idle_timeout_s=60)
    timeouts.changed(served.endpoint)
    timeouts.changed(served.endpoint)
    assert len(timeouts._watched) == 1
    served.control.close(connections(served)[0], End.TERMINATED)
    timeouts._due[0] = (0.0, "superseded")
    timeouts._look()
    client.close()
