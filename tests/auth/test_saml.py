"""SAML responses: who is let in, and every way not to be, each with its reason."""

from __future__ import annotations

import base64
import re
import time

import pytest
from helpers import saml_idp
from helpers.saml_idp import ACS, Asked, Key, Response, encode, key, metadata

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml import signature
from cvpnd.auth.saml.claims import read_claims
from cvpnd.auth.saml.document import read_document
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import MetadataError, key_of, parse_metadata
from cvpnd.auth.saml.model import Assertion, NotAccepted, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.state import States, Visitor
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

PROVIDER = SamlProvider("corp", parse_metadata(metadata()))
NOW = time.time()
OTHER = key("another identity provider")


@pytest.fixture
def asked() -> tuple[PendingRequest, str]:
    return PROVIDER.begin(time.time(), ACS)


def judged(request: PendingRequest, response: str, provider: SamlProvider = PROVIDER) -> Assertion | Refused:
    return provider.accept(response, request, time.time())


def reason(answer: Assertion | Refused) -> Refusal:
    assert isinstance(answer, Refused), answer
    assert answer.detail
    return answer.refusal


def test_a_person_is_let_in_by_what_was_asked_for_them(asked):
    request, url = asked
    assert url.startswith(f"{saml_idp.LOGIN_URL}?SAMLRequest=") and len(url) < 900
    seen = Asked.of(url)
    assert (seen.id, seen.acs_url) == (request.id, ACS)
    assert ">urn:amazon:webservices:clientvpn</" in seen.xml and "emailAddress" in seen.xml
    answer = judged(request, saml_idp.answer(url))
    assert isinstance(answer, Assertion), answer
    assert (answer.name, answer.first_name, answer.last_name) == ("anna@example.com", "Anna", "Ende")
    assert answer.groups == {"eng", "all"}
    assert answer.attributes["memberOf"] == ("eng", "all")
    assert answer.expires_at > time.time() + 200
    assert (answer.issuer, answer.signed_by) == (saml_idp.ENTITY_ID, {key_of(key().certificate)})


def test_responses_of_another_implementation_are_understood(asked, tmp_path):
    """pysaml2's identity provider, whose XML has other prefixes and another order of attributes."""
    from saml2.config import IdPConfig
    from saml2.saml import NameID
    from saml2.server import Server
    from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256

    for name, text in (("key", key().private), ("certificate", key().certificate)):
        (tmp_path / f"{name}.pem").write_text(text)
    single_sign_on = {
        "single_sign_on_service": [(saml_idp.LOGIN_URL, "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect")]
    }
    service = {"idp": {"endpoints": single_sign_on, "policy": {"default": {"lifetime": {"minutes": 5}}}}}
    files = {"key_file": str(tmp_path / "key.pem"), "cert_file": str(tmp_path / "certificate.pem")}
    server = Server(
        config=IdPConfig().load(
            {
                "entityid": saml_idp.ENTITY_ID,
                "service": service,
                "metadata": {"inline": [saml_idp.our_metadata()]},
                **files,
            }
        )
    )
    request, _ = asked
    response = server.create_authn_response(
        {"givenName": "Anna", "sn": "Ende"},
        request.id,
        ACS,
        saml_idp.AUDIENCE,
        name_id=NameID(format=saml_idp.EMAIL, text="anna@example.com"),
        authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:Password", "authn_auth": saml_idp.ENTITY_ID},
        sign_response=True,
        sign_assertion=True,
        sign_alg=SIG_RSA_SHA256,
        digest_alg=DIGEST_SHA256,
    )
    answer = judged(request, encode(str(response)))
    assert isinstance(answer, Assertion), answer
    assert answer.name == "anna@example.com" and answer.attributes["urn:oid:2.5.4.42"] == ("Anna",)


def test_what_does_not_fit_the_schema_is_said_and_not_the_whole_document(asked):
    request, _ = asked
    without = (("AuthnInstant=", "x="),)
    answer = judged(request, Response(request.id, edits=without).encoded())
    assert reason(answer) is Refusal.SAML_MALFORMED
    assert isinstance(answer, Refused)
    assert answer.detail in (
        "pysaml2: missing required attribute 'AuthnInstant'",
        "pysaml2: 'x' attribute not allowed for element",
    )
    assert "anna" not in answer.detail and len(answer.detail) < 120, answer.detail


def test_requests_are_signed_where_the_identity_provider_wants_it():
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate
    from saml2.sigver import RSACrypto, verify_redirect_signature

    own = key("gateway")
    provider = SamlProvider("corp", PROVIDER.idp, signing_key=load_pem_private_key(own.private.encode(), None))
    _, url = provider.begin(time.time(), ACS)
    query = {name: values[0] for name, values in saml_idp.parse_qs(saml_idp.urlsplit(url).query).items()}
    public = load_pem_x509_certificate(own.certificate.encode()).public_key()
    assert verify_redirect_signature(query, RSACrypto(None), sigkey=public)
    query["SAMLRequest"] = query["SAMLRequest"][:-8] + "AAAAAAAA"
    assert not verify_redirect_signature(query, RSACrypto(None), sigkey=public)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
