"""Each stage that a client enters ends once, under the word for how."""

from helpers import certs
from helpers.served import Client, wait_until

from cvpnd.reasons import End
from cvpnd.server.handshakes import Stage

EVERY_STAGE = {("tls", "completed"): 1, ("login", "completed"): 1, ("keys", "completed"): 1}


def results(served):
    return {(str(stage), result): n for (_, stage, result), n in served.control.tally.stages.results.items()}


async def test_a_client_that_is_let_in_completes_all_stages_and_leaves_its_times(served):
    client = await Client(served.udp).connect()
    assert await wait_until(lambda: bool(served.established))
    assert results(served) == EVERY_STAGE
    tls = served.control.tally.stages.times[served.endpoint.id, Stage.TLS]
    assert sum(tls.counts) == 1 and 0 < tls.sum < 30
    served.control.halt(served.established[0], End.TERMINATED, "")
    assert results(served) == EVERY_STAGE, "its end is no handshake's"
    client.close()


async def test_who_is_revoked_is_refused_and_who_leaves_has_abandoned_it(served):
    served.write_crl(certs.client("mallory"))
    served.keeper.reload()
    client = Client(served.udp, certificate=certs.client("mallory"))
    assert await client.until(lambda: bool(served.ended))
    assert results(served) == {("tls", "refused"): 1}
    client.close()

    def begun():
        return [connection for connection in served.control.table if connection.ended_at is None]

    other = Client(served.udp)
    assert await other.until(lambda: bool(begun()))
    served.control.close(begun()[0], End.CLIENT_RECONNECTED)
    assert results(served) == {("tls", "refused"): 1, ("tls", "abandoned"): 1}
    other.close()
