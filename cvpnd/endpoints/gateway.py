"""The running gateway: endpoints as the configuration and the store say, made so and kept so.

``start`` and ``reload`` take the same road: read and check everything that can be refused (files, certificates), plan,
then change the host, then the data plane, then listen. A reload that fails on the way goes back to the old plan.
An endpoint whose login methods, listeners, client CIDR or path MTU change is replaced (its clients are told to come
back, and given time to hear it); everything else changes under live sessions. ``refresh`` takes that road for what
changed in the store.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from cvpnd.auth.directory import DirectoryError
from cvpnd.auth.files import TrustError
from cvpnd.auth.tokens import TokenKey
from cvpnd.config import Config, ConfigError, EndpointConfig, FilesRead, Listen, files_read
from cvpnd.dataplane.api import DataPlane, TunOffload
from cvpnd.endpoints.accounts import Accounts
from cvpnd.endpoints.checks import Checks, read_again
from cvpnd.endpoints.crl_memory import CrlMemory
from cvpnd.endpoints.ended import EndedConnections
from cvpnd.endpoints.host_changes import HostChanges
from cvpnd.endpoints.identity_providers import IdentityProviders
from cvpnd.endpoints.login_parts import LoginParts
from cvpnd.endpoints.managed import ManagedEndpoints, ManagedError
from cvpnd.endpoints.plan import host_plan
from cvpnd.endpoints.pools import Pools
from cvpnd.endpoints.rules_in_force import RulesInForce, rules_of
from cvpnd.endpoints.running import Keepers, RunningEndpoint
from cvpnd.endpoints.set_aside import EndpointsAside
from cvpnd.endpoints.timekeeping import Timekeeper
from cvpnd.handlers.opening import HandlerError
from cvpnd.host.errors import HostError
from cvpnd.host.gateway import HostGateway
from cvpnd.policy.routes import endpoint_routes
from cvpnd.policy.rule_table import RuleTable
from cvpnd.reasons import End
from cvpnd.server.control import ControlPlane
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.leftovers import Leftovers
from cvpnd.server.session_timeouts import SessionTimeouts
from cvpnd.server.sockets import ListenError
from cvpnd.server.unrouted import forget_unrouted
from cvpnd.store import Store, StoreError

log = logging.getLogger(__name__)

LONGEST_GRACE_S = 3.0
"""In a change: it holds the store meanwhile, for which others wait 5 s (``store.sqlite``, ``store.postgresql``)."""


class GatewayError(Exception):
    """The gateway cannot be made so; the text tells the operator what to change."""


class Gateway:
    """Owns endpoints, listeners and what the host lends us. One task at a time may change it (``Operations``' lock)."""

    def __init__(
        self, config: Config, plane: DataPlane, control: ControlPlane, host: HostGateway, store: Store
    ) -> None:
        self.config = self._started_with = config
        """What the file says; managed endpoints are not in it."""
        self.plane = plane
        self.control = control
        self.store = store
        self.accounts = Accounts(plane, control, store)
        self.rules = RulesInForce(plane, control.table)
        self.identity_providers = IdentityProviders(control, store)
        self.timeouts = SessionTimeouts(control)
        self.timekeeper = Timekeeper(control.clock, store)
        self.host_changes = HostChanges(host)
        self._crl_memory = CrlMemory(store, control.clock)
        self.ended = EndedConnections()
        self.revision = 0
        self.last_reload_at: float | None = None
        self.last_reload_problem = ""
        """Why it was refused, a line for each reason."""
        self._could_not_go_back = False
        """A reload was refused, and what was in force before could not be put back: parts of either are."""
        self.changed_files: Mapping[Path, float | None] = {}
        """Of the configuration, since they were read, and when."""
        self._files_read: FilesRead | None = None
        self._aside = EndpointsAside(self._listening)
        self._host = host
        self._managed = ManagedEndpoints(store, config.daemon.admin_socket.parent / "managed")
        self._pools = Pools(config.daemon.admin_socket.parent / "leases.json")
        self._running: dict[str, RunningEndpoint] = {}
        """What is in it is complete, so that another attempt finds what is missing."""
        self._keepers: Mapping[str, Keepers] = {}
        """By id, of what was in force as a whole last: to go back to it no file is read, whatever has become of it."""
        self._login_parts = LoginParts()
        """The same."""
        self._checks = Checks(self._managed, self._crl_memory, self._running)
        self._device_numbers = itertools.count()
        self._indexes = itertools.count()
        self._listener_numbers = itertools.count()

    @property
    def endpoints(self) -> list[ServedEndpoint]:
        return [running.served for running in self._running.values()]

    @property
    def _settings(self) -> list[EndpointConfig]:
        return [served.settings for served in self.endpoints]

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
            self._host.claim.take()  # before anything is written that a running gateway may have
            self._files_read = await asyncio.to_thread(files_read, self.config)
            await self.timekeeper.begin()
            await self._pools.begin()
            await self._become(self.config, setting_aside=self.store.is_shared)
        except _FAILURES as error:
            try:
                await self.stop(0)
            except GatewayError as left:
                raise GatewayError(f"{error}\n{left}") from error
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
        ``set_aside``. Raises ``GatewayError``; then as much of it is in force as could be: who may not log in and who
        may not go where any more before anything else, and what a rule gives once routes and firewall are those that
        belong to it."""
        try:
            await self.accounts.look_who_was_ended()
            self.accounts.set_local_users(self.config, await asyncio.to_thread(self.store.local_users))
            for served in self.endpoints:
                rules = await asyncio.to_thread(rules_of, served.settings, self.store)
                if rules != served.rules:
                    await self.rules.narrow(served, rules)
            await self._become(self.config, again=False, setting_aside=self.store.is_shared)
        except _FAILURES as error:
            raise GatewayError(str(error)) from error

    async def reload(self) -> dict[str, object]:
        """Read the file again and make it so. Raises ``GatewayError``; then the old configuration runs on."""
        self.last_reload_at = time.time()
        try:
            await self._reload()
        except BaseException as error:
            self.last_reload_problem = str(error) if isinstance(error, GatewayError) else "it did not come to an end"
            raise
        self.last_reload_problem = ""
        self.revision += 1
        waiting = {"needs_restart": list(self.awaits_restart)} if self.awaits_restart else {}
        return {"revision": self.revision, "endpoints": [e.settings.name for e in self.endpoints], **waiting}

    async def _reload(self) -> None:
        old = self.config
        try:
            new = await asyncio.to_thread(read_again, old)
            files = await asyncio.to_thread(files_read, new)
            await self._become(new, read=True)
        except (ConfigError, TrustError, ManagedError, DirectoryError, HandlerError) as error:
            raise GatewayError(str(error)) from error
        except (HostError, ListenError, StoreError, OSError) as error:
            raise GatewayError(await self._go_back(old, str(error))) from error
        self.config, self._files_read, self.changed_files = new, files, {}

    @property
    def awaits_restart(self) -> tuple[str, ...]:
        return self.config.awaits_restart(self._started_with)

    async def _go_back(self, old: Config, problem: str) -> str:
        """What there is to say about it."""
        try:
            await self._become(old)
        except _FAILURES as error:
            self._could_not_go_back = True
            log.critical("the old configuration cannot be put back in force yet: %s", error)
            return f"{problem}\nand the old configuration could not be put back in force at once: {error}"
        return problem

    @property
    def is_astray(self) -> bool:
        """What is in force is of more than one moment: ``come_back``."""
        return self._could_not_go_back or any(served.narrowed_to is not None for served in self.endpoints)

    async def come_back(self) -> None:
        """To the configuration before a change that could be neither made nor taken back. Raises ``GatewayError``; then
        try again later."""
        try:
            await self._become(self.config, setting_aside=self.store.is_shared)
        except _FAILURES as error:
            raise GatewayError(str(error)) from error

    async def stop(self, grace_s: float) -> None:
        """Send everybody back (another gateway, or this one after a restart, may take them), then leave the host as it
        was found. Raises ``GatewayError`` after all of it if that cannot be."""
        self.timeouts.stop()
        try:
            await self._send_away(list(self._running.values()), End.SHUTDOWN, grace_s, self._settings)
            self.accounts.close()
            if self.control.saml is not None:
                self.control.saml.close()
        finally:
            try:
                if self._host.claim.is_held:
                    await self._pools.end()
                    await asyncio.to_thread(self._managed.remove)
            finally:
                await self._leave_host()

    async def _leave_host(self) -> None:
        try:
            await self._host.down()
        except HostError as error:
            raise GatewayError(f"the host is not as it was, which the next start mends: {error}") from error

    async def _become(
        self, file: Config, *, again: bool = True, read: bool = False, setting_aside: bool = False
    ) -> None:
        """``again``: put right whatever others did to the host, and whatever another configuration did. Else rules and
        host are looked at only where the change concerns them: with 10,000 rules and 1,000 routes all of it takes a
        second. ``read``: certificate files too that are watched and read already. ``setting_aside``: decide anew which
        endpoints that is done to."""
        check = partial(self._checks.check, file, known=self._keepers, again=again, read=read)
        checked = await (self._aside.decide(check) if setting_aside else check(self._aside.as_before()))
        config = file.model_copy(update={"endpoints": (*checked.of_file, *checked.managed)})
        self.control.set_limits(config.daemon.strangers)
        users = await asyncio.to_thread(self.store.local_users)
        parts = await self._change_logins(config, again=again, read=read)
        wanted = {endpoint.id: endpoint for endpoint in config.endpoints}
        leaving = [each for each in self._running.values() if each.needs_replacing(wanted.get(each.served.id))]
        staying = [each for each in self._running.values() if each not in leaving]
        coming: dict[str, RuleTable] = {}
        for running in staying:  # what is taken away goes before anything takes time
            served = running.served
            await running.trust(*checked.keepers[served.id])
            if again or served.narrowed_to is not None:
                coming |= await self._narrow_to(served, wanted[served.id])
        self.accounts.set_local_users(config, users)
        await self._send_away(leaving, End.CONFIGURATION_CHANGED, self._grace_s(), config.endpoints)
        devices = await self._change_host(config, again=again)
        for endpoint in config.endpoints:
            if (here := self._running.get(endpoint.id)) is None:
                await self._serve(config, endpoint, devices[endpoint.id], checked.keepers[endpoint.id])
                continue
            if endpoint.id in coming:  # and what is given, when routes and firewall are those that belong to it
                await self.rules.put_all(here.served, coming[endpoint.id])
            await self._configure(here, config, endpoint)
        for endpoint_id in self._pools.settle() - wanted.keys():
            self.control.tally.forget(endpoint_id)
        await asyncio.to_thread(self._managed.forget, checked.managed)
        self._keepers = checked.keepers
        if parts is not None:
            self._login_parts = parts
            self.identity_providers.keeper.settle()
        self._could_not_go_back = self._could_not_go_back and not again

    async def _change_logins(self, config: Config, *, again: bool, read: bool) -> LoginParts | None:
        """By what people log in from now on, and who may no more. The parts are to be kept once all is in force."""
        parts = await asyncio.to_thread(LoginParts.open, config, self._login_parts, read=read) if again else None
        await self.identity_providers.read(config, again=again, read=read)
        if parts is not None:
            self.accounts.set_radius(parts.radius)
            self.accounts.set_directories({each.id: directory for each, directory in parts.directories.items()})
            self.control.handlers.replace(parts.handlers.values())
        await self.accounts.look_who_was_ended()
        if any(endpoint.user_method is not None for endpoint in config.endpoints):
            self.control.token_key = TokenKey(await asyncio.to_thread(self.store.gateway_secret, "auth-token"))
        await self.accounts.set_kept_passwords(config, tidy=again)
        return parts

    async def _narrow_to(self, served: ServedEndpoint, endpoint: EndpointConfig) -> dict[str, RuleTable]:
        """By id, the rules to come, unless they are in force already."""
        rules = await asyncio.to_thread(rules_of, endpoint, self.store)
        if served.narrowed_to is None and rules == served.rules:
            return {}
        await self.rules.narrow(served, rules)
        return {served.id: rules}

    async def _change_host(self, config: Config, *, again: bool) -> dict[str, str]:
        """The endpoints' devices, by id."""
        devices = {
            e.id: self._running[e.id].served.interface if e.id in self._running else f"cvpn{next(self._device_numbers)}"
            for e in config.endpoints
        }
        plan = host_plan(config, devices, self.plane.workers)
        if not self.revision:
            await self._host.up(plan)
        elif again or plan != self._host.in_place:
            await self._host.update(plan, look=again)
        return devices

    def _listening(self, endpoint_id: str) -> tuple[Listen, ...]:
        running = self._running.get(endpoint_id)
        return () if running is None else running.served.settings.listen

    # -- one endpoint ---------------------------------------------------------------------------------------

    async def _serve(self, config: Config, endpoint: EndpointConfig, device: str, keepers: Keepers) -> None:
        rules = await asyncio.to_thread(rules_of, endpoint, self.store)
        pool = await self._pools.take(endpoint)
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
        running = self._running[endpoint.id] = RunningEndpoint(served, protection, self.control)
        try:
            served.set_rules(self.plane, rules, ())
            running.listen(self._listener_numbers)
        except BaseException:
            self._remove(running)
            raise

    async def _configure(self, running: RunningEndpoint, config: Config, endpoint: EndpointConfig) -> None:
        served, before = running.served, running.served.routes
        running.configure(config, endpoint, self.timeouts)
        if served.routes != before:
            await asyncio.to_thread(forget_unrouted, served.leases, before, served.routes)

    def _grace_s(self) -> float:
        """For a change."""
        return min(self.config.daemon.shutdown_grace_s, LONGEST_GRACE_S)

    async def _send_away(
        self, leaving: Sequence[RunningEndpoint], reason: End, grace_s: float, coming: Iterable[EndpointConfig]
    ) -> None:
        """``grace_s``: to wait, if somebody is there to be told. No client acknowledges a RESTART, which would end it
        earlier. ``coming``: to whom they can come back."""
        listen = [each for endpoint in coming for each in endpoint.listen]
        told = sum([running.send_back(reason, listen) for running in leaving])
        try:
            if told:
                await asyncio.sleep(grace_s)
        finally:  # or a change that is cancelled would leave endpoints that let nobody in
            for running in leaving:
                if self._running.get(running.served.id) is running:  # the gateway may have been stopped meanwhile
                    self._remove(running)

    def _remove(self, running: RunningEndpoint) -> None:
        served = running.served
        running.close()
        self._pools.put(served.id, served.leases)
        self.plane.remove_endpoint(served.index)
        del self._running[served.id]

    @property
    def is_as_configured(self) -> bool:
        """Every endpoint of the file is being served, on a host that is set up for it."""
        served = {running.served.settings.name for running in self._running.values()}
        return self._host.in_place is not None and served >= {endpoint.name for endpoint in self.config.endpoints}

    async def serve_anew(self, device: str) -> None:
        """The endpoint whose device is gone: it gets another, and its clients come back to that. Raises
        ``GatewayError``."""
        leaving = [running for running in self._running.values() if running.served.interface == device]
        await self._send_away(leaving, End.DEVICE_LOST, self._grace_s(), self._settings)
        try:
            await self._become(self.config)
        except _FAILURES as error:
            raise GatewayError(str(error)) from error

    # -- files ----------------------------------------------------------------------------------------------

    async def poll_trust(self, now: float) -> None:
        """Read certificates, CRLs and control-channel keys again if their files changed. What cannot be read is logged
        by name, and what was read before stays."""
        for running in list(self._running.values()):
            await running.poll_files(now)
        await asyncio.to_thread(self._crl_memory.keep, [each for each in self.endpoints if not self.is_managed(each)])

    async def look_for_changed_files(self) -> None:
        """Of the configuration, besides those that are polled."""
        if (files := self._files_read) is None:
            return
        changed = await asyncio.to_thread(files.changed)
        if files is self._files_read:  # else a reload has read them meanwhile
            self.changed_files = changed

    async def reload_trust(self) -> list[TrustError]:
        """Read certificates and CRLs again now, whether or not their files seem to have changed. Returns why that is
        not so everywhere."""
        problems = [await running.reload_trust() for running in list(self._running.values())]
        return [problem for problem in problems if problem is not None]


_FAILURES = (TrustError, HostError, ListenError, ManagedError, DirectoryError, HandlerError, StoreError, OSError)
