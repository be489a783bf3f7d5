"""The daemon from start to end: who is started in which order, what a signal does, and who is stopped in which order.

Start: logs, store, data plane, connection log, gateway (host, endpoints, listeners), admin socket, metrics, API,
portal; then READY.
Stop runs backwards. Only this file knows everyone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from cvpnd.api.listener import SharedListener
from cvpnd.api.metrics import build_metrics_app
from cvpnd.api.own_certificate import OwnCertificate
from cvpnd.api.rest.app import build_admin_app
from cvpnd.api.server import HttpServer, bind_tcp, bind_unix
from cvpnd.auth.web_logins import WebLogins
from cvpnd.chores import Chores
from cvpnd.config import ApiConfig, Config, DaemonConfig, MetricsConfig, PortalConfig, StatusFileConfig
from cvpnd.dataplane import open_data_plane
from cvpnd.dataplane.api import DataPlane
from cvpnd.endpoints import views
from cvpnd.endpoints.connection_entries import ConnectionEntries
from cvpnd.endpoints.gateway import Gateway, GatewayError
from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.self_service import SelfServiceDesk
from cvpnd.endpoints.service import Operations
from cvpnd.host.errors import HostError
from cvpnd.host.firewall import KeptBack
from cvpnd.host.gateway import HostGateway
from cvpnd.ops.client_metrics import ClientMetrics, UserTraffic, render_status, write_status
from cvpnd.ops.connection_log import ConnectionLog
from cvpnd.ops.histogram import Histogram
from cvpnd.ops.huge_pages import use_huge_pages
from cvpnd.ops.log_streams import LogStreams
from cvpnd.ops.logs import set_up_logging
from cvpnd.ops.metrics import GatewayMetrics, build_registry
from cvpnd.ops.recent_log import RecentLog
from cvpnd.ops.sdnotify import Notifier
from cvpnd.portal.app import Portal
from cvpnd.reasons import ApiRefusal, PortalRefusal
from cvpnd.server.connection import Connection
from cvpnd.server.control import ControlPlane
from cvpnd.server.doorman import Doorman
from cvpnd.store import Store, StoreError
from cvpnd.wire.reset_cookie import SECRET_BYTES

if TYPE_CHECKING:
    from cvpnd.api.aws.app import AwsApi

log = logging.getLogger(__name__)

WATCH_INTERVAL_S = 1.0
"""How soon a changed certificate or CRL file is noticed without SIGHUP."""
BEAT_INTERVAL_S = 1.0

CRL_CHECK_INTERVAL_S = 3600.0
LAG_BUCKETS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

METRICS_FILES_KEPT_FREE = 16
"""Of those that strangers leave: when files are short, somebody should be told."""
PORTAL_CONNECTIONS = (1000, 200)
"""At a time, and of one source: a whole office may come at once."""


class DaemonError(Exception):
    """The daemon cannot start, or not leave the host as it was; the text tells the operator why and what to change."""


class Daemon:
    """What runs between start and stop, and the numbers it shows."""

    def __init__(
        self,
        gateway: Gateway,
        control: ControlPlane,
        connection_log: ConnectionLog,
        streams: LogStreams,
        entries: ConnectionEntries,
    ) -> None:
        self.gateway = gateway
        self.control = control
        self.connection_log = connection_log
        self.streams = streams
        self.entries = entries
        self.operations = Operations(gateway, streams, self.metrics, entries.recent, self.follow_configuration)
        self.notifier = Notifier()
        self.chores = Chores()
        self.aws_api: AwsApi | None = None
        self.api_listener: SharedListener | None = None
        self.portal: Portal | None = None
        self.portal_listener: SharedListener | None = None
        self.https: dict[str, HttpServer] = {}
        """Each shows a renewed certificate from a reload on."""
        self.https_troubles: dict[str, str] = {}
        """Why one did not at the latest."""
        self.own_certificate: OwnCertificate | None = None
        """The API's, where it signs itself."""
        self.user_traffic = UserTraffic(self._is_connected)
        self._loop_lag = Histogram(LAG_BUCKETS_S)
        self._kept_back: dict[KeptBack, int] = {}
        self._kept_back_at = float("-inf")
        self._started_at = time.time()
        self._version = version("cvpnd")

    async def prepare_metrics(self) -> None:
        """Ask the kernel what its tables have counted, which takes a process; at most once in a second."""
        if (now := time.monotonic()) < self._kept_back_at + 1:
            return
        self._kept_back_at = now
        try:
            self._kept_back = await self.gateway.host_changes.kept_back()
        except HostError as error:
            log.warning("what the firewall kept back cannot be read: %s", error)

    def metrics(self) -> GatewayMetrics:
        plane, gateway = self.gateway.plane, self.gateway
        outage = gateway.store.outage
        return GatewayMetrics(
            version=self._version,
            crypto_backend=plane.crypto_backend,
            workers=plane.workers,
            started_at=self._started_at,
            endpoints=views.endpoint_metrics(self.control, gateway.endpoints, time.time(), self._kept_back),
            data_drops={str(reason): count for reason, count in plane.drops().items()},
            control_drops={str(reason): count for reason, count in self.control.all_drops().items()},
            engine=plane.totals(),
            door=self.control.door.totals(),
            reload_revision=gateway.revision,
            last_reload_at=gateway.last_reload_at,
            last_reload_problem=gateway.last_reload_problem,
            is_astray=gateway.is_astray,
            awaits_restart=gateway.awaits_restart,
            https_troubles=self.https_troubles,
            api_certificate_replaced_at=None if self.own_certificate is None else self.own_certificate.replaced_at,
            changed_files={str(path): at for path, at in gateway.changed_files.items()},
            directories=views.directory_metrics(self.control.users),
            radius=views.radius_metrics(self.control.radius),
            saml=views.saml_metrics(self.control.saml, gateway.identity_providers.keeper, time.time()),
            connect_handlers=self.control.handlers.seconds(),
            handler_troubles=self.control.handlers.troubles(),
            api_refusals=self._api_refusals(),
            portal_refusals=self._portal_refusals(),
            self_service_downloads={e.settings.name: self.control.tally.downloads[e.id] for e in gateway.endpoints},
            set_aside=gateway.set_aside,
            store_outage="" if outage is None else outage.reason,
            store_outage_since=None if outage is None else outage.since,
            store_is_corrupt=outage is not None and outage.loss == "corrupt",
            store_other_schema=gateway.store.other_schema,
            endings_unstored=tuple(map(str, self.operations.unstored)),
            connection_log_lost=self.connection_log.lost,
            connection_log_loss=self.connection_log.last_loss,
            host_changes=gateway.host_changes.seen,
            host_trouble=gateway.host_changes.trouble,
            clock_trouble=gateway.timekeeper.trouble,
            queues={
                "connection_log": self.connection_log.waiting,
                "connect_handlers": sum(self.control.handlers.pending().values()),
                "logins": sum(self.control.users.pending().values()),
            },
            loop_lag=self._loop_lag,
        )

    def _api_refusals(self) -> dict[str, int]:
        if self.aws_api is None or self.api_listener is None:
            return {}
        told = {str(reason): count for reason, count in self.aws_api.refusals.items()}
        return {**told, ApiRefusal.TOO_MANY_CONNECTIONS: self.api_listener.refused}

    def _portal_refusals(self) -> dict[str, int]:
        if self.portal is None or self.portal_listener is None:
            return {}
        told = {str(reason): count for reason, count in self.portal.refusals.items()}
        return {**told, PortalRefusal.TOO_MANY_CONNECTIONS: self.portal_listener.refused}

    def clients(self) -> list[ClientMetrics]:
        return views.client_metrics(self.control)

    def _is_connected(self, endpoint: str, user: str) -> bool:
        return any(
            connection.identity is not None and connection.identity.user == user
            for served in self.gateway.endpoints
            if served.settings.name == endpoint
            for connection in self.control.table.sessions_of(served.index, user)
        )

    def endpoint_names(self) -> list[str]:
        return [served.settings.name for served in self.gateway.endpoints]

    def hang_up(self) -> None:
        self.chores.do(self.reload())

    async def reload(self) -> None:
        """SIGHUP. What is wrong is logged, and the old configuration runs on."""
        self.notifier.reloading()
        try:
            self.connection_log.reopen()
            log.info("reloaded: %s", await self.operations.reload())
        except OperationError as error:
            log.error("reload refused, the old configuration runs on:\n%s", error)
        finally:  # whoever waits for the reload, such as systemctl, waits for that
            self.notifier.ready(self._status())

    async def follow_configuration(self) -> None:
        """Whoever had it read again."""
        self.https_troubles = {}
        for name, server in list(self.https.items()):
            try:
                await asyncio.to_thread(server.reload_certificate)
            except OSError as error:  # which ssl.SSLError is too
                self.https_troubles[name] = str(error)
                log.error("the %s's certificate cannot be used, the one before is shown: %s", name, error)
        self.connection_log.configure(self.gateway.config.connection_log)
        if waiting := self.gateway.awaits_restart:
            log.warning("read when the daemon starts, and changed since: %s", ", ".join(waiting))

    async def beat(self) -> None:
        """Tells the service manager that the event loop turns. It waits for nothing else: a change that is long under
        way is no reason to start the daemon anew."""
        loop, told = asyncio.get_running_loop(), ""
        interval_s = min(BEAT_INTERVAL_S, self.notifier.watchdog_interval_s or BEAT_INTERVAL_S)
        while True:
            due_at = loop.time() + interval_s
            await asyncio.sleep(interval_s)
            self._loop_lag.add(max(0.0, loop.time() - due_at))
            self.notifier.watchdog()
            if self._status() != told:
                told = self._status()
                self.notifier.status(told)
            self.connection_log.close_idle()

    async def watch(self) -> None:
        """Certificates and CRLs that change on disk are read again; everybody they no longer admit goes."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await self.operations.poll_trust(time.monotonic())

    async def watch_configuration(self) -> None:
        """Apart from the above: a disk that hangs holds up neither a revocation nor a change."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await self.gateway.look_for_changed_files()

    async def keep_crl_fresh(self) -> None:
        while True:
            try:
                await self.operations.keep_crl_fresh()
            except OperationError as error:
                log.error("the CRL cannot be signed again: %s", error)
            await self.gateway.timekeeper.until_step(CRL_CHECK_INTERVAL_S)

    async def show_own_certificate(self) -> None:
        """Raises ``OSError``."""
        await asyncio.to_thread(self.https["API"].reload_certificate)
        self.https_troubles.pop("API", None)

    async def log_updates(self) -> None:
        await self.entries.keep_updates(self.control.table, lambda: self.gateway.config.connection_log.update_s)

    async def keep_status_file(self, config: StatusFileConfig) -> None:
        assert config.path is not None  # noqa: S101 - looked at by the caller
        while True:
            text = render_status(
                self.clients(), title=f"cvpnd {self._version}", version=config.version, now=time.time()
            )
            try:
                await asyncio.to_thread(write_status, config.path, text)
            except OSError as error:
                log.error("status_file.path: %s cannot be written: %s", config.path, error.strerror)
            await asyncio.sleep(config.interval_s)

    def announce_ready(self) -> None:
        # what is there by now stays: a full collection that looks through it stops everything for 0.2 s and more
        gc.freeze()
        self.chores.do(asyncio.to_thread(use_huge_pages))
        log.info("ready: %s", self._status())
        self.notifier.ready(self._status())

    def _status(self) -> str:
        """The line of ``systemctl status``; made of what costs nothing to know."""
        endpoints = self.gateway.endpoints
        names = ", ".join(served.settings.name for served in endpoints)
        connected = sum(self.control.tally.sessions[served.id] for served in endpoints)
        refused = "; the last reload was refused" if self.gateway.last_reload_problem else ""
        lost = "" if self.gateway.store.outage is None else "; the state database cannot be used"
        return f"serving {names or 'no endpoint'}; {connected} connected{refused}{lost}"


