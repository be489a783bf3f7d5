"""Users of a directory without a service account, each with the connection on which they have bound.

Nobody else may look at their accounts. So the connection of a user's latest login stays open, and its user reads their
own entry on it: a directory goes on answering it when the account is disabled, has other groups or is gone. Once it is
lost, the account is as it was when it was seen last, for a while; then it is taken for nobody's until its user binds
again, with the password or by what is kept of it for their token (``kept_passwords``). Connections of users who are not
looked at any more are closed."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ldap3.core.exceptions import LDAPException

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.ldap import LdapSession
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

log = logging.getLogger(__name__)

MOST_KNOWN = 50_000
"""Names, as they were typed and as the directory writes them."""
MOST_CONNECTIONS = 1000
"""Of all gateways together a server has 5000 places (Active Directory's MaxConnections)."""

PASSWORD_WAITS_S = 240.0
"""For the second factor, which a person has three minutes for."""

Look = Callable[[LdapSession, str, str], Account | Refused]
"""At the entry of whom the session is bound as: what they typed, and what they have bound as."""


@dataclass(slots=True)
class _User:
    names: set[str]
    """By which this account has been known, in small letters."""
    typed: str
    bind_name: str
    account: Account
    seen_at: float
    """When the directory spoke of it last."""
    session: LdapSession | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the session is used; ``account``, ``seen_at`` and ``session`` change under it."""
    dropped: bool = False
    """Whoever holds the lock closes the session afterwards."""

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None


class BoundUsers:
    """Any thread may call it. Nobody waits for a connection while they hold the registry's lock."""

    def __init__(self, unchecked_s: float, unused_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``unchecked_s``: how long an account that cannot be looked at is as it was. ``unused_s``: how long a
        connection on which nobody looks is kept."""
        self.unchecked_s, self.unused_s = unchecked_s, unused_s
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._known: OrderedDict[str, _User] = OrderedDict()
        """By each of their names."""
        self._open: OrderedDict[int, tuple[_User, float]] = OrderedDict()
        """Those with a connection, by ``id``, and when it was used last: the longest unused first."""
        self._passwords: OrderedDict[str, tuple[Secret, float]] = OrderedDict()
        """Of whom they were right just now, by account, and until when they wait for being taken: the oldest first."""

    def add(
        self, typed: str, bind_name: str, account: Account, session: LdapSession, password: Secret | None = None
    ) -> None:
        """Somebody has logged in; the session is this object's from now on, and the password if it may be kept."""
        now = self._clock()
        user = _User({typed.lower(), account.name.lower()}, typed, bind_name, account, now, session)
        gone = []
        with self._lock:
            if self._closed:  # it was replaced while they logged in
                session.close()
                return
            for name in list(user.names):
                if (before := self._known.get(name)) is not None:
                    gone.append(before)
                    if before.account.name == account.name:  # sessions may know them by what was typed then
                        user.names |= before.names
            for name in user.names:
                self._known[name] = user
                self._known.move_to_end(name)
            while len(self._known) > MOST_KNOWN:
                gone.append(self._known.popitem(last=False)[1])
            self._open[id(user)] = user, now
            if password is not None:
                self._passwords.pop(account.name, None)
                self._passwords[account.name] = password, now + PASSWORD_WAITS_S
            for each in gone:
                self._open.pop(id(each), None)
            gone += self._unused(now)
        for each in gone:
            self._drop(each)

    def look_up(self, username: str, look: Look) -> Account | Refused:
        now = self._clock()
        with self._lock:
            user = self._known.get(username.lower())
            if user is not None and id(user) in self._open:
                self._open[id(user)] = user, now
                self._open.move_to_end(id(user))
            unused = self._unused(now)
        for each in unused:
            self._drop(each)
        if user is None:
            return Refused(Refusal.USER_UNKNOWN, f"{username!r} has not logged in here, and nobody else may look")
        with user.lock:
            outcome = self._look(user, look, now)
        if user.dropped:
            self._drop(user)
        return outcome

    def take_password(self, name: str) -> Secret | None:
        self.wipe_passwords()
        with self._lock:
            return self._passwords.pop(name, (None, 0.0))[0]

    def wipe_passwords(self) -> None:
        now = self._clock()
        with self._lock:
            while self._passwords and next(iter(self._passwords.values()))[1] <= now:
                self._passwords.popitem(last=False)[1][0].wipe()

    def unchecked(self) -> int:
        """Accounts that count as they were, as nobody can look."""
        oldest = self._clock() - self.unchecked_s
        with self._lock:
            users = {id(user): user for user in self._known.values()}
        return sum(user.session is None and user.seen_at > oldest for user in users.values())

    def close(self) -> None:
        with self._lock:
            users = [user for user, _ in self._open.values()]
            self._closed = True
            self._open.clear()
            self._known.clear()
            self._passwords.clear()
        for user in users:
            self._drop(user)

    def _look(self, user: _User, look: Look, now: float) -> Account | Refused:
        """With its lock held."""
        session = user.session
        if session is not None and session.server_is_up:  # one that hangs would cost each user their connection
            try:
                outcome = look(session, user.typed, user.bind_name)
            except (LDAPException, OSError) as error:
                log.warning(
                    "%s cannot be looked at any more, as its connection is lost: %s",
                    user.account.name, session.lost(error),
                )  # fmt: skip
                self._lost(user)
            else:
                if isinstance(outcome, Account):
                    user.account, user.seen_at = outcome, self._clock()
                else:  # for good: whoever comes back logs in
                    self._lost(user)
                    user.seen_at = float("-inf")
                return outcome
        if now - user.seen_at < self.unchecked_s:
            return user.account
        why = "its connection to the directory is lost" if user.session is None else "its server does not answer"
        return Refused(Refusal.ACCOUNT_UNCHECKED, f"{user.account.name} has not been looked at for too long: {why}")

    def _lost(self, user: _User) -> None:
        with self._lock:
            self._open.pop(id(user), None)
        user.close()

    def _unused(self, now: float) -> list[_User]:
        """With the registry's lock held: they are to be dropped without it."""
        unused = []
        while self._open:
            user, used_at = next(iter(self._open.values()))
            if len(self._open) <= MOST_CONNECTIONS and now - used_at < self.unused_s:
                break
            if now - used_at < self.unused_s:
                log.warning("%s is not looked at any more: over %d others are", user.account.name, MOST_CONNECTIONS)
            del self._open[id(user)]
            unused.append(user)
        return unused

    def _drop(self, user: _User) -> None:
        user.dropped = True
        if user.lock.acquire(blocking=False):
            try:
                user.close()
            finally:
                user.lock.release()
