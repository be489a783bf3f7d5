"""Connections to the servers of an LDAP directory: verified TLS or nothing, and the next server where one is down.

``ldap3`` speaks the protocol, but for the binds of users, whose passwords it would leave in memory. The TLS handshake
is the standard library's, with the host name checked (ldap3 verifies nothing unless told to, and by a comparison of its
own). For one thread at a time, each with connections of its own."""

from __future__ import annotations

import logging
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ldap3 import AUTO_BIND_NONE, BASE, NONE, SIMPLE, SUBTREE, SYNC, Connection, Server, Tls
from ldap3.core.exceptions import LDAPCommunicationError, LDAPException, LDAPStartTLSError

from cvpnd.auth.health import ServerHealth
from cvpnd.auth.timely_socket import TimelySocket, TimelyTls
from cvpnd.config import LdapUrl
from cvpnd.secret import Secret

log = logging.getLogger(__name__)

KEPT_CONNECTIONS = 16
"""Of one server."""
KEPT_S = 30.0
"""Unused. What is on the way to a server forgets a connection some time, and does not say so."""
PASSWORD_POLICY = "1.3.6.1.4.1.42.2.27.8.5.1"  # noqa: S105 - the control's name
"""Asked for with each bind: why OpenLDAP's ppolicy says no."""
SUCCESS = 0
INVALID_CREDENTIALS = 49
NOT_THE_USERS_FAULT = {1, 2, 3, 8, 10, 11, 13, 14, 51, 52, 80}
"""Results of a bind that say nothing of the password: the server is busy, or wants something else."""


class ServerFault(LDAPException):  # type: ignore[misc]
    """An answer that is none."""


FAULTS = (ServerFault, LDAPCommunicationError, LDAPStartTLSError, OSError)
"""What speaks against a server. Other exceptions of ldap3 are about what it was to send, which a client may have
chosen."""


class Unavailable(Exception):
    """No server gave an answer; the text says what each of them did."""


class Entry(NamedTuple):
    dn: str
    attributes: dict[str, list[bytes]]
    """By the name in small letters."""

    def texts(self, name: str) -> list[str]:
        return [value.decode("utf-8", "replace") for value in self.attributes.get(name.lower(), [])]

    def text(self, name: str) -> str:
        return next(iter(self.texts(name)), "")


class BindAnswer(NamedTuple):
    code: int
    message: str
    policy: bytes
    """The value of the password policy control, empty if there was none."""


