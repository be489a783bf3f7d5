"""What strangers at the portal's self-service pages can take from people who connect."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

from helpers.served import Served

from cvpnd.auth.identity import Refused
from cvpnd.auth.logins import UserLogins
from cvpnd.endpoints.self_service import MOST_PENDING_HERE, SelfServiceDesk
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret


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
