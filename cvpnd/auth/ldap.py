"""Connections to the servers of an LDAP directory: verified TLS or nothing, and the next server where one is down.

``ldap3`` speaks the protocol; the TLS handshake is the standard library's, with the host name checked (ldap3 verifies
nothing unless told to, and by a comparison of its own). For one thread at a time, each with connections of its own."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ldap3 import AUTO_BIND_NONE, BASE, NONE, SIMPLE, SUBTREE, SYNC, Connection, Server, Tls
from ldap3.core.exceptions import LDAPCommunicationError, LDAPException, LDAPStartTLSError

from cvpnd.auth.health import ServerHealth
from cvpnd.config import LdapUrl

log = logging.getLogger(__name__)

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


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """``ca`` None: the host's own authorities. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@dataclass(slots=True)
class LdapServers:
    """Shared by the threads of one directory."""

    urls: Sequence[LdapUrl]
    context: ssl.SSLContext
    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    health: ServerHealth[LdapUrl] = field(init=False)

    def __post_init__(self) -> None:
        self.health = ServerHealth(self.urls, self.clock)

    def sessions(self, service: tuple[str, str] | None) -> Iterator[LdapSession]:
        """One session after the other until the caller is content, each bound as the service, whose name and password
        these are. None: bound as nobody yet. A fault it is to report with ``failed``. Raises ``Unavailable`` when none
        is left."""
        problems = []
        for url in self.health.in_order():
            session = LdapSession(self, url)
            if service is not None:
                try:
                    session.bind_service(*service)
                except (LDAPException, OSError) as error:  # nothing of a client's was in it
                    problems.append(self.failed(url, error))
                    session.close()
                    continue
                self.health.succeeded(url)
            try:
                yield session
            finally:
                session.close()
        raise Unavailable("; ".join(problems) or "no server has given an answer")

    def failed(self, url: LdapUrl, error: Exception) -> str:
        text = f"{url}: {str(error) or type(error).__name__}"
        back_off_s = self.health.failed(url)
        log.warning("directory server %s; the next one is asked, this one again in %.0f s", text, back_off_s)
        return text

    def connect(self, url: LdapUrl, user: str, password: str | bytes) -> Connection:
        """TLS is up when this returns, and nothing was said before. Raises one of FAULTS, or another LDAPException."""
        tls = _VerifiedTls(self.context, url.host, self.timeout_s)
        server = Server(url.host, url.port, use_ssl=url.ldaps, tls=tls, get_info=NONE, connect_timeout=self.timeout_s)
        connection = Connection(
            server, user, password, AUTO_BIND_NONE, authentication=SIMPLE,
            client_strategy=SYNC, auto_referrals=False, check_names=False, read_only=True,
            receive_timeout=self.timeout_s,
        )  # fmt: skip
        connection.open(read_server_info=False)
        if not url.ldaps:
            connection.start_tls(read_server_info=False)
        if not isinstance(connection.socket, ssl.SSLSocket):
            raise ssl.SSLError("TLS is not up")
        return connection


class LdapSession:
    """With one server: searches as the service, binds as anybody on a connection of their own. Without a service,
    whoever has bound to stay is the one who searches."""

    def __init__(self, servers: LdapServers, url: LdapUrl) -> None:
        self._servers = servers
        self.url = url
        self._searching: Connection | None = None

    def bind_service(self, user: str, password: str) -> None:
        """Raises one of FAULTS, or another LDAPException."""
        connection = self._searching = self._servers.connect(self.url, user, password)
        if not connection.bind():
            raise ServerFault(f"the service account {user} is refused: {connection.result['description']}")

    def close(self) -> None:
        if self._searching is not None:
            with suppress(LDAPException, OSError):
                self._searching.unbind()

    def search(
        self, base: str, wanted: str, attributes: Sequence[str], *, only_base: bool = False, most: int
    ) -> list[Entry]:
        """At most ``most`` entries. Raises one of FAULTS, or another LDAPException."""
        assert self._searching is not None  # noqa: S101 - bound first
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

    def bind_as(self, dn: str, password: bytes, *, stay: bool = False) -> BindAnswer:
        """Never with an empty password, which servers take for nobody's and answer with success. ``stay``: for
        searches, after success. Raises one of FAULTS, or another LDAPException."""
        if not dn or not password:
            return BindAnswer(INVALID_CREDENTIALS, "empty", b"")
        connection = self._servers.connect(self.url, dn, password)
        try:
            connection.bind(controls=[(PASSWORD_POLICY, False, None)])
            result = connection.result
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
                with suppress(LDAPException, OSError):
                    connection.unbind()
