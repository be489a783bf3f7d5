"""An identity provider of our own, which does whatever a test wants of it, by hand and by xmlsec1."""

from __future__ import annotations

import base64
import functools
import re
import secrets
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

ENTITY_ID = "https://idp.example.com/metadata"
LOGIN_URL = "https://idp.example.com/sso"
AUDIENCE = "urn:amazon:webservices:clientvpn"
ACS = "http://127.0.0.1:35001"
NAMESPACES = (
    'xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" '
    'xmlns:ds="http://www.w3.org/2000/09/xmldsig#"'
)
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
ECDSA = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
SHA1 = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"


@dataclass(frozen=True)
class Key:
    private: str
    certificate: str
    """PEM, both."""

    @property
    def body(self) -> str:
        return "".join(self.certificate.splitlines()[1:-1])


@functools.cache
def key(name: str = "idp", bits: int = 2048, days: float = 30) -> Key:
    """Of 256 bits: an elliptic curve's. ``days``: until its certificate expires."""
    if bits == 256:
        return _certified(name, ec.generate_private_key(ec.SECP256R1()), days)
    return _certified(name, rsa.generate_private_key(public_exponent=65537, key_size=bits), days)


@functools.cache
def ec_key(curve: ec.EllipticCurve) -> Key:
    return _certified("idp", ec.generate_private_key(curve), 30)


def renewed(signing: Key) -> Key:
    """The same key with another certificate."""
    private = serialization.load_pem_private_key(signing.private.encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return _certified("renewed", private, 60)


def _certified(name: str, made: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, days: float) -> Key:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(made, hashes.SHA256())
    )
    private = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return Key(private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode())


def metadata(
    signing: Key | None = None,
    entity_id: str = ENTITY_ID,
    login_url: str = LOGIN_URL,
    attributes: str = "",
    role: str = "",
) -> str:
    body = (signing or key()).body
    return (
        f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{entity_id}" {attributes}>'
        f'<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol" {role}>'
        '<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>'
        f"<ds:X509Certificate>{body}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
        '<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" '
        f'Location="{login_url}"/></md:IDPSSODescriptor></md:EntityDescriptor>'
    )


def our_metadata(acs_url: str = ACS) -> str:
    """What an identity provider wants to know of us."""
    return (
        f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{AUDIENCE}">'
        '<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">'
        '<md:AssertionConsumerService index="1" Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" '
        f'Location="{acs_url}"/></md:SPSSODescriptor></md:EntityDescriptor>'
    )


@dataclass(frozen=True)
class Asked:
    """What the browser brings."""

    id: str
    acs_url: str
    xml: str

    @classmethod
    def of(cls, url: str) -> Asked:
        (encoded,) = parse_qs(urlsplit(url).query, strict_parsing=True)["SAMLRequest"]
        xml = zlib.decompress(base64.b64decode(encoded), -15).decode()
        return cls(_attribute(xml, "ID"), _attribute(xml, "AssertionConsumerServiceURL"), xml)


