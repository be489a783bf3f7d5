"""TLS over memory: bytes in, bytes out, for either role (openvpn-wire.md section 7).

Each key id is a new TLS connection. The ``SSL.Context`` (certificates, versions, the verify callback) is the
caller's; the callback finds the connection's ``CertificateVerdict`` with ``connection.get_app_data()`` and notes
there why it refused, so that the log can say more than "handshake failure".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from cvpnd.reasons import Refusal
from cvpnd.remembered import remembered
from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.presented import intermediates
from cvpnd.wire.text import printable

MAX_RECORD_BYTES = 16384
MAX_SILENT_RECORDS = 64
"""After the handshake, without data in them: key updates of TLS 1.3, attempts to renegotiate, warnings. No client of
OpenVPN sends any; each costs new keys and perhaps an answer, and forty fit into a packet."""
_RECORD_HEADER_BYTES = 5
_CONTENT_TYPES = range(20, 24)
_MOST_CIPHERTEXT_BYTES = MAX_RECORD_BYTES + 2048
"""TLS 1.2 allows that much in a record."""
_BIO_READ_BYTES = 8192
"""More than a flight of any handshake with certificates of usual size."""
_LIB: Any = getattr(SSL, "_lib", None)
_FFI: Any = getattr(SSL, "_ffi", None)
_FIELDS = frozenset({"_ssl", "_into_ssl", "_from_ssl"})
_NAMES = (
    *("BIO_free", "BIO_get_mem_data", "BIO_new", "BIO_read", "BIO_s_mem", "BIO_write", "SSL_do_handshake"),
    *("SSL_ERROR_WANT_READ", "SSL_get_error", "SSL_read", "SSL_set_bio", "SSL_version", "SSL_write"),
)
_CALLS_ARE_KNOWN = _FFI is not None and all(hasattr(_LIB, name) for name in _NAMES)
"""OpenSSL's own functions, called past pyOpenSSL's methods: a login makes twenty such calls, and what is around each of
them takes longer than most of them do. pyOpenSSL does not document these names; where a version lacks one, its methods
are used, clients take 6 kB more, and a copy of each record stays in memory that is given back."""
_VERSIONS = {SSL.TLS1_2_VERSION: "TLSv1.2", SSL.TLS1_3_VERSION: "TLSv1.3"}
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


class _Records:
    """Counts the records in a stream of TLS."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        """Bytes to the end of the record."""

    def count(self, data: bytes) -> tuple[int, int]:
        """How many of them begin in ``data``, and how many are for the TLS engine to look at: those that end there,
        and what cannot be a record."""
        begun, ended, position, size = 0, 0, 0, len(data)
        while position < size:
            if not self._left:
                header = self._header + data[position : position + _RECORD_HEADER_BYTES - len(self._header)]
                position += len(header) - len(self._header)
                if len(header) < _RECORD_HEADER_BYTES:
                    self._header = header
                    break
                self._header = b""
                begun += 1
                self._left = header[3] << 8 | header[4]
                plausible = header[0] in _CONTENT_TYPES and header[1] == 3 and self._left <= _MOST_CIPHERTEXT_BYTES
                if not plausible or not self._left:
                    ended += 1
            step = min(self._left, size - position)
            self._left -= step
            position += step
            if step and not self._left:
                ended += 1
        return begun, ended


class TlsConnection:
    """One handshake and the connection it yields: 39 kB inside OpenSSL, 45 during the handshake."""

    __slots__ = (
        "_connection",
        "_has_grown",
        "_has_spoken",
        "_inside",
        "_peer_certificate",
        "_records",
        "_server",
        "_silent_records",
        "established",
        "verdict",
    )

    def __init__(self, context: SSL.Context, *, server: bool) -> None:
        self.verdict = CertificateVerdict()
        self.established = False
        self._server = server
        self._records = _Records()
        self._silent_records = 0
        """Since the handshake."""
        self._has_grown = True
        """OpenSSL's memory BIOs are as large as a flight of the handshake, and would stay so."""
        self._has_spoken = False
        """OpenSSL may have written something since ``output`` was last asked."""
        self._peer_certificate: x509.Certificate | None = None
        self._connection = SSL.Connection(context, None)
        inside = vars(self._connection)
        self._inside: dict[str, Any] | None = inside if _CALLS_ARE_KNOWN and inside.keys() >= _FIELDS else None
        """The connection's pointers, where ``_CALLS_ARE_KNOWN``."""
        self._connection.set_app_data(self.verdict)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()

    def start(self) -> None:
        """Client only: write the ClientHello."""
        self._handshake()

    def receive(self, data: bytes) -> list[bytearray]:
        """Feed TLS bytes; return the application data of each record they completed.

        Raises ``PeerError``; then ``output`` still holds the alert, to be sent once."""
        begun, ended = self._records.count(data)
        if (inside := self._inside) is None:
            self._connection.bio_write(data)
        elif data and _LIB.BIO_write(inside["_into_ssl"], data, len(data)) != len(data):
            raise MemoryError
        if not ended:  # the rest of a record is yet to come: nothing that OpenSSL could do
            return []
        first = not self.established
        if first:
            if not self._handshake():
                return []
            begun, ended = 0, len(data) if self._holds_more() else 0  # some of it was the handshake's
        records = self._read_records(ended)
        if first and self._server and self._is_tls_1_3():
            # Our last word was said a flight ago. What there is now are tickets, which nobody uses and OpenSSL insists
            # on (auth/context.py): they go along with the next record, not in a packet that is acknowledged by itself.
            self._has_spoken = False
        self._silent_records = max(0, self._silent_records + begun - len(records))
        if self._silent_records > MAX_SILENT_RECORDS:
            raise PeerError(DropReason.TLS_FAILURE, f"more than {MAX_SILENT_RECORDS} records without data")
        return records

    def _holds_more(self) -> bool:
        """Whether OpenSSL has yet to look at something that it was fed. Mostly not: to ask for a record in vain takes
        longer than to read one."""
        return (inside := self._inside) is None or _LIB.BIO_get_mem_data(inside["_into_ssl"], _FFI.NULL) > 0

    def _read_records(self, most: int) -> list[bytearray]:
        """``most``: as many as there can be. To ask for another, and be told that there is none, costs more than the
        record."""
        records: list[bytearray] = []
        try:
            while len(records) < most:
                records.append(self._read_record())
            return records
        except SSL.WantReadError:
            self._has_spoken = True  # some were silent: a key update is answered
            return records
        except SSL.ZeroReturnError:
            self._has_spoken = True
            raise PeerError(DropReason.TLS_CLOSED) from None
        except SSL.Error as error:
            self._has_spoken = True
            raise PeerError(DropReason.TLS_FAILURE, describe_ssl_error(error)) from None

    def _read_record(self) -> bytearray:
        """Like ``recv``, which leaves a copy of each record in memory that it gives back: a password may be in it."""
        if (inside := self._inside) is None:
            return bytearray(self._connection.recv(MAX_RECORD_BYTES))
        buffer, ssl = bytearray(MAX_RECORD_BYTES), inside["_ssl"]
        size = _LIB.SSL_read(ssl, _FFI.from_buffer(buffer), MAX_RECORD_BYTES)
        if size <= 0:
            self._raise(size)
        record = buffer[:size]
        buffer[:size] = bytes(size)
        return record

    def _raise(self, result: int) -> None:
        """What pyOpenSSL makes of OpenSSL's last answer."""
        connection: Any = self._connection
        connection._raise_ssl_error(vars(connection)["_ssl"], result)
        raise SSL.Error([("", "", "an answer without an error")])

    def _is_tls_1_3(self) -> bool:
        if (inside := self._inside) is None:
            return self._connection.get_protocol_version() == SSL.TLS1_3_VERSION
        return bool(_LIB.SSL_version(inside["_ssl"]) == SSL.TLS1_3_VERSION)

    def send(self, plaintext: bytes) -> None:
        """Write one message; up to 16 kB it is one record, which OpenVPN 3 takes for one message."""
        if not self.established:
            raise UsageError("application data before the TLS handshake is complete")
        self._has_spoken = True
        for start in range(0, len(plaintext), MAX_RECORD_BYTES):
            record = plaintext[start : start + MAX_RECORD_BYTES]
            if (inside := self._inside) is None:
                self._connection.sendall(record)
            elif (written := _LIB.SSL_write(inside["_ssl"], record, len(record))) != len(record):
                self._raise(written)  # all or nothing, unless it is asked to write in parts

    def output(self) -> bytes:
        """Take what is to be sent to the peer."""
        output = b""
        if self._has_spoken:
            self._has_spoken = False
            output = self._read_output()
            if self._has_grown and self.established:
                self._has_grown = not self._renew_buffers()
        return output

    def _read_output(self) -> bytes:
        if (inside := self._inside) is not None:
            out = inside["_from_ssl"]
            size = _LIB.BIO_get_mem_data(out, _FFI.NULL)
            if size <= 0:
                return b""
            buffer = _FFI.new("char[]", size)
            if _LIB.BIO_read(out, buffer, size) != size:
                raise MemoryError
            return bytes(_FFI.buffer(buffer, size))
        output = b""
        try:
            while len(output) % _BIO_READ_BYTES == 0:  # a shorter read has emptied it
                output += self._connection.bio_read(_BIO_READ_BYTES)
        except SSL.Error:  # WantRead: empty
            pass
        return output

    def _renew_buffers(self) -> bool:
        """Give both memory BIOs back for new ones, which saves 6 kB. False: one of them still holds something."""
        if (inside := self._inside) is None:
            return True
        if self._holds_more() or _LIB.BIO_get_mem_data(inside["_from_ssl"], _FFI.NULL) > 0:
            return False
        reads, writes = _LIB.BIO_new(_LIB.BIO_s_mem()), _LIB.BIO_new(_LIB.BIO_s_mem())
        if _FFI.NULL in (reads, writes):
            _LIB.BIO_free(reads)  # which takes NULL
            _LIB.BIO_free(writes)
            return False
        _LIB.SSL_set_bio(inside["_ssl"], reads, writes)  # frees what it had, and owns these
        inside["_into_ssl"], inside["_from_ssl"] = reads, writes
        return True

    def export(self, label: str, length: int) -> bytes:
        """RFC 5705 keying material without a context (which differs from an empty one in TLS 1.2)."""
        return self._connection.export_keying_material(label.encode("ascii"), length, None)

    def peer_certificate(self) -> x509.Certificate | None:
        """As the handshake has proven it; None before it is complete."""
        if self._peer_certificate is None and self.established:
            known = self.verdict.accepted if self.verdict.refusal is None else None
            self._peer_certificate = known or self._connection.get_peer_certificate(as_cryptography=True)
        return self._peer_certificate

    def peer_intermediates(self) -> tuple[x509.Certificate, ...]:
        """Which of the certificates that the peer sent beside its own lead from there to an authority."""
        return intermediates(self._connection) if self._server and self.established else ()

    @property
    def context(self) -> SSL.Context:
        """By which its peer was judged."""
        return self._connection.get_context()

    @property
    def version(self) -> str:
        """As OpenSSL names it: ``TLSv1.3``."""
        if (inside := self._inside) is not None and (name := _VERSIONS.get(_LIB.SSL_version(inside["_ssl"]))):
            return name
        return self._connection.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        return self._connection.get_cipher_name() or ""

    def _handshake(self) -> bool:
        self._has_spoken = True
        try:
            if (inside := self._inside) is None:
                self._connection.do_handshake()
            else:
                ssl = inside["_ssl"]
                result = _LIB.SSL_do_handshake(ssl)
                if result != 1:
                    if _LIB.SSL_get_error(ssl, result) == _LIB.SSL_ERROR_WANT_READ:  # as after most packets
                        return False
                    self._raise(result)
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            description = describe_ssl_error(error)
            if self.verdict.refusal is None and _NO_CERTIFICATE in description:
                self.verdict.refusal = Refusal.CERTIFICATE_MISSING  # no certificate, no call of the verify callback
            raise PeerError(DropReason.TLS_FAILURE, self.verdict.detail or description) from None
        self.established = True
        return True


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
