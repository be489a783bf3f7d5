"""Real FreeRADIUS servers as judges of a second factor, and what somebody between them and us may do."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import netns
from helpers.freeradius import (
    BY_CHALLENGE,
    BY_CODE,
    BY_PASSWORD_AND_CODE,
    FREERADIUS,
    PASSWORD,
    SECRET,
    SENT_CODE,
    SIGNED,
    FreeRadius,
    code,
)
from helpers.netns import Namespace
from helpers.totp import static
from pyrad.packet import AuthPacket

from cvpnd.auth import logins, radius
from cvpnd.auth.challenge import Asked, Asker
from cvpnd.auth.identity import Refused
from cvpnd.auth.local_users import LocalUser, LocalUsers
from cvpnd.auth.logins import UserLogins
from cvpnd.auth.passwords import hash_password
from cvpnd.auth.radius import Answer, Question, RadiusServers, RadiusSettings
from cvpnd.auth.radius_codes import MOST_ROUNDS, RadiusCodes
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.throttle import FREE_FAILURES
from cvpnd.config import RadiusConfig, RadiusUrl
from cvpnd.doctor import logins as doctor
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.store import Store

pytestmark = pytest.mark.skipif(not FREERADIUS.exists(), reason="make test unpacks freeradius")

CODE, JOINED, ASKING, UNSIGNED, NOBODY = 18120, 18121, 18122, 18123, 18124
LOGIN = RevokedLogins().begin("cvpn-endpoint-0123456789abcdef0", 0.0)
HERE = Asker(LOGIN.endpoint_id, "local", "", LOGIN)
HASH = hash_password(PASSWORD)
NAMES = ("anna", "bob", "carol", "asked-on")
Change = Callable[[bytes, bytes], list[bytes]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    directory = tmp_path_factory.mktemp("radius")
    place = Namespace(f"{netns.unique_prefix()}-radius", directory)
    try:
        for port, authorize in ((CODE, BY_CODE), (JOINED, BY_PASSWORD_AND_CODE), (ASKING, BY_CHALLENGE)):
            FreeRadius(place, directory / str(port), port, authorize).start()
        FreeRadius(place, directory / str(UNSIGNED), UNSIGNED, BY_CODE, signed=False).start()
        yield place
    finally:
        place.close()


class Desk:
    """Local users, and servers that judge their second factor."""

    def __init__(self, place: Namespace, secret_file: Path, store: Store, *ports: int, **changes: object) -> None:
        self.place = place
        servers = [f"radius://127.0.0.1:{port}" for port in ports]
        table = {"directory": "local", "servers": servers, "secret_file": secret_file, "timeout_s": 1, "attempts": 1}
        config = RadiusConfig.model_validate(table | changes)
        self.codes = RadiusCodes(config, radius.radius_settings(config), store, time.monotonic)
        self.users = LocalUsers()
        self.users.replace([LocalUser(name, HASH) for name in NAMES])
        self.logins = UserLogins({"local": self.users})

    async def answer(
        self, password: str, name: str = "anna", *, challenge: bool = False, within_s: float = 10
    ) -> Refused | str:
        """The account's name if it is let in."""
        until = asyncio.get_running_loop().time() + within_s
        factor = self.codes.second_factor(HERE, challenge=challenge, caller="192.0.2.7", until=until)
        with self.place.entered():
            outcome = await self.logins.log_in(
                "local", name, Secret.of_text(password), source="192.0.2.7", within_s=within_s + 5, second_factor=factor
            )
        return outcome if isinstance(outcome, Refused) else outcome.name

    async def log_in(self, password: str, name: str = "anna", **how: bool | float) -> Refusal | str:
        outcome = await self.answer(password, name, **how)  # type: ignore[arg-type]
        return outcome.refusal if isinstance(outcome, Refused) else outcome

    async def ask(self, name: str = "anna", *, challenge: bool = False, password: str = PASSWORD) -> Asked:
        outcome = await self.answer(password, name, challenge=challenge)
        assert isinstance(outcome, Asked), outcome
        return outcome

    def close(self) -> None:
        self.logins.close()
        self.codes.close()


