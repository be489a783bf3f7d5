"""Which of a CA's certificates one of its revocation lists is about (RFC 5280 sections 5.2.5 and 6.3.3 (b)).

A CA may publish several lists side by side: one for users and one for other CAs, or one for each distribution point
that its certificates name. A certificate is judged by those that are about it, and where there are lists and none of
them is, nobody knows whether it is revoked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from cvpnd.auth.names import canonical_name
from cvpnd.remembered import remembered

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What ``cryptography`` raises for a part of a certificate or list, once asked for it, that it does not read, as
OpenSSL may. The last two are no ValueError."""

_Names = frozenset[str]


@dataclass(frozen=True)
class CrlScope:
    points: _Names = frozenset()
    """What its distribution point is called; empty: it is about whichever certificates its CA has issued."""
    users: bool = True
    authorities: bool = True

    def covers(self, certificate: x509.Certificate) -> bool:
        """Raises one of ``UNREADABLE`` where nobody can tell."""
        if not (self.users and self.authorities):
            wanted = self.authorities if is_authority(certificate) else self.users
            if not wanted:
                return False
        return not self.points or not self.points.isdisjoint(distribution_points(certificate))

    def __str__(self) -> str:
        kinds = "" if self.users and self.authorities else "users only" if self.users else "authorities only"
        return ", ".join([*([kinds] if kinds else []), *sorted(self.points)])


WHOLE = CrlScope()


def scope_of(crl: x509.CertificateRevocationList) -> CrlScope:
    """Of a complete list, or a complete part of one."""
    try:
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return WHOLE
    return CrlScope(
        _names(point.full_name, point.relative_name, crl.issuer),
        users=not point.only_contains_ca_certs,
        authorities=not point.only_contains_user_certs,
    )


@remembered
def is_authority(certificate: x509.Certificate) -> bool:
    """Raises one of ``UNREADABLE``."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


@remembered
def distribution_points(certificate: x509.Certificate) -> _Names:
    """Where its issuer itself says for which reasons whatsoever it is revoked. Raises one of ``UNREADABLE``."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        return frozenset().union(
            *(
                _names(point.full_name, point.relative_name, certificate.issuer)
                for point in points
                if point.crl_issuer is None and point.reasons is None
            )
        )
    except x509.ExtensionNotFound:
        return frozenset()


def _names(
    full: Iterable[x509.GeneralName] | None, relative: x509.RelativeDistinguishedName | None, issuer: x509.Name
) -> _Names:
    if relative is not None:
        full = [x509.DirectoryName(x509.Name([*issuer.rdns, relative]))]
    return frozenset(map(_name, full or ()))


def _name(name: x509.GeneralName) -> str:
    value = canonical_name(name.value) if isinstance(name, x509.DirectoryName) else name.value
    return value if isinstance(name, x509.UniformResourceIdentifier) else f"{type(name).__name__}:{value}"