class _VerifiedTls(Tls):  # type: ignore[misc]
    """Every way in which ldap3 begins TLS ends here."""

    def __init__(self, context: ssl.SSLContext, host: str, timeout_s: float) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context, self._host, self._timeout_s = context, host, timeout_s

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:  # noqa: ARG002
        connection.socket.settimeout(self._timeout_s)
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=self._host)
        connection.socket.answer_within(self._timeout_s)


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """``ca`` None: the host's own authorities. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = TimelyTls
    return context


@contextmanager
def _answers() -> Iterator[None]:
    """ldap3 and its decoder raise whatever they stumble over in an answer that is none."""
    try:
        yield
    except (LDAPException, OSError):
        raise
    except Exception as error:
        raise ServerFault(f"has sent what is no answer ({type(error).__name__})") from error


@dataclass(slots=True)
class LdapServers:
    """Shared by the threads of one directory. Connections of the service wait here for the next login, as half of what
    one costs is to connect and to bind; they are in deques, from which one thread takes each."""

    urls: Sequence[LdapUrl]
    context: ssl.SSLContext
    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    health: ServerHealth[LdapUrl] = field(init=False)
    _kept: dict[LdapUrl, deque[tuple[float, Connection]]] = field(init=False)
    """Until when, and which; the one used last on the right."""

    def __post_init__(self) -> None:
        self.health = ServerHealth(self.urls, self.clock)
        self._kept = {url: deque() for url in self.urls}

    def sessions(self, service: tuple[str, str] | None) -> Iterator[LdapSession]:
        """One session after the other until the caller is content, each bound as the service, whose name and password
        these are. None: bound as nobody yet. Of each it is to say ``keep`` or, if there was a fault, ``failed``. Raises
        ``Unavailable`` when none is left."""
        problems = []
        for url in self.health.in_order():
            if service is not None and (kept := self._take(url)) is not None:
                session = LdapSession(self, url, kept)
                with closing(session):
                    yield session
                if not session.outdated:
                    continue
            session = LdapSession(self, url)
            with closing(session):
                if service is not None:
                    try:
                        session.bind_service(*service)
                    except (LDAPException, OSError) as error:  # nothing of a client's was in it
                        problems.append(self.failed(session, error))
                        continue
                    self.health.succeeded(url)
                yield session
        raise Unavailable("; ".join(problems) or "no server has given an answer")

    def _take(self, url: LdapUrl) -> Connection | None:
        kept, now = self._kept[url], self.clock()
        with suppress(IndexError):  # there is none, or another thread has taken it
            while True:
                until, connection = kept.pop()
                if now < until and _quiet(connection):
                    return connection
                _close(connection)
        return None

    def keep(self, session: LdapSession) -> None:
        """It has answered; if it is the service's, its connection waits for the next."""
        connection = session.give_up()
        if connection is None:
            return
        kept, now = self._kept[session.url], self.clock()
        kept.append((now + KEPT_S, connection))
        with suppress(IndexError):
            while len(kept) > KEPT_CONNECTIONS or kept[0][0] <= now:
                _close(kept.popleft()[1])

    def failed(self, session: LdapSession, error: Exception) -> str:
        """A kept connection that has ended says nothing of its server; one that hangs does."""
        url = session.url
        text = f"{url}: {str(error) or type(error).__name__}"
        session.outdated = session.kept and not isinstance(error, TimeoutError)
        if session.outdated:
            return text
        self._kept[url].clear()
        back_off_s = self.health.failed(url)
        log.warning("directory server %s; the next one is asked, this one again in %.0f s", text, back_off_s)
        return text

    def connect(self, url: LdapUrl, user: str | None = None, password: str | None = None) -> Connection:
        """TLS is up when this returns, and nothing was said before. Raises one of FAULTS, or another LDAPException."""
        tls = _VerifiedTls(self.context, url.host, self.timeout_s)
        server = Server(url.host, url.port, use_ssl=url.ldaps, tls=tls, get_info=NONE, connect_timeout=self.timeout_s)
        connection = Connection(
            server, user, password, AUTO_BIND_NONE, authentication=SIMPLE,
            client_strategy=SYNC, auto_referrals=False, check_names=False, read_only=True,
            receive_timeout=self.timeout_s,
        )  # fmt: skip
        try:
            with _answers():
                connection.open(read_server_info=False)
                if not url.ldaps:
                    connection.socket = TimelySocket.of(connection.socket, self.timeout_s)
                    connection.start_tls(read_server_info=False)
            if not isinstance(connection.socket, TimelyTls):
                raise ssl.SSLError("TLS is not up")
        except BaseException:
            if connection.socket is not None:  # without a goodbye: nothing is said before TLS
                connection.socket.close()
            raise
        return connection


