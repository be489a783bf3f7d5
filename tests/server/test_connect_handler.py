"""A login that a client connect handler has a say in: a real program, and a client that hears what it said."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from helpers import certs
from helpers.served import Client, Served, wait_until

from cvpnd.config import HandlerConfig
from cvpnd.handlers.opening import open_handler
from cvpnd.reasons import Refusal
from cvpnd.server.denied import HANDLER_TEXT

SCRIPT = """#!/bin/sh
read -r request
echo x >>{directory}/calls
case "$request" in
*'"common-name": "hang"'*) sleep 9;;
*'"common-name": "crash"'*) exit 1;;
*'"common-name": "garbage"'*) echo hello; exit 0;;
*'"common-name": "denied"'*) allow=false;;
*'"common-name": "tricky"'*) printf '{{"allow": false, "error-msg-on-denied-connection": "CRV1:R:x:y:z",'
    echo '"posture-compliance-statuses": [], "schema-version": "v3"}}'; exit 0;;
*'"common-name": "trickier"'*) printf '{{"allow": false, "error-msg-on-denied-connection": "\\\\n CRV1:R:x:y:z",'
    echo '"posture-compliance-statuses": [], "schema-version": "v3"}}'; exit 0;;
*) while [ -e {directory}/wait ]; do sleep 0.01; done; allow=true;;
esac
printf '{{"allow": %s, "error-msg-on-denied-connection": "Update your antivirus, it is old",' "$allow"
echo '"posture-compliance-statuses": ["quarantined", "old-av"], "schema-version": "v3"}}'
"""


class Asked:
    def __init__(self, served: Served, directory: Path) -> None:
        self.served, self.directory = served, directory
        program = directory / "handler"
        program.write_text(SCRIPT.format(directory=directory))
        program.chmod(0o755)
        self.use({"executable": program, "timeout_s": 1})

    def use(self, settings: dict[str, object]) -> None:
        handler = HandlerConfig.model_validate({"name": "AWSClientVPN-test", **settings})
        self.served.control.handlers.replace([open_handler(handler)])
        endpoint = self.served.endpoint
        endpoint.settings = endpoint.settings.model_copy(update={"connect_handler": "AWSClientVPN-test"})

    @property
    def calls(self) -> int:
        path = self.directory / "calls"
        return len(path.read_text().split()) if path.exists() else 0


@pytest.fixture
def asked(served: Served, open_directory: Path) -> Asked:
    (open_directory / "calls").touch()
    (open_directory / "calls").chmod(0o666)
    return Asked(served, open_directory)


async def test_who_is_allowed_gets_in_with_statuses_and_is_not_asked_about_again_when_keys_are_renewed(
    asked: Asked, served: Served
) -> None:
    client = await Client(served.udp).connect()
    assert served.established[0].posture_statuses == ("quarantined", "old-av")
    client.light.renegotiate(time.monotonic())
    assert await client.until(lambda: served.control.tally.renegotiations[served.endpoint.id] == 1)
    assert asked.calls == 1
    client.close()


@pytest.mark.parametrize(
    ("name", "reason", "text"),
    [
        ("denied", Refusal.CLIENT_CONNECT_FAILED, "Update your antivirus, it is old"),
        ("tricky", Refusal.CLIENT_CONNECT_FAILED, "Denied: CRV1:R:x:y:z"),
        ("trickier", Refusal.CLIENT_CONNECT_FAILED, "Denied:   CRV1:R:x:y:z"),
        ("hang", Refusal.CLIENT_CONNECT_HANDLER_TIMED_OUT, HANDLER_TEXT),
        ("crash", Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR, HANDLER_TEXT),
        ("garbage", Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE, HANDLER_TEXT),
        ("throttled", Refusal.CLIENT_CONNECT_HANDLER_THROTTLED, HANDLER_TEXT),
        ("unknown", Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, HANDLER_TEXT),
    ],
)
async def test_who_is_not_allowed_hears_why_and_gets_nothing(
    asked: Asked, served: Served, name: str, reason: Refusal, text: str
) -> None:
    if name == "throttled":
        (asked.directory / "wait").touch()
        asked.use({"executable": asked.directory / "handler", "concurrency": 1, "queue": 0})
        first = Client(served.udp, certificate=certs.client("first"))
        assert await first.until(lambda: asked.calls == 1)
    elif name == "unknown":
        served.control.handlers.replace([])
    client = Client(served.udp, certificate=certs.client(name))
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed is not None and text in client.light.failed
    assert served.established == [] and served.leases_used == 0
    (ended,) = served.ended
    assert ended.end_reason is reason
    assert ended.posture_statuses == {"denied": ("quarantined", "old-av"), "tricky": (), "trickier": ()}.get(name)
    client.close()


async def test_who_is_revoked_or_leaves_while_the_handler_thinks_stays_out(asked: Asked, served: Served) -> None:
    (asked.directory / "wait").touch()
    asked.use({"executable": asked.directory / "handler", "timeout_s": 9})
    revoked, gone = certs.client("revoked"), certs.client("gone")
    client, other = Client(served.udp, certificate=revoked), Client(served.udp, certificate=gone)
    assert await client.until(lambda: asked.calls == 1)
    assert await other.until(lambda: asked.calls == 2)
    served.write_crl(revoked)
    await asyncio.to_thread(served.keeper.reload)
    (second,) = [c for c in served.control.table if c.common_name == "gone"]
    served.control.close(second, Refusal.HANDSHAKE_ABANDONED)
    assert await wait_until(lambda: list(served.control.handlers.pending().values()) == [1]), "its program was ended"
    (asked.directory / "wait").unlink()
    assert await client.until(lambda: len(served.ended) == 2)
    assert served.ended[1].end_reason is Refusal.CERTIFICATE_REVOKED
    assert served.established == [] and served.leases_used == 0
    client.close()
    other.close()