FROM_FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
SPOILED = {
    "unsigned assertion in a signed response": ({"assertion_key": None}, Refusal.SAML_UNSIGNED),
    "signed assertion in an unsigned response": ({"response_key": None}, Refusal.SAML_UNSIGNED),
    "key of another identity provider": (
        {"response_key": OTHER, "assertion_key": OTHER},
        Refusal.SAML_SIGNATURE_INVALID,
    ),
    "foreign key that comes along": (
        {"response_key": OTHER, "assertion_key": OTHER, "shown_key": OTHER},
        Refusal.SAML_SIGNATURE_INVALID,
    ),
    "assertion by another key": ({"assertion_key": OTHER}, Refusal.SAML_SIGNATURE_INVALID),
    "SHA-1": ({"method": saml_idp.SHA1}, Refusal.SAML_SIGNATURE_METHOD),
    "answer to another request": ({"in_response_to": "_foreign"}, Refusal.SAML_WRONG_REQUEST),
    "assertion for another request": ({"subject_in_response_to": "_foreign"}, Refusal.SAML_WRONG_REQUEST),
    "other audience": ({"audience": "urn:amazon:webservices:clientvpn:x"}, Refusal.SAML_WRONG_AUDIENCE),
    "other destination": ({"destination": "http://127.0.0.1:35002"}, Refusal.SAML_WRONG_DESTINATION),
    "other recipient": ({"recipient": f"{ACS}/"}, Refusal.SAML_WRONG_RECIPIENT),
    "other issuer": ({"issuer": "https://idp.example.com/metadat"}, Refusal.SAML_WRONG_ISSUER),
    "expired": ({"ends_in": -60.0}, Refusal.SAML_EXPIRED),
    "expired confirmation": ({"confirmed_for": -60.0}, Refusal.SAML_EXPIRED),
    "ended login": ({"session": f'SessionNotOnOrAfter="{saml_idp.moment(NOW - 60)}"'}, Refusal.SAML_EXPIRED),
    "not yet valid": ({"begins_in": 120.0}, Refusal.SAML_NOT_YET_VALID),
    "issued tomorrow": ({"now": NOW + 86_400, "begins_in": -90_000.0}, Refusal.SAML_NOT_YET_VALID),
    "no success": ({"status": "urn:oasis:names:tc:SAML:2.0:status:Responder"}, Refusal.SAML_NO_SUCCESS),
    "nobody": ({"name": " "}, Refusal.SAML_NO_NAME),
    "transient": ({"name_format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"}, Refusal.SAML_NO_NAME),
    "invisible character": ({"name": "an\u202ena@example.com"}, Refusal.SAML_NO_NAME),
    "no attribute": ({"attributes": {}}, Refusal.SAML_NO_ATTRIBUTES),
    "comment in the name": ({"name": "root@example.com<!-- -->.evil.example"}, Refusal.SAML_COMMENT),
    "instruction in the name": ({"name": "root@example.com<?x y?>.evil.example"}, Refusal.SAML_COMMENT),
    "element in the name": ({"name": "root@example.com<saml:x/>.evil.example"}, Refusal.SAML_NO_NAME),
}


PROTOCOL_STATUS = "urn:oasis:names:tc:SAML:2.0:status:"
CONFIRMATION = '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">'