def _attribute(xml: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', xml)
    assert found, (name, xml)
    return found[1]


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Response:
    """The defaults let somebody in; a test spoils one of them."""

    in_response_to: str
    acs_url: str = ACS
    name: str = "anna@example.com"
    attributes: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"FirstName": ("Anna",), "LastName": ("Ende",), "memberOf": ("eng", "all")}
    )
    issuer: str = ENTITY_ID
    audience: str = AUDIENCE
    destination: str | None = None
    recipient: str | None = None
    subject_in_response_to: str | None = None
    status: str = SUCCESS
    begins_in: float = -5.0
    ends_in: float = 300.0
    confirmed_for: float = 300.0
    session: str = ""
    name_format: str = EMAIL
    response_key: Key | None = field(default_factory=key)
    assertion_key: Key | None = field(default_factory=key)
    shown_key: Key | None = None
    """In KeyInfo, if there is one."""
    method: str = SHA256
    assertion_id: str = field(default_factory=lambda: f"_{secrets.token_hex(16)}")
    response_id: str = field(default_factory=lambda: f"_{secrets.token_hex(16)}")
    now: float = field(default_factory=time.time)
    edits: tuple[tuple[str, str], ...] = ()
    """Made before anything is signed: a text and what is there in its place."""

    def assertion(self) -> str:
        """With the form of its signature, if it is to have one."""
        to = self.recipient or self.acs_url
        asked = self.subject_in_response_to or self.in_response_to
        attributes = "".join(
            f'<saml:Attribute Name="{escape(name)}">'
            + "".join(f"<saml:AttributeValue>{escape(value)}</saml:AttributeValue>" for value in values)
            + "</saml:Attribute>"
            for name, values in self.attributes.items()
        )
        statement = f"<saml:AttributeStatement>{attributes}</saml:AttributeStatement>" if attributes else ""
        return (
            f'<saml:Assertion {NAMESPACES} ID="{self.assertion_id}" Version="2.0" IssueInstant="{moment(self.now)}">'
            f"<saml:Issuer>{escape(self.issuer)}</saml:Issuer>{self._signature(self.assertion_id, self.assertion_key)}"
            f'<saml:Subject><saml:NameID Format="{self.name_format}">{self.name}</saml:NameID>'
            '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">'
            f'<saml:SubjectConfirmationData InResponseTo="{asked}" Recipient="{to}" '
            f'NotOnOrAfter="{moment(self.now + self.confirmed_for)}"/></saml:SubjectConfirmation></saml:Subject>'
            f'<saml:Conditions NotBefore="{moment(self.now + self.begins_in)}" '
            f'NotOnOrAfter="{moment(self.now + self.ends_in)}"><saml:AudienceRestriction><saml:Audience>'
            f"{escape(self.audience)}</saml:Audience></saml:AudienceRestriction></saml:Conditions>"
            f'<saml:AuthnStatement AuthnInstant="{moment(self.now)}" {self.session}><saml:AuthnContext>'
            "<saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef>"
            f"</saml:AuthnContext></saml:AuthnStatement>{statement}</saml:Assertion>"
        )

    def response(self, assertions: str) -> str:
        return (
            f'<samlp:Response {NAMESPACES} ID="{self.response_id}" Version="2.0" '
            f'IssueInstant="{moment(self.now)}" Destination="{self.destination or self.acs_url}" '
            f'InResponseTo="{self.in_response_to}"><saml:Issuer>{escape(self.issuer)}</saml:Issuer>'
            f"{self._signature(self.response_id, self.response_key)}"
            f'<samlp:Status><samlp:StatusCode Value="{self.status}"/></samlp:Status>{assertions}</samlp:Response>'
        )

    def _signature(self, node: str, signing: Key | None) -> str:
        if signing is None:
            return ""
        shown = ""
        if self.shown_key is not None:
            certificate = f"<ds:X509Certificate>{self.shown_key.body}</ds:X509Certificate>"
            shown = f"<ds:KeyInfo><ds:X509Data>{certificate}</ds:X509Data></ds:KeyInfo>"
        digest = SHA1.replace("rsa-", "") if self.method == SHA1 else "http://www.w3.org/2001/04/xmlenc#sha256"
        exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
        return (
            f'<ds:Signature><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{exclusive}"/>'
            f'<ds:SignatureMethod Algorithm="{self.method}"/><ds:Reference URI="#{node}"><ds:Transforms>'
            '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>'
            f'<ds:Transform Algorithm="{exclusive}"/></ds:Transforms><ds:DigestMethod Algorithm="{digest}"/>'
            "<ds:DigestValue></ds:DigestValue></ds:Reference></ds:SignedInfo><ds:SignatureValue></ds:SignatureValue>"
            f"{shown}</ds:Signature>"
        )

    def xml(self) -> str:
        """Signed: the assertion first, then the response around it."""
        text = self.response(self.assertion())
        for old, new in self.edits:
            assert old in text, old
            text = text.replace(old, new)
        if self.assertion_key is not None:
            text = sign(text, "assertion:Assertion", self.assertion_id, self.assertion_key)
        if self.response_key is not None:
            text = sign(text, "protocol:Response", self.response_id, self.response_key)
        return text

    def encoded(self) -> str:
        return encode(self.xml())


