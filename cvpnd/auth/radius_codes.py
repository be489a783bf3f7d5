"""RADIUS servers as judges of a second factor, on top of a password that the directory has found right.

What goes to them as User-Password is the endpoint's and the table's choice:

====================  =====================  =======================================================================
``mfa``               ``sends``              what the server is asked
====================  =====================  =======================================================================
``radius``            ``code``               the code alone, as AWS does it
``radius``            ``password-and-code``  password and code in one, for servers that take both apart
``radius-challenge``  (either)               the password; with an Access-Challenge the server asks for the code it has
                                             sent, or lets in whoever says yes on a telephone
====================  =====================  =======================================================================

An Access-Challenge in any answer is put to the user, whose answer goes to the same server with its State."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from cvpnd.auth.challenge import AS_PEOPLE_TYPE, QUESTION, Asker, Proven, Questions, question_text
from cvpnd.auth.directory import Account, Directory
from cvpnd.auth.identity import Refused
from cvpnd.auth.logins import SecondFactor
from cvpnd.auth.radius import (
    MOST_ATTRIBUTE_BYTES,
    MOST_PASSWORD_BYTES,
    Answer,
    Question,
    RadiusServers,
    RadiusSettings,
    Unanswered,
)
from cvpnd.auth.throttle import CodeThrottle
from cvpnd.config import RadiusConfig, RadiusUrl
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

MOST_ROUNDS = 5
"""Challenges that one login may answer."""


class UsedCodes(Protocol):
    """Where they are kept (``store``). Called from threads; raises if it cannot tell, and then nobody gets in."""

    def take_radius_code(self, directory: str, username: str, code: Secret, until: float, now: float) -> bool:
        """False: it has been taken. ``until``, as ``now`` on the steady clock, it is not taken again."""
        ...


@dataclass(frozen=True, slots=True)
class _Round:
    """A challenge that is being answered."""

    server: RadiusUrl
    state: bytes
    number: int


class RadiusCodes:
    """Of one directory. On the event loop's thread, but for what ``second_factor`` says."""

    def __init__(
        self, config: RadiusConfig, settings: RadiusSettings, used: UsedCodes, clock: Callable[[], float]
    ) -> None:
        """``clock``: the steady one."""
        self.config = config
        self.servers = RadiusServers(settings)
        self._questions = Questions()
        self._throttle = CodeThrottle()
        self._used = used
        self._clock = clock

    def replace(self, config: RadiusConfig, settings: RadiusSettings) -> None:
        """Questions that are open and who is slowed down stay so."""
        self.config = config
        if settings != self.servers.settings:
            self.servers.close()
            self.servers = RadiusServers(settings)

    def close(self) -> None:
        self.servers.close()

    def expire(self) -> None:
        """Questions that nobody has answered in time."""
        self._questions.expire(time.monotonic())

    def second_factor(self, asker: Asker, *, challenge: bool, caller: str, until: float) -> SecondFactor:
        """``until``: of the loop's clock, which is that of ``time.monotonic``."""
        return SecondFactor(partial(self._prove, asker), partial(self._judge, challenge, caller, until))

    def _prove(self, asker: Asker, directory: Directory, username: str, password: Secret) -> Proven | Refused:
        """In a thread of the directory's."""
        return self._questions.prove(asker, directory, username, password, time.monotonic())

    async def _judge(self, challenge: bool, caller: str, until: float, proven: Proven) -> Account | Refused:
        """``challenge``: the server asks, after the password."""
        name, code = proven.account.name, proven.code
        this = proven.memory if isinstance(proven.memory, _Round) else None
        joined = this is None and not challenge and self.config.sends == "password-and-code"
        first = this is None and challenge
        """The server is to ask: a code is welcome, and none is needed."""
        if not code and not first and not proven.answers:
            return self._questions.ask(proven, time.monotonic(), QUESTION, keep_password=joined)
        sent = proven.password if first else proven.password + code if joined else code
        fit = _sendable(sent) and (_sendable(code) or (first and not code))
        if not fit or len(name.encode()) > MOST_ATTRIBUTE_BYTES:
            return Refused(Refusal.MFA_CODE_WRONG, f"{name} sent what no RADIUS server can be asked")
        key, now = (proven.asker.directory, name), time.monotonic()
        if (wait_s := self._throttle.begin(key, now)) > 0:
            return Refused(Refusal.MFA_THROTTLED, f"{name} may send a code again in {wait_s:.0f} s")
        try:
            answer = await self._ask(Question(name, sent, caller, this.state if this else b""), this, until)
            if first and code and answer.verdict == "challenge":  # for this question it came along
                this = _Round(answer.server, answer.state, 1)
                answer = await self._ask(Question(name, code, caller, this.state), this, until)
        except Unanswered as problem:
            self._throttle.unjudged(key)
            return Refused(problem.refusal, problem.detail)
        if answer.verdict == "accept":
            if code and not await self._take(name, code):
                return Refused(Refusal.MFA_CODE_REUSED, f"the code of {name} has let somebody in before")
            self._throttle.right(key)
            return proven.account
        if answer.verdict == "challenge":
            return self._ask_on(proven, this, answer)
        said = f" ({question_text(answer.message).strip()})" if answer.message else ""
        if first and this is None:
            return Refused(Refusal.MFA_REJECTED, f"{answer.server} rejects {name}, before any code{said}")
        return Refused(Refusal.MFA_CODE_WRONG, f"{answer.server} rejects the code of {name}{said}")

    async def _ask(self, question: Question, this: _Round | None, until: float) -> Answer:
        only = this.server if this is not None else None
        if only is not None and only not in self.servers.settings.servers:
            raise Unanswered(Refusal.RADIUS_UNAVAILABLE, f"{only}, which has put the question, is configured no more")
        return await self.servers.ask(question, until, only)

    def _ask_on(self, proven: Proven, this: _Round | None, answer: Answer) -> Refused:
        number = 1 if this is None else this.number + 1
        if number > MOST_ROUNDS:
            return Refused(Refusal.MFA_CODE_WRONG, f"{answer.server} goes on asking {proven.account.name}")
        memory = _Round(answer.server, answer.state, number)
        text = question_text(answer.message)
        return self._questions.ask(proven, time.monotonic(), text, echo=answer.echo, memory=memory)

    async def _take(self, name: str, code: Secret) -> bool:
        """A code counts once, also where the server takes it again, and of two logins at once one is let in."""
        if not (once_s := self.config.code_once_s):
            return True
        now, once = self._clock(), code.without(AS_PEOPLE_TYPE)  # a server may not mind those either
        return await asyncio.to_thread(
            self._used.take_radius_code, self.config.directory, name, once, now + once_s, now
        )


def _sendable(text: Secret) -> bool:
    return 0 < len(text) <= MOST_PASSWORD_BYTES and 0 not in text.view()