async def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raises ``DaemonError``; the host is as it was, if that says nothing else."""
    set_up_logging(config.daemon.log_level)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # every TCP client is one; 1024 is the default
    _, most_of_core = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most_of_core))  # memory has keys and passwords in it
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # before anything is changed: a start cut short is undone too
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    try:
        async with contextlib.AsyncExitStack() as stack:
            daemon = await _start(config, stack)
            loop.add_signal_handler(signal.SIGHUP, daemon.hang_up)
            daemon.announce_ready()
            await stopping.wait()
            loop.add_signal_handler(signal.SIGHUP, lambda: None)  # no new start of what is being stopped
            log.info("stopping: sending clients back")
            daemon.notifier.stopping("sending clients back")
    except (GatewayError, StoreError, OSError) as error:
        raise DaemonError(str(error)) from error


async def _start(config: Config, stack: contextlib.AsyncExitStack) -> Daemon:
    store = await asyncio.to_thread(Store.open, config.daemon.state, config.daemon.state_key)
    stack.callback(store.close)
    streams = LogStreams(config.daemon.log_directory / "streams")
    connection_log = ConnectionLog(config.daemon.log_directory / "connections.log", config.connection_log, streams)
    stack.callback(connection_log.close)
    plane = _open_plane(config.daemon)
    stack.callback(plane.close)
    log.info("data plane: %d workers, %s", plane.workers, plane.crypto_backend)

    entries = ConnectionEntries(plane, connection_log, RecentLog())

    def on_established(connection: Connection) -> None:
        gateway.timeouts.begin(connection)
        entries.established(connection)

    def on_ended(connection: Connection) -> None:
        view = views.connection_view(plane, connection)
        if connection.keys_installed:
            gateway.ended.add(view)
        entries.ended(connection, view)
        if config.metrics.per_user and connection.keys_installed:  # else a stranger's name were one of few remembered
            user = view.username or view.common_name
            daemon.user_traffic.add(view.endpoint_name, user, view.ingress_bytes, view.egress_bytes)

    door = Doorman(secrets.token_bytes(SECRET_BYTES), config.daemon.strangers)
    stack.callback(door.close)
    control = ControlPlane(plane, door, config.daemon.strangers, on_established=on_established, on_ended=on_ended)
    stack.callback(control.stop)
    control.on_waiting, control.on_assertion = entries.waiting, entries.assertion
    gateway = Gateway(config, plane, control, HostGateway(config.daemon.admin_socket.parent), store)
    stack.push_async_callback(gateway.stop, config.daemon.shutdown_grace_s)
    daemon = Daemon(gateway, control, connection_log, streams, entries)
    await gateway.start()
    await stack.enter_async_context(_http(build_admin_app(daemon.operations), bind_unix(config.daemon.admin_socket)))
    if config.metrics.listen is not None:
        await stack.enter_async_context(_metrics(config.metrics, daemon))
    if config.api.listen is not None:
        api = await _aws_api(config.api, store.key_file.parent, daemon)
        daemon.https["API"] = await stack.enter_async_context(api)
    if config.portal.listen is not None:
        daemon.https["portal"] = await stack.enter_async_context(_portal(config.portal, daemon))
    stack.push_async_callback(daemon.operations.store_last_endings)
    stack.callback(daemon.chores.cancel)
    watched = daemon.beat, daemon.watch, daemon.watch_configuration, daemon.keep_crl_fresh, daemon.log_updates
    accounts, operations = partial(gateway.accounts.keep, lambda: gateway.config), daemon.operations
    firewall, metadata = gateway.host_changes.keep_firewall, gateway.identity_providers.keep_metadata
    kept = operations.keep_host, firewall, metadata, gateway.timekeeper.keep, accounts
    stored = operations.keep_following, operations.keep_audit, operations.keep_log_streams
    for chore in (*watched, *stored, *kept):
        daemon.chores.keep(chore)
    if config.status_file.path is not None:
        daemon.chores.keep(partial(daemon.keep_status_file, config.status_file))
    return daemon


def _open_plane(config: DaemonConfig) -> DataPlane:
    try:
        return open_data_plane(
            config.worker_count(),
            crypto=config.packet_crypto,
            pause_us=config.packet_pause_us,
            link_offload=config.packet_offload != "off",
        )
    except ValueError as error:
        raise GatewayError(f'daemon.packet_crypto = "{config.packet_crypto}": {error}') from error


def _metrics(config: MetricsConfig, daemon: Daemon) -> contextlib.AbstractAsyncContextManager[HttpServer]:
    assert config.listen is not None  # noqa: S101 - looked at by the caller
    registry = build_registry(
        daemon,
        by_user=daemon if config.per_user else None,
        openvpn_names=daemon if config.openvpn_exporter_names else None,
    )
    listener = bind_tcp(config.listen.host, config.listen.port)
    listener.files_kept_free = METRICS_FILES_KEPT_FREE
    return _http(build_metrics_app(registry, daemon.prepare_metrics), listener)


async def _aws_api(
    config: ApiConfig, state_directory: Path, daemon: Daemon
) -> contextlib.AbstractAsyncContextManager[HttpServer]:
    from cvpnd.api.aws.app import AwsApi  # with botocore: who has no API does without its time and memory

    assert config.listen is not None  # noqa: S101 - looked at by the caller
    tls = None
    if config.listen.tls and config.certificate is not None and config.private_key is not None:
        tls = config.certificate, config.private_key
    elif config.listen.tls:
        tls = state_directory / "api.crt", state_directory / "api.key"
        daemon.own_certificate = own = OwnCertificate(tls, config.listen.host)
        await own.begin()
        daemon.chores.keep(partial(own.keep, daemon.gateway.timekeeper.until_step, daemon.show_own_certificate))
        log.info("the API shows a certificate that signs itself; tools trust it with AWS_CA_BUNDLE=%s", tls[0])
    daemon.aws_api = await AwsApi.load(daemon.operations)
    log.info("the AWS-compatible API listens on %s", config.listen)
    daemon.api_listener = bind_tcp(config.listen.host, config.listen.port)
    return _http(daemon.aws_api, daemon.api_listener, tls=tls)


def _portal(config: PortalConfig, daemon: Daemon) -> contextlib.AbstractAsyncContextManager[HttpServer]:
    assert config.listen is not None and config.url is not None  # noqa: S101 - looked at by the caller, by the model
    control = daemon.control
    control.web_logins = WebLogins(config.url, config.login_s)
    daemon.portal = Portal(
        config, control.web_logins, lambda: control.saml, desk=SelfServiceDesk(daemon.gateway, control)
    )
    log.info("the portal listens on %s and is %s to browsers", config.listen, config.url)
    daemon.portal_listener = bind_tcp(
        config.listen.host, config.listen.port, *PORTAL_CONNECTIONS, config.requests_per_source_per_min
    )
    return _http(daemon.portal, daemon.portal_listener, tls=config.files)


@contextlib.asynccontextmanager
async def _http(
    app: ASGIApp, listener: socket.socket, *, tls: tuple[Path, Path] | None = None
) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, listener, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
