"""Between login's yes and the client's acknowledgement of our key message: whoever is sent away then hears it, and is
counted and written down as an attempt that failed, once."""

from __future__ import annotations

import asyncio
import time

import pytest
from helpers import certs
from helpers.served import Client

from cvpnd.config import Listen
from cvpnd.config.daemon import DaemonConfig
from cvpnd.endpoints.protection import ProtectionKeeper
from cvpnd.endpoints.running import RunningEndpoint
from cvpnd.reasons import End, Refusal, of_attempt
from cvpnd.server import session_events
from cvpnd.server.connection import Phase
from cvpnd.wire.packet import Transport

TEXT = "Told in time"
SAID = {
    End.TERMINATED: ("halt", Refusal.TERMINATED),
    End.ACCOUNT_DISABLED: ("halt", Refusal.ACCOUNT_DISABLED),
    End.CERTIFICATE_REVOKED: ("halt", Refusal.CERTIFICATE_REVOKED),
    End.CERTIFICATE_UNKNOWN_CA: ("halt", Refusal.CERTIFICATE_UNKNOWN_CA),
    End.IDENTITY_SESSION_LIMIT: ("halt", Refusal.IDENTITY_SESSION_LIMIT),
    End.IDENTITY_PROVIDER_CHANGED: ("halt", Refusal.SAML_WRONG_ISSUER),
    End.ACCOUNT_UNCHECKED: ("restart", Refusal.ACCOUNT_UNCHECKED),
    End.CONFIGURATION_CHANGED: ("restart", Refusal.SHUTTING_DOWN),
    End.DEVICE_LOST: ("restart", Refusal.SHUTTING_DOWN),
    End.SHUTDOWN: ("restart", Refusal.SHUTTING_DOWN),
}
SENT_BACK = {
    End.ACCOUNT_UNCHECKED: "account cannot be checked",
    End.CONFIGURATION_CHANGED: "configuration changed",
    End.DEVICE_LOST: "tunnel device lost",
    End.SHUTDOWN: "gateway restarts",
}


def send_away(served, connection, end: End) -> str:
    """What it is told."""
    if SAID[end][0] == "halt":
        served.control.halt(connection, end, TEXT)
        return f"HALT,{TEXT}"
    served.control.restart(connection, end)
    return f"RESTART,[P]:{SENT_BACK[end]}"


@pytest.fixture(params=list(Transport))
def transport(request):
    return request.param


async def let_in(served, transport):
    """A client whose acknowledgement is on its way: ``arrive`` delivers it. The other way is open."""
    client = Client(served.udp if transport is Transport.UDP else served.tcp, transport)
    assert await client.until(lambda: any(each.established for each in served.control.table))
    (connection,) = served.control.table
    assert not connection.keys_installed and served.leases_used == 1
    send, held = client.send, []
    client.send = held.append
    await client.until(lambda: False, 0.1)
    assert held and not connection.keys_installed

    def arrive() -> None:
        client.send = send
        for packet in held:
            send(packet)

    return client, connection, arrive


def failed_once(served, connection, reason: Refusal) -> None:
    control = served.control
    assert served.established == [] and served.ended == [connection]
    assert (connection.phase, connection.end_reason) == (Phase.ENDED, reason)
    assert served.leases_used == 0 and control.tally.sessions[served.endpoint.id] == 0
    assert control.tally.refusals == {(served.endpoint.id, reason): 1}
    assert not control.tally.ends and not control.tally.established
    assert sum(control.tally.logins.values()) == (reason is not Refusal.HANDSHAKE_ABANDONED)
    result = "abandoned" if reason is Refusal.HANDSHAKE_ABANDONED else "refused"
    assert control.tally.stages.results[served.endpoint.id, "keys", result] == 1


@pytest.mark.parametrize("end", SAID)
async def test_whoever_is_sent_away_after_a_yes_has_not_failed_to_log_in(served, monkeypatch, end):
    """Some are called as failures are that are the client's own doing."""
    failures = []
    monkeypatch.setattr(served.control.sources, "failed", lambda *details: failures.append(details))
    client, connection, _ = await let_in(served, Transport.UDP)
    send_away(served, connection, end)
    assert connection.end_reason is SAID[end][1] and failures == []
    client.close()


@pytest.mark.parametrize("end", SAID)
async def test_whoever_is_sent_away_before_its_acknowledgement_hears_so_with_it(served, transport, end):
    client, connection, arrive = await let_in(served, transport)
    told, reason = send_away(served, connection, end), SAID[end][1]
    failed_once(served, connection, reason)
    arrive()
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed == told
    assert client.light.options == ()
    failed_once(served, connection, reason)
    client.close()


