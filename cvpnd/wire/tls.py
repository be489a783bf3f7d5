"""TLS over memory: bytes in, bytes out, for either role (openvpn-wire.md section 7).

Each key id is a new TLS connection. The ``SSL.Context`` (certificates, versions, the verify callback) is the
caller's; the callback finds the connection's ``CertificateVerdict`` with ``connection.get_app_data()`` and notes
there why it refused, so that the log can say more than "handshake failure".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cryptography
from cryptography import x509
from cryptography.hazmat.bindings._rust import _openssl
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from cvpnd import _native
from cvpnd.reasons import Refusal
from cvpnd.remembered import remembered
from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.presented import NO_PATH, CertificationPath, certification_path
from cvpnd.wire.text import printable

MAX_SILENT_RECORDS = 64
"""After the handshake, without data in them: key updates of TLS 1.3, attempts to renegotiate, warnings. No client of
OpenVPN sends any; each costs new keys and perhaps an answer, and forty fit into a packet."""
MAX_SHOWN_CHARACTERS = 255
"""Of a name. Strangers' certificates have one of 90 kB if they like, and each goes into the log."""
_NO_CERTIFICATE = "peer did not return a certificate"
"""OpenSSL's words for SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE."""


@dataclass(slots=True)
class CertificateVerdict:
    """What the verify callback thought of the peer's certificate."""

    refusal: Refusal | None = None
    detail: str = ""
    certificate: crypto.X509 | None = None
    """The leaf as presented, also when it was refused: its name belongs into the log."""
    accepted: x509.Certificate | None = None
    """The leaf again, parsed: set by a callback that let it through."""

    @property
    def common_name(self) -> str:
        """Of that certificate, for the log; empty if there is none to read. Unproven when refused."""
        return common_name(self.certificate.to_cryptography()) if self.certificate is not None else ""


def _calls() -> _native.TlsCalls:
    """Where the functions are that C calls, in the library that pyOpenSSL calls: a login makes twenty such calls, and
    what is around each of them in Python takes longer than most of them do. Raises ``ImportError`` for a version of
    cryptography in which one is not what C takes it for."""
    addresses = []
    for name, kind in _native.TLS_CALLS:
        function = _FFI.addressof(_openssl.lib, name) if hasattr(_openssl.lib, name) else None
        if function is None or _FFI.typeof(function).cname != kind:
            raise ImportError(f"cryptography {cryptography.__version__} has no {name}, or another than cvpnd knows")
        addresses.append(_address(function))
    return _native.TlsCalls(*addresses)


def _address(pointer: Any) -> int:
    return int(_FFI.cast("uintptr_t", pointer))


_FFI: Any = _openssl.ffi
_CALLS = _calls()


class TlsConnection:
    """One handshake and the connection it yields: 39 kB inside OpenSSL, 45 during the handshake."""

    __slots__ = ("_connection", "_peer_certificate", "_pipe", "_server", "established", "verdict")

    def __init__(self, context: SSL.Context, *, server: bool) -> None:
        self.verdict = CertificateVerdict()
        self.established = False
        self._server = server
        self._peer_certificate: x509.Certificate | None = None
        if server:
            _CALLS.judge_certificates(_address(vars(context)["_context"]))
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(self.verdict)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        inside = vars(self._connection)
        ssl, reads, writes = _address(inside["_ssl"]), _address(inside["_into_ssl"]), _address(inside["_from_ssl"])
        self._pipe = _native.TlsPipe(_CALLS, self._connection, ssl, reads, writes, server)
        inside["_into_ssl"] = inside["_from_ssl"] = None  # the pipe has them, and replaces them

    def start(self) -> None:
        """Client only: write the ClientHello."""
        if (answer := self._pipe.start()) != 1:
            raise self._failure(answer)

    def receive(self, data: bytes) -> list[bytearray]:
        """Feed TLS bytes; return the application data of each record they completed.

        Raises ``PeerError``; then ``output`` still holds the alert, to be sent once."""
        pipe = self._pipe
        records = pipe.receive(data)
        if isinstance(records, int):
            raise self._failure(records)
        self.established = pipe.established
        if pipe.silent_records > MAX_SILENT_RECORDS:
            raise PeerError(DropReason.TLS_FAILURE, f"more than {MAX_SILENT_RECORDS} records without data")
        return records

    def _failure(self, answer: int) -> PeerError:
        """What OpenSSL's last answer means: pyOpenSSL reads the reasons that it left."""
        connection: Any = self._connection
        handshaking = not self._pipe.established
        try:
            connection._raise_ssl_error(vars(connection)["_ssl"], answer)
        except SSL.ZeroReturnError:
            return PeerError(DropReason.TLS_CLOSED)
        except SSL.Error as error:
            description = describe_ssl_error(error)
            if self._pipe.handshake_too_long:
                description = "its handshake, with all certificates in it, is too long"
            if problem := self._pipe.certificates_problem:
                self.verdict.refusal, self.verdict.detail = Refusal.CERTIFICATE_INVALID, f"it brings {problem}"
            if handshaking and self.verdict.refusal is None and _NO_CERTIFICATE in description:
                self.verdict.refusal = Refusal.CERTIFICATE_MISSING  # no certificate, no call of the verify callback
            return PeerError(DropReason.TLS_FAILURE, (handshaking and self.verdict.detail) or description)
        return PeerError(DropReason.TLS_FAILURE, "an answer without an error")

    def send(self, plaintext: bytes) -> None:
        """Write one message; up to 16 kB it is one record, which OpenVPN 3 takes for one message."""
        if not self.established:
            raise UsageError("application data before the TLS handshake is complete")
        if (answer := self._pipe.send(plaintext)) != 1:
            raise self._failure(answer)

    def output(self) -> bytes:
        """Take what is to be sent to the peer."""
        return self._pipe.output()

    def export(self, label: str, length: int) -> bytes:
        """RFC 5705 keying material without a context (which differs from an empty one in TLS 1.2)."""
        return self._connection.export_keying_material(label.encode("ascii"), length, None)

    def peer_certificate(self) -> x509.Certificate | None:
        """As the handshake has proven it; None before it is complete."""
        if self._peer_certificate is None and self.established:
            known = self.verdict.accepted if self.verdict.refusal is None else None
            self._peer_certificate = known or self._connection.get_peer_certificate(as_cryptography=True)
        return self._peer_certificate

    def peer_path(self) -> CertificationPath:
        """What leads from the peer's certificate to an authority."""
        known = self._server and self.peer_certificate() is not None
        return certification_path(self._connection) if known else NO_PATH

    @property
    def context(self) -> SSL.Context:
        """By which its peer was judged."""
        return self._connection.get_context()

    @property
    def version(self) -> str:
        """As OpenSSL names it: ``TLSv1.3``."""
        return self._connection.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        return self._connection.get_cipher_name() or ""


@remembered
def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 over DER, which a login asks for several times."""
    return certificate.fingerprint(hashes.SHA256())


def common_name(certificate: x509.Certificate | None) -> str:
    """For logs. Who the client is, is decided elsewhere and more strictly, by the same of several names."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME) if certificate is not None else []
    except (ValueError, TypeError):  # a name that cannot be decoded
        return ""
    return printable(str(names[-1].value))[:MAX_SHOWN_CHARACTERS] if names else ""


@remembered
def accepted_name(certificate: x509.Certificate | None) -> str:
    """The same of one that was let through: nobody else's is remembered."""
    return common_name(certificate)


def describe_ssl_error(error: SSL.Error) -> str:
    """OpenSSL's reasons, without its function names."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(entry[-1]) for entry in queue) or type(error).__name__
