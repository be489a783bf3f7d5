"""What can be refused of a configuration, or of an endpoint in the store, before anything is done for it: files are
read, certificates checked and ports tried."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cvpnd.auth.crl import CrlEdition, CrlSource
from cvpnd.auth.files import CertificateSettings, TrustError
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import Config, ConfigError, EndpointConfig, check_files, load
from cvpnd.config.crosscheck import managed_problems, mistakable
from cvpnd.endpoints.crl_memory import CrlMemory
from cvpnd.endpoints.managed import EndpointFault, ManagedEndpoints, ManagedError, SetAside
from cvpnd.endpoints.protection import ProtectionKeeper
from cvpnd.endpoints.running import Keepers, RunningEndpoint
from cvpnd.server.sockets import ListenError, check_free

log = logging.getLogger(__name__)

_NO_CRLS: Mapping[CrlSource, CrlEdition] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checked:
    of_file: tuple[EndpointConfig, ...]
    managed: tuple[EndpointConfig, ...]
    """The endpoints that are to be served."""
    keepers: Mapping[str, Keepers]
    """By id, of all endpoints."""


class Checks:
    """On the event loop's thread, by whoever may change the gateway."""

    def __init__(
        self, managed: ManagedEndpoints, crl_memory: CrlMemory, running: Mapping[str, RunningEndpoint]
    ) -> None:
        """``running``: by id, those that are served now."""
        self._managed = managed
        self._crl_memory = crl_memory
        self._running = running

    async def check(
        self, file: Config, aside: Mapping[str, SetAside], known: Mapping[str, Keepers], *, again: bool, read: bool
    ) -> Checked:
        """All files, and the ports of endpoints to come. ``known``: by id, who keeps files already; they stay in place
        where they keep what is wanted, unless all are to be ``read``. ``again``: all endpoints of the file are to be
        served; else one that is not yet may be ``aside`` too. Raises ``EndpointFault``, and others where it is not the
        fault of one that may be."""
        managed = await asyncio.to_thread(self._managed.read, file, aside)
        for endpoint, problem in managed_problems(file, managed):
            raise EndpointFault(endpoint.id, f"endpoint {endpoint.name}, made at run time: {problem}")
        self._check_names(file, managed, again=again, read=read)
        of_file = tuple(each for each in file.endpoints if again or each.id not in aside or aside[each.id].listen)
        keepers = {}
        for endpoint in (*of_file, *managed):
            try:
                before, is_managed = known.get(endpoint.id), endpoint in managed
                keepers[endpoint.id] = await self._read_files(endpoint, before, read=read, is_managed=is_managed)
                self._check_new_ports(endpoint)
            except (TrustError, ListenError) as error:
                if endpoint in managed:
                    raise EndpointFault(endpoint.id, f"endpoint {endpoint.name}, made at run time: {error}") from error
                if again or endpoint.id in self._running:
                    raise
                raise EndpointFault(endpoint.id, f"endpoint {endpoint.name}: {error}") from error
        return Checked(of_file, managed, keepers)

    def _check_names(self, file: Config, managed: Sequence[EndpointConfig], *, again: bool, read: bool) -> None:
        """A file that is read anew can still be changed. What there is already is told and goes on: its id is its own,
        whatever others are called, and a gateway that does not start lets nobody give it another name."""
        for endpoint, problem in mistakable(file, managed) if again else ():
            if read and endpoint in file.endpoints:
                raise ManagedError(f"endpoint {endpoint.name}: {problem}")
            log.warning("endpoint %s: %s; until then that means the other one", endpoint.id, problem)

    async def _read_files(
        self, endpoint: EndpointConfig, before: Keepers | None, *, read: bool, is_managed: bool
    ) -> Keepers:
        crls = _NO_CRLS
        if not is_managed and (before is None or _crl_of(before) != CertificateSettings.of_endpoint(endpoint).crl):
            crls = await asyncio.to_thread(self._crl_memory.known, endpoint)
        return await asyncio.to_thread(_keepers, endpoint, before, crls, read=read)

    def _check_new_ports(self, endpoint: EndpointConfig) -> None:
        """An address that cannot be listened on is found before anybody is sent away for it. Not where one of ours has
        the port: that one gives way."""
        ours = {
            (each.transport, each.port) for running in self._running.values() for each in running.served.settings.listen
        }
        for listen in endpoint.listen:
            if (listen.transport, listen.port) not in ours:
                check_free(listen.transport, listen.host, listen.port)


def read_again(old: Config) -> Config:
    """The file that ``old`` was read from. Raises ``ConfigError``."""
    config = load(old.path)
    if old.endpoints and not config.endpoints:
        # Most likely a file that is being written: an empty one is valid, and would send everybody away.
        raise ConfigError(old.path, ["no [[endpoint]] is left; if that is meant, stop the gateway instead"])
    check_files(config)
    return config


def _crl_of(keepers: Keepers) -> Path | None:
    return keepers[0].current.settings.crl


def _keepers(
    endpoint: EndpointConfig, known: Keepers | None, crls: Mapping[CrlSource, CrlEdition], *, read: bool
) -> Keepers:
    """``crls``: where ``known`` keepers keep no list of that file, which were in force of it before."""
    settings, (trust, protection) = CertificateSettings.of_endpoint(endpoint), known or (None, None)
    if trust is None or trust.current.settings != settings or read:
        trust, protection = TrustKeeper(settings, before=None if trust is None else trust.current, known=crls), None
    else:
        trust.poll(math.inf)  # a list that is there already must not give way to one from memory
    if protection is None or protection.settings != endpoint.control_protection:
        protection = ProtectionKeeper(endpoint.control_protection, trust)
    return trust, protection