def signed_and_wrong(now: float) -> dict[str, tuple[str, str, Refusal]]:
    """What stands in place of what in a response made ``now``, and the reason it is refused for."""
    return {
        "no conditions": ("saml:Conditions", "saml:Advice", Refusal.SAML_MALFORMED),
        "conditions without an end": (
            f'NotOnOrAfter="{saml_idp.moment(now + 300)}"><saml:Aud',
            "><saml:Aud",
            Refusal.SAML_MALFORMED,
        ),
        "confirmation without an end": (
            f' NotOnOrAfter="{saml_idp.moment(now + 300)}"/>',
            "/>",
            Refusal.SAML_MALFORMED,
        ),
        "confirmation that begins later": (
            "<saml:SubjectConfirmationData ",
            f'<saml:SubjectConfirmationData NotBefore="{saml_idp.moment(now + 200)}" ',
            Refusal.SAML_NOT_YET_VALID,
        ),
        "confirmation by a key": ("cm:bearer", "cm:holder-of-key", Refusal.SAML_MALFORMED),
        "confirmation by a voucher": ("cm:bearer", "cm:sender-vouches", Refusal.SAML_MALFORMED),
        "two confirmations": (
            CONFIRMATION,
            f"{CONFIRMATION}</saml:SubjectConfirmation>{CONFIRMATION}",
            Refusal.SAML_MALFORMED,
        ),
        "no confirmation's data": ("saml:SubjectConfirmationData", "saml:X", Refusal.SAML_MALFORMED),
        "condition that nobody knows": ("<saml:AudienceR", "<saml:Condition/><saml:AudienceR", Refusal.SAML_MALFORMED),
        "audience of us and of another": (
            "<saml:AudienceRestriction>",
            "<saml:AudienceRestriction><saml:Audience>urn:x</saml:Audience></saml:AudienceRestriction>"
            "<saml:AudienceRestriction>",
            Refusal.SAML_WRONG_AUDIENCE,
        ),
        "no audience": (f"<saml:Audience>{saml_idp.AUDIENCE}</saml:Audience>", "", Refusal.SAML_WRONG_AUDIENCE),
        "nobody has logged in": ("saml:AuthnStatement", "saml:AuthzDecisionStatement", Refusal.SAML_MALFORMED),
        "time of a zone": ('Z" NotOnOrAfter', '+02:00" NotOnOrAfter', Refusal.SAML_MALFORMED),
        "time without a zone": ('Z" NotOnOrAfter', '" NotOnOrAfter', Refusal.SAML_MALFORMED),
        "time that there is not": (
            f'NotBefore="{saml_idp.moment(now - 5)[:10]}T',
            'NotBefore="2026-02-30T',
            Refusal.SAML_MALFORMED,
        ),
        "digits of another script": (
            f'NotBefore="{saml_idp.moment(now - 5)[:4]}',
            'NotBefore="٢٠٢٦',
            Refusal.SAML_MALFORMED,
        ),
        "unsolicited": (' InResponseTo="_asked"', "", Refusal.SAML_WRONG_REQUEST),
        "unsolicited assertion": (
            '<saml:SubjectConfirmationData InResponseTo="_asked"',
            "<saml:SubjectConfirmationData",
            Refusal.SAML_WRONG_REQUEST,
        ),
        "no destination": (f' Destination="{ACS}"', "", Refusal.SAML_WRONG_DESTINATION),
        "no recipient": (f' Recipient="{ACS}"', "", Refusal.SAML_WRONG_RECIPIENT),
        "older version": ('Version="2.0"', 'Version="1.1"', Refusal.SAML_MALFORMED),
        "older version of the assertion": (
            f'Version="2.0" IssueInstant="{saml_idp.moment(now)}"><saml:Issuer>',
            f'Version="1.1" IssueInstant="{saml_idp.moment(now)}"><saml:Issuer>',
            Refusal.SAML_MALFORMED,
        ),
        "success within a failure": (
            f'<samlp:StatusCode Value="{saml_idp.SUCCESS}"/>',
            f'<samlp:StatusCode Value="{PROTOCOL_STATUS}Requester"><samlp:StatusCode Value="{saml_idp.SUCCESS}"/>'
            "</samlp:StatusCode>",
            Refusal.SAML_NO_SUCCESS,
        ),
        "failure and success": (
            "<samlp:Status>",
            f'<samlp:Status><samlp:StatusCode Value="{PROTOCOL_STATUS}Requester"/>',
            Refusal.SAML_NO_SUCCESS,
        ),
        "success in another case": ("status:Success", "status:success", Refusal.SAML_NO_SUCCESS),
        "two names": (
            "<saml:NameID ",
            "<saml:NameID>root@example.com</saml:NameID><saml:NameID ",
            Refusal.SAML_NO_NAME,
        ),
        "another kind of name": ("saml:NameID", "saml:BaseID", Refusal.SAML_NO_NAME),
        "encrypted name": ("saml:NameID", "saml:EncryptedID", Refusal.SAML_ENCRYPTED),
        "encrypted attribute": (
            "<saml:Attribute ",
            "<saml:EncryptedAttribute/><saml:Attribute ",
            Refusal.SAML_ENCRYPTED,
        ),
        "hard space before the name": (">anna@", ">\u00a0anna@", Refusal.SAML_NO_NAME),
        "line separator in the name": (">anna@", ">anna\u2028@", Refusal.SAML_NO_NAME),
        "line break in the name": (">anna@", ">anna&#10;@", Refusal.SAML_NO_NAME),
        "advice with an assertion": (
            "<saml:AuthnStatement ",
            '<saml:Advice><saml:Assertion ID="_a"/></saml:Advice><saml:AuthnStatement ',
            Refusal.SAML_NOT_ONE_ASSERTION,
        ),
        "extension with a status": (
            "<samlp:Status>",
            f'<samlp:Extensions><x><samlp:Status><samlp:StatusCode Value="{saml_idp.SUCCESS}"/></samlp:Status></x>'
            "</samlp:Extensions><samlp:Status>",
            Refusal.SAML_WRAPPED,
        ),
        "extension with a subject": (
            "<samlp:Status>",
            "<samlp:Extensions><saml:Subject><saml:NameID>root</saml:NameID></saml:Subject></samlp:Extensions><samlp:Status>",
            Refusal.SAML_WRAPPED,
        ),
        "extensions twice": (
            "<samlp:Status>",
            "<samlp:Extensions/><samlp:Extensions/><samlp:Status>",
            Refusal.SAML_WRAPPED,
        ),
        "extensions after the status": ("</samlp:Status>", "</samlp:Status><samlp:Extensions/>", Refusal.SAML_WRAPPED),
    }


