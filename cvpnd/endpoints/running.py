"""One endpoint while it runs: its listeners, and what a changed configuration, or certificate file, means to whoever is
connected there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping

from cvpnd.auth.files import TrustError
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import Config, EndpointConfig, Listen
from cvpnd.endpoints.protection import ProtectionKeeper
from cvpnd.policy.push import push_options
from cvpnd.policy.routes import endpoint_routes
from cvpnd.reasons import End
from cvpnd.server.connection import Connection
from cvpnd.server.control import ControlPlane
from cvpnd.server.endpoint import Proof, ServedEndpoint
from cvpnd.server.listener import Listener, TcpListener, UdpListener
from cvpnd.server.login import put_off
from cvpnd.server.session_timeouts import SessionTimeouts

log = logging.getLogger(__name__)

Keepers = tuple[TrustKeeper, ProtectionKeeper]
"""Of what an endpoint has in files."""
_LOST_TRUST = {
    End.CERTIFICATE_REVOKED: "Certificate revoked",
    End.CERTIFICATE_UNKNOWN_CA: "Certificate authority removed",
}


class RunningEndpoint:
    """Owned by the gateway."""

    def __init__(self, served: ServedEndpoint, protection: ProtectionKeeper, control: ControlPlane) -> None:
        self.served = served
        self.protection = protection
        self._control = control
        self._listeners: list[Listener] = []
        _warn_of_cbc(served.settings)

    @property
    def connections(self) -> list[Connection]:
        return [connection for connection in self._control.table if connection.endpoint is self.served]

    def listen(self, numbers: Iterator[int]) -> None:
        """``numbers``: of listeners in the data plane. Raises ``ListenError``; ``close`` it then."""
        for listen in self.served.settings.listen:
            listener: Listener
            if listen.transport == "udp":
                listener = UdpListener(next(numbers), self.served, self._control)
            else:
                listener = TcpListener(self.served, self._control)
            listener.open(listen.host, listen.port)
            self._listeners.append(listener)
            log.info("endpoint %s listens on %s", self.served.settings.name, listen)

    def close(self) -> None:
        """End and forget everybody, without another word."""
        self._control.drop_endpoint(self.served)
        if self.served.leftovers is not None:
            self.served.leftovers.close()
        for listener in self._listeners:
            listener.close()

    def send_back(self, reason: End, coming: Collection[Listen]) -> int:
        """Nobody gets in any more, and everybody is told to come back, also who is logging in. How many are. What is
        lost of that is repeated until ``close``. ``coming``: where this host will listen then."""
        self.served.closing = True
        for listener in self._listeners:
            listener.stop_accepting()
        told = 0
        for connection in self.connections:
            elsewhere = not _is_heard(connection, coming)
            if connection.established:
                self._control.restart(connection, reason, elsewhere=elsewhere)
                told += 1
            else:
                told += put_off(self._control, connection, elsewhere=elsewhere)
        return told

    async def trust(self, trust_keeper: TrustKeeper, protection: ProtectionKeeper) -> None:
        """By these keepers from now on."""
        self.served.trust_keeper, self.protection = trust_keeper, protection
        self._protect()
        await self._end_untrusted()

    async def poll_files(self, now: float) -> None:
        """What cannot be read is logged, and what was read before stays."""
        await asyncio.to_thread(self.protection.poll, now)
        self._protect()
        await asyncio.to_thread(self.served.trust_keeper.poll, now)
        await self._end_untrusted()

    async def reload_trust(self) -> TrustError | None:
        """Read certificates and CRLs again, whether or not their files seem to have changed. Returns why that is not
        so."""
        await asyncio.to_thread(self.served.trust_keeper.reload)
        await self._end_untrusted()
        return self.served.trust_keeper.last_error

    async def _end_untrusted(self) -> None:
        """Sessions that are revoked by now, or whose authority was taken away, end at once; who merely would not be let
        in any more (an expired CRL, say) stays until renegotiation asks again. Who logs in meanwhile is judged by the
        trust of now."""
        served, trust = self.served, self.served.trust
        if trust is served.judged_by:
            return
        established = [each for each in self.connections if each.established]
        proven: Mapping[Connection, Proof] = {}
        if set(trust.authorities) != set(served.judged_by.authorities):
            proven = await asyncio.to_thread(served.prove_again, established)
        for connection in established:
            end = served.lost_trust(connection, proven.get(connection)) if connection.established else None
            if end is not None:
                self._control.halt(connection, end, _LOST_TRUST[end])
        served.judged_by = trust

    def _protect(self) -> None:
        """With the control-channel keys as they were read last."""
        if self.served.protection is self.protection.current:
            return
        self.served.protection = self.protection.current
        for listener in self._listeners:
            if isinstance(listener, UdpListener):
                listener.protection_changed()

    def configure(self, config: Config, settings: EndpointConfig, timeouts: SessionTimeouts) -> None:
        """Under live sessions, whose clients are told, or sent back, as far as it concerns them. Not for what
        ``needs_replacing``."""
        served, before = self.served, self.served.settings
        if settings.legacy_cbc_ciphers != before.legacy_cbc_ciphers:
            _warn_of_cbc(settings)
        routes = endpoint_routes(settings, config)
        told_differently = (before, served.routes) != (settings, routes)
        served.settings, served.routes = settings, routes
        if told_differently:
            self._send_strays_back()
            self._tell_changes()
        if (before.session_timeout_s, before.idle_timeout_s) != (settings.session_timeout_s, settings.idle_timeout_s):
            timeouts.changed(served)

    def needs_replacing(self, new: EndpointConfig | None) -> bool:
        """Whether what is fixed for as long as an endpoint lives is another in ``new``. None: it is to be no more."""
        old = self.served.settings
        return new is None or (old.methods, old.listen, old.client_cidr, old.client_cidr_v6, old.path_mtu) != (
            new.methods,
            new.listen,
            new.client_cidr,
            new.client_cidr_v6,
            new.path_mtu,
        )

    def _send_strays_back(self) -> None:
        """Whose cipher is not allowed any more."""
        allowed = self.served.session_settings.data_ciphers
        for connection in self.connections:
            if connection.established and connection.cipher not in allowed:
                self._control.restart(connection, End.CONFIGURATION_CHANGED)

    def _tell_changes(self) -> None:
        """Of routes and names."""
        served, told = self.served, 0
        for connection in self.connections:
            if connection.grant is not None and connection.facts is not None:
                options = push_options(served.settings, served.routes, connection.grant.lease, connection.facts)
                told += self._control.change_options(connection, options)
        if told:
            log.info("endpoint %s: %d clients get new routes or names", served.settings.name, told)


def _is_heard(connection: Connection, coming: Collection[Listen]) -> bool:
    """Whether anybody listens there where it comes back to by itself."""
    link = connection.link
    return any(each.hears(link.transport, link.local, link.local_port) for each in coming)


def _warn_of_cbc(endpoint: EndpointConfig) -> None:
    if endpoint.legacy_cbc_ciphers:
        log.warning(
            "endpoint %s: CBC is on, for clients that have none of its data_ciphers, because legacy_cbc_ciphers names "
            "%s; empty that list once no client needs it",
            endpoint.name,
            ", ".join(endpoint.legacy_cbc_ciphers),
        )
