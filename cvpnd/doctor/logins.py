"""Who else has to answer before people get in: directories, RADIUS servers, identity providers, servers that are client
connect handlers, and the pages that browsers open."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from cvpnd.auth.crl_scope import UNREADABLE
from cvpnd.auth.directory import DirectoryError
from cvpnd.auth.files import TrustError, read_certificates
from cvpnd.auth.identity import Refused
from cvpnd.auth.ldap_directory import open_directory
from cvpnd.auth.radius import UNSIGNED, Answer, Question, RadiusServers, Unanswered, radius_settings
from cvpnd.auth.saml.fetch import fetch
from cvpnd.auth.saml.metadata import MetadataError, parse_metadata
from cvpnd.config import DirectoryConfig, PortalConfig, RadiusConfig, RadiusUrl
from cvpnd.doctor import reach
from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem, warning
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

UNSIGNED_FIX = "docs/authentication.md has the line that makes FreeRADIUS before 3.2.5 sign its answers"
PATIENCE_S = 2.0
NOBODY = "cvpnd-doctor"
"""Whom RADIUS servers are asked about: an answer that the secret verifies says that all is well, whatever it is."""


def directories(facts: Facts) -> Iterator[Finding]:
    for config in () if facts.config is None else facts.config.directories:
        unreachable = [*_unreachable(config)]
        yield from unreachable or _service(config, facts)


def _unreachable(config: DirectoryConfig) -> Iterator[Finding]:
    for server in config.servers:
        if why := reach.refused(server.host, server.port):
            yield problem("directories", f"directory {config.id}: {server} cannot be reached: {why}", reach.FIX)


def _service(config: DirectoryConfig, facts: Facts) -> Iterator[Finding]:
    """Whether the service account may look, and finds whom the file's rules are for."""
    if config.bind != "service" or facts.config is None:
        return
    methods = {each.name: each.user_method for each in facts.config.endpoints}
    asked_here = {name for name, method in methods.items() if method is not None and method.directory == config.id}
    rules = {
        rule.group: endpoint.name
        for endpoint in facts.config.endpoints if endpoint.name in asked_here
        for rule in endpoint.authorize if rule.group is not None
    }  # fmt: skip
    try:
        directory = open_directory(config)
    except DirectoryError as error:
        yield problem("directories", str(error), "the daemon and whoever runs doctor have to be able to read it")
        return
    unknown = directory.unknown_groups(rules)
    if isinstance(unknown, Refused):
        yield problem("directories", f"directory {config.id}: {unknown.detail}", "look at bind_dn and its password")
        return
    for group, written in unknown.items():
        yield warning(
            "directories",
            f"directory {config.id}: no group is called {group}: the rule for it at {rules[group]} lets nobody in",
            f"write {written}, as it is written there" if written
            else f"correct the rule, or set group_base: groups are searched below {directory.group_base}",
        )  # fmt: skip


def radius(facts: Facts) -> Iterator[Finding]:
    for config in () if facts.config is None else facts.config.radius:
        for server in config.servers:
            try:
                answer = asyncio.run(_ask(config, server))
            except DirectoryError as error:
                yield problem("radius", str(error), "put the secret that the servers have for this gateway there")
                break
            except Unanswered as error:
                fix = (
                    "is it running, is this gateway one of its clients, and with this secret? It says nothing otherwise"
                )
                if error.refusal == Refusal.RADIUS_UNVERIFIED:
                    fix = "write the secret that it has for this gateway into secret_file"
                if UNSIGNED in error.detail:
                    fix = UNSIGNED_FIX
                yield problem("radius", f"directory {config.directory}: {error.detail}", fix)
            else:
                if answer.verdict == "accept":
                    yield problem(
                        "radius", f"directory {config.directory}: {server} accepts {NOBODY}, whom nobody has made",
                        "it lets everybody in: look at its configuration",
                    )  # fmt: skip


async def _ask(config: RadiusConfig, server: RadiusUrl) -> Answer:
    servers = RadiusServers(replace(radius_settings(config), servers=(server,), timeout_s=PATIENCE_S, attempts=1))
    try:
        until = asyncio.get_running_loop().time() + 2 * PATIENCE_S
        return await servers.ask(Question(NOBODY, Secret(b"no password"), "127.0.0.1"), until)
    finally:
        servers.close()


def identity_providers(facts: Facts) -> Iterator[Finding]:
    for provider in () if facts.config is None else facts.config.saml_providers:
        place = provider.metadata
        try:
            text = place.read_bytes() if isinstance(place, Path) else fetch(place, provider.metadata_ca)
            idp = parse_metadata(text, provider.idp_entity_id)
        except OSError as error:
            yield problem(
                "saml", f"saml_provider {provider.id}: {place} cannot be read: {error.strerror or error}",
                "correct the path" if isinstance(place, Path) else "curl --verbose shows why; metadata_ca is for an "
                "authority of your own",
            )  # fmt: skip
            continue
        except MetadataError as error:
            yield problem("saml", f"saml_provider {provider.id}: {place} {error}", "get the provider's metadata anew")
            continue
        if idp.expired(time.time()):
            yield problem(
                "saml", f"saml_provider {provider.id}: {place} has expired (validUntil)",
                "get the provider's metadata anew",
            )  # fmt: skip


def connect_handlers(facts: Facts) -> Iterator[Finding]:
    """Those that are servers. Of an URL only this is told: there may be a key to it in the rest."""
    for handler in () if facts.config is None else facts.config.handlers:
        if handler.url is None:
            continue
        url = urlsplit(handler.url)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        if why := reach.refused(host, port):
            yield problem(
                "handlers",
                f"handler {handler.name}: {host} port {port} cannot be reached: {why}: it lets nobody in",
                reach.FIX,
            )


def portal(facts: Facts) -> Iterator[Finding]:
    """Whether browsers find it and believe it, as far as this host can say."""
    if facts.config is None or facts.config.portal.listen is None or facts.config.portal.url is None:
        return
    config = facts.config.portal
    host = urlsplit(facts.config.portal.url).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        yield problem(
            "portal", f"its name {host} has no address: browsers find no page", "add it to your DNS, or url = …"
        )
    yield from _certificate(config, host)
    if facts.daemon is not None and (listen := config.listen) is not None:
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104
        if why := reach.refused(here, listen.port):
            yield problem("portal", f"nothing answers at {listen}: {why}", "systemctl restart cvpnd, and its log")


def _certificate(config: PortalConfig, host: str) -> Iterator[Finding]:
    certificate_file, _ = config.files
    try:
        certificate = read_certificates(certificate_file)[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    except (TrustError, *UNREADABLE) as error:
        yield problem("portal", f"its certificate {certificate_file}: {error}", "replace that file")
        return
    except x509.ExtensionNotFound:
        covered = []
    if host not in covered and f"*.{host.partition('.')[2]}" not in covered:
        yield problem(
            "portal", f"its certificate is for {', '.join(covered) or 'no name'} and not for {host}: browsers warn",
            "a certificate for the name in url = …",
        )  # fmt: skip
    left_s = certificate.not_valid_after_utc.timestamp() - time.time()
    if left_s < 0:
        yield problem("portal", "its certificate has expired: browsers warn", f"replace {certificate_file} and reload")
    elif left_s < 14 * 86_400:
        yield warning("portal", f"its certificate expires in {left_s / 86_400:.0f} days", f"replace {certificate_file}")