@pytest.mark.parametrize("how", signed_and_wrong(0.0))
def test_what_is_wrong_is_no_better_for_being_signed(how):
    """By the right key: an identity provider that is led astray, or speaks to others too."""
    now = time.time()
    old, new, expected = signed_and_wrong(now)[how]
    request = PendingRequest("_asked", ACS, now, now + 300)
    answer = PROVIDER.accept(Response("_asked", now=now, edits=((old, new),)).encoded(), request, now)
    assert reason(answer) is expected, answer


@pytest.mark.parametrize(
    ("time_of", "seconds", "expected"),
    [
        ("begins_in", 30, None),
        ("begins_in", 31, Refusal.SAML_NOT_YET_VALID),
        ("ends_in", -29, None),
        ("ends_in", -30, Refusal.SAML_EXPIRED),
        ("confirmed_for", -29, None),
        ("confirmed_for", -30, Refusal.SAML_EXPIRED),
        ("session", -29, None),
        ("session", -30, Refusal.SAML_EXPIRED),
    ],
)
def test_clocks_may_differ_by_thirty_seconds_and_not_by_one_more(time_of, seconds, expected):
    now = float(int(NOW))
    end = f'SessionNotOnOrAfter="{saml_idp.moment(now + seconds)}"'
    times = {time_of: end if time_of == "session" else float(seconds)}
    document = read_document(Response("_asked", now=now, **times).encoded())
    request = PendingRequest("_asked", ACS, now, now + 300)
    ours = {"issuer": saml_idp.ENTITY_ID, "audience": saml_idp.AUDIENCE}
    try:
        refusal = None
        read_claims(document, request, **ours, now=now, skew_s=30)
    except NotAccepted as no:
        refusal = no.refusal
    assert refusal is expected


KEYCLOAK = '<k:KeyInfo xmlns:k="urn:keycloak:ext:key:1.0" MessageSigningKeyId="a"/>'
UNUSUAL = {
    "extensions that nobody reads": (
        "<samlp:Status>",
        f"<samlp:Extensions>{KEYCLOAK}</samlp:Extensions><samlp:Status>",
    ),
    "one use": ("<saml:AudienceR", "<saml:OneTimeUse/><saml:AudienceR"),
    "no proxies": ("<saml:AudienceR", '<saml:ProxyRestriction Count="0"/><saml:AudienceR'),
    "fractions of a second": ('Z" NotOnOrAfter', '.123456789Z" NotOnOrAfter'),
    "name on a line of its own": (">anna@example.com<", ">\n  anna@example.com\t<"),
    "sections of characters": (">anna@", "><![CDATA[anna]]>@"),
    "qualified name": ("<saml:NameID ", f'<saml:NameID NameQualifier="{saml_idp.ENTITY_ID}" SPNameQualifier="x" '),
    "another prefix": ("<saml:NameID ", '<saml:NameID xmlns:samlp="urn:x" xmlns="urn:y" '),
    "reason of a success": ("</samlp:Status>", "<samlp:StatusMessage>fine</samlp:StatusMessage></samlp:Status>"),
}


@pytest.mark.parametrize("how", UNUSUAL)
def test_what_is_unusual_and_right_lets_the_same_person_in(how):
    now = time.time()
    request = PendingRequest("_asked", ACS, now, now + 300)
    answer = PROVIDER.accept(Response("_asked", now=now, edits=(UNUSUAL[how],)).encoded(), request, now)
    assert isinstance(answer, Assertion), answer
    assert (answer.name, answer.groups) == ("anna@example.com", {"eng", "all"})


def test_the_edges_of_time_are_those_of_the_skew():
    """A second before and after each."""
    begun = int(time.time())
    request = PendingRequest("_asked", ACS, begun, begun + 10_000)
    encoded = Response("_asked", now=float(begun), begins_in=0.0).encoded()
    for now, expected in (
        (begun - 31, Refusal.SAML_NOT_YET_VALID),
        (begun - 29, None),
        (begun + 300 + 29, None),
        (begun + 300 + 30, Refusal.SAML_EXPIRED),
    ):
        answer = PROVIDER.accept(encoded, request, float(now))
        assert isinstance(answer, Assertion) if expected is None else reason(answer) is expected, (now, answer)


@pytest.mark.parametrize("how", SPOILED)
def test_what_is_spoiled_lets_nobody_in(how, asked):
    request, _ = asked
    spoiled, expected = SPOILED[how]
    response = Response(**{"in_response_to": request.id, **spoiled})
    assert reason(judged(request, response.encoded())) is expected


@pytest.mark.parametrize("variant", range(1, 9))
def test_no_signature_is_wrapped_around_a_forgery(variant, asked):
    request, _ = asked
    xml = Response(request.id).xml()
    forgery = saml_idp.wrapped(xml, variant)
    assert "root@example.com" in forgery and "anna@example.com" in forgery
    assert reason(judged(request, encode(forgery))) in (Refusal.SAML_WRAPPED, Refusal.SAML_NOT_ONE_ASSERTION)
    assert isinstance(judged(request, encode(xml)), Assertion), "the original is good"