def smallest(in_response_to: str) -> Response:
    """As little as a response can say: short names, no key shown, signatures of an elliptic curve (``key("ec", 256)``),
    and what XML allows to be left out."""
    signing = key("ec", 256)
    short = tuple((old, new) for long, short in (("samlp", "p"), ("saml", "a"), ("ds", "d")) for old, new in (
        (f"<{long}:", f"<{short}:"), (f"</{long}:", f"</{short}:"), (f"xmlns:{long}=", f"xmlns:{short}="),
    ))  # fmt: skip
    return Response(
        in_response_to,
        name="a@b.c",
        attributes={"FirstName": ("A",)},
        response_key=signing,
        assertion_key=signing,
        method=ECDSA,
        response_id="_1",
        assertion_id="_2",
        edits=(
            (f"<saml:Assertion {NAMESPACES} ID=", "<saml:Assertion ID="),
            ('<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>', ""),
            (f' Format="{EMAIL}"', ""),
            *short,
        ),
    )


def encode(xml: str | bytes) -> str:
    return base64.b64encode(xml if isinstance(xml, bytes) else xml.encode()).decode()


def sign(text: str, node: str, node_id: str, signing: Key) -> str:
    with tempfile.TemporaryDirectory() as directory:
        unsigned, private = Path(directory) / "unsigned.xml", Path(directory) / "key.pem"
        unsigned.write_text(text)
        private.write_text(signing.private)
        name = f"urn:oasis:names:tc:SAML:2.0:{node}"
        command = ["xmlsec1", "--sign", "--privkey-pem", private, "--id-attr:ID", name, "--node-id", node_id, unsigned]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def answer(url: str, **spoiled: object) -> str:
    """What the browser brings back from the address that it was given, in base64."""
    asked = Asked.of(url)
    return Response(asked.id, asked.acs_url, **spoiled).encoded()  # type: ignore[arg-type]


# -- signature wrapping: a signed original that verifies, and a forgery that is to be read ---------------------


def _parts(xml: str) -> tuple[str, str, str, str]:
    """The response and its signature, the assertion and its."""
    found = re.search(r"<saml:Assertion .*</saml:Assertion>", xml, re.DOTALL)
    assert found
    inner = re.search(r"<ds:Signature>.*?</ds:Signature>", found[0], re.DOTALL)
    outer = re.search(r"<ds:Signature>.*?</ds:Signature>", xml, re.DOTALL)
    assert inner and outer
    body = re.sub(r"\A<\?xml[^>]*>\s*", "", xml)
    return body, outer[0], found[0], inner[0]


def wrapped(xml: str, variant: int, evil: str = "root@example.com") -> str:
    """One of the eight ways that are known by these numbers."""
    response, signature, assertion, inner = _parts(xml)

    def forged(text: str, *without: str) -> str:
        for each in without:
            text = text.replace(each, "", 1)
        text = re.sub(r"(<saml:NameID[^>]*>)[^<]*", rf"\g<1>{evil}", text)
        return re.sub(r'\bID="_', 'ID="_evil', text)

    bare = forged(assertion, inner)
    match variant:
        case 1:  # a forged response around the original, which follows the signature of it
            return forged(response, signature).replace("<samlp:Status>", f"{signature}{response}<samlp:Status>", 1)
        case 2:  # the original before the signature
            return forged(response, signature).replace("<samlp:Status>", f"{response}{signature}<samlp:Status>", 1)
        case 3:
            return response.replace(assertion, bare + assertion)
        case 4:
            return response.replace(assertion, bare.replace("</saml:Assertion>", f"{assertion}</saml:Assertion>"))
        case 5:  # the signature in the forgery, the original without it at the end
            return response.replace(assertion, forged(assertion) + assertion.replace(inner, "", 1))
        case 6:  # the original in the signature of the forgery
            original = assertion.replace(inner, "", 1)
            moved = inner.replace("</ds:Signature>", f"{original}</ds:Signature>")
            return response.replace(
                assertion, forged(assertion, inner).replace("<saml:Subject>", f"{moved}<saml:Subject>", 1)
            )
        case 7:
            extensions = f"<samlp:Extensions>{bare}</samlp:Extensions>"
            return response.replace("<samlp:Status>", f"{extensions}<samlp:Status>", 1)
        case 8:
            original = assertion.replace(inner, "", 1)
            moved = inner.replace("</ds:Signature>", f"<ds:Object>{original}</ds:Object></ds:Signature>")
            return response.replace(
                assertion, forged(assertion, inner).replace("<saml:Subject>", f"{moved}<saml:Subject>", 1)
            )
    raise ValueError(variant)
