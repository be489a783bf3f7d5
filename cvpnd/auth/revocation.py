"""Whether a certificate is revoked, as far as an endpoint's lists tell."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509

from cvpnd.auth.context import issued
from cvpnd.auth.crl import Crl, IssuerCrl, certificate_key
from cvpnd.auth.crl_scope import UNREADABLE, distribution_points
from cvpnd.auth.identity import Refused
from cvpnd.reasons import Refusal
from cvpnd.remembered import remembered


@dataclass(frozen=True)
class Revocation:
    """What a verify callback may keep: it knows no TLS context. The context keeps its callback, and if that kept the
    context, the lists that a reload replaces would stay (20 MB of 200,000 entries, each time) until Python looks for
    cycles, which an idle gateway may not do for days."""

    crl: Crl | None
    path: Path | None
    """Of its file."""
    expired: Literal["refuse", "allow-known-good"]
    clock: Callable[[], datetime.datetime] = field(repr=False)

    def check(self, certificate: x509.Certificate) -> Refused | None:
        """Look one certificate up in all lists of its issuer. One without any revokes nothing; of one with lists about
        others alone nobody knows what it has revoked. A root is trusted by being in the bundle, and on no list but one
        that it would sign itself."""
        if self.crl is None or _signed_by_itself(certificate):
            return None
        if self.crl.problem is not None:
            return Refused(Refusal.CRL_UNUSABLE, self.crl.problem)
        issuer, serial = certificate_key(certificate)
        lists = self.crl.of_issuer(issuer)
        for crl in lists:
            if serial in crl.serials:
                return Refused(
                    Refusal.CERTIFICATE_REVOKED, f"serial {serial:x} is on the CRL of {crl.edition.issuer_text}"
                )
        about_it = [crl for crl in lists if crl.scope.covers(certificate)]
        if lists and not about_it:
            who, where = certificate.issuer.rfc4514_string(), " ".join(sorted(distribution_points(certificate)))
            return Refused(
                Refusal.CRL_UNUSABLE,
                f"no CRL of {who} in {self.path} is about it (distribution point: {where or 'none'}); "
                "add the one that is, or a complete one",
            )
        return next(filter(None, map(self._check_dates, about_it)), None)

    def _check_dates(self, crl: IssuerCrl) -> Refused | None:
        now = self.clock()
        if now < crl.edition.this_update:
            when = f"{crl.edition.this_update:%Y-%m-%d %H:%M:%S} UTC"
            return Refused(Refusal.CRL_UNUSABLE, f"the CRL of {crl.edition.issuer_text} is valid only from {when}")
        if crl.expired(now) and self.expired == "refuse":
            return Refused(
                Refusal.CRL_EXPIRED, f"the CRL of {crl.edition.issuer_text} expired on {crl.next_update:%Y-%m-%d}"
            )
        return None


@remembered
def _signed_by_itself(certificate: x509.Certificate) -> bool:
    """Not merely issued under its own name, as a certificate is by which an authority vouches for its next key."""
    try:
        return certificate.issuer == certificate.subject and issued(certificate, certificate)
    except UNREADABLE:  # a name that cannot be read; those of the bundle can
        return False
