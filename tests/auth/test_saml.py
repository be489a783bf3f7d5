"""SAML responses: who is let in, and every way not to be, each with its reason."""

from __future__ import annotations

import base64
import re
import time

import pytest
from helpers import saml_idp
from helpers.saml_idp import ACS, Asked, Key, Response, encode, key, metadata

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.metadata import MetadataError, parse_metadata
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.state import States, Visitor
from cvpnd.reasons import Refusal

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


def test_nothing_is_taken_from_a_foreign_transform(asked):
    request, _ = asked
    response = Response(request.id)
    exclusive = '<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>'
    xslt = '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>'
    assert reason(judged(request, encode(response.xml().replace(exclusive, xslt)))) is Refusal.SAML_SIGNATURE_METHOD


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


def test_names_are_cut_and_groups_counted_as_aws_does(asked):
    request, _ = asked
    groups = (*(f"group-{number}" for number in range(199)), "g" * 256, "one-too-many")
    attributes = {"memberOf": groups, "memberof": ("other",), "FirstName": ("Anna",)}
    answer = judged(request, Response(request.id, name="n" * 300, attributes=attributes).encoded())
    assert isinstance(answer, Assertion), answer
    assert answer.name == "n" * 255
    assert answer.groups == set(groups[:199]), "a group whose name is too long is no other group"


def test_a_name_that_is_cut_does_not_become_another_one(asked):
    request, _ = asked
    padded = f"anna@example.com{' ' * 300}x"
    assert reason(judged(request, Response(request.id, name=padded).encoded())) is Refusal.SAML_NO_NAME


def test_a_request_is_good_for_its_time_only(asked):
    request, _ = asked
    encoded = Response(request.id).encoded()
    assert reason(PROVIDER.accept(encoded, request, request.good_until)) is Refusal.SAML_REQUEST_EXPIRED
    expired = SamlProvider("corp", parse_metadata(metadata(attributes='validUntil="2020-01-01T00:00:00Z"')))
    assert reason(judged(request, encoded, expired)) is Refusal.SAML_METADATA_EXPIRED


# -- metadata -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no XML"),
        ('<!DOCTYPE x [<!ENTITY a "a">]><a/>', "no XML"),
        ("<EntityDescriptor/>", "describes no SAML"),
        (metadata(login_url="javascript:alert(1)"), "no web page"),
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
    raw = bytearray(base64.urlsafe_b64decode(state + "=" * (-len(state) % 4)))
    for position in range(len(raw)):
        raw[position] ^= 1
        assert states.read(base64.urlsafe_b64encode(raw).decode().rstrip("="), visitor) is None
        raw[position] ^= 1
    for nonsense in ("", "é", "A", state[:-1], state + "AAAA", state * 1000):
        assert states.read(nonsense, visitor) is None
