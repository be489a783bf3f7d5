"""The running gateway: endpoints as the configuration and the store say, made so and kept so.

``start`` and ``reload`` take the same road: read and check everything that can be refused (files, certificates), plan,
then change the host, then the data plane, then listen. A reload that fails on the way goes back to the old plan.
An endpoint whose listeners, client CIDR or interface settings change is replaced (its clients are sent back at once);
everything else changes under live sessions. ``refresh`` takes that road for what changed in the store.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.crl import CrlEdition, CrlSource
from cvpnd.auth.directory import DirectoryError
from cvpnd.auth.files import CertificateSettings, TrustError
from cvpnd.auth.ldap_directory import open_directory
from cvpnd.auth.radius import radius_settings
from cvpnd.auth.saml.keeper import SamlKeeper, keep_fresh, prepare
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.tokens import Revocations, TokenKey
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import Config, ConfigError, EndpointConfig, Listen, check_files, load
from cvpnd.config.crosscheck import managed_problems
from cvpnd.dataplane.api import DataPlane, TunOffload
from cvpnd.endpoints.accounts import Accounts
from cvpnd.endpoints.crl_memory import CrlMemory
from cvpnd.endpoints.ended import EndedConnections
from cvpnd.endpoints.managed import EndpointFault, ManagedEndpoints, ManagedError, SetAside
from cvpnd.endpoints.plan import host_plan
from cvpnd.endpoints.pools import Pools
from cvpnd.endpoints.protection import ProtectionKeeper
from cvpnd.endpoints.set_aside import EndpointsAside
from cvpnd.endpoints.timekeeping import Timekeeper
from cvpnd.handlers.opening import HandlerError, open_handler
from cvpnd.host.errors import HostError
from cvpnd.host.firewall import Denied
from cvpnd.host.gateway import HostChange, HostGateway
from cvpnd.policy.compile import compile_prefixes, compile_rules
from cvpnd.policy.leases import LeasePool
from cvpnd.policy.model import IPNetwork, Rule
from cvpnd.policy.push import push_options
from cvpnd.policy.routes import endpoint_routes, endpoint_rules
from cvpnd.policy.rule_table import RuleTable
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import Connection
from cvpnd.server.control import RESTART_TEXT, ControlPlane
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.leftovers import Leftovers
from cvpnd.server.listener import Listener, TcpListener, UdpListener
from cvpnd.server.login import put_off
from cvpnd.server.session_timeouts import SessionTimeouts
from cvpnd.server.sockets import ListenError, check_free
from cvpnd.server.unrouted import forget_unrouted
from cvpnd.store import Store, StoreError

log = logging.getLogger(__name__)

MANY_PREFIXES = 100
"""From here on rules are compiled beside the event loop."""


class GatewayError(Exception):
    """The gateway cannot be made so; the text tells the operator what to change."""


@dataclass(slots=True)
class _Running:
    served: ServedEndpoint
    protection: ProtectionKeeper
    listeners: list[Listener] = field(default_factory=list)


class Gateway:
    """Owns endpoints, listeners and what the host lends us. One task at a time may change it (``Operations``' lock)."""

    def __init__(
        self, config: Config, plane: DataPlane, control: ControlPlane, host: HostGateway, store: Store
    ) -> None:
        self.config = config
        """What the file says; managed endpoints are not in it."""
        self.plane = plane
        self.control = control
        self.store = store
        self.accounts = Accounts(plane, control, store)
        self.saml_keeper = SamlKeeper(store)
        self.timeouts = SessionTimeouts(control)
        self.timekeeper = Timekeeper(control.clock, store)
        self._crl_memory = CrlMemory(store, control.clock)
        self.ended = EndedConnections()
        self.revision = 0
        self.last_reload_at: float | None = None
        self.last_reload_successful = True
        self.host_changes_seen: Counter[str] = Counter()
        self._aside = EndpointsAside(self._listening)
        self._host = host
        self._managed = ManagedEndpoints(store, config.daemon.admin_socket.parent / "managed")
        self._pools = Pools(config.daemon.admin_socket.parent / "leases.json")
        self._running: dict[str, _Running] = {}
        self._device_numbers = itertools.count()
        self._indexes = itertools.count()
        self._listener_numbers = itertools.count()

    @property
    def endpoints(self) -> list[ServedEndpoint]:
        return [running.served for running in self._running.values()]

    @property
    def set_aside(self) -> Mapping[str, str]:
        """By id, why an endpoint of a shared store cannot be served here as it says there."""
        return self._aside.why

    def is_managed(self, served: ServedEndpoint) -> bool:
        """It lives in the store; else it belongs to the file."""
        return all(served.id != endpoint.id for endpoint in self.config.endpoints)

    # -- start, reload, stop --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises ``GatewayError``; then the host is as it was."""
        try:
            self._host.claim()  # before anything is written that a running gateway may have
            await self.timekeeper.begin()
            await self._pools.begin()
            await self._become(self.config, setting_aside=self.store.is_shared)
        except _FAILURES as error:
            await self.stop(0)
            raise GatewayError(str(error)) from error
        self.revision = 1

    async def refresh(self) -> None:
        """Make it so as the store says now, inside the transaction that is joined. Raises ``GatewayError``; then take
        the change back and refresh again."""
        try:
            await self._become(self.config, again=False)
        except _FAILURES as error:
            raise GatewayError(str(error)) from error

    async def follow(self) -> None:
        """What another gateway on the same store has changed, but for endpoints that cannot be served here, which are
        ``set_aside``. Raises ``GatewayError``; then as much of it is in force as could be, who may log in and who may
        go where before anything else."""
        try:
            self.control.revocations = Revocations(await asyncio.to_thread(self.store.revoked_logins))
            self.accounts.set_local_users(self.config, await asyncio.to_thread(self.store.local_users))
            for served in self.endpoints:
                rules, changed = await asyncio.to_thread(self._changed_rules, served)
                if changed:
                    await self.put_changed_rules_in_force(served, rules, changed)
            await self._become(self.config, again=False, setting_aside=self.store.is_shared)
        except _FAILURES as error:
            raise GatewayError(str(error)) from error

    async def reload(self) -> dict[str, object]:
        """Read the file again and make it so. Raises ``GatewayError``; then the old configuration runs on."""
        old = self.config
        self.last_reload_at = time.time()
        self.last_reload_successful = False
        try:
            new = await asyncio.to_thread(_read, old)
            await self._become(new)
        except (ConfigError, TrustError, ManagedError, DirectoryError, HandlerError) as error:
            raise GatewayError(str(error)) from error
        except (HostError, ListenError, StoreError, OSError) as error:
            raise GatewayError(await self._go_back(old, str(error))) from error
        self.config = new
        self.last_reload_successful = True
        self.revision += 1
        return {"revision": self.revision, "endpoints": [e.settings.name for e in self.endpoints]}

    async def _go_back(self, old: Config, problem: str) -> str:
        """What there is to say about it."""
        try:
            await self._become(old)
        except _FAILURES as error:
            log.critical("the old configuration cannot be put back in force: %s", error)
            return f"{problem}\nand the old configuration cannot be put back in force: {error}"
        return problem

    async def stop(self, grace_s: float) -> None:
        """Send everybody back (another gateway, or this one after a restart, may take them), then leave the host as it
        was found."""
        self.timeouts.stop()
        try:
            for running in self._running.values():
                running.served.closing = True
                for listener in running.listeners:
                    listener.stop_accepting()
            told = self._put_off(self.control.table) + self._send_back(self.control.table, End.SHUTDOWN)
            self.accounts.close()
            if self.control.saml is not None:
                self.control.saml.close()
            if told:
                await asyncio.sleep(grace_s)
            for running in list(self._running.values()):
                self._remove(running)
        finally:
            ours = self._host.is_claimed
            await self._host.down()
            if ours:
                await asyncio.to_thread(self._managed.remove)
                if self.revision:
                    await self._pools.end()

    async def _become(self, file: Config, *, again: bool = True, setting_aside: bool = False) -> None:
        """``again``: read every file again, also those that are watched and read already, and put right whatever others
        did to the host. Else rules and host are looked at only where the change concerns them: with 10,000 rules and
        1,000 routes all of it takes a second. ``setting_aside``: decide anew which endpoints that is done to."""
        check = partial(self._checked, file, again=again)
        managed, keepers = await (self._aside.decide(check) if setting_aside else check(self._aside.as_before()))
        config = file.model_copy(update={"endpoints": (*file.endpoints, *managed)})
        self.control.set_limits(config.daemon.strangers)
        users = await asyncio.to_thread(self.store.local_users)
        directories = {e.id: await asyncio.to_thread(open_directory, e) for e in file.directories} if again else {}
        handlers = [await asyncio.to_thread(open_handler, each) for each in file.handlers] if again else []
        radius = [(each, await asyncio.to_thread(radius_settings, each)) for each in file.radius] if again else []
        await self._set_identity_providers(config, again=again)
        if again:
            self.accounts.set_radius(radius)
            self.accounts.set_directories(directories)
            self.control.handlers.replace(handlers)
        self.control.revocations = Revocations(await asyncio.to_thread(self.store.revoked_logins))
        if any(endpoint.user_method is not None for endpoint in config.endpoints):
            self.control.token_key = TokenKey(await asyncio.to_thread(self.store.gateway_secret, "auth-token"))
        await self.accounts.set_kept_passwords(file)
        wanted = {endpoint.id: endpoint for endpoint in config.endpoints}
        for endpoint_id, running in list(self._running.items()):
            settings = wanted.get(endpoint_id)
            if settings is None or _needs_replacing(running.served.settings, settings):
                self._send_back(self._connections(running.served), End.CONFIGURATION_CHANGED)
                self._put_off(self._connections(running.served))
                self._remove(running)
        devices = {
            e.id: self._running[e.id].served.interface if e.id in self._running else f"cvpn{next(self._device_numbers)}"
            for e in config.endpoints
        }
        for endpoint in config.endpoints:  # whom nobody trusts any more goes first, whatever the host makes of the rest
            if (here := self._running.get(endpoint.id)) is not None:
                await self._trust(here, keepers[endpoint.id])
        plan = host_plan(config, devices, self.plane.workers)
        if not self.revision:
            await self._host.up(plan)
        elif again or plan != self._host.in_place:
            await self._host.update(plan, look=again)
        for endpoint in config.endpoints:
            here = self._running.get(endpoint.id)
            if here is None:
                rules = await asyncio.to_thread(self._rules_of, endpoint)
                pool = await self._pools.take(endpoint)
                self._add(config, endpoint, devices[endpoint.id], keepers[endpoint.id], rules, pool)
                continue
            if again and (rules := await asyncio.to_thread(self._rules_of, endpoint)) != here.served.rules:
                await self.put_rules_in_force(here.served, rules)
            routes = here.served.routes
            self._update(here, config, endpoint)
            if here.served.routes != routes:
                await asyncio.to_thread(forget_unrouted, here.served.leases, routes, here.served.routes)
        for endpoint_id in self._pools.settle() - wanted.keys():
            self.control.forget_endpoint(endpoint_id)
        self.accounts.set_local_users(file, users)
        await asyncio.to_thread(self._managed.forget, managed)

    async def _checked(
        self, file: Config, aside: Mapping[str, SetAside], *, again: bool
    ) -> tuple[tuple[EndpointConfig, ...], dict[str, _Keepers]]:
        """Managed endpoints, and all files. What can be refused of an endpoint is refused here, before anything is
        done. Raises ``EndpointFault``, and others where it is not the fault of one that is managed."""
        managed = await asyncio.to_thread(self._managed.read, file, aside)
        for endpoint, problem in managed_problems(file, managed):
            raise EndpointFault(endpoint.id, f"endpoint {endpoint.name}, made at run time: {problem}")
        known, keepers = self._keepers(), {}
        for endpoint in (*file.endpoints, *managed):
            try:
                new = endpoint.id not in known and endpoint not in managed
                crls = await asyncio.to_thread(self._crl_memory.known, endpoint) if new else {}
                keepers[endpoint.id] = await asyncio.to_thread(
                    _read_files, endpoint, known.get(endpoint.id), crls, again=again
                )
                self._check_new_ports(endpoint)
            except (TrustError, ListenError) as error:
                if endpoint not in managed:
                    raise
                raise EndpointFault(endpoint.id, f"endpoint {endpoint.name}, made at run time: {error}") from error
        return managed, keepers

    def _listening(self, endpoint_id: str) -> tuple[Listen, ...]:
        running = self._running.get(endpoint_id)
        return () if running is None else running.served.settings.listen

    async def _set_identity_providers(self, config: Config, *, again: bool) -> None:
        """Those of the file and, where an endpoint logs people in by SAML, those of the store."""
        methods = [endpoint.user_method for endpoint in config.endpoints]
        federated = any(method is not None and method.is_federated for method in methods)
        if not federated and not config.saml_providers and self.control.saml is None:
            return
        if again:
            await asyncio.to_thread(self.saml_keeper.read, config.saml_providers)
        stored = await asyncio.to_thread(self.store.saml_providers)
        await asyncio.to_thread(self.saml_keeper.read_stored, {each.arn: each.metadata for each in stored})
        if self.control.saml is None:
            await asyncio.to_thread(prepare)
            key = await asyncio.to_thread(self.store.gateway_secret, "saml-state")
            self.control.saml = SamlLogins(self.store, key, self.control.clock.now, unavailable=StoreError)
        self._follow_providers(self.saml_keeper.providers())

    async def keep_metadata(self) -> None:
        """Runs until cancelled: reads the metadata of identity providers again when it is time."""
        await keep_fresh(self.saml_keeper, self._follow_providers)

    def _follow_providers(self, found: Mapping[str, SamlProvider]) -> None:
        """Whom an identity provider let in goes when another one takes its place under its id."""
        saml = self.control.saml
        if saml is None:
            return
        saml.replace(found)
        for connection in self.control.table:
            if connection.established and connection.vouched_by is not None and saml.replaced(connection.vouched_by):
                self.control.halt(connection, End.IDENTITY_PROVIDER_CHANGED, "Log in again")

    def _rules_of(self, endpoint: EndpointConfig) -> RuleTable:
        """Those of the file before those of the store."""
        stored = self.store.rules(endpoint.id)
        of_store = (Rule(r.network, r.group, r.description, "store") for r in stored)
        return RuleTable([*endpoint_rules(endpoint), *of_store])

    def _changed_rules(self, served: ServedEndpoint) -> tuple[RuleTable, set[IPNetwork]]:
        """Those that there should be, and on which prefixes others are in force."""
        rules = self._rules_of(served.settings)
        return rules, {rule.network for rule in {*rules} ^ {*served.rules}}

    def _keepers(self) -> dict[str, _Keepers]:
        return {each.served.id: (each.served.trust_keeper, each.protection) for each in self._running.values()}

    # -- one endpoint ---------------------------------------------------------------------------------------

    def _check_new_ports(self, endpoint: EndpointConfig) -> None:
        """An address that cannot be listened on is found before anybody is sent away for it. Not where one of ours has
        the port: that one gives way."""
        ours = {
            (each.transport, each.port) for running in self._running.values() for each in running.served.settings.listen
        }
        for listen in endpoint.listen:
            if (listen.transport, listen.port) not in ours:
                check_free(listen.transport, listen.host, listen.port)

    def _add(
        self,
        config: Config,
        endpoint: EndpointConfig,
        device: str,
        keepers: _Keepers,
        rules: RuleTable,
        pool: LeasePool,
    ) -> None:
        trust, protection = keepers
        index = next(self._indexes)
        offload = TunOffload[self._host.tun_offload(endpoint.name).name]
        self.plane.add_endpoint(index, self._host.tun_queues(endpoint.name), offload)
        served = ServedEndpoint(
            index=index,
            interface=device,
            settings=endpoint,
            trust_keeper=trust,
            protection=protection.current,
            routes=endpoint_routes(endpoint, config),
            leases=pool,
            leftovers=Leftovers(pool),
            lan_of=self._host.attached_network,
        )
        running = self._running[endpoint.id] = _Running(served, protection)
        _warn_of_cbc(endpoint)
        try:
            served.set_rules(self.plane, rules, ())
            self._listen(running)
        except BaseException:
            self._remove(running)  # whatever is in _running is complete, so that another attempt finds what is missing
            raise

    def _listen(self, running: _Running) -> None:
        served, endpoint = running.served, running.served.settings
        for listen in endpoint.listen:
            listener: Listener
            if listen.transport == "udp":
                listener = UdpListener(next(self._listener_numbers), served, self.control)
            else:
                listener = TcpListener(served, self.control)
            listener.open(listen.host, listen.port)
            running.listeners.append(listener)
            log.info("endpoint %s listens on %s", endpoint.name, listen)

    async def _trust(self, running: _Running, keepers: _Keepers) -> None:
        served, before = running.served, running.served.trust_keeper
        served.trust_keeper, running.protection = keepers
        self._protect(running)
        if served.trust_keeper is not before:
            await self._end_untrusted(served, before.current)

    def _update(self, running: _Running, config: Config, endpoint: EndpointConfig) -> None:
        served = running.served
        if endpoint.legacy_cbc_ciphers != served.settings.legacy_cbc_ciphers:
            _warn_of_cbc(endpoint)
        routes = endpoint_routes(endpoint, config)
        timeouts_changed = any(
            getattr(served.settings, key) != getattr(endpoint, key) for key in ("session_timeout_s", "idle_timeout_s")
        )
        told_differently = (served.settings, served.routes) != (endpoint, routes)
        served.settings, served.routes = endpoint, routes
        if told_differently:
            allowed = served.session_settings.data_ciphers
            strays = (c for c in self._connections(served) if c.cipher not in allowed)
            self._send_back(strays, End.CONFIGURATION_CHANGED)
            self._tell_changes(served)
        if timeouts_changed:
            self.timeouts.changed(served)

    def _protect(self, running: _Running) -> None:
        if running.served.protection is running.protection.current:
            return
        running.served.protection = running.protection.current
        for listener in running.listeners:
            if isinstance(listener, UdpListener):
                listener.protection_changed()

    def _tell_changes(self, served: ServedEndpoint) -> None:
        """Routes or names may have changed: clients are told so, or sent back, as far as it concerns them."""
        told = 0
        for connection in self._connections(served):
            if connection.grant is not None and connection.facts is not None:
                options = push_options(served.settings, served.routes, connection.grant.lease, connection.facts)
                told += self.control.change_options(connection, options)
        if told:
            log.info("endpoint %s: %d clients get new routes or names", served.settings.name, told)

    def _remove(self, running: _Running) -> None:
        served = running.served
        self.control.drop_endpoint(served)
        self._pools.put(served.id, served.leases)
        if served.leftovers is not None:
            served.leftovers.close()
        for listener in running.listeners:
            listener.close()
        self.plane.remove_endpoint(served.index)
        del self._running[served.id]

    def _connections(self, served: ServedEndpoint) -> list[Connection]:
        return [connection for connection in self.control.table if connection.endpoint is served]

    def _send_back(self, connections: Iterable[Connection], reason: End) -> int:
        told = [connection for connection in connections if connection.established]
        for connection in told:
            self.control.restart(connection, reason, RESTART_TEXT)
        return len(told)

    def _put_off(self, connections: Iterable[Connection]) -> int:
        """Those who are logging in."""
        return sum([put_off(self.control, connection) for connection in list(connections)])

    async def host_changes(self) -> AsyncIterator[HostChange]:
        """Runs until cancelled: what others do to devices, routes, rules and forwarding. All is put right by then, but
        for a device that is lost: ``serve_anew``."""
        for warning in await self._host.warnings():
            log.warning("%s", warning)
        async for change in self._host.watch():
            self._tell(change)
            yield change

    async def keep_firewall(self) -> None:
        """Runs until cancelled: puts the firewall back when others remove it, and says so."""
        async for change in self._host.watch_firewall():
            self._tell(change)

    def _tell(self, change: HostChange) -> None:
        self.host_changes_seen[change.what] += 1
        if change.text:
            log.warning("%s", change.text)

    @property
    def host_trouble(self) -> str:
        return self._host.trouble

    @property
    def is_as_configured(self) -> bool:
        """Every endpoint of the file is being served."""
        served = {running.served.settings.name for running in self._running.values()}
        return served >= {endpoint.name for endpoint in self.config.endpoints}

    async def serve_anew(self, device: str) -> None:
        """The endpoint whose device is gone: it gets another, and its clients come back to that. Raises
        ``GatewayError``."""
        for running in list(self._running.values()):
            if running.served.interface == device:
                self._send_back(self._connections(running.served), End.DEVICE_LOST)
                self._put_off(self._connections(running.served))
                self._remove(running)
        try:
            await self._become(self.config)
        except _FAILURES as error:
            raise GatewayError(str(error)) from error

    async def host_warnings(self) -> list[str]:
        """What else on this host keeps clients from their target networks."""
        try:
            return await self._host.warnings()
        except HostError as error:
            raise GatewayError(str(error)) from error

    async def denied(self) -> dict[Denied, int]:
        """Packets that the firewall kept back from clients since the start."""
        try:
            return await self._host.denied()
        except HostError as error:
            raise GatewayError(str(error)) from error

    # -- rules and trust --------------------------------------------------------------------------------------------

    async def put_rules_in_force(self, served: ServedEndpoint, rules: RuleTable) -> None:
        """Whoever is cancelled in here has changed nothing."""
        table = await asyncio.to_thread(compile_rules, rules, served.groups)
        served.set_rules(self.plane, rules, self.control.table, table)

    async def put_changed_rules_in_force(
        self, served: ServedEndpoint, rules: RuleTable, prefixes: Collection[IPNetwork]
    ) -> None:
        """The same, where ``rules`` differ from those in force on these prefixes only."""
        if len(prefixes) > MANY_PREFIXES:
            changes = await asyncio.to_thread(compile_prefixes, rules, prefixes, served.groups)
        else:
            changes = compile_prefixes(rules, prefixes, served.groups)
        served.change_rules(self.plane, rules, self.control.table, changes)

    async def poll_trust(self, now: float) -> None:
        """Read certificates, CRLs and control-channel keys again if their files changed. What cannot be read is logged
        by name, and what was read before stays."""
        for running in list(self._running.values()):
            served = running.served
            await asyncio.to_thread(running.protection.poll, now)
            self._protect(running)
            if (before := await asyncio.to_thread(served.trust_keeper.poll, now)) is not None:
                await self._end_untrusted(served, before)
        await asyncio.to_thread(self._crl_memory.keep, [each for each in self.endpoints if not self.is_managed(each)])

    async def reload_trust(self) -> list[TrustError]:
        """The same at once, however short ago the files were looked at. Why it is not so everywhere."""
        problems = []
        for served in self.endpoints:
            if (before := await asyncio.to_thread(served.trust_keeper.reload)) is not None:
                await self._end_untrusted(served, before)
            elif (problem := served.trust_keeper.last_error) is not None:
                problems.append(problem)
        return problems

    async def _end_untrusted(self, served: ServedEndpoint, before: CertificateTrust) -> None:
        """Sessions that are revoked by now, or whose authority was taken away, end at once; who merely would not be let
        in any more (an expired CRL, say) stays until renegotiation asks again. Who logs in meanwhile is judged by the
        trust of now."""
        established = [connection for connection in self._connections(served) if connection.established]
        forsaken = set()
        if not served.trust.keeps_authorities_of(before):
            forsaken = await asyncio.to_thread(served.forsaken, established)
        for connection in established:
            if not connection.established:
                continue
            if connection in forsaken:
                self.control.halt(connection, End.CERTIFICATE_UNKNOWN_CA, "Certificate authority removed")
            elif served.still_trusted(connection) is Refusal.CERTIFICATE_REVOKED:
                self.control.halt(connection, End.CERTIFICATE_REVOKED, "Certificate revoked")


def _read(old: Config) -> Config:
    config = load(old.path)
    if old.endpoints and not config.endpoints:
        # Most likely a file that is being written: an empty one is valid, and would send everybody away.
        raise GatewayError(f"{old.path}: no [[endpoint]] is left; if that is meant, stop the gateway instead")
    check_files(config)
    return config


_Keepers = tuple[TrustKeeper, ProtectionKeeper]


_FAILURES = (TrustError, HostError, ListenError, ManagedError, DirectoryError, HandlerError, StoreError, OSError)


def _read_files(
    endpoint: EndpointConfig, known: _Keepers | None, crls: Mapping[CrlSource, CrlEdition], *, again: bool
) -> _Keepers:
    """``known`` keepers stay in place where they keep what is wanted, but for ``again``. ``crls``: where there are no
    keepers, which lists were in force before."""
    settings, (trust, protection) = CertificateSettings.of_endpoint(endpoint), known or (None, None)
    if trust is None or trust.current.settings != settings or again:
        trust, protection = TrustKeeper(settings, before=None if trust is None else trust.current, known=crls), None
    if protection is None or protection.settings != endpoint.control_protection:
        protection = ProtectionKeeper(endpoint.control_protection, trust)
    return trust, protection


def _warn_of_cbc(endpoint: EndpointConfig) -> None:
    if endpoint.legacy_cbc_ciphers:
        log.warning(
            "endpoint %s: CBC is on, for clients that have none of its data_ciphers, because legacy_cbc_ciphers names "
            "%s; empty that list once no client needs it",
            endpoint.name,
            ", ".join(endpoint.legacy_cbc_ciphers),
        )


def _needs_replacing(old: EndpointConfig, new: EndpointConfig) -> bool:
    """What is fixed for as long as an endpoint lives."""
    return (old.methods, old.listen, old.client_cidr, old.client_cidr_v6, old.path_mtu) != (
        new.methods,
        new.listen,
        new.client_cidr,
        new.client_cidr_v6,
        new.path_mtu,
    )
