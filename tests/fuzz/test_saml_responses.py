"""Signed SAML responses, taken apart and put together again at random: whatever is accepted says what was signed for
this request, to the letter.

The attacker is mallory, who has an answer to the very request that is judged, and an old one of anna's, both signed by
the identity provider, and knows every trick by itself: elements moved, copied, renamed and wrapped, ids and algorithms
exchanged, namespaces declared anew, comments and entities. ``make fuzz`` does it for ``FUZZ_SECONDS``."""

from __future__ import annotations

import copy
import os
import random
import shutil
import time
from collections import Counter
from xml.dom import minidom

import pytest
from helpers import saml_idp
from helpers.saml_idp import ACS, Response

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.reasons import Refusal

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
AT_LEAST = 120
NAMES = (
    "samlp:Response", "samlp:Extensions", "samlp:Status", "saml:Assertion", "saml:Advice", "saml:Subject",
    "saml:NameID", "saml:Issuer", "saml:Evidence", "saml:EncryptedAssertion", "saml:AttributeValue", "ds:Signature",
    "ds:Object", "ds:SignedInfo", "ds:Manifest", "ds:KeyInfo", "ds:RetrievalMethod", "ds:Transforms", "ds:XPath", "x",
)  # fmt: skip
ALGORITHMS = (
    "http://www.w3.org/2000/09/xmldsig#hmac-sha1", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256",
    "http://www.w3.org/2000/09/xmldsig#rsa-sha1", "http://www.w3.org/2001/04/xmldsig-more#rsa-md5",
    "http://www.w3.org/2001/04/xmldsig-more#md5", "http://www.w3.org/2000/09/xmldsig#sha1",
    "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256", "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
    "http://www.w3.org/TR/1999/REC-xslt-19991116", "http://www.w3.org/TR/1999/REC-xpath-19991116",
    "http://www.w3.org/2002/06/xmldsig-filter2", "http://www.w3.org/2000/09/xmldsig#base64",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
    "http://www.w3.org/2001/10/xml-exc-c14n#", "http://www.w3.org/2000/09/xmldsig#enveloped-signature", "",
)  # fmt: skip
NAMESPACES = (
    "urn:oasis:names:tc:SAML:2.0:protocol", "urn:oasis:names:tc:SAML:2.0:assertion",
    "http://www.w3.org/2000/09/xmldsig#", "urn:x", "",
)  # fmt: skip
TEXTS = ("anna@example.com", "anna@example.com\u200b", "anna@exampl\u0435.com", "", " ", "ops", saml_idp.ENTITY_ID)
SPLICES = (
    "<!-- x -->", "<![CDATA[x]]>", "<?x y?>", "&#0;", "&amp;", "&x;", "&#x61;", "\r", "\u00a0", "<x/>", "</x>",
    '<!DOCTYPE x [<!ENTITY x "anna@example.com">]>', '<?xml version="1.1"?>', '<?xml version="1.0" encoding="utf-7"?>',
)  # fmt: skip


def elements(document: minidom.Document) -> list[minidom.Element]:
    return list(document.getElementsByTagName("*"))


