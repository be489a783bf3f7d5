"""What strangers at the portal's self-service pages can take from people who connect."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from contextlib import closing
from types import SimpleNamespace

from helpers import saml_idp
from helpers.served import Served

from cvpnd.auth.identity import Refused
from cvpnd.auth.logins import UserLogins
from cvpnd.auth.saml.logins import MOST_PENDING, SamlLogins
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.model import PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.config import StrangersConfig
from cvpnd.endpoints.self_service import MOST_PENDING_HERE, MOST_RESPONSES_HERE, SelfServiceDesk
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.store import Store


class Hanging:
    """Answers once it is told to."""

    at_once = 2
    good_for_s = 900.0

    def __init__(self):
        self.go_on = threading.Event()

    def look_up(self, username):
        self.go_on.wait()
        return Refused(Refusal.WRONG_PASSWORD, "")

    def log_in(self, username, password):
        return self.look_up(username)


async def test_strangers_at_the_portal_leave_places_to_clients_of_the_vpn(tmp_path):
    served = Served(
        tmp_path, user_method={"type": "directory-service-authentication", "directory": "local"}, certificates=False
    )
    object.__setattr__(served.settings, "self_service_portal", True)
    directory = Hanging()
    users = served.control.users = UserLogins({"local": directory})
    desk = SelfServiceDesk(SimpleNamespace(endpoints=[served.endpoint]), served.control)
    login = desk.begin(served.endpoint.id)
    strangers = [
        asyncio.create_task(desk.log_in(login, f"u{n}", Secret(b"x"), host=f"192.0.{n // 250}.{n % 250}"))
        for n in range(MOST_PENDING_HERE)
    ]
    await asyncio.sleep(0)
    one_more = await desk.log_in(login, "u", Secret(b"x"), host="198.51.100.1")
    assert isinstance(one_more, Refused) and one_more.refusal is Refusal.TOO_MANY_LOGINS
    client = await users.log_in("local", "anna", Secret(b"right"), source="198.51.100.2", within_s=0.05)
    assert isinstance(client, Refused) and client.refusal is Refusal.DIRECTORY_TIMEOUT, "it waits for its turn"
    for stranger in strangers:
        stranger.cancel()
    directory.go_on.set()
    await asyncio.gather(*strangers, return_exceptions=True)
    users.close()
    served.close()


FEDERATED = {"type": "federated-authentication", "saml_provider": "corp"}
ACS = "https://vpn.example.com/saml/acs"
PROVIDER = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
NONSENSE = base64.b64encode(b"<samlp:Response/>").decode()


def asked(number: int) -> PendingRequest:
    return PendingRequest(f"_{number}", ACS, time.time(), time.time() + 300)


async def test_answers_of_no_identity_provider_count_for_who_brings_them_and_at_these_pages_only(tmp_path):
    """Each takes a thread, which people wait for who log in to the VPN. But any page that is open in somebody's browser
    can make it bring them, and an office with one address has nobody else to connect."""
    served = Served(tmp_path, certificates=False, user_method=FEDERATED)
    served.control.set_limits(StrangersConfig(failed_logins_per_source_per_min=5))
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        served.control.saml = SamlLogins(store, bytes(32))
        desk = SelfServiceDesk(SimpleNamespace(endpoints=[served.endpoint]), served.control)

        async def bring(host: str, number: int) -> Refusal:
            answer = await desk.accept(PROVIDER, NONSENSE, asked(number), host=host)
            assert isinstance(answer, Refused)
            return answer.refusal

        refused = [await bring("192.0.2.1", number) for number in range(8)]
        assert refused == [Refusal.SAML_MALFORMED] * 5 + [Refusal.LOGIN_THROTTLED] * 3
        assert await bring("192.0.2.2", 9) is Refusal.SAML_MALFORMED
        assert served.control.sources.may_try("192.0.2.1", asyncio.get_running_loop().time()) is None
        served.control.saml.close()
    served.close()


async def test_wrong_passwords_are_counted_at_the_pages_and_the_vpn_together(tmp_path):
    """Nobody can be made to bring one: the form has a word in it that belongs to the browser's cookie."""
    method = {"type": "directory-service-authentication", "directory": "local"}
    served = Served(tmp_path, user_method=method, certificates=False)
    object.__setattr__(served.settings, "self_service_portal", True)
    served.control.set_limits(StrangersConfig(failed_logins_per_source_per_min=5))
    directory = Hanging()
    directory.go_on.set()
    users = served.control.users = UserLogins({"local": directory})
    desk = SelfServiceDesk(SimpleNamespace(endpoints=[served.endpoint]), served.control)
    login = desk.begin(served.endpoint.id)
    answers = [await desk.log_in(login, f"u{n}", Secret(b"x"), host="192.0.2.1") for n in range(6)]
    refused = [answer.refusal for answer in answers if isinstance(answer, Refused)]
    assert refused == [Refusal.WRONG_PASSWORD] * 5 + [Refusal.LOGIN_THROTTLED]
    assert served.control.sources.may_try("192.0.2.1", asyncio.get_running_loop().time()) is not None, "nor as a client"
    users.close()
    served.close()


async def test_strangers_with_answers_leave_places_to_people_who_log_in_to_the_vpn(tmp_path):
    served = Served(tmp_path, certificates=False, user_method=FEDERATED)
    go_on = threading.Event()

    class Slow:
        """A store that takes its time."""

        def spend_saml(self, key: str, until: float, now: float) -> bool:
            return go_on.wait(10)

    saml = served.control.saml = SamlLogins(Slow(), bytes(32))  # type: ignore[arg-type]
    desk = SelfServiceDesk(SimpleNamespace(endpoints=[served.endpoint]), served.control)
    strangers = [
        asyncio.create_task(desk.accept(PROVIDER, NONSENSE, asked(n), host=f"192.0.{n // 40}.1"))
        for n in range(MOST_RESPONSES_HERE)
    ]
    await asyncio.sleep(0)
    one_more = await desk.accept(PROVIDER, NONSENSE, asked(-1), host="198.51.100.1")
    assert isinstance(one_more, Refused) and one_more.refusal is Refusal.TOO_MANY_LOGINS
    assert saml.pending == MOST_RESPONSES_HERE < MOST_PENDING
    client = asyncio.create_task(saml.accept(PROVIDER, NONSENSE, asked(-2), source="198.51.100.2", within_s=10))
    await asyncio.sleep(0)
    assert saml.pending == MOST_RESPONSES_HERE + 1, "it waits for its turn"
    go_on.set()
    answers = await asyncio.gather(client, *strangers)
    assert {answer.refusal for answer in answers} == {Refusal.SAML_MALFORMED}
    assert saml.pending == 0 and not saml._waiting, "nothing is kept of who came and went"
    saml.close()
    served.close()