def changed(xml: str) -> dict[str, tuple[str | bytes, Refusal]]:
    """What becomes of a good response behind the identity provider's back."""
    xml = re.sub(r"\A<\?xml[^>]*>\s*", "", xml)
    assertion = re.search(r"<saml:Assertion .*</saml:Assertion>", xml, re.DOTALL)[0]
    return {
        "name": (xml.replace("anna@", "root@"), Refusal.SAML_SIGNATURE_INVALID),
        "group": (xml.replace(">eng<", ">adm<"), Refusal.SAML_SIGNATURE_INVALID),
        "comment": (xml.replace("anna@", "anna<!---->@"), Refusal.SAML_COMMENT),
        "document type": (f"<!DOCTYPE Response>{xml}", Refusal.SAML_DOCTYPE),
        "entities": (f"{BOMB}{xml.replace('anna@', '&c;anna@')}", Refusal.SAML_DOCTYPE),
        "entity of a file": (f"{FROM_FILE}{xml.replace('anna@', '&a;anna@')}", Refusal.SAML_DOCTYPE),
        "two": (xml.replace(assertion, assertion + assertion), Refusal.SAML_NOT_ONE_ASSERTION),
        "none": (xml.replace(assertion, ""), Refusal.SAML_NOT_ONE_ASSERTION),
        "encrypted": (xml.replace(assertion, "<saml:EncryptedAssertion/>"), Refusal.SAML_ENCRYPTED),
        "same id": (xml.replace("<saml:Subject>", '<saml:Subject ID="x" Id="x">'), Refusal.SAML_WRAPPED),
        "id of XML itself": (xml.replace("<saml:Subject>", '<saml:Subject xml:id="x">'), Refusal.SAML_WRAPPED),
        "id in lower case": (xml.replace("<saml:Subject>", '<saml:Subject id="x">'), Refusal.SAML_WRAPPED),
        "extensions": (
            xml.replace("<samlp:Status>", "<samlp:Extensions/><samlp:Status>"),
            Refusal.SAML_SIGNATURE_INVALID,
        ),
        "signature in the issuer": (
            xml.replace("</saml:Issuer>", "<ds:Signature/></saml:Issuer>", 1),
            Refusal.SAML_WRAPPED,
        ),
        "instruction": (
            xml.replace("<samlp:Status>", "<?xml-stylesheet href='x'?><samlp:Status>"),
            Refusal.SAML_COMMENT,
        ),
        "instruction before": (f"<?xml-stylesheet href='x'?>{xml}", Refusal.SAML_COMMENT),
        "prefix of another meaning": (
            xml.replace("<saml:NameID ", '<saml:NameID xmlns:saml="urn:x" '),
            Refusal.SAML_SIGNATURE_INVALID,
        ),
        "prefix of nothing": (xml.replace("<saml:NameID", "<nobody:NameID"), Refusal.SAML_MALFORMED),
        "space in the name": (xml.replace("anna@", "anna @"), Refusal.SAML_SIGNATURE_INVALID),
        "two roots": (xml + xml, Refusal.SAML_MALFORMED),
        "cut": (xml[: len(xml) // 2], Refusal.SAML_MALFORMED),
        "no response": ("<a/>", Refusal.SAML_MALFORMED),
        "deep": ("<a>" * 40 + "</a>" * 40, Refusal.SAML_MALFORMED),
        "wide": ("<a>" + "<b/>" * 11_000 + "</a>", Refusal.SAML_MALFORMED),
        "empty": ("", Refusal.SAML_MALFORMED),
        "zeros": (bytes(100), Refusal.SAML_MALFORMED),
        "charset": (b"<?xml version='1.0' encoding='utf-7'?><a/>", Refusal.SAML_MALFORMED),
    }


def test_what_is_changed_on_the_way_lets_nobody_in(asked):
    request, _ = asked
    for how, (text, expected) in changed(Response(request.id).xml()).items():
        assert reason(judged(request, encode(text))) is expected, how
    for encoded in ("%%%", "é", "QUJ", "=" * 16):
        assert reason(judged(request, encoded)) is Refusal.SAML_MALFORMED


EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
DIGEST = "http://www.w3.org/2001/04/xmlenc#sha256"
METHOD = f'<ds:SignatureMethod Algorithm="{saml_idp.SHA256}"/>'
XPATH = "http://www.w3.org/TR/1999/REC-xpath-19991116"
TRANSFORM = f'<ds:Transform Algorithm="{EXCLUSIVE}"/>'
MISUSED = {
    "XSLT": (TRANSFORM, TRANSFORM.replace(EXCLUSIVE, "http://www.w3.org/TR/1999/REC-xslt-19991116")),
    "XPath": (
        TRANSFORM,
        f'<ds:Transform Algorithm="{XPATH}"><ds:XPath>not(ancestor-or-self::saml:Subject)</ds:XPath></ds:Transform>',
    ),
    "XPath in a transform that is known": (
        TRANSFORM,
        TRANSFORM.replace("/>", "><ds:XPath>1</ds:XPath></ds:Transform>"),
    ),
    "more prefixes than anybody has": (
        TRANSFORM,
        TRANSFORM.replace(
            "/>", f'><x:InclusiveNamespaces xmlns:x="{EXCLUSIVE}" PrefixList="{"p " * 33}"/></ds:Transform>'
        ),
    ),
    "prefixes twice": (
        TRANSFORM,
        TRANSFORM.replace("/>", ">" + f'<x:InclusiveNamespaces xmlns:x="{EXCLUSIVE}"/>' * 2 + "</ds:Transform>"),
    ),
    "base64": (TRANSFORM, TRANSFORM.replace(EXCLUSIVE, "http://www.w3.org/2000/09/xmldsig#base64")),
    "a third transform": (TRANSFORM, TRANSFORM * 2),
    "inclusive canonicalization": (
        f'<ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}"/>',
        '<ds:CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"/>',
    ),
    "HMAC": (METHOD, METHOD.replace("rsa-sha256", "hmac-sha256")),
    "HMAC of one bit": (
        METHOD,
        '<ds:SignatureMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1">'
        "<ds:HMACOutputLength>1</ds:HMACOutputLength></ds:SignatureMethod>",
    ),
    "parameters of a method": (
        METHOD,
        METHOD.replace("/>", "><ds:HMACOutputLength>1</ds:HMACOutputLength></ds:SignatureMethod>"),
    ),
    "MD5": (METHOD, METHOD.replace("rsa-sha256", "rsa-md5")),
    "DSA": (METHOD, '<ds:SignatureMethod Algorithm="http://www.w3.org/2000/09/xmldsig#dsa-sha1"/>'),
    "no method": (METHOD, "<ds:SignatureMethod/>"),
    "digest by SHA-1": (DIGEST, "http://www.w3.org/2000/09/xmldsig#sha1"),
    "digest by MD5": (DIGEST, "http://www.w3.org/2001/04/xmldsig-more#md5"),
    "two references": ("<ds:Reference URI=", '<ds:Reference URI="#x"/><ds:Reference URI='),
    "two of signed information": ("<ds:SignedInfo>", "<ds:SignedInfo/><ds:SignedInfo>"),
    "signed information of another kind": ("<ds:SignedInfo>", '<x:SignedInfo xmlns:x="urn:x"/><ds:SignedInfo>'),
    "nothing in the signature": ("<ds:Signature>", '<ds:Signature><x:y xmlns:x="urn:x"/>'),
    "key of a file": (
        "</ds:SignatureValue>",
        '</ds:SignatureValue><ds:KeyInfo><ds:RetrievalMethod URI="file:///etc/hostname"/></ds:KeyInfo>',
    ),
    "key of elsewhere": (
        "</ds:SignatureValue>",
        '</ds:SignatureValue><ds:KeyInfo><ds:X509Data/><x:KeyInfoReference xmlns:x="http://www.w3.org/2009/xmldsig11#" '
        'URI="http://127.0.0.1/"/></ds:KeyInfo>',
    ),
}
ELSEWHERE = {
    "all of the document": "",
    "another element": "#_other",
    "an expression": "#xpointer(/)",
    "an id in an expression": "#xpointer(id('{}'))",
    "a file": "file:///etc/hostname",
    "a site": "http://127.0.0.1/#{}",
}


def test_no_signature_counts_but_in_the_one_form_that_covers_all(asked):
    request, _ = asked
    xml = Response(request.id).xml()
    for how, (old, new) in MISUSED.items():
        for occurrence in (1, 2):  # the response's, the assertion's
            parts = xml.split(old)
            spoiled = old.join(parts[:occurrence]) + new + old.join(parts[occurrence:])
            assert len(parts) == 3, how
            assert reason(judged(request, encode(spoiled))) is Refusal.SAML_SIGNATURE_METHOD, how
    for how, uri in ELSEWHERE.items():
        for name in re.findall(r'URI="#([^"]*)"', xml):
            spoiled = xml.replace(f'URI="#{name}"', f'URI="{uri.format(name)}"')
            assert reason(judged(request, encode(spoiled))) is Refusal.SAML_WRAPPED, how


def test_a_key_that_comes_along_in_whatever_form_is_worth_nothing(asked):
    request, _ = asked
    forged = Response(request.id, response_key=OTHER, assertion_key=OTHER).xml()
    for shown in (
        f"<ds:X509Data><ds:X509Certificate>{OTHER.body}</ds:X509Certificate></ds:X509Data>",
        "<ds:KeyName>idp</ds:KeyName>",
        "<ds:KeyValue><ds:RSAKeyValue><ds:Modulus>AQAB</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue></ds:KeyValue>",
    ):
        spoiled = forged.replace("</ds:SignatureValue>", f"</ds:SignatureValue><ds:KeyInfo>{shown}</ds:KeyInfo>")
        assert reason(judged(request, encode(spoiled))) is Refusal.SAML_SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("body", "says"),
    [("exec sleep 20", "not done after"), ("kill -9 $$", "signal 9"), (None, "No such file")],
    ids=["hangs", "is killed", "is gone"],
)
def test_a_program_that_finds_nothing_out_is_no_yes_and_no_bad_signature(asked, tmp_path, monkeypatch, body, says):
    """What the kernel kills for want of memory has not looked at any signature."""
    request, url = asked
    program = tmp_path / "xmlsec1"
    if body is not None:
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setattr(signature, "PROGRAM_S", 0.3)
    monkeypatch.setattr(signature, "_program", lambda: (str(program), (1, 2, 37)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = judged(request, saml_idp.answer(url))
    assert reason(answer) is Refusal.SAML_UNAVAILABLE and says in answer.detail
    assert {path.name for path in tmp_path.iterdir()} <= {"xmlsec1"}, "nothing is left behind"


def test_an_element_with_thousands_of_attributes_is_not_sorted(asked):
    request, _ = asked
    many = " ".join(f'a{number}=""' for number in range(65))
    xml = Response(request.id).xml().replace("<samlp:Status>", f"<samlp:Extensions {many}/><samlp:Status>", 1)
    answer = judged(request, encode(xml))
    assert reason(answer) is Refusal.SAML_MALFORMED and "65 attributes" in answer.detail


def test_bytes_of_another_encoding_are_the_same_response(asked):
    request, _ = asked
    xml = re.sub(r"\A<\?xml[^>]*>\s*", "", Response(request.id, name="änna@example.com").xml())
    for encoding in ("utf-8", "utf-16", "latin-1"):
        text = f"<?xml version='1.0' encoding='{encoding}'?>{xml}".encode(encoding)
        answer = judged(request, encode(text))
        assert isinstance(answer, Assertion), (encoding, answer)
        assert answer.name == "änna@example.com"
    for encoding in ("utf-7", "utf-32", "ebcdic-cp-us", "rot13", "idna"):
        text = f"<?xml version='1.0' encoding='{encoding}'?>{xml}".encode()
        assert reason(judged(request, encode(text))) is Refusal.SAML_MALFORMED, encoding


def test_the_smallest_response_is_one_like_others():
    """What two signatures and an assertion cannot do without is 2.6 kB of XML, hence 3.5 kB on its way."""
    idp = SamlProvider("corp", parse_metadata(metadata(key("ec", 256))))
    now = time.time()
    request = PendingRequest("_asked", ACS, now, now + 300)
    encoded = saml_idp.smallest("_asked").encoded()
    answer = idp.accept(encoded, request, now)
    assert isinstance(answer, Assertion), answer
    assert answer.name == "a@b.c" and 2_000 < len(encoded) < 3_900
    assert reason(judged(request, encoded)) is Refusal.SAML_SIGNATURE_INVALID


def test_128_kB_are_taken_and_not_one_character_more(asked):
    request, _ = asked
    response = Response(request.id)
    least = len(response.encoded())
    missing = (128 * 1024 - least) * 3 // 4
    for more, fits in ((missing - 24, True), (missing + 3, False)):
        # the longest value's tags are there already, so that each character of it is one of XML
        response.attributes["LastName"] = ("Ende" + "e" * more,)
        encoded = response.encoded()
        assert (len(encoded) <= 128 * 1024) is fits and abs(len(encoded) - 128 * 1024) < 64
        answer = judged(request, encoded)
        assert isinstance(answer, Assertion) if fits else reason(answer) is Refusal.SAML_TOO_LARGE


def test_names_have_the_length_of_aws_and_groups_are_counted_as_it_does(asked):
    request, _ = asked
    groups = (*(f"group-{number}" for number in range(199)), "g" * 256, *(f"one-too-many-{n}" for n in range(300)))
    attributes = {"memberOf": groups, "memberof": ("other",), "FirstName": ("Anna",)}
    answer = judged(request, Response(request.id, name="n" * 255, attributes=attributes).encoded())
    assert isinstance(answer, Assertion), answer
    assert answer.name == "n" * 255
    assert answer.groups == set(groups[:199]), "a group whose name is too long is no other group"


@pytest.mark.parametrize("name", ["n" * 255 + "a", "n" * 255 + "b", f"anna@example.com{' ' * 300}x"])
def test_a_name_that_is_too_long_is_nobodys_and_not_that_of_whom_it_begins_like(asked, name):
    request, _ = asked
    answer = judged(request, Response(request.id, name=name).encoded())
    assert reason(answer) is Refusal.SAML_NO_NAME and f"{len(name)} characters" in answer.detail


def test_a_request_is_good_for_its_time_only(asked):
    request, _ = asked
    encoded = Response(request.id).encoded()
    assert reason(PROVIDER.accept(encoded, request, request.good_until)) is Refusal.SAML_REQUEST_EXPIRED
    expired = SamlProvider("corp", parse_metadata(metadata(attributes='validUntil="2020-01-01T00:00:00Z"')))
    assert reason(judged(request, encoded, expired)) is Refusal.SAML_METADATA_EXPIRED


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, Refusal.SAML_UNAVAILABLE),
        ({"corp": metadata(attributes='validUntil="2020-01-01T00:00:00Z"')}, Refusal.SAML_METADATA_EXPIRED),
    ],
    ids=["no metadata yet", "expired"],
)
def test_nobody_is_sent_to_a_provider_of_whom_nothing_is_known_or_any_more(known, expected):
    logins = SamlLogins(None, bytes(32))
    logins.replace({name: SamlProvider(name, parse_metadata(text)) for name, text in known.items()})
    visitor = Visitor("cvpn-endpoint-1", "corp", "", "192.0.2.1")
    for answer in (
        logins.provider("corp"),
        logins.send_away(visitor, "ACS::35001"),
        logins.taken_back(visitor, Secret(b"CRV1::x::y")),
    ):
        assert reason(answer) is expected
    logins.close()


