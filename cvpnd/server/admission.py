"""Limits on strangers: how many handshakes and log lines anybody can make us spend without a certificate.

How many of their packets get that far, and how many resets are answered, is the doorman's (``[daemon.strangers]``).
Here is what a proven source may still cost: handshakes under way (``may_begin``), and handshakes and failed logins in a
minute (``SourceLimits``), each for an address and for the network around it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from cvpnd.config import StrangersConfig
from cvpnd.dataplane.api import HOSTS_REMEMBERED
from cvpnd.ops.logs import RateLimited
from cvpnd.reasons import Refusal
from cvpnd.wire.errors import DropReason

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.endpoint import ServedEndpoint
    from cvpnd.server.session_table import SessionTable

log = logging.getLogger(__name__)
_warn = RateLimited(log)

PREFIXES_KEPT = 8192
"""Who was heard of longest ago is forgotten first, and with it what it had used up."""
FAILED_LOGINS = frozenset(
    {
        Refusal.CERTIFICATE_MISSING,
        Refusal.CERTIFICATE_UNKNOWN_CA,
        Refusal.CERTIFICATE_EXPIRED,
        Refusal.CERTIFICATE_NOT_YET_VALID,
        Refusal.CERTIFICATE_REVOKED,
        Refusal.CERTIFICATE_NO_COMMON_NAME,
        Refusal.CERTIFICATE_WRONG_PURPOSE,
        Refusal.CERTIFICATE_WEAK_KEY,
        Refusal.CERTIFICATE_INVALID,
        Refusal.TLS_FAILURE,
        Refusal.PROTOCOL_VIOLATION,
        Refusal.NO_SHARED_CIPHER,
        Refusal.UNSUPPORTED_CLIENT,
        Refusal.CREDENTIALS_MISSING,
        Refusal.CHALLENGE_UNEXPECTED,
        Refusal.USER_UNKNOWN,
        Refusal.WRONG_PASSWORD,
        Refusal.MFA_NOT_ENROLLED,
        Refusal.MFA_CODE_WRONG,
        Refusal.MFA_CODE_REUSED,
        Refusal.MFA_THROTTLED,
        Refusal.ACCOUNT_DISABLED,
        Refusal.USERNAME_NOT_COMMON_NAME,
        Refusal.SAML_CLIENT_UNSUITED,
        Refusal.SAML_REQUEST_UNKNOWN,
        Refusal.SAML_REQUEST_USED,
        Refusal.SAML_OTHER_ADDRESS,
        Refusal.SAML_TOO_LARGE,
        Refusal.SAML_MALFORMED,
        Refusal.SAML_DOCTYPE,
        Refusal.SAML_COMMENT,
        Refusal.SAML_NOT_ONE_ASSERTION,
        Refusal.SAML_UNSIGNED,
        Refusal.SAML_WRAPPED,
        Refusal.SAML_SIGNATURE_INVALID,
        Refusal.SAML_WRONG_REQUEST,
        Refusal.SAML_REPLAYED,
        Refusal.LOGIN_THROTTLED,
        Refusal.LOGIN_DECLINED,
        Refusal.BROWSER_MISMATCH,
        Refusal.TOKEN_INVALID,
    }
)
"""The client's own doing. A handshake that merely ends counts as a handshake: networks fail too."""

UNFINISHED = frozenset(
    {
        Refusal.HANDSHAKE_TIMEOUT,
        Refusal.HANDSHAKE_ABANDONED,
        Refusal.HANDSHAKE_GAVE_WAY,
        Refusal.WAITING_FOR_ASSERTION,
    }
)
"""Nobody was refused anything."""


