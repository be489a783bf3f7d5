"""What is wrong with a running gateway, as far as its own numbers tell: pure, for ``cvpnctl status``.

``conf/prometheus/cvpnd.rules.yml`` watches for the same over time."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cvpnd.ops.directory_metrics import DirectoryMetrics
from cvpnd.ops.endpoint_metrics import EndpointMetrics
from cvpnd.ops.metrics import GatewayMetrics

DAY_S = 86_400
WEEK_S = 7 * DAY_S
CRL_DAYS, CERTIFICATE_DAYS, AUTHORITY_DAYS = 3, 14, 30
"""Before their expiry, for ``cvpnctl doctor`` too."""
WITHOUT_LIST_FIX = (
    "put a list of each authority into that file, if only an empty one, or take out of client_ca who need let nobody in"
)
POOL_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Problem:
    severity: Literal["critical", "warning"]
    subject: str
    what: str
    fix: str


def find_problems(metrics: GatewayMetrics, now: float) -> list[Problem]:
    """The critical ones first."""
    found = [*_of_daemon(metrics, now), *(problem for each in metrics.endpoints for problem in _of_endpoint(each, now))]
    return sorted(found, key=lambda problem: problem.severity != "critical")


def _of_daemon(metrics: GatewayMetrics, now: float) -> Iterator[Problem]:
    yield from _of_store(metrics, now)
    yield from _of_configuration(metrics, now)
    yield from _of_host_and_logs(metrics, now)
    yield from _of_whom_it_asks(metrics)


def _of_store(metrics: GatewayMetrics, now: float) -> Iterator[Problem]:
    if metrics.store_outage_since is not None:
        yield Problem(
            "critical",
            "state database",
            f"for {max(0.0, now - metrics.store_outage_since):.0f} s it could not be used: {metrics.store_outage}; "
            "nothing is changed, and logins that need it are put off",
            "it is not looked at again before the next start: restore its backup as docs/backup.md says"
            if metrics.store_is_corrupt
            else "see to that server or disk (daemon.state); all goes on by itself then",
        )
    if metrics.store_other_schema:
        yield Problem(
            "critical",
            "state database",
            f"another gateway on it has brought it to schema {metrics.store_other_schema}, which this cvpnd does not "
            "know: changes and logins here may fail, or not hold as they do there",
            "install that gateway's version here too: gateways on one database are upgraded together",
        )
    if metrics.endings_unstored:
        yield Problem(
            "critical",
            "ended logins",
            f"not in the state database yet: {'; '.join(metrics.endings_unstored)}; other gateways on it do not know "
            "that they were ended, and this one forgets it when it is restarted",
            "see to the state database, and restart nothing before: they are stored by themselves then. Until then end "
            "them at each other gateway as well",
        )
    for endpoint_id, why in metrics.set_aside.items():
        yield Problem(
            "critical",
            endpoint_id,
            f"it cannot be served here as it should be: {why}",
            "free here what it needs, or change it at the other gateway; it is tried again every minute",
        )


def _of_configuration(metrics: GatewayMetrics, now: float) -> Iterator[Problem]:
    if metrics.last_reload_problem:
        why = "; ".join(metrics.last_reload_problem.splitlines())
        then = "and what was before cannot be put back yet" if metrics.is_astray else "an older configuration runs on"
        yield Problem(
            "critical" if metrics.is_astray else "warning",
            "configuration",
            f"the last reload was refused, {then}: {why}",
            "cvpnctl reload tries it again, and names file, key and fix",
        )
    for name, why in sorted(metrics.https_troubles.items()):
        yield Problem(
            "warning",
            name,
            f"its certificate was read last and cannot be used, so that the one before is shown: {why}",
            f"correct certificate and private_key of [{name.lower()}]; cvpnctl reload",
        )
    if (at := metrics.api_certificate_replaced_at) is not None and now < at + WEEK_S:
        yield Problem(
            "warning",
            "API",
            f"its certificate, which signs itself, is another one since {_utc(at)}, as the one before was about "
            "to end, or unusable: whoever trusts a copy of that is refused by their tools",
            "give them the new api.crt, which is beside the state database; the one before is api.crt~ there; a week "
            "after this goes",
        )
    for path, at in () if metrics.last_reload_problem else sorted(metrics.changed_files.items()):
        when = "cannot be read any more" if at is None else f"was changed at {_utc(at)}, and is not reloaded"
        yield Problem("warning", "configuration", f"{path} {when}: what was read before is in force", "cvpnctl reload")
    if metrics.awaits_restart:
        yield Problem(
            "warning",
            "configuration",
            f"{', '.join(metrics.awaits_restart)} changed in the file, and is read when the daemon starts",
            "systemctl restart cvpnd; clients come straight back",
        )


def _of_host_and_logs(metrics: GatewayMetrics, now: float) -> Iterator[Problem]:
    if metrics.host_trouble:
        yield Problem(
            "critical", "host", metrics.host_trouble, "undo that, or cvpnctl doctor says what; then cvpnctl reload"
        )
    if metrics.clock_trouble:
        yield Problem(
            "warning",
            "clock",
            f"{metrics.clock_trouble}; certificates, tokens and codes go by it",
            "timedatectl says whether it is right now; if it is, so is everything, and this goes after a day",
        )
    loss = metrics.connection_log_loss
    if loss is not None and now < loss.at + DAY_S:
        yield Problem(
            "warning",
            "connection log",
            f"{metrics.connection_log_lost} entries could not be written, the last at {_utc(loss.at)}: {loss.where}: "
            f"{loss.why}",
            "see to that disk or daemon (a removed log directory takes a restart); a day after the last this goes",
        )


def _of_whom_it_asks(metrics: GatewayMetrics) -> Iterator[Problem]:
    for name, trouble in sorted(metrics.handler_troubles.items()):
        if trouble:
            yield Problem(
                "critical", f"handler {name}", f"it lets nobody in: {trouble}", "see to that place; then cvpnctl reload"
            )
    yield from _servers(metrics.directories, "directory", "nobody logs in by password", "cvpnctl doctor tries each")
    yield from _servers(metrics.radius, "RADIUS for", "nobody gets past the second factor", "look at its servers' logs")


def _utc(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _servers(directories: Sequence[DirectoryMetrics], kind: str, consequence: str, fix: str) -> Iterator[Problem]:
    for directory in directories:
        down = [server for server, well in directory.servers.items() if not well]
        if down and len(down) == len(directory.servers):
            yield Problem("critical", f"{kind} {directory.name}", f"no server answers, {consequence}", fix)
        elif down:
            yield Problem("warning", f"{kind} {directory.name}", f"{', '.join(down)} does not answer", fix)


def _of_endpoint(endpoint: EndpointMetrics, now: float) -> Iterator[Problem]:
    subject = f"endpoint {endpoint.name}"
    yield from _expiry(
        endpoint.crl_expires_at, now, CRL_DAYS, subject, "its revocation list", "then nobody connects",
        "sign a new list: cvpnctl crl import, or replace the file",
    )  # fmt: skip
    yield from _expiry(
        endpoint.server_certificate_expires_at, now, CERTIFICATE_DAYS, subject, "its server certificate",
        "then clients refuse it", "replace the file; it is read again within a second",
    )  # fmt: skip
    yield from _expiry(
        endpoint.client_ca_expires_at, now, AUTHORITY_DAYS, subject, "an authority of its clients",
        "then their certificates are worth nothing", "put its successor beside it into client_ca",
    )  # fmt: skip
    if endpoint.crl_problem:
        yield Problem(
            "critical",
            subject,
            f"nobody gets in by a certificate, because of its revocation list: {endpoint.crl_problem}",
            "put the latest list of each authority that has one into the file; it is read within a second",
        )
    elif endpoint.files_problem:
        yield Problem(
            "warning",
            subject,
            f"its certificate files on disk cannot be used, those read before still are: {endpoint.files_problem}",
            "put a good file there; it is read again within a second",
        )
    if endpoint.crl_gap:
        yield Problem("warning", subject, endpoint.crl_gap, WITHOUT_LIST_FIX)
    if endpoint.lease_pool_used > POOL_SHARE * endpoint.lease_pool_size:
        yield Problem(
            "warning",
            subject,
            f"{endpoint.lease_pool_used} of {endpoint.lease_pool_size} client addresses are leased",
            "a larger client_cidr, or a second endpoint",
        )
    if not endpoint.rules_in_force:
        yield Problem(
            "critical",
            subject,
            "its clients reach less than its authorization rules say: a change could be neither made nor taken back, "
            "and no rule comes in force before that can be",
            "see to what the journal says is in its way (cvpnctl doctor looks for it); it is tried again by itself",
        )
    if not endpoint.authorization_rules:
        yield Problem(
            "warning",
            subject,
            "it has no authorization rule, so clients reach nothing",
            f"cvpnctl rule add {endpoint.name} NETWORK --group GROUP, or authorize = […] in the file",
        )
    if endpoint.socket_drops:
        yield Problem(
            "warning",
            subject,
            f"the kernel dropped {endpoint.socket_drops} packets that its sockets had no room for",
            "more workers or cores; cvpnctl doctor looks at the buffers",
        )


def _expiry(
    at: float | None, now: float, days: int, subject: str, thing: str, consequence: str, fix: str
) -> Iterator[Problem]:
    if at is None or at - now > days * DAY_S:
        return
    left = (at - now) / DAY_S
    if left <= 0:
        yield Problem("critical", subject, f"{thing} has expired", fix)
    else:
        yield Problem("warning", subject, f"{thing} expires in {left:.1f} days, {consequence}", fix)