# -- metadata -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no XML"),
        ('<!DOCTYPE x [<!ENTITY a "a">]><a/>', "no XML"),
        ("<EntityDescriptor/>", "describes no SAML"),
        (metadata(login_url="javascript:alert(1)"), "no web page"),
        (metadata(login_url="javascript://idp.example.com/%0aalert(1)"), "no web page"),
        (metadata(login_url="https://idp.example.com/ x"), "no web page"),
        (metadata(signing=key("weak", 1024)), "signing key"),
        (metadata().replace("HTTP-Redirect", "HTTP-POST"), "HTTP-Redirect"),
        (metadata().replace('use="signing"', 'use="encryption"'), "0 certificates"),
        (metadata(attributes='validUntil="soon"'), "no date"),
        (re.sub("<ds:X509Certificate>....", "<ds:X509Certificate>AAAA", metadata()), "cannot be read"),
    ],
)
def test_metadata_that_would_weaken_logins_is_refused_in_words(text, problem):
    with pytest.raises(MetadataError, match=problem):
        parse_metadata(text)


def test_one_of_several_identity_providers_has_to_be_named():
    two = "<x>" + metadata() + metadata(entity_id="urn:other") + "</x>"
    with pytest.raises(MetadataError, match="say which"):
        parse_metadata(two)
    assert parse_metadata(two, "urn:other").entity_id == "urn:other"