class LdapSession:
    """With one server: searches as the service, binds as anybody on a connection of their own. Without a service,
    whoever has bound to stay is the one who searches."""

    def __init__(self, servers: LdapServers, url: LdapUrl, kept: Connection | None = None) -> None:
        """``kept``: the service's, bound for an earlier session."""
        self._servers = servers
        self.url = url
        self._searching = kept
        self._of_service = kept is not None
        self.kept = kept is not None
        self.outdated = False
        """It failed, and a new one to the same server may not."""

    def bind_service(self, user: str, password: str) -> None:
        """Raises one of FAULTS, or another LDAPException."""
        connection = self._searching = self._servers.connect(self.url, user, password)
        with _answers():
            bound = connection.bind()
        if not bound:
            raise ServerFault(f"the service account {user} is refused: {connection.result['description']}")
        self._of_service = True

    def give_up(self) -> Connection | None:
        """The service's connection, which is another session's from now on. One that a user has bound is nobody's."""
        if not self._of_service:
            return None
        service, self._searching = self._searching, None
        return service

    def hand_over(self) -> LdapSession:
        """The connection that a user has bound to stay, in a session of whoever asks."""
        connection, self._searching = self._searching, None
        assert connection is not None and not self._of_service  # noqa: S101 - a user has bound
        session = LdapSession(self._servers, self.url, connection)
        session._of_service = False
        return session

    @property
    def server_is_up(self) -> bool:
        return self._servers.health.is_up(self.url)

    def lost(self, error: Exception) -> str:
        """A kept connection failed; what to say of it."""
        return self._servers.failed(self, error)

    def close(self) -> None:
        if self._searching is not None:
            _close(self._searching)

    def search(
        self, base: str, wanted: str, attributes: Sequence[str], *, only_base: bool = False, most: int
    ) -> list[Entry]:
        """At most ``most`` entries. Raises one of FAULTS, or another LDAPException."""
        assert self._searching is not None  # noqa: S101 - bound first
        with _answers():
            self._searching.search(
                base, wanted, BASE if only_base else SUBTREE, attributes=list(attributes), size_limit=most,
                time_limit=max(1, int(self._servers.timeout_s)),
            )  # fmt: skip
        result = self._searching.result
        if result["description"] not in ("success", "noSuchObject", "sizeLimitExceeded"):
            raise ServerFault(f"search below {base}: {result['description']} {result['message']}".strip())
        return [
            Entry(found["dn"], {name.lower(): values for name, values in found["raw_attributes"].items()})
            for found in self._searching.response or ()
            if found["type"] == "searchResEntry"  # and no reference to another domain
        ][:most]

    def bind_as(self, dn: str, password: Secret, *, stay: bool = False) -> BindAnswer:
        """Never with an empty password, which servers take for nobody's and answer with success, nor with a zero byte
        in it, where one may think that it ends. ``stay``: for searches, after success. Raises one of FAULTS, or another
        LDAPException."""
        if not dn or not password or 0 in password.view():
            return BindAnswer(INVALID_CREDENTIALS, "empty", b"")
        connection = self._servers.connect(self.url)
        try:
            with _answers():
                result = _bind(connection, dn, password)
            if result["result"] in NOT_THE_USERS_FAULT:
                raise ServerFault(f"bind: {result['description']} {result['message']}".strip())
            policy = (result.get("controls") or {}).get(PASSWORD_POLICY, {}).get("value") or b""
            answer = BindAnswer(result["result"], result["message"] or "", policy)
            self._servers.health.succeeded(self.url)
            if stay and answer.code == SUCCESS and self._searching is None:
                self._searching = connection
            return answer
        finally:
            if connection is not self._searching:
                _close(connection)


def _bind(connection: Connection, dn: str, password: Secret) -> dict[str, Any]:
    """What ldap3's own does, without its copies of the password. The names are none that it documents: a version that
    lacks them lets nobody in."""
    message_id = connection.server.next_message_id()
    packet = bind_request(message_id, dn, password)
    try:
        connection.socket.sendall(packet)
    finally:
        packet[:] = bytes(len(packet))
    connection.request = connection.strategy._outstanding[message_id] = {"type": "bindRequest"}
    connection.post_send_single_response(message_id)
    result: dict[str, Any] = connection.result
    connection.bound = result["result"] == SUCCESS
    return result


def bind_request(message_id: int, dn: str, password: Secret) -> bytearray:
    """RFC 4511, section 4.2: a simple bind, with the control that asks for the password policy's word."""
    name = dn.encode("utf-8", "surrogateescape")
    before = b"\x02\x01\x03" + _ber(0x04, len(name)) + name + _ber(0x80, len(password))
    oid = PASSWORD_POLICY.encode()
    control = _ber(0x04, len(oid)) + oid
    control = _ber(0x30, len(control)) + control
    control = _ber(0xA0, len(control)) + control
    number = message_id.to_bytes(message_id.bit_length() // 8 + 1, "big")
    number = _ber(0x02, len(number)) + number
    size = len(before) + len(password)
    operation = _ber(0x60, size)
    head = _ber(0x30, len(number) + len(operation) + size + len(control)) + number + operation + before
    packet = bytearray(len(head) + len(password) + len(control))
    packet[: len(head)] = head
    packet[len(head) : len(head) + len(password)] = password.view()
    packet[len(head) + len(password) :] = control
    return packet


def _ber(tag: int, length: int) -> bytes:
    if length < 0x80:
        return bytes((tag, length))
    digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits


def _quiet(connection: Connection) -> bool:
    """Nobody has closed it, and nothing has come that was not asked for."""
    if connection.closed or connection.socket is None:
        return False
    waiting = select.poll()
    waiting.register(connection.socket, select.POLLIN)
    return not waiting.poll(0) and not connection.socket.pending()


def _close(connection: Connection) -> None:
    sock = connection.socket
    with suppress(LDAPException, OSError):
        connection.unbind()
    if sock is not None:  # ldap3 leaves one open on which it cannot say goodbye
        sock.close()