async def test_whoever_leaves_before_its_acknowledgement_has_abandoned_its_attempt(served, transport):
    client, connection, _ = await let_in(served, transport)
    client.close()
    if transport is Transport.TCP:
        await asyncio.sleep(0.2)
    else:
        served.control.close(connection, End.CLIENT_TIMEOUT)
    failed_once(served, connection, Refusal.HANDSHAKE_ABANDONED)


async def test_every_end_has_a_word_for_an_attempt():
    words = set(map(str, Refusal))
    assert all(of_attempt(end) == end for end in End if end in words)
    assert all(isinstance(of_attempt(each), Refusal) for each in (*End, *Refusal))


HEARD = {"add_peer": "AUTH_FAILED", "set_remote": "AUTH_FAILED", "install_key": "RESTART,[P]:internal error"}


@pytest.mark.parametrize("verb", HEARD)
async def test_whoever_the_data_plane_does_not_take_hears_so(served, transport, verb):
    if (verb, transport) == ("set_remote", Transport.TCP):
        pytest.skip("not a verb of this transport")
    served.plane.broken.add(verb)
    client = Client(served.udp if transport is Transport.UDP else served.tcp, transport)
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed == HEARD[verb] and client.light.options == ()
    (connection,) = served.ended
    assert connection.end_reason is Refusal.INTERNAL_ERROR and served.leases_used == 0
    client.close()


async def test_an_established_client_whose_next_key_cannot_be_installed_is_told_to_come_back(served):
    client = await Client(served.udp).connect()
    (connection,) = served.established
    served.plane.broken.add("install_key")
    connection.session.renegotiate(asyncio.get_running_loop().time())
    served.control.pump(connection, asyncio.get_running_loop().time())
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed == "RESTART,[P]:internal error"
    assert connection.end_reason is Refusal.INTERNAL_ERROR and served.leases_used == 0
    client.close()


async def test_whoever_is_refused_hears_so_with_its_acknowledgement(serve, transport):
    """No room for a second session: decided before our key message leaves."""
    served = serve(sessions_per_identity=1)
    first = await Client(served.udp, certificate=certs.client()).connect()
    client = Client(served.udp if transport is Transport.UDP else served.tcp, transport)
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed.startswith(("AUTH_FAILED,TEMP", "RESTART,[P]:"))
    assert served.ended[0].end_reason is Refusal.IDENTITY_SESSION_LIMIT and served.leases_used == 1
    first.close()
    client.close()


@pytest.mark.parametrize(
    ("host", "flags"), [("127.0.0.1", "P"), ("0.0.0.0", "P"), ("127.0.0.2", "PN"), ("::", "PN"), (None, "PN")]
)
async def test_whoever_is_sent_back_hears_so_within_the_grace_also_where_it_is_lost_once(served, host, flags):
    """And to which of its remotes: ``host`` is where this host will listen on the same port."""
    coming = () if host is None else (Listen("udp", host, served.udp[1]),)
    protection = ProtectionKeeper(served.settings.control_protection, served.keeper)
    running = RunningEndpoint(served.endpoint, protection, served.control)
    client = await Client(served.udp).connect()
    assert running.send_back(End.CONFIGURATION_CHANGED, coming) == 1
    begun = time.monotonic()
    await asyncio.sleep(0.1)
    assert client._received()
    assert await client.until(lambda: client.light.failed is not None)
    assert time.monotonic() - begun < DaemonConfig().shutdown_grace_s - 0.5
    assert client.light.failed == f"RESTART,[{flags}]:configuration changed" and served.leases_used == 0
    client.close()


@pytest.mark.parametrize(("host", "advance"), [("127.0.0.1", "no"), ("127.0.0.2", "remote"), (None, "remote")])
async def test_who_is_logging_in_is_put_off_to_where_somebody_listens(served, monkeypatch, host, advance):
    async def never(control, connection, credentials):
        await asyncio.Event().wait()

    monkeypatch.setattr(session_events, "log_in", never)
    monkeypatch.setattr(session_events, "takes_time", lambda _endpoint: True)
    coming = () if host is None else (Listen("udp", host, served.udp[1]),)
    protection = ProtectionKeeper(served.settings.control_protection, served.keeper)
    running = RunningEndpoint(served.endpoint, protection, served.control)
    client = Client(served.udp, peer_info={"IV_VER": "2.6.14", "IV_PROTO": "990", "IV_CIPHERS": "AES-256-GCM"})
    assert await client.until(lambda: any(each.login is not None for each in served.control.table))
    assert running.send_back(End.CONFIGURATION_CHANGED, coming) == 1
    assert await client.until(lambda: client.light.failed is not None)
    assert f",advance {advance}]:The server is restarting" in client.light.failed
    client.close()
