"""A response from base64 to a tree whose shape leaves nothing to wrap.

Two parsers that read the same bytes differently are the way around a signature that one of them checks. So what expat
read is written anew, without anything that parsers differ in, and these bytes are what xmlsec1 verifies and what
everybody else reads. The shape is a closed list: one response, one assertion directly in it, a signature of each right
behind its issuer, and every id once. Extensions of the response may be there if nothing in them could be taken for a
part of it; nobody reads them."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError
from xml.sax import SAXException
from xml.sax.handler import ContentHandler, property_lexical_handler
from xml.sax.saxutils import escape, quoteattr

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as DefusedElementTree
from defusedxml.sax import make_parser

from cvpnd.auth.saml.model import ASSERTION, MAX_RESPONSE_CHARACTERS, PROTOCOL, SIGNATURE, NotAccepted
from cvpnd.reasons import Refusal

MAX_DEPTH = 32
MAX_ELEMENTS = 10_000
MAX_ATTRIBUTES = 64
"""Of one element. Canonical form sorts them, which takes a second for nine thousand."""
MAX_PREFIXES = 32
"""That a signature names of itself. Canonical form looks for each of them at each element: without a limit a program is
busy for seven seconds before it finds out who has signed."""
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,255}")
_KEY_INFO = [f"{{{SIGNATURE}}}{name}" for name in ("X509Data", "KeyName", "KeyValue")]
"""Which nobody reads. What may be there beside it in XML names files and addresses to take a key from."""
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_CANONICAL = {_EXCLUSIVE, f"{_EXCLUSIVE}WithComments"}
"""The same of a document that has no comments."""
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_SIGNATURE_METHODS = {
    f"http://www.w3.org/2001/04/xmldsig-more#{name}"
    for name in ("rsa-sha256", "rsa-sha384", "rsa-sha512", "ecdsa-sha256", "ecdsa-sha384", "ecdsa-sha512")
}
_DIGEST_METHODS = {
    "http://www.w3.org/2001/04/xmlenc#sha256",
    "http://www.w3.org/2001/04/xmldsig-more#sha384",
    "http://www.w3.org/2001/04/xmlenc#sha512",
}


@dataclass(frozen=True, slots=True)
class Document:
    text: bytes
    """XML, written by us: all that is ever verified or read."""
    response: Element
    assertion: Element

    @property
    def response_id(self) -> str:
        return self.response.get("ID", "")

    @property
    def assertion_id(self) -> str:
        return self.assertion.get("ID", "")


def read_document(encoded: str) -> Document:
    """Raises ``NotAccepted``. Of what is in it nothing is proven yet."""
    if len(encoded) > MAX_RESPONSE_CHARACTERS:
        raise NotAccepted(Refusal.SAML_TOO_LARGE, f"{len(encoded)} characters, {MAX_RESPONSE_CHARACTERS} are taken")
    try:
        raw = base64.b64decode("".join(encoded.split()).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise NotAccepted(Refusal.SAML_MALFORMED, "not base64") from None
    text = written_anew(raw)
    try:
        root = DefusedElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:  # a prefix that is not declared
        raise NotAccepted(Refusal.SAML_MALFORMED, f"XML: {error}") from None
    return _in_shape(text, root)


def written_anew(raw: bytes) -> bytes:
    """What expat reads in it. Raises ``NotAccepted``."""
    writer, parser = _Writer(), make_parser()
    parser.forbid_dtd = True
    parser.setContentHandler(writer)
    parser.setProperty(property_lexical_handler, writer)
    try:
        parser.parse(io.BytesIO(raw))
    except DefusedXmlException:
        raise NotAccepted(Refusal.SAML_DOCTYPE, "it has a document type, or entities") from None
    except (SAXException, ValueError, LookupError) as error:
        raise NotAccepted(Refusal.SAML_MALFORMED, f"XML: {error}") from None
    return "".join(writer.parts).encode()


class _Writer(ContentHandler):
    """Prefixes and their declarations stay as they are, because signatures cover them."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._depth = 0
        self._elements = 0

    def startElement(self, name: str, attrs: object) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise NotAccepted(Refusal.SAML_MALFORMED, f"more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements")
        found = attrs.items()  # type: ignore[attr-defined]
        if len(found) > MAX_ATTRIBUTES:
            raise NotAccepted(Refusal.SAML_MALFORMED, f"an element with {len(found)} attributes")
        self.parts.append(f"<{name}")
        self.parts += [f" {key}={quoteattr(value)}" for key, value in found]
        self.parts.append(">")

    def endElement(self, name: str) -> None:
        self._depth -= 1
        self.parts.append(f"</{name}>")

    def characters(self, content: str) -> None:
        self.parts.append(escape(content, {"\r": "&#13;"}))

    def processingInstruction(self, target: str, data: str) -> None:  # noqa: ARG002 - expat's call
        raise NotAccepted(Refusal.SAML_COMMENT, f"a processing instruction: {target[:40]}")

    def comment(self, content: str) -> None:
        """Signatures do not cover them, and they split the text around them for whoever reads it carelessly."""
        raise NotAccepted(Refusal.SAML_COMMENT, f"a comment: {content[:40]}")

    def startCDATA(self) -> None: ...
    def endCDATA(self) -> None: ...
    def startDTD(self, *_: object) -> None: ...
    def endDTD(self) -> None: ...


# -- shape --------------------------------------------------------------------------------------------------


