"""Mutual TLS: what an endpoint trusts, and the verdict on each client certificate.

`CertificateTrust` is everything read from an endpoint's certificate files, parsed once and never changed: the
server's certificate and key, the CA bundle, the CRL, and the TLS context made of them. A reload makes a new one;
handshakes under way finish with the old.

The path of a client certificate:
1. OpenSSL builds the chain and checks signatures, validity, purpose (clientAuth where an extended key usage is
   present, keyUsage where one is), key strength and path lengths. It calls `_Verifier` with what it dislikes first.
2. For each CA certificate that is in order, and then for the client's own, `_Verifier` looks into the CRL.
3. For the client's own certificate it checks key size and name (`identity.common_name`).
The first failure is written into the verdict, the connection's app data, where `wire` finds it when the handshake
fails, so that log and metric name the reason. The callback then returns False and TLS sends the alert."""

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL, crypto

from cvpnd.auth.context import (
    MAX_CHAIN_DEPTH,
    MAX_RSA_BITS,
    MAX_RSA_EXPONENT_BITS,
    minimum_rsa_bits,
    new_server_context,
)
from cvpnd.auth.crl import Crl, CrlEdition, CrlSource, authority_of, source_of
from cvpnd.auth.crl_scope import UNREADABLE
from cvpnd.auth.files import (
    CertificateSettings,
    TrustError,
    read_authorities,
    read_certificates,
    read_crl_file,
    unfit_to_be_sent,
)
from cvpnd.auth.identity import Refused, common_name
from cvpnd.auth.names import canonical_name
from cvpnd.auth.revocation import Revocation
from cvpnd.auth.strength import weak_link
from cvpnd.auth.verify_callback import require_certificates
from cvpnd.reasons import Refusal
from cvpnd.remembered import remembered
from cvpnd.wire.presented import CertificationPath, parsed

log = logging.getLogger(__name__)

# X509_V_ERR_* of OpenSSL's x509_vfy.h; the numbers are its stable interface. Anything absent is CERTIFICATE_INVALID.
_OPENSSL_ERRORS = {
    2: (Refusal.CERTIFICATE_UNKNOWN_CA, "the issuer of its certificate authority is not in the bundle"),
    7: (Refusal.CERTIFICATE_INVALID, "its signature does not match its issuer's key"),
    9: (Refusal.CERTIFICATE_NOT_YET_VALID, "it is not valid yet"),
    10: (Refusal.CERTIFICATE_EXPIRED, "it has expired"),
    18: (Refusal.CERTIFICATE_UNKNOWN_CA, "it is self-signed"),
    19: (Refusal.CERTIFICATE_UNKNOWN_CA, "its root is not in the bundle"),
    20: (Refusal.CERTIFICATE_UNKNOWN_CA, "its issuer is not in the bundle"),
    21: (Refusal.CERTIFICATE_UNKNOWN_CA, "its issuer is not in the bundle"),
    22: (Refusal.CERTIFICATE_INVALID, f"its chain is longer than {MAX_CHAIN_DEPTH}"),
    24: (Refusal.CERTIFICATE_INVALID, "its issuer is not a certificate authority"),
    25: (Refusal.CERTIFICATE_INVALID, "its chain is longer than a certificate authority in it allows"),
    26: (Refusal.CERTIFICATE_WRONG_PURPOSE, "its key usage does not allow TLS client authentication"),
    27: (Refusal.CERTIFICATE_UNKNOWN_CA, "it is not trusted"),
    32: (Refusal.CERTIFICATE_INVALID, "its issuer may not sign certificates"),
    34: (Refusal.CERTIFICATE_INVALID, "it has a critical extension that nobody here understands"),
    40: (Refusal.CERTIFICATE_INVALID, "it is a proxy certificate, by which a person vouches for another"),
    47: (Refusal.CERTIFICATE_INVALID, "its name is not among those that its certificate authority may certify"),
    48: (Refusal.CERTIFICATE_INVALID, "its name is among those that its certificate authority may not certify"),
    51: (Refusal.CERTIFICATE_INVALID, "its certificate authority may certify certain names of a kind unknown here"),
    66: (Refusal.CERTIFICATE_WEAK_KEY, "its key is too small"),
    67: (Refusal.CERTIFICATE_WEAK_KEY, "the key of its certificate authority is too small"),
    68: (Refusal.CERTIFICATE_WEAK_KEY, "it is signed with a digest that is too weak"),
    79: (Refusal.CERTIFICATE_INVALID, "its issuer is not a certificate authority"),
    94: (Refusal.CERTIFICATE_INVALID, "the curve of its key is written out, not named"),
}


