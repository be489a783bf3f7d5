"""Responses as identity providers of the field write them, signed by a key of ours: prefixes and none, one long line or
many, every algorithm that is good enough. All mean the same, and one changed letter in each is noticed."""

from __future__ import annotations

import base64
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from helpers import saml_idp
from helpers.saml_idp import ACS, Key, metadata, moment

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.model import Assertion
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.reasons import Refusal

SHAPES = Path(__file__).parent / "saml_shapes"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
ENC = "http://www.w3.org/2001/04/xmlenc#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"


@dataclass(frozen=True)
class Form:
    shape: str
    method: str = f"{MORE}rsa-sha256"
    digest: str = f"{ENC}sha256"
    curve: ec.EllipticCurve | None = None
    prefix: str = "ds:"
    canonicalization: str = EXCLUSIVE
    inclusive: str = ""
    """InclusiveNamespaces."""
    key_info: str = ""
    line: str = ""
    """Ends the lines of the file, which else are one."""
    bom: bool = False

    def key(self) -> Key:
        return saml_idp.key() if self.curve is None else saml_idp.ec_key(self.curve)

    def signature(self, node: str) -> str:
        d, declared = self.prefix, self.prefix.rstrip(":")
        more = f'<ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" PrefixList="{self.inclusive}"/>' * bool(self.inclusive)
        parts = (
            f'<{d}Signature xmlns{":" * bool(declared)}{declared}="http://www.w3.org/2000/09/xmldsig#" Id="of{node}">',
            f'<{d}SignedInfo><{d}CanonicalizationMethod Algorithm="{self.canonicalization}"/>',
            f'<{d}SignatureMethod Algorithm="{self.method}"/><{d}Reference URI="#{node}"><{d}Transforms>',
            f'<{d}Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>',
            f'<{d}Transform Algorithm="{self.canonicalization}">{more}</{d}Transform></{d}Transforms>',
            f'<{d}DigestMethod Algorithm="{self.digest}"/><{d}DigestValue></{d}DigestValue></{d}Reference>',
            f"</{d}SignedInfo><{d}SignatureValue></{d}SignatureValue>{self.key_info.format(d=d, body=self.key().body)}",
            f"</{d}Signature>",
        )
        return self.line.join(parts)

    def signed(self, request_id: str) -> str:
        now, names = time.time(), (f"id{secrets.token_hex(8)}", f"_{secrets.token_hex(8)}")
        times = {"now": now, "begin": now - 5, "end": now + 300}
        lines = (SHAPES / f"{self.shape}.xml").read_text().splitlines()
        text = self.line.join(lines if self.line else [line.strip() for line in lines])
        for name, value in {
            "acs": ACS, "request": request_id, "issuer": saml_idp.ENTITY_ID, "audience": saml_idp.AUDIENCE,
            "response_id": names[0], "assertion_id": names[1],
            "response_signature": self.signature(names[0]), "assertion_signature": self.signature(names[1]),
            **{name: moment(value) for name, value in times.items()},
            **{f"{name}_ms": moment(value).replace("Z", ".417Z") for name, value in times.items()},
        }.items():  # fmt: skip
            text = text.replace(f"{{{name}}}", value)
        for node, name in (("assertion:Assertion", names[1]), ("protocol:Response", names[0])):
            text = saml_idp.sign(text, node, name, self.key())
        return "\ufeff" * self.bom + text


X509 = "<{d}KeyInfo><{d}X509Data><{d}X509Certificate>{body}</{d}X509Certificate></{d}X509Data></{d}KeyInfo>"
NAMED = X509.replace(
    "<{d}X509Data>", "<{d}KeyName>FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE</{d}KeyName><{d}X509Data>"
)
FORMS = {
    "Okta": Form("okta", inclusive="xs", key_info=X509),
    "Entra": Form("entra", prefix="", key_info=X509),
    "Keycloak": Form("keycloak", prefix="dsig:", key_info=NAMED),
    "Keycloak with comments in its canonical form": Form("keycloak", canonicalization=f"{EXCLUSIVE}WithComments"),
    "RSA and SHA-512": Form("keycloak", f"{MORE}rsa-sha512", f"{ENC}sha512"),
    "RSA and SHA-384": Form("entra", f"{MORE}rsa-sha384", f"{MORE}sha384"),
    "P-256": Form("okta", f"{MORE}ecdsa-sha256", curve=ec.SECP256R1(), key_info=X509),
    "P-384": Form("entra", f"{MORE}ecdsa-sha384", f"{MORE}sha384", curve=ec.SECP384R1(), prefix=""),
    "P-521": Form("keycloak", f"{MORE}ecdsa-sha512", f"{ENC}sha512", curve=ec.SECP521R1()),
    "many lines": Form("written_by_hand", line="\n", prefix=""),
    "lines of Windows": Form("written_by_hand", line="\r\n", key_info=X509, bom=True),
}


def of_76(xml: str) -> str:
    """Base64 in lines, as mail has it."""
    return base64.encodebytes(xml.encode()).decode().replace("\n", "\r\n")


@pytest.mark.parametrize("how", FORMS)
def test_responses_of_the_field_are_understood_and_one_changed_letter_is_noticed(how):
    form = FORMS[how]
    provider = SamlProvider("corp", parse_metadata(metadata(form.key())))
    request, _ = provider.begin(time.time(), ACS)
    xml = form.signed(request.id)
    answer = provider.accept(of_76(xml), request, time.time())
    assert isinstance(answer, Assertion), answer
    assert (answer.name, answer.first_name) == ("anna@example.com", "Anna")
    assert answer.groups == {"Everyone", "cn=eng,ou=groups"}, "a value is a group, whatever is in it"
    changed = provider.accept(of_76(xml.replace("cn=eng", "cn=end")), request, time.time())
    assert isinstance(changed, Refused) and changed.refusal is Refusal.SAML_SIGNATURE_INVALID


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_metadata_with_a_byte_order_mark_and_folded_certificates_is_understood(line):
    body = line.join(saml_idp.key().certificate.splitlines()[1:-1])
    text = metadata().replace(saml_idp.key().body, f"{line}{body}{line}")
    text = f'\ufeff<?xml version="1.0" encoding="utf-8"?>{line}{text}'
    for given in (text, text.encode()):
        assert parse_metadata(given).certificates == parse_metadata(metadata()).certificates