def mutate(document: minidom.Document, donors: list[minidom.Element], dice: random.Random) -> None:
    """One change, or none if it is not possible."""
    here = elements(document)
    one, other = dice.choice(here), dice.choice(here)
    inside = one in list(ancestors(other))
    match dice.randrange(12):
        case 0 if one is not document.documentElement and not inside:  # moved
            one.parentNode.removeChild(one)
            place(document, one, other, dice)
        case 1:  # copied
            place(document, one.cloneNode(True), other, dice)
        case 2 | 3:  # of another answer
            place(document, document.importNode(dice.choice(donors), True), other, dice)
        case 4:  # another one's in its place
            if one is not document.documentElement:
                one.parentNode.replaceChild(document.importNode(dice.choice(donors), True), one)
        case 5:
            one.tagName = one.nodeName = dice.choice(NAMES)
        case 6 if one is not document.documentElement:
            one.parentNode.removeChild(one)
        case 7 if one is not document.documentElement:  # wrapped
            shell = document.createElement(dice.choice(NAMES))
            one.parentNode.replaceChild(shell, one)
            shell.appendChild(one)
        case 8:  # an attribute: of another element, of another kind, none
            values = [value for each in (*here, *donors) for value in each.attributes.values()]
            key = dice.choice(("ID", "Id", "id", "xml:id", "URI", "InResponseTo", "Recipient", "Algorithm", "Format"))
            one.setAttribute(key, dice.choice(values).value)
            if dice.random() < 0.3:
                one.removeAttribute(dice.choice([each.name for each in one.attributes.values()]))
        case 9:
            (dice.choice([each for each in here if each.hasAttribute("Algorithm")] or [one])).setAttribute(
                "Algorithm", dice.choice(ALGORITHMS)
            )
        case 10:  # prefixes that mean something else from here on
            one.setAttribute(dice.choice(("xmlns", "xmlns:saml", "xmlns:ds", "xmlns:samlp")), dice.choice(NAMESPACES))
        case _:
            texts = [child for each in here for child in each.childNodes if child.nodeType == child.TEXT_NODE]
            if texts:
                dice.choice(texts).data = dice.choice(TEXTS)


def ancestors(node: minidom.Node) -> list[minidom.Node]:
    found = [node]
    while found[-1].parentNode is not None:
        found.append(found[-1].parentNode)
    return found


def place(document: minidom.Document, what: minidom.Element, where: minidom.Element, dice: random.Random) -> None:
    children = list(where.childNodes)
    where.insertBefore(what, dice.choice([*children, None]))


def spliced(text: str, dice: random.Random) -> str:
    for _ in range(dice.choice((0, 0, 0, 1, 2))):
        at = dice.choice([index for index, c in enumerate(text) if c in "<>"] + [dice.randrange(len(text))])
        text = text[:at] + dice.choice(SPLICES) + text[at + dice.choice((0, 0, 1)) :]
    return text


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_nothing_is_accepted_but_what_was_signed_for_this_request() -> None:
    provider = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
    now, good = time.time(), {"ends_in": 86_400.0, "confirmed_for": 86_400.0}
    request = PendingRequest("_asked", ACS, now, now + 86_400)
    shown = {"shown_key": saml_idp.key()}
    mine = Response(request.id, name="mallory@example.com", attributes={"memberOf": ("guests",)}, **good, **shown).xml()
    annas = Response("_older", **good).xml()
    foreign = saml_idp.key("another identity provider")
    forged = Response(request.id, response_key=foreign, assertion_key=foreign, shown_key=foreign, **good).xml()
    unsigned = Response(request.id, response_key=None, assertion_key=None, **good).xml()
    signed = provider.accept(saml_idp.encode(mine), request, now)
    assert isinstance(signed, Assertion) and signed.name == "mallory@example.com", signed
    donors = [each for text in (annas, forged, unsigned) for each in elements(minidom.parseString(text))]
    original = minidom.parseString(mine)

    seed = random.randrange(1 << 32) if SECONDS else 1
    became: Counter[str] = Counter()
    begun, number = time.monotonic(), 0
    while number < AT_LEAST or time.monotonic() - begun < SECONDS:
        number += 1
        dice = random.Random(f"{seed} {number}")
        document = copy.deepcopy(original)
        for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5))):
            mutate(document, donors, dice)
        text = spliced(document.documentElement.toxml(), dice)
        answer = provider.accept(saml_idp.encode(text.encode("utf-8", "surrogatepass")), request, now)
        assert isinstance(answer, Refused) or answer == signed, f"seed {seed}, number {number}: {answer}\n{text}"
        became[answer.refusal if isinstance(answer, Refused) else "accepted"] += 1
        assert not isinstance(answer, Refused) or "Error: " not in answer.detail.partition("XML")[0], answer
    print(f"{number} responses, seed {seed}: {dict(became.most_common())}")
    assert provider.accept(saml_idp.encode(mine), request, now) == signed
    assert {Refusal.SAML_SIGNATURE_INVALID, Refusal.SAML_WRAPPED, Refusal.SAML_NOT_ONE_ASSERTION} <= set(became)