class CrlGoesBack(TrustError):
    """A CRL that is older than one that was in force."""

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = f"crl-goes-back: {problem}; if that is meant, name it by another file name in crl"
        super().__init__(path, self.problem)


class CertificateVerdict(Protocol):
    """What the verify callback fills in; `wire.tls` sets an object of this shape as the connection's app data."""

    refusal: Refusal | None
    detail: str
    certificate: crypto.X509 | None
    accepted: x509.Certificate | None


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class CertificateTrust:
    """What an endpoint trusts, as read at one moment. Immutable; share it freely between handshakes."""

    settings: CertificateSettings
    server_chain: tuple[x509.Certificate, ...]
    """The server's certificate, then its intermediates as they are sent."""
    authorities: tuple[x509.Certificate, ...]
    revocation: Revocation
    ssl_context: SSL.Context = field(repr=False)
    """For every new TLS connection of this endpoint."""
    lists: Mapping[CrlSource, CrlEdition] = field(repr=False, default_factory=dict)
    """The latest of each authority that was in force here or before a reload: none goes back behind them."""

    @classmethod
    def load(
        cls,
        settings: CertificateSettings,
        clock: Callable[[], datetime.datetime] = _utc_now,
        known: Mapping[CrlSource, CrlEdition] = MappingProxyType({}),
        *,
        crl_problem: str | None = None,
    ) -> Self:
        """Read every file once. Raises TrustError naming the first that cannot be used, ``CrlGoesBack`` for a CRL that
        is older than ``known``. ``crl_problem``: why the CRL is not to be relied upon, whatever is in it.
        ``clock``: the wall clock for CRL expiry; OpenSSL reads the system's own for certificates."""
        chain = read_certificates(settings.certificate)
        if settings.chain is not None:
            chain += read_certificates(settings.chain)
        authorities: tuple[x509.Certificate, ...] = ()
        if settings.client_ca is not None:
            authorities = read_authorities(settings.client_ca, keys=settings.crl is not None)
        crl, lists = None, dict[CrlSource, CrlEdition]()
        if settings.crl is not None:
            sources = set(map(source_of, authorities))
            lists.update((source, each) for source, each in known.items() if authority_of(source) in sources)
            crl = read_crl_file(settings.crl, authorities) if crl_problem is None else Crl({}, crl_problem)
            if crl.problem is not None:
                log.error("%s: %s; nobody can connect until it is replaced", settings.crl, crl.problem)
            elif (problem := crl.goes_back_from(lists)) is not None:
                raise CrlGoesBack(settings.crl, problem)
            now = clock()  # one that is not in force yet may be a mistake, and the next one right
            lists.update((source, each) for source, each in crl.editions().items() if each.this_update <= now)
        context = new_server_context(settings, chain, authorities)
        revocation = Revocation(crl, settings.crl, settings.crl_expired, clock)
        trust = cls(settings, tuple(chain), authorities, revocation, context, lists)
        if trust.without_list:
            log.warning("%s: %s", settings.crl, revokes_nobody(trust.without_list))
        for unfit in trust.unfit_to_be_sent:
            log.error("%s", unfit)
        if settings.client_ca is not None:
            verifier = _Verifier(revocation, minimum_rsa_bits(settings))
            require_certificates(context, verifier, authorities_too=crl is not None)
        return trust

    def reload(self) -> Self:
        """The same files read again, as a new object. Raises TrustError; this object stays good to use."""
        return self.load(self.settings, self.clock, self.lists)

    def check(self, certificate: x509.Certificate, path: CertificationPath) -> Refused | None:
        """Whether a certificate that came by this path would still do: revocation and end of validity of every link.

        For every session after a reload and at each renegotiation; costs a set lookup for each link. What is revoked
        is so whatever else is wrong. The path is not proven again, see ``prove``."""
        refusals = []
        for link in (certificate, *path.authorities):
            try:
                refused = self.revocation.check(link)
            except UNREADABLE as problem:
                refused = _unreadable(problem)
            if refused is not None:
                if refused.refusal is Refusal.CERTIFICATE_REVOKED:
                    return refused
                refusals.append(refused)
            if (end := _end(link)) < self.clock():
                what = f"serial {link.serial_number:x} expired on {end:%Y-%m-%d}"
                refusals.insert(0, Refused(Refusal.CERTIFICATE_EXPIRED, what))
        return refusals[0] if refusals else None

    def prove(
        self, certificate: x509.Certificate, sent: Sequence[x509.Certificate] = ()
    ) -> CertificationPath | Refused:
        """The path by which an authority stands behind a certificate that another trust let in with what its client
        ``sent``: a CA may have been taken out of the bundle. 0.3 ms."""
        if (store := self.ssl_context.get_cert_store()) is None:
            raise MemoryError("an OpenSSL context without a certificate store")
        leaf, *others = (crypto.X509.from_cryptography(each) for each in (certificate, *sent))
        try:
            chain = crypto.X509StoreContext(store, leaf, others).get_verified_chain()
        except crypto.X509StoreContextError as error:
            number, depth, *_ = error.errors
            return _refused_by_openssl(number, depth)
        ours = {each: each for each in (*sent, *self.authorities)}
        proven = tuple(ours[each.to_cryptography()] for each in chain[1:])
        try:
            minimum_bits = minimum_rsa_bits(self.settings)
            if (refused := _refused_key(certificate, minimum_bits)) is not None:
                return refused
            weak = weak_link((certificate, *proven), minimum_bits)
        except UNREADABLE as problem:
            return _unreadable(problem)
        if weak is not None:
            return _refused_by_openssl(*weak)
        return CertificationPath(proven, tuple(each for each in sent if each in proven))

    @property
    def crl(self) -> Crl | None:
        return self.revocation.crl

    @property
    def clock(self) -> Callable[[], datetime.datetime]:
        return self.revocation.clock

    @property
    def crl_problem(self) -> str:
        """Why nobody gets in by a certificate, whatever it is; empty: they do."""
        return "" if self.crl is None or self.crl.problem is None else self.crl.problem

    @cached_property
    def without_list(self) -> tuple[str, ...]:
        """The authorities of the bundle that have no list, where others have one. Also those whose own issuer has: that
        one's list can name them, and not whom they let in. Empty where nobody gets in or nobody is to be revoked."""
        if self.crl is None or self.crl.problem is not None:
            return ()
        without = (each.subject for each in self.authorities if not self.crl.of_issuer(canonical_name(each.subject)))
        return tuple(dict.fromkeys(each.rfc4514_string() for each in without))

    @cached_property
    def unfit_to_be_sent(self) -> tuple[str, ...]:
        """Of the bundle, and of the server's intermediates, which may be its clients' too: see there."""
        if self.settings.client_ca is None:
            return ()
        chain = unfit_to_be_sent(self.settings.chain or self.settings.certificate, self.server_chain[1:])
        return (*unfit_to_be_sent(self.settings.client_ca, self.authorities), *chain)

    @property
    def server_certificate(self) -> x509.Certificate:
        return self.server_chain[0]

    @property
    def server_certificate_expires_at(self) -> float:
        """Seconds since the epoch."""
        return self.server_certificate.not_valid_after_utc.timestamp()

    @property
    def crl_expires_at(self) -> float | None:
        """When the first list of the CRL file expires; None without one, or where none says."""
        end = self.crl.next_update() if self.crl is not None else None
        return end.timestamp() if end is not None else None

    def days_to_expiry(self) -> Mapping[Literal["server", "ca", "crl"], float]:
        """Days until the server's certificate, the first CA and the first CRL expire; negative when past."""
        ends: dict[Literal["server", "ca", "crl"], float] = {
            "server": self.server_certificate_expires_at,
        }
        if self.authorities:
            ends["ca"] = min(each.not_valid_after_utc for each in self.authorities).timestamp()
        if self.crl_expires_at is not None:
            ends["crl"] = self.crl_expires_at
        now = self.clock().timestamp()
        return MappingProxyType({what: (end - now) / 86_400 for what, end in ends.items()})