def test_any_of_the_keys_may_have_signed(asked):
    request, _ = asked
    descriptor = re.search("<md:KeyDescriptor.*</md:KeyDescriptor>", metadata(OTHER))[0]
    both = SamlProvider(
        "corp", parse_metadata(metadata().replace("<md:KeyDescriptor", descriptor + "<md:KeyDescriptor", 1))
    )
    spoiled: dict[str, Key] = {"response_key": OTHER, "assertion_key": OTHER}
    assert isinstance(judged(request, Response(request.id, **spoiled).encoded(), both), Assertion)


def test_a_key_counts_for_as_long_as_the_metadata_has_it(asked):
    """What its certificate says of itself is not asked: nobody but the metadata vouches for it."""
    request, _ = asked
    old = key("old", days=-0.5)
    idp = parse_metadata(metadata(old))
    assert idp.certificates_end_at is not None and idp.certificates_end_at < time.time()
    response = Response(request.id, response_key=old, assertion_key=old)
    assert isinstance(judged(request, response.encoded(), SamlProvider("corp", idp)), Assertion)


# -- state ids ------------------------------------------------------------------------------------------------


def test_a_state_id_is_worth_something_to_whom_it_was_given_only():
    visitor = Visitor("cvpn-endpoint-1", "corp", "fingerprint", "192.0.2.1")
    states = States(bytes(32))
    state, request_id = states.new(visitor, 35001, 1000.0)
    assert ":" not in state and len(state) < 80
    visit = States(bytes(32)).read(state, visitor)
    assert visit is not None and visit.same_source
    assert (visit.request_id, visit.port, visit.made_at) == (request_id, 35001, 1000)
    for other in (
        Visitor("cvpn-endpoint-2", "corp", "fingerprint", "192.0.2.1"),
        Visitor("cvpn-endpoint-1", "other", "fingerprint", "192.0.2.1"),
        Visitor("cvpn-endpoint-1", "corp", "", "192.0.2.1"),
    ):
        assert states.read(state, other) is None
    elsewhere = states.read(state, Visitor("cvpn-endpoint-1", "corp", "fingerprint", "192.0.2.2"))
    assert elsewhere is not None and not elsewhere.same_source
    assert States(b"\1" * 32).read(state, visitor) is None
    for longer in (f"{state}=", f"{state[:9]}****{state[9:]}", state + "A" * 250_000, state[:-1]):
        assert states.read(longer, visitor) is None
    raw = bytearray(base64.urlsafe_b64decode(state + "=" * (-len(state) % 4)))
    for position in range(len(raw)):
        raw[position] ^= 1
        assert states.read(base64.urlsafe_b64encode(raw).decode().rstrip("="), visitor) is None
        raw[position] ^= 1
    for nonsense in ("", "é", "A", state[:-1], state + "AAAA", state * 1000):
        assert states.read(nonsense, visitor) is None
