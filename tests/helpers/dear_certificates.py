"""Certificates that cost nothing to make and much to decode: a key in an unusual form, or much in all parts.

OpenSSL decodes each certificate of a client before anybody asks who has signed it."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_EC = bytes.fromhex("06072a8648ce3d0201")
_PRIME_FIELD = bytes.fromhex("06072a8648ce3d0101")
_ECDSA = bytes.fromhex("300a06082a8648ce3d040302")
_COMMON_NAME = bytes.fromhex("0603550403")
_NOBODY = b"\x30\0"
_DISTRIBUTION_POINTS = bytes.fromhex("0603551d1f")
_PRIME = (0xE1D76FD4FF << 600) + 1
"""To find a square root OpenSSL takes as many steps as the square of how often two divides what is below it."""


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


_SHORT_NAME = der(0x31, der(0x30, _COMMON_NAME, der(0x0C, b"a")))


def _name(count: int) -> bytes:
    return der(0x30, *[_SHORT_NAME] * max(0, count))


def _number(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def with_key(
    parameters: bytes,
    key: bytes,
    subject: bytes = _NOBODY,
    *,
    issuer: bytes = _NOBODY,
    extensions: Iterable[bytes] = (),
) -> x509.Certificate:
    """Of an elliptic curve, signed by nobody."""
    valid = der(0x30, der(0x17, b"200101000000Z"), der(0x17, b"490101000000Z"))
    info = der(0x30, der(0x30, _EC, parameters), der(0x03, b"\0", key))
    rest = der(0xA3, der(0x30, *each)) if (each := tuple(extensions)) else b""
    version = der(0xA0, _number(2)) if rest else b""
    facts = der(0x30, version, _number(1), _ECDSA, issuer, valid, subject, info, rest)
    return x509.load_der_x509_certificate(der(0x30, facts, _ECDSA, der(0x03, b"\0", der(0x30, _number(1), _number(1)))))


def _on(
    curve: ec.EllipticCurve,
    form: PublicFormat,
    subject: bytes = _NOBODY,
    *,
    issuer: bytes = _NOBODY,
    extensions: Iterable[bytes] = (),
) -> x509.Certificate:
    names = {"secp224r1": "06052b81040021", "secp521r1": "06052b81040023"}
    point = ec.generate_private_key(curve).public_key().public_bytes(Encoding.X962, form)
    return with_key(bytes.fromhex(names[curve.name]), point, subject, issuer=issuer, extensions=extensions)


def curve_written_out() -> x509.Certificate:
    """170 ms, of which there is room for fifty in a handshake."""
    size = (_PRIME.bit_length() + 7) // 8
    a, b, generator = (value.to_bytes(size, "big") for value in (1, 7, 3))
    field, curve = der(0x30, _PRIME_FIELD, _number(_PRIME)), der(0x30, der(0x04, a), der(0x04, b))
    point = b"\x02" + generator
    return with_key(der(0x30, _number(1), field, curve, der(0x04, point), _number(_PRIME - 2), _number(1)), point)


def compressed_point() -> x509.Certificate:
    """1.2 ms."""
    return _on(ec.SECP224R1(), PublicFormat.CompressedPoint)


def usual_key(size: int = 0) -> x509.Certificate:
    """0.1 ms for its key, and 0.2 for each kilobyte of its names."""
    return _on(ec.SECP521R1(), PublicFormat.UncompressedPoint, _name((size - 330) // len(_SHORT_NAME)))


def relative_points(count: int = 1650) -> x509.Certificate:
    """400 ms with OpenSSL 3, which copies the issuer's name for each place where revocation lists are to be found."""
    point = der(0x30, der(0xA0, der(0xA1)))
    places = der(0x30, _DISTRIBUTION_POINTS, der(0x04, der(0x30, *[point] * count)))
    return _on(ec.SECP521R1(), PublicFormat.UncompressedPoint, issuer=_name(72), extensions=[places])


def many_extensions(count: int = 1500) -> x509.Certificate:
    """3 ms."""
    objects = [bytes([0x2A, 0x81 + number // 128, number % 128]) for number in range(count)]
    each = [der(0x30, der(0x06, one), der(0x04)) for one in objects]
    return _on(ec.SECP521R1(), PublicFormat.UncompressedPoint, extensions=each)