def revokes_nobody(authorities: Sequence[str]) -> str:
    """What to say of authorities without a list."""
    return f"it holds no revocation list of {' and of '.join(authorities)}: whom they let in cannot be revoked"


# --- the verify callback ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Verifier:
    """OpenSSL calls this for each certificate from the root down to the client's own (depth 0), and for each error."""

    revocation: Revocation
    minimum_rsa_bits: int

    def __call__(self, connection: SSL.Connection, presented: crypto.X509, error: int, depth: int, ok: int) -> bool:
        verdict: CertificateVerdict | None = connection.get_app_data()
        if verdict is None:
            log.error("a TLS connection without a certificate verdict: refused")
            return False
        if depth == 0:
            verdict.certificate = presented
        try:
            refused = self._judge(verdict, presented, error, depth, bool(ok))
        except UNREADABLE as problem:
            refused = _unreadable(problem)
        except Exception:
            log.exception("checking a client certificate failed")
            refused = Refused(Refusal.INTERNAL_ERROR, "checking the certificate failed; see the daemon's log")
        if refused is not None and verdict.refusal is None:
            verdict.refusal, verdict.detail = refused.refusal, refused.detail
            verdict.accepted = None  # it may have been: the names of a path are looked at last
        # A CA that OpenSSL likes and our CRL does not is refused a moment later, with the client's own certificate:
        # only then is it known whose login this was. OpenSSL always gets there, or fails before.
        return verdict.refusal is None or bool(ok and depth > 0)

    def _judge(
        self, verdict: CertificateVerdict, presented: crypto.X509, error: int, depth: int, ok: bool
    ) -> Refused | None:
        if not ok:
            return _refused_by_openssl(error, depth)
        if depth > 0 and self.revocation.crl is None:
            return None
        certificate = parsed(presented)
        if (refused := self.revocation.check(certificate)) is not None:
            return refused
        if depth > 0:
            return None
        refused = _refused_key(certificate, self.minimum_rsa_bits) or _refused_name(certificate)
        if refused is None:
            verdict.accepted = certificate
        return refused


