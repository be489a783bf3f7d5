"""The file, certificates, keys and the clock."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cvpnd.auth.certificate import CertificateTrust, revokes_nobody
from cvpnd.auth.files import CertificateSettings, TrustError
from cvpnd.auth.trial import is_for_servers
from cvpnd.config import Config, ConfigError, EndpointConfig, check_files
from cvpnd.config.loading import NOT_OURS
from cvpnd.doctor.daemon_user import SERVICE_CONFIG
from cvpnd.doctor.facts import Facts, is_root
from cvpnd.doctor.findings import Finding, problem, warning
from cvpnd.doctor.redaction import secret_files
from cvpnd.ops.problems import AUTHORITY_DAYS, CERTIFICATE_DAYS, CRL_DAYS, WITHOUT_LIST_FIX

WARN_DAYS = {"server": CERTIFICATE_DAYS, "ca": AUTHORITY_DAYS, "crl": CRL_DAYS}
WHAT = {"server": "the server certificate", "ca": "an authority of client certificates", "crl": "the revocation list"}
FIX = {
    "server": "replace the file; it is read again within a second",
    "ca": "put its successor beside it into client_ca, and issue new certificates",
    "crl": "sign a new list; with a PKI of 'cvpnd init' a running cvpnd does that itself",
}
UNFIT_FIX = "put an authority with a usual key, on P-256, say, beside it, and issue its certificates anew"
SUDO = "run cvpnctl doctor with sudo"
SERVICE_PKI = SERVICE_CONFIG.parent / "pki"
OWNER_FIX = f"chown it to that user; in {SERVICE_PKI} systemd-tmpfiles --create cvpnd.conf does so"
TIME_ERROR = 5
"""adjtimex(2): nobody keeps the clock."""
TIMEX_BYTES = 208


def configuration(facts: Facts) -> Iterator[Finding]:
    for text in facts.config_problems:
        what, _, fix = text.partition("; ")
        yield problem("configuration", f"{facts.config_path}: {what}", fix or "correct it; cvpnd check says the same")
    if facts.config is not None:
        try:
            check_files(facts.config)
        except ConfigError as error:
            unseen = [text for text in error.problems if NOT_OURS in text and not is_root()]
            if unseen:
                yield warning("configuration", f"{len(unseen)} of the files that it names are not this user's", SUDO)
            for text in error.problems:
                what, _, fix = text.partition("; ")
                if text not in unseen:
                    yield problem("configuration", f"{facts.config_path}: {what}", fix or "correct it")
        yield from _closed_to_the_daemon(facts, facts.config)


def _closed_to_the_daemon(facts: Facts, config: Config) -> Iterator[Finding]:
    """What root may read and the daemon may not."""
    if facts.user is None:
        return
    try:
        with facts.user.being():
            check_files(config)
    except ConfigError as error:
        for text in error.problems:
            what, _, _ = text.partition("; ")
            before_start = facts.daemon is None and f"{SERVICE_PKI}/" in what
            if NOT_OURS in what and not before_start:  # each start of the service gives it what is there
                yield problem("configuration", f"{facts.config_path}: {what}, as whom cvpnd runs", OWNER_FIX)


def daemon(facts: Facts) -> Iterator[Finding]:
    if facts.daemon is None:
        yield warning(
            "daemon", "cvpnd does not run, or does not answer here", "systemctl start cvpnd, or --socket PATH"
        )
        return
    if not facts.daemon["pid"] and "hangs" not in facts.daemon:
        yield warning(
            "daemon", "cvpnd runs in another PID namespace than this, as in a container: as whom it runs, which files "
            "it has open and on which network it serves cannot be seen from here", "run cvpnctl doctor where it runs",
        )  # fmt: skip
    elif _is_elsewhere(facts.daemon["pid"]):
        yield warning(
            "daemon", "cvpnd runs in another network namespace than this: what is said of interfaces, routes and "
            "firewalls is not of where it serves", f"nsenter --net --target {facts.daemon['pid']} cvpnctl doctor",
        )  # fmt: skip
    for each in facts.daemon["problems"]:
        make = problem if each["severity"] == "critical" else warning
        yield make("daemon", f"{each['subject']}: {each['what']}", each["fix"])


def _is_elsewhere(pid: int) -> bool:
    here, there = Path("/proc/thread-self/ns/net"), Path(f"/proc/{pid}/ns/net")
    try:
        return here.stat().st_ino != there.stat().st_ino
    except OSError:  # somebody else's process
        return False


def certificates(facts: Facts) -> Iterator[Finding]:
    for endpoint in () if facts.config is None else facts.config.endpoints:
        try:
            trust = CertificateTrust.load(CertificateSettings.of_endpoint(endpoint))
        except TrustError as error:
            if os.strerror(errno.EACCES) in str(error) and not is_root():
                continue  # as ``configuration`` has said
            yield problem("certificates", f"endpoint {endpoint.name}: {error}", "replace that file")
            continue
        for kind, days in trust.days_to_expiry().items():
            if days <= 0:
                yield problem("certificates", f"endpoint {endpoint.name}: {WHAT[kind]} has expired", FIX[kind])
            elif days <= WARN_DAYS[kind]:
                yield warning(
                    "certificates", f"endpoint {endpoint.name}: {WHAT[kind]} expires in {days:.1f} days", FIX[kind]
                )
        if trust.without_list:
            what = f"endpoint {endpoint.name}: {trust.settings.crl}: {revokes_nobody(trust.without_list)}"
            yield warning("certificates", what, WITHOUT_LIST_FIX)
        for unfit in trust.unfit_to_be_sent:
            yield problem("certificates", f"endpoint {endpoint.name}: {unfit}", UNFIT_FIX)
        if not is_for_servers(trust.server_certificate):
            yield _not_for_servers(endpoint)
        yield from _not_yet_valid(endpoint, trust)


def _not_for_servers(endpoint: EndpointConfig) -> Finding:
    return problem(
        "certificates", f"endpoint {endpoint.name}: {endpoint.server_certificate.certificate} is not for servers: "
        "clients with 'remote-cert-tls server' refuse it",
        "issue it again with the extended key usage serverAuth (easyrsa build-server-full)",
    )  # fmt: skip


def _not_yet_valid(endpoint: EndpointConfig, trust: CertificateTrust) -> Iterator[Finding]:
    begins = [(WHAT["server"], trust.server_certificate.not_valid_before_utc)]
    begins += [(WHAT["ca"], authority.not_valid_before_utc) for authority in trust.authorities]
    if trust.crl is not None:
        begins += [(f"{WHAT['crl']} of {each.issuer_text}", each.this_update) for each in trust.crl.editions().values()]
    for what, begin in begins:
        ahead_s = begin.timestamp() - time.time()
        if ahead_s > 0:
            yield problem(
                "clock", f"endpoint {endpoint.name}: {what} is valid in {ahead_s / 3600:.1f} hours only",
                "set the clock (timedatectl), or issue it again",
            )  # fmt: skip


def key_files(facts: Facts) -> Iterator[Finding]:
    try:
        exposed = list(exposed_files(facts.config_path, facts.config))
    except OSError:
        return  # the file cannot be read, as ``configuration`` has said
    for path, what in exposed:
        yield warning("keys", what, f"chmod o= {path}")


def exposed_files(config_path: Path, config: Config | None) -> Iterator[tuple[Path, str]]:
    """Keys and files of secrets that everybody on this host gets at, and what to say of each. Raises ``OSError`` if the
    configuration cannot be read."""
    paths = list(secret_files(config_path))
    if config is not None and config.pki.directory is not None:
        paths.append(config.pki.directory / "ca.key")
    for path in dict.fromkeys(paths):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # told by others
        if mode & 0o007:
            yield path, f"{path} can be read by everybody here ({mode & 0o777:04o})"


def clock(_facts: Facts) -> Iterator[Finding]:
    """Certificates, CRLs, tokens and one-time codes go by it."""
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if answer == TIME_ERROR:
        yield warning(
            "clock",
            "nobody keeps this host's clock in step",
            "apt-get install systemd-timesyncd, timedatectl set-ntp true",
        )
