"""xmlsec1, by way of pysaml2: whether a response and the assertion in it are signed with one of the pinned keys.

It verifies what ``document.py`` has written, whose shape leaves one element for each signature to be of. A KeyInfo in
it says nothing: xmlsec1 gets the key from us and is told to take none from there."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterable, Sequence
from functools import lru_cache

from saml2 import SAMLError
from saml2.sigver import CryptoBackendXmlSec1, XmlsecError, get_xmlsec_binary, make_temp

from cvpnd.auth.saml.document import Document
from cvpnd.auth.saml.model import ASSERTION, PROTOCOL, NotAccepted
from cvpnd.reasons import Refusal

logging.getLogger("saml2").setLevel(logging.CRITICAL)  # its errors quote what strangers sent, at length


PROGRAM_S = 10.0
"""A hundred times what it takes; few threads wait for it, and everybody who logs in for them."""


class XmlSec1(CryptoBackendXmlSec1):  # type: ignore[misc]
    """For one response. What it found good it does not ask the program again: pysaml2 wants to know too."""

    def __init__(self, program: str, version: tuple[int, ...]) -> None:
        super().__init__(program)
        self._version = version
        self._good: set[tuple[bytes, str, str]] = set()

    @property
    def version_nums(self) -> tuple[int, ...]:
        """pysaml2 would start the program twice for each signature, to hear this."""
        return self._version

    def validate_signature(
        self, signedtext: str | bytes, cert_file: str, cert_type: str, node_name: str, node_id: str
    ) -> bool:
        text = signedtext if isinstance(signedtext, bytes) else signedtext.encode()
        if (text, node_name, node_id) in self._good:
            return True
        good = bool(super().validate_signature(text, cert_file, cert_type, node_name, node_id))
        if good:
            self._good.add((text, node_name, node_id))
        return good

    def _run_xmlsec(self, com_list: Sequence[str], extra_args: Sequence[str]) -> tuple[str, str, bytes]:
        """In place of pysaml2's, which waits for ever and takes a program that was killed for a signature that is bad.
        Raises ``OSError``: it cannot be started."""
        lax = ["--lax-key-search"] if self._version >= (1, 3) else []
        command = [*com_list, *lax, *extra_args]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROGRAM_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise NotAccepted(Refusal.SAML_UNAVAILABLE, f"xmlsec1 was not done after {PROGRAM_S:g} s") from None
        if done.returncode < 0:
            raise NotAccepted(Refusal.SAML_UNAVAILABLE, f"xmlsec1 was ended by signal {-done.returncode}")
        said = done.stderr.decode(errors="replace")
        if done.returncode != 0:
            raise XmlsecError(said)
        return done.stdout.decode(errors="replace"), said, b""


@lru_cache(maxsize=1)
def _program() -> tuple[str, tuple[int, ...]]:
    path = get_xmlsec_binary()
    return path, tuple(CryptoBackendXmlSec1(path).version_nums)


def new_backend() -> XmlSec1:
    """Raises ``NotAccepted`` if the program is not installed, or not any more."""
    try:
        return XmlSec1(*_program())
    except SAMLError as error:
        raise NotAccepted(Refusal.SAML_UNAVAILABLE, f"xmlsec1: {error}"[:200]) from None


def verify(document: Document, certificates: Iterable[str], backend: XmlSec1) -> frozenset[str]:
    """Those that verified it. ``certificates``: PEM. Both signatures may be of different ones among them. Raises
    ``NotAccepted``, or ``OSError`` where nothing can be found out."""
    files = {pem: make_temp(pem.encode(), suffix=".pem", decode=False) for pem in certificates}
    used: set[str] = set()
    for name, node in (
        (f"{PROTOCOL}:Response", document.response_id),
        (f"{ASSERTION}:Assertion", document.assertion_id),
    ):
        good = next((pem for pem, file in files.items() if _is_good(backend, document, file.name, name, node)), None)
        if good is None:
            raise NotAccepted(
                Refusal.SAML_SIGNATURE_INVALID,
                f"the {name.rpartition(':')[2]} is not signed with a key of the identity provider's metadata, or was "
                "changed since",
            )
        used.add(good)
    return frozenset(used)


def _is_good(backend: XmlSec1, document: Document, key: str, name: str, node: str) -> bool:
    try:
        return backend.validate_signature(document.text, key, "pem", name, node)
    except SAMLError:
        return False