class TokenBucket:
    """``rate`` a second on average, ``burst`` at once. ``now`` must not run backwards."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def has(self, now: float) -> bool:
        return self._left(now) >= 1.0

    def _left(self, now: float) -> float:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def take(self, now: float) -> bool:
        if self._left(now) < 1.0:
            return False
        self._tokens -= 1.0
        return True


@lru_cache(maxsize=HOSTS_REMEMBERED)
def prefixes(host: str) -> tuple[str, str]:
    """An IPv4 address and the /24 around it, or the /64 that an IPv6 site can pick addresses from and the /48 that it
    may have been given."""
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        return f"{address.packed[:8].hex()}/64", f"{address.packed[:6].hex()}/48"
    return host, f"{host.rpartition('.')[0]}.0/24"


class PerMinute:
    """How often something may happen in a minute, all of it at once if need be, for each prefix."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def has(self, prefix: str, now: float) -> bool:
        bucket = self._buckets.get(prefix)
        if bucket is None:  # nothing has happened there
            return True
        self._buckets.move_to_end(prefix)
        return bucket.has(now)

    def take(self, prefix: str, per_minute: int, now: float) -> bool:
        bucket = self._buckets.get(prefix)
        if bucket is None:
            if len(self._buckets) >= PREFIXES_KEPT:
                self._buckets.popitem(last=False)
            bucket = self._buckets[prefix] = TokenBucket(per_minute / 60.0, per_minute)
        self._buckets.move_to_end(prefix)
        return bucket.take(now)


class SourceLimits:
    """For sources that have proven themselves only: else anybody could use up what another may do."""

    def __init__(self, limits: StrangersConfig) -> None:
        self._limits = limits
        self._handshakes = PerMinute()
        self._failures = PerMinute()

    def set_limits(self, limits: StrangersConfig) -> None:
        if limits != self._limits:
            self._limits = limits
            self._handshakes = PerMinute()
            self._failures = PerMinute()

    def may_try(self, host: str, now: float) -> DropReason | None:
        """Why another handshake from there would be refused."""
        if self.has_failed_too_often(host, now):
            return self._refused(DropReason.FAILED_LOGINS, host)
        near, far = prefixes(host)
        if not (self._handshakes.has(near, now) and self._handshakes.has(far, now)):
            return self._refused(DropReason.HANDSHAKE_RATE, host)
        return None

    def begins(self, host: str, now: float) -> None:
        """One that ``may_try`` does now."""
        near, far = prefixes(host)
        self._handshakes.take(near, self._limits.handshakes_per_source_per_min, now)
        self._handshakes.take(far, self._limits.handshakes_per_network_per_min, now)

    def has_failed_too_often(self, host: str, now: float) -> bool:
        near, far = prefixes(host)
        return not (self._failures.has(near, now) and self._failures.has(far, now))

    def failed(self, host: str, now: float) -> None:
        near, far = prefixes(host)
        if self._failures.take(near, self._limits.failed_logins_per_source_per_min, now):
            # else neighbours would pay for one who goes on after all that is his is used up
            self._failures.take(far, self._limits.failed_logins_per_network_per_min, now)

    @staticmethod
    def _refused(reason: DropReason, host: str) -> DropReason:
        _warn.warning(reason, "%s: no new handshake with %s for now, see [daemon.strangers]", reason, host)
        return reason


def may_begin(table: SessionTable, endpoint: ServedEndpoint, host: str) -> DropReason | None:
    """Why not one more stranger may be kept in mind, who has proven the address; for whom ``giving_way`` makes room."""
    limits = endpoint.settings.limits
    if table.handshakes >= limits.handshakes and giving_way(table, endpoint, host) is None:
        return DropReason.HANDSHAKE_LIMIT
    if table.handshakes_from(host) >= limits.handshakes_per_source:
        return DropReason.SOURCE_LIMIT
    return None


def giving_way(table: SessionTable, endpoint: ServedEndpoint, host: str) -> Connection | None:
    """Whose end makes room for one from there, where all places are taken. None: nobody's, or not by one."""
    places = endpoint.settings.limits.handshakes
    return table.strangers.giving_way(*prefixes(host), places) if table.handshakes == places else None