def _unreadable(problem: Exception) -> Refused:
    return Refused(Refusal.CERTIFICATE_INVALID, f"cannot be read: {problem}")


def _refused_key(certificate: x509.Certificate, minimum_bits: int) -> Refused | None:
    """Before TLS asks for a proof by that key."""
    if (size := _rsa_size(certificate)) is None:
        return None
    bits, exponent_bits = size
    if bits < minimum_bits:
        return Refused(Refusal.CERTIFICATE_WEAK_KEY, f"its RSA key has {bits} bits; {minimum_bits} are required")
    if bits > MAX_RSA_BITS or exponent_bits > MAX_RSA_EXPONENT_BITS:
        what = f"{bits} bits and an exponent of {exponent_bits}; at most {MAX_RSA_BITS} and {MAX_RSA_EXPONENT_BITS}"
        return Refused(Refusal.CERTIFICATE_INVALID, f"its RSA key has {what} are taken")
    return None


@remembered
def _rsa_size(certificate: x509.Certificate) -> tuple[int, int] | None:
    """Of modulus and exponent, in bits; None: its key is of another kind."""
    key = certificate.public_key()
    return (key.key_size, key.public_numbers().e.bit_length()) if isinstance(key, rsa.RSAPublicKey) else None


@remembered
def _end(certificate: x509.Certificate) -> datetime.datetime:
    return certificate.not_valid_after_utc


def _refused_name(certificate: x509.Certificate) -> Refused | None:
    name = common_name(certificate)
    return name if isinstance(name, Refused) else None


def _refused_by_openssl(error: int, depth: int) -> Refused:
    refusal, detail = _OPENSSL_ERRORS.get(error, (Refusal.CERTIFICATE_INVALID, f"OpenSSL verification error {error}"))
    return Refused(refusal, detail if depth == 0 else f"{detail} (certificate authority at depth {depth})")