def _in_shape(text: bytes, root: Element) -> Document:
    if root.tag != f"{{{PROTOCOL}}}Response":
        raise NotAccepted(Refusal.SAML_MALFORMED, f"no response but {root.tag[:80]}")
    elements = list(root.iter())
    if any("}Encrypted" in element.tag for element in elements):
        raise NotAccepted(Refusal.SAML_ENCRYPTED, "something in it is encrypted; let the identity provider not do so")
    assertions = [element for element in elements if element.tag == f"{{{ASSERTION}}}Assertion"]
    direct = root.findall(f"{{{ASSERTION}}}Assertion")
    if len(direct) != 1 or len(assertions) != 1:
        raise NotAccepted(
            Refusal.SAML_NOT_ONE_ASSERTION,
            f"{len(assertions)} assertions, {len(direct)} of them where they belong",
        )
    assertion = direct[0]
    for owner in (root, assertion):
        if owner.find(f"{{{SIGNATURE}}}Signature") is None:
            raise NotAccepted(Refusal.SAML_UNSIGNED, f"the {_local(owner)} is not signed")
    _check_places(root, elements)
    _check_ids(elements)
    for owner in (root, assertion):
        _check_signature(owner)
    return Document(text, root, assertion)


def _check_places(root: Element, elements: list[Element]) -> None:
    def wrapped(detail: str) -> NotAccepted:
        return NotAccepted(Refusal.SAML_WRAPPED, detail)

    for name, most in ((f"{{{SIGNATURE}}}Signature", 2), (f"{{{SIGNATURE}}}Object", 0), (root.tag, 1)):
        if (found := sum(element.tag == name for element in elements)) > most:
            raise wrapped(f"{found} of {name.partition('}')[2]}")
    tags = [child.tag for child in root]
    assertion = f"{{{ASSERTION}}}Assertion"
    expected = [f"{{{ASSERTION}}}Issuer", f"{{{SIGNATURE}}}Signature", f"{{{PROTOCOL}}}Status", assertion]
    extensions = f"{{{PROTOCOL}}}Extensions"
    if tags[2:3] == [extensions]:
        del tags[2]
        for element in list(root[2].iter())[1:]:
            if element.tag.startswith(tuple(f"{{{name}}}" for name in (PROTOCOL, ASSERTION, SIGNATURE))):
                raise wrapped(f"in the Extensions: {_local(element)[:80]}")
    if tags != expected:
        raise wrapped(f"in the Response: {', '.join(tag.partition('}')[2] for tag in tags)[:120]}")
    inside = [child.tag for child in root[-1]]
    if inside[:2] != expected[:2]:
        raise wrapped(f"in the Assertion: {', '.join(tag.partition('}')[2] for tag in inside)[:120]}")


def _check_ids(elements: list[Element]) -> None:
    seen: set[str] = set()
    for element in elements:
        for key, value in element.attrib.items():
            if key.rpartition("}")[2].lower() != "id":
                continue
            if key not in ("ID", "Id"):
                raise NotAccepted(Refusal.SAML_WRAPPED, f"an id of another kind: {key}")
            if value in seen:
                raise NotAccepted(Refusal.SAML_WRAPPED, "an id that is there twice")
            seen.add(value)


def _check_signature(owner: Element) -> None:
    """An enveloped signature of its owner, all of it, by means that are good enough."""

    def refused(detail: str) -> NotAccepted:
        return NotAccepted(Refusal.SAML_SIGNATURE_METHOD, f"the signature of the {_local(owner)}: {detail}")

    name = owner.get("ID", "")
    if not _ID.fullmatch(name):
        raise refused("its ID is none")
    signature = owner[1]
    parts = _parts(signature)
    if parts not in (["SignedInfo", "SignatureValue"], ["SignedInfo", "SignatureValue", "KeyInfo"]):
        raise refused(f"consists of {', '.join(parts)[:120]}")
    if _parts(signature[0]) != ["CanonicalizationMethod", "SignatureMethod", "Reference"]:
        raise refused("not one reference")
    canonicalization, method, reference = signature[0]
    if canonicalization.get("Algorithm") not in _CANONICAL:
        raise refused(f"canonicalization {canonicalization.get('Algorithm', '')[:120]}")
    if method.get("Algorithm") not in _SIGNATURE_METHODS:
        raise refused(f"method {method.get('Algorithm', '')[:120]}; SHA-256 or better is taken")
    if len(method):
        raise refused("its method has parameters")
    if reference.get("URI") != f"#{name}":
        raise NotAccepted(Refusal.SAML_WRAPPED, f"the signature in the {_local(owner)} is of something else")
    if _parts(reference) != ["Transforms", "DigestMethod", "DigestValue"]:
        raise refused("its reference has another form")
    transforms = [transform.get("Algorithm", "") for transform in reference[0]]
    if transforms[:1] != [_ENVELOPED] or len(transforms) > 2 or not _CANONICAL.issuperset(transforms[1:]):
        raise refused(f"transforms {', '.join(transforms)[:200]}")
    for transform in (canonicalization, *reference[0]):
        if any(child.tag != f"{{{_EXCLUSIVE}}}InclusiveNamespaces" for child in transform):
            raise refused("a transform of another kind")
        if sum(len(child.get("PrefixList", "").split()) for child in transform) > MAX_PREFIXES or len(transform) > 1:
            raise refused("its canonicalization names too many prefixes")
    for part in signature[2:]:
        if any(child.tag not in _KEY_INFO for child in part):
            raise refused(f"its KeyInfo holds {', '.join(_parts(part))[:120]}")
    if reference[1].get("Algorithm") not in _DIGEST_METHODS:
        raise refused(f"digest {reference[1].get('Algorithm', '')[:120]}; SHA-256 or better is taken")


def _parts(element: Element) -> list[str]:
    """Of a signature: the name alone if it is one of its own, else all of it."""
    return [part.tag.removeprefix(f"{{{SIGNATURE}}}") for part in element]


def _local(element: Element) -> str:
    return element.tag.partition("}")[2]
