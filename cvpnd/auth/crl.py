"""Certificate revocation lists: parsed and verified once when read, then one set lookup per login.

A CRL file holds one list (PEM or DER), or several PEM lists: one for each CA of the bundle that revokes, or one for
each part into which a CA divides its own (``crl_scope.py``). Of several for the same the newest counts. Whatever is
wrong with a complete list (nobody in the bundle signed it, a delta or indirect list, a critical extension we do not
know) makes the whole file unusable, and then nobody connects: an operator who asked for revocation must not get a
gateway that ignores it. A file that does not parse at all is another matter, since it may be half written: it raises,
and a reload then keeps what it had. So does an older list than the one in force, which whoever signed it has replaced:
it may come from a backup or from somebody who was revoked since.

20,000 entries: 3 ms to parse, 11 ms for the set, 12 ms for their extensions, 6 ms to verify; the lookup does not depend
on the size."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NewType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from cvpnd.auth.crl_scope import UNREADABLE, WHOLE, CrlScope, scope_of
from cvpnd.auth.names import CanonicalName, canonical_name
from cvpnd.pki.crl_number import crl_number
from cvpnd.remembered import remembered

log = logging.getLogger(__name__)

CertificateKey = tuple[CanonicalName, int]
"""What a CRL knows a certificate by: its issuer and its serial number."""

CrlSource = NewType("CrlSource", str)
"""Who signs a CRL: a digest of an authority's name and of its public key, which its renewed certificate has too. For a
list that is not about all that its authority has issued, a colon and a digest of what it is about follow."""

PEM_CRL_BEGIN = b"-----BEGIN X509 CRL-----"
PEM_CRL_END = b"-----END X509 CRL-----"

_UNDERSTOOD_CRITICAL = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT})
_UNDERSTOOD_OF_ENTRIES = frozenset({CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE})
_CERTIFICATE_ISSUER = bytes.fromhex("0603551d1d")
"""As DER has ``CRLEntryExtensionOID.CERTIFICATE_ISSUER``."""


@remembered
def certificate_key(certificate: x509.Certificate) -> CertificateKey:
    """Asked several times while it logs in."""
    return canonical_name(certificate.issuer), certificate.serial_number


@dataclass(frozen=True)
class CrlEdition:
    """Which of the lists of one CA it is."""

    issuer_text: str
    this_update: datetime.datetime
    number: int | None
    """None: its CA does not count its lists."""

    def older_than(self, other: CrlEdition) -> bool:
        """Neither its date nor its number is a later one. A CA that was set up anew may count from the beginning, and
        one whose clock was put right goes back in time."""
        dates = (self.this_update > other.this_update) - (self.this_update < other.this_update)
        numbers = 0
        if self.number is not None and other.number is not None:
            numbers = (self.number > other.number) - (self.number < other.number)
        return max(dates, numbers) <= 0 and min(dates, numbers) < 0

    def __str__(self) -> str:
        number = "" if self.number is None else f"number {self.number} "
        return f"{number}of {self.this_update:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class IssuerCrl:
    """A list in force of one CA."""

    issuer: CanonicalName
    edition: CrlEdition
    next_update: datetime.datetime | None
    source: CrlSource
    scope: CrlScope
    serials: frozenset[int] = field(repr=False)

    def expired(self, now: datetime.datetime) -> bool:
        return self.next_update is not None and now >= self.next_update


@dataclass(frozen=True)
class Crl:
    """All lists of one CRL file, by issuer. ``problem`` set: the file was complete but must not be relied upon."""

    by_issuer: Mapping[CanonicalName, tuple[IssuerCrl, ...]]
    problem: str | None = None

    def of_issuer(self, issuer: CanonicalName) -> tuple[IssuerCrl, ...]:
        """The lists of the CAs of that name: several where one divides its own, or two share a name (a re-keyed CA)."""
        return self.by_issuer.get(issuer, ())

    def names_serial(self, serial: int) -> bool:
        """Whether any CA here has revoked a certificate of that number: for what only knows the number."""
        return any(serial in each.serials for lists in self.by_issuer.values() for each in lists)

    def editions(self) -> Mapping[CrlSource, CrlEdition]:
        return {each.source: each.edition for lists in self.by_issuer.values() for each in lists}

    def goes_back_from(self, known: Mapping[CrlSource, CrlEdition]) -> str | None:
        """What is older here than a list that was in force, or is not here any more; None: nothing."""
        here = self.editions()
        for source, before in known.items():
            followers = [here[source]] if source in here else _in_place_of(source, here)
            if not followers:
                return f"the CRL of {before.issuer_text}, which is in force, is not in it any more"
            # Of a whole list that was divided each part has to follow: whoever was revoked since an older one was
            # signed, and is on the whole list, would come in again by that.
            if (older := next((each for each in followers if each.older_than(before)), None)) is not None:
                return f"the CRL of {older.issuer_text} in it, {older}, is older than the one in force, {before}"
        return None

    def next_update(self) -> datetime.datetime | None:
        """When the first of the lists expires."""
        ends = [e.next_update for lists in self.by_issuer.values() for e in lists if e.next_update is not None]
        return min(ends, default=None)


def parse_crls(data: bytes) -> list[x509.CertificateRevocationList]:
    """Every list in a PEM or DER file. Raises ValueError for a file that holds none or is cut off."""
    if PEM_CRL_BEGIN not in data:
        if data.lstrip().startswith(b"-----BEGIN") or not data:
            raise ValueError("holds no certificate revocation list")
        return [x509.load_der_x509_crl(data)]
    lists = []
    for block in data.split(PEM_CRL_BEGIN)[1:]:
        if PEM_CRL_END not in block:
            raise ValueError("ends within a certificate revocation list")
        lists.append(x509.load_pem_x509_crl(PEM_CRL_BEGIN + block))
    return lists


def read_crl(data: bytes, authorities: Sequence[x509.Certificate]) -> Crl:
    """Parse a CRL file and verify each list against the CA bundle. Raises ValueError when it does not parse."""
    newest: dict[CrlSource, IssuerCrl] = {}
    for each in parse_crls(data):
        try:
            problem = _unsupported(each) or _unsupported_entry(each)
        except UNREADABLE:
            problem = "it has an extension that cannot be read"
        signer = None if problem else _signer(each, authorities)
        if signer is None:
            issuer = each.issuer.rfc4514_string()
            return Crl(
                {}, problem=f"the CRL of {issuer}: {problem or 'no certificate authority in the bundle signed it'}"
            )
        scope = scope_of(each)
        text = each.issuer.rfc4514_string() if scope == WHOLE else f"{each.issuer.rfc4514_string()} ({scope})"
        usable = IssuerCrl(
            issuer=canonical_name(each.issuer),
            edition=CrlEdition(text, each.last_update_utc, crl_number(each)),
            next_update=each.next_update_utc,
            source=_part_of(source_of(signer), scope),
            scope=scope,
            serials=frozenset(entry.serial_number for entry in each),
        )
        if (known := newest.get(usable.source)) is None or _order(known) < _order(usable):
            newest[usable.source] = usable
    by_issuer: dict[CanonicalName, tuple[IssuerCrl, ...]] = {}
    for usable in newest.values():
        by_issuer[usable.issuer] = (*by_issuer.get(usable.issuer, ()), usable)
    return Crl(by_issuer)


def source_of(authority: x509.Certificate) -> CrlSource:
    key = authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = canonical_name(authority.subject).encode()
    return CrlSource(sha256(sha256(name).digest() + sha256(key).digest()).hexdigest())


def authority_of(source: CrlSource) -> CrlSource:
    """As ``source_of`` says."""
    return CrlSource(source.partition(":")[0])


def _part_of(authority: CrlSource, scope: CrlScope) -> CrlSource:
    return authority if scope == WHOLE else CrlSource(f"{authority}:{sha256(str(scope).encode()).hexdigest()}")


def _in_place_of(source: CrlSource, here: Mapping[CrlSource, CrlEdition]) -> list[CrlEdition]:
    """Lists of one that is not here: its authority has divided it, or joined what was divided. Whom none of them is
    about is refused."""
    authority = authority_of(source)
    if source != authority:
        return [here[authority]] if authority in here else []
    return [edition for each, edition in here.items() if authority_of(each) == authority]


def _order(crl: IssuerCrl) -> tuple[datetime.datetime, int]:
    return crl.edition.this_update, crl.edition.number or 0


def _unsupported(crl: x509.CertificateRevocationList) -> str | None:
    """Why this kind of list cannot be used, or None. Guessing what it leaves out would be worse."""
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return "it is a delta CRL; name a complete one"
        if isinstance(value, x509.IssuingDistributionPoint):
            if value.indirect_crl:
                return "it is an indirect CRL; each certificate authority must sign its own"
            if value.only_some_reasons or value.only_contains_attribute_certs:
                return "it covers only some reasons, or attribute certificates; name a complete one"
        if extension.critical and extension.oid not in _UNDERSTOOD_CRITICAL:
            return f"it has the unknown critical extension {extension.oid.dotted_string}"
    return None


def _unsupported_entry(crl: x509.CertificateRevocationList) -> str | None:
    """The same of its entries. One with more than can be read, a reason that nobody knows, say, revokes as any other
    does, unless what is in it may be that from there on the entries are of another authority."""
    unreadable = []
    for entry in crl:
        try:
            for extension in entry.extensions:
                if extension.critical and extension.oid not in _UNDERSTOOD_OF_ENTRIES:
                    return f"an entry of it has the unknown critical extension {extension.oid.dotted_string}"
        except UNREADABLE:
            unreadable.append(entry.serial_number)
    if unreadable and _CERTIFICATE_ISSUER in crl.tbs_certlist_bytes:
        return f"its entry with serial {unreadable[0]:x} cannot be read, and may be of another issuer"
    if unreadable:
        log.warning(
            "the CRL of %s: what it says of serial %x, and of %d more, cannot be read; it revokes them all the same",
            crl.issuer.rfc4514_string(), unreadable[0], len(unreadable) - 1,
        )  # fmt: skip
    return None


def _signer(crl: x509.CertificateRevocationList, authorities: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """The CA that signed this list: its name, its key, and allowed to sign CRLs."""
    issuer = canonical_name(crl.issuer)
    for authority in authorities:
        try:
            if canonical_name(authority.subject) != issuer or not _may_sign_crls(authority):
                continue
            if crl.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]  # a TypeError is caught below
                return authority
        except UNREADABLE:
            continue
    return None


def _may_sign_crls(authority: x509.Certificate) -> bool:
    try:
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.crl_sign