@pytest.fixture
def desk(place: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    monkeypatch.setattr(logins, "FAILURE_TAKES_S", 0.01)
    (tmp_path / "secret").write_text(SECRET + "\n")
    opened: list[Desk] = []
    store = Store.open(f"sqlite:///{tmp_path}/state.db")

    def make(*ports: int, **changes: object) -> Desk:
        opened.append(Desk(place, tmp_path / "secret", store, *ports, **changes))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
    store.close()


def dynamic(asked: Asked, answer: str) -> str:
    return f"CRV1::{asked.state}::{answer}"


# -- codes --------------------------------------------------------------------------------------------------


async def test_a_code_is_right_once_by_either_challenge_and_a_wrong_one_is_wrong(desk: Callable[..., Desk]) -> None:
    here = desk(CODE)
    used = code()
    assert await here.log_in(static(PASSWORD, used)) == "anna"
    assert await here.log_in(static(PASSWORD, used)) is Refusal.MFA_CODE_REUSED
    again = desk(CODE)
    # soon: once its time is over, the server says that it is wrong
    assert await again.log_in(static(PASSWORD, used)) is Refusal.MFA_CODE_REUSED, "after a restart, at another gateway"
    assert await again.log_in(static(PASSWORD, used), "carol") == "carol", "hers is another one"
    asked = await here.ask("bob")
    assert (asked.question, asked.echo) == ("Enter MFA code ", True)
    assert await here.log_in(dynamic(asked, code()), "bob") == "bob"
    wrong = await here.answer(static(PASSWORD, "000000"), "carol")
    assert isinstance(wrong, Refused) and wrong.refusal is Refusal.MFA_CODE_WRONG and "try again" in wrong.detail
    assert await here.log_in(dynamic(await here.ask("carol"), ""), "carol") is Refusal.MFA_CODE_WRONG
    assert await here.log_in(static("wrong", code()), "carol") is Refusal.WRONG_PASSWORD
    assert await here.log_in(static(PASSWORD, 129 * "0"), "carol") is Refusal.MFA_CODE_WRONG
    counts = here.codes.servers.latency.counts
    assert sum(counts) == 4, "who had no password, or nothing that fits, was not asked about"


async def test_a_code_stays_used_when_the_clock_is_put_ahead_and_back(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, used, good, wall = desk(CODE), code(), code(), time.time
    assert await here.log_in(static(PASSWORD, used)) == "anna"
    monkeypatch.setattr(time, "time", lambda: wall() + 7200)
    assert await here.log_in(static(PASSWORD, good), "bob") == "bob", "who has what is over forgotten"
    monkeypatch.undo()
    assert await here.log_in(static(PASSWORD, used)) is Refusal.MFA_CODE_REUSED


async def test_of_two_logins_with_one_code_at_the_same_time_one_is_let_in(desk: Callable[..., Desk]) -> None:
    here = desk(CODE)
    asked = [await here.ask(), await here.ask()]
    used = code()
    with here.place.entered():  # which either leaves when it is done
        outcomes = await asyncio.gather(*(here.log_in(dynamic(each, used)) for each in asked))
    assert sorted(outcomes) == ["anna", Refusal.MFA_CODE_REUSED]


async def test_password_and_code_go_in_one_where_the_server_wants_it_so(desk: Callable[..., Desk]) -> None:
    here = desk(JOINED, sends="password-and-code")
    assert await here.log_in(static(PASSWORD, code())) == "anna"
    asked = await here.ask("bob")
    assert await here.log_in(dynamic(asked, code()), "bob") == "bob"
    assert await here.log_in(static(PASSWORD, "000000"), "carol") is Refusal.MFA_CODE_WRONG
    assert await here.log_in(dynamic(await here.ask("carol"), ""), "carol") is Refusal.MFA_CODE_WRONG
    await here.ask("bob")
    ((put, until),) = here.codes._questions._open.values()
    assert put.password == Secret(PASSWORD.encode())
    here.codes._questions.expire(until + 1)
    assert not here.codes._questions._open, "nor is the password kept for a code that never comes"


async def test_a_question_of_the_server_is_put_to_the_user_and_answered_with_its_state(
    desk: Callable[..., Desk],
) -> None:
    here = desk(ASKING)
    asked = await here.ask(challenge=True)
    assert asked.question == "Code from the SMS: "
    assert await here.log_in(dynamic(asked, SENT_CODE), challenge=True) == "anna"
    assert await here.log_in(dynamic(asked, SENT_CODE), challenge=True) is Refusal.CHALLENGE_UNEXPECTED
    asked = await here.ask("carol", challenge=True)
    assert await here.log_in(dynamic(asked, SENT_CODE), "bob", challenge=True) is Refusal.CHALLENGE_UNEXPECTED
    asked = await here.ask("bob", challenge=True)
    assert await here.log_in(dynamic(asked, "111111"), "bob", challenge=True) is Refusal.MFA_CODE_WRONG
    assert await here.log_in(dynamic(asked, SENT_CODE), "bob", challenge=True) is Refusal.CHALLENGE_UNEXPECTED
    assert await here.log_in(static(PASSWORD, SENT_CODE), "carol", challenge=True) == "carol", "it came along"
    here.users.replace([LocalUser("anna", hash_password("another"))])
    assert await here.log_in("another", challenge=True) is Refusal.MFA_REJECTED, "known there by another password"


async def test_a_server_that_never_stops_asking_is_not_followed_for_ever(desk: Callable[..., Desk]) -> None:
    here = desk(ASKING)
    here.codes._throttle.begin = lambda key, now: 0.0  # type: ignore[method-assign] # it would end this sooner
    asked = await here.ask("asked-on", challenge=True)
    for number in range(MOST_ROUNDS - 1):
        asked = await here.ask("asked-on", challenge=True, password=dynamic(asked, f"{number}"))
    assert await here.log_in(dynamic(asked, "x"), "asked-on", challenge=True) is Refusal.MFA_CODE_WRONG


async def test_wrong_codes_slow_down_the_account_and_servers_that_do_not_answer_do_not(
    desk: Callable[..., Desk],
) -> None:
    silent = desk(NOBODY)
    for _ in range(FREE_FAILURES + 2):
        assert await silent.log_in(static(PASSWORD, "000000")) is Refusal.RADIUS_UNAVAILABLE
    here = desk(CODE)
    here.logins._throttle.wait_s = lambda *_: 0.0  # type: ignore[method-assign] # of the source, which is the same one
    outcomes = [await here.log_in(static(PASSWORD, f"00000{n}")) for n in range(FREE_FAILURES + 2)]
    assert outcomes == [Refusal.MFA_CODE_WRONG] * (FREE_FAILURES + 1) + [Refusal.MFA_THROTTLED]
    assert await here.log_in(static(PASSWORD, code()), "bob") == "bob"


# -- servers ------------------------------------------------------------------------------------------------


async def test_the_next_server_is_asked_and_the_dead_one_left_alone(
    place: Namespace, desk: Callable[..., Desk]
) -> None:
    with place.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        here = desk(NOBODY, silent.getsockname()[1], CODE, attempts=2)
        assert await here.log_in(static(PASSWORD, code())) == "anna"
        assert list(here.codes.servers.up().values()) == [False, True, True], "a person may have let one wait"
        first, again = silent.recv(4096), silent.recv(4096)
        assert first == again, "repeated, not asked anew"
        assert first[20] == 80, "the Message-Authenticator is in front"
        assert PASSWORD.encode() not in first
        assert await here.log_in(static(PASSWORD, code()), "bob") == "bob"
        with pytest.raises(BlockingIOError):
            silent.recv(4096)


@pytest.mark.parametrize("silent", [False, True])
async def test_each_address_of_a_name_is_asked_and_the_one_that_answered_first_the_next_time(
    place: Namespace, desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """Where there is nobody, and where nobody answers."""
    resolve = socket.getaddrinfo

    def resolve_both(host: str, *more: object, **how: object) -> list[object]:
        hosts = ("::1", "127.0.0.1") if host == "radius.example.com" else (host,)
        return [found for each in hosts for found in resolve(each, *more, **how)]  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_both)
    with place.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as nobody:
        nobody.setblocking(False)
        if silent:
            nobody.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            nobody.bind(("::1", CODE))
        here = desk(servers=[f"radius://radius.example.com:{CODE}"])
        assert await here.log_in(static(PASSWORD, code())) == "anna"
        if silent:
            assert nobody.recv(4096)
        assert await here.log_in(static(PASSWORD, code()), "bob") == "bob"
        with pytest.raises(BlockingIOError):
            nobody.recv(4096)


async def test_servers_that_keep_silent_are_given_up_in_time_for_the_client(
    place: Namespace, desk: Callable[..., Desk]
) -> None:
    with place.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        here = desk(silent.getsockname()[1], timeout_s=60, attempts=10)
        for name, up in (("anna", True), ("bob", False)):
            assert await here.log_in(static(PASSWORD, "123456"), name, within_s=0.3) is Refusal.RADIUS_UNAVAILABLE
            assert list(here.codes.servers.up().values()) == [up], "one person may not look at the telephone"
        assert here.codes.servers.pending == 0


async def test_a_server_without_message_authenticator_is_not_believed(desk: Callable[..., Desk]) -> None:
    here = desk(UNSIGNED)
    outcome = await here.answer(static(PASSWORD, code()))
    assert isinstance(outcome, Refused) and outcome.refusal is Refusal.RADIUS_UNVERIFIED
    assert "without a Message-Authenticator" in outcome.detail


def test_the_doctor_says_what_makes_such_a_server_sign(desk: Callable[..., Desk], place: Namespace) -> None:
    facts: Any = SimpleNamespace(config=SimpleNamespace(radius=[desk(UNSIGNED).codes.config]))
    with place.entered():
        (found,) = doctor.radius(facts)
    assert "without a Message-Authenticator" in found.what and "docs/authentication.md" in found.fix
    assert SIGNED in (Path(__file__).parents[2] / "docs" / "authentication.md").read_text()


async def test_a_server_with_another_secret_is_not_believed(
    place: Namespace, desk: Callable[..., Desk], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("another secret of sixteen and more")
    assert await desk(CODE).log_in(static(PASSWORD, code())) is Refusal.RADIUS_UNAVAILABLE  # it does not answer


# -- somebody between ---------------------------------------------------------------------------------------


class Between:
    """Passes questions on to the server at ``CODE``; of each answer the client gets what ``change`` makes of it."""

    def __init__(self, place: Namespace, change: Change) -> None:
        self._change = change
        with place.entered():
            self._here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._here.bind(("127.0.0.1", 0))
        self._here.settimeout(10)
        self._there.connect(("127.0.0.1", CODE))
        self._there.settimeout(10)
        self.port: int = self._here.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with self._here, self._there:
            request, client = self._here.recvfrom(4096)
            self._there.send(request)
            for answer in self._change(request, self._there.recv(4096)):
                self._here.sendto(answer, client)


def signed(request: bytes, code: int, attributes: bytes) -> bytes:
    """With a right Response Authenticator, as a collision of MD5 brings it to somebody without the secret."""
    header = struct.pack(">BBH", code, request[1], 20 + len(attributes))
    return header + hashlib.md5(header + request[4:20] + attributes + SECRET.encode()).digest() + attributes


PROXY_STATE = bytes([33, 20]) + bytes(18)
FORGERIES: dict[str, Change] = {
    "a Reject called Accept": lambda request, answer: [b"\2" + answer[1:]],
    "an Accept by collision": lambda request, answer: [signed(request, 2, b"")],
    "an Accept by collision with Proxy-State": lambda request, answer: [signed(request, 2, PROXY_STATE)],
    "an Accept by collision with the Reject's own authenticator": lambda request, answer: [
        signed(request, 2, answer[20:])
    ],
    "the same with one of zeroes": lambda request, answer: [signed(request, 2, bytes([80, 18]) + bytes(16))],
    "an empty authenticator": lambda request, answer: [signed(request, 2, bytes([80, 2]))],
    "an answer to another question": lambda request, answer: [answer[:1] + bytes([answer[1] ^ 1]) + answer[2:]],
    "no packet": lambda request, answer: [b"", b"\2", bytes(20), answer[:-1], b"\2" + bytes(4095)],
    "an Accept, and then the truth": lambda request, answer: [signed(request, 2, b""), answer],
}


@pytest.mark.parametrize("what", FORGERIES)
async def test_no_forgery_lets_anybody_in(place: Namespace, desk: Callable[..., Desk], what: str) -> None:
    forge = FORGERIES[what]

    def again_and_again(request: bytes, answer: bytes) -> list[bytes]:
        """Until nobody listens any more, which is sooner than the time is over."""
        return forge(request, answer) * (1 if "truth" in what else radius.MOST_UNVERIFIED)

    outcome = await desk(Between(place, again_and_again).port).log_in(static(PASSWORD, "000000"))
    assert outcome is (Refusal.MFA_CODE_WRONG if "truth" in what else Refusal.RADIUS_UNVERIFIED)


async def test_a_forged_reject_that_comes_first_keeps_nobody_out(place: Namespace, desk: Callable[..., Desk]) -> None:
    between = Between(place, lambda request, answer: [*10 * [signed(request, 3, b"")], answer])
    assert await desk(between.port).log_in(static(PASSWORD, code())) == "anna"


async def test_a_flood_of_forgeries_ends_the_question(place: Namespace, desk: Callable[..., Desk]) -> None:
    between = Between(place, lambda request, answer: [*radius.MOST_UNVERIFIED * [signed(request, 2, b"")], answer])
    assert await desk(between.port).log_in(static(PASSWORD, code())) is Refusal.RADIUS_UNVERIFIED


def test_whatever_comes_is_no_answer_and_raises_nothing() -> None:
    settings = RadiusSettings((), SECRET.encode(), "cvpnd", 1, 1)
    url = RadiusUrl("192.0.2.1", 1812)
    request = RadiusServers(settings)._request(Question("anna", Secret(b"123456"), "192.0.2.7"))
    reply = request.CreateReply()
    reply[18], reply[26] = [b"hello"], [bytes(6)]
    right = bytes(reply.ReplyPacket())
    answer = radius._verified(request, right, url)
    assert isinstance(answer, Answer) and (answer.verdict, answer.message) == ("accept", "hello")
    chance = random.Random(6)
    for _ in range(5000):
        changed = bytearray(right)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        cut = bytes(changed[: chance.randint(0, len(changed))] if chance.random() < 0.3 else changed)
        if cut != right:
            assert isinstance(radius._verified(request, cut, url), str), cut.hex()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 128])
def test_passwords_are_hidden_as_pyrad_hides_them(length: int) -> None:
    authenticator = bytes(range(16))
    packet = AuthPacket(secret=SECRET.encode(), authenticator=authenticator)
    password = bytes(range(1, length + 1))
    assert radius._hidden(Secret(password), SECRET.encode(), authenticator) == packet.PwCrypt(password)
