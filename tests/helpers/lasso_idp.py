"""An identity provider made of lasso, the library of LemonLDAP::NG and Authentic; a program for the system's Python,
which has it: ADDRESS, and the metadata of whom it answers. ``idp.xml``, its key and ``anna`` are where it runs."""

from __future__ import annotations

import html
import json
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import lasso

EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"
FORM = """<form method=post><input name=username><input name=password type=password>
<button>Log in</button></form>"""
BACK = """<form method=post action="{url}" id=back><input type=hidden name=SAMLResponse value="{response}">
<input type=hidden name=RelayState value="{relay_state}"></form><script>document.forms.back.submit()</script>"""


def moment(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def attribute(name: str, texts: list[str]) -> lasso.Saml2Attribute:
    made = lasso.Saml2Attribute()
    made.name, made.nameFormat = name, lasso.SAML2_ATTRIBUTE_NAME_FORMAT_BASIC
    values = []
    for text in texts:
        node, value = lasso.MiscTextNode.newWithString(text), lasso.Saml2AttributeValue()
        node.textChild = True
        value.any = [node]
        values.append(value)
    made.attributeValue = values
    return made


def answer(service: str, query: str) -> tuple[str, str, str]:
    """Where the browser is sent, with which response and relay state."""
    server = lasso.Server("idp.xml", "idp.key", None, "idp.crt")
    server.addProvider(lasso.PROVIDER_ROLE_SP, service)
    server.signatureMethod = lasso.SIGNATURE_METHOD_RSA_SHA256
    login = lasso.Login(server)
    login.processAuthnRequestMsg(query)
    login.validateRequestMsg(True, True)
    login.buildAssertion(PASSWORD, moment(0), None, None, None)
    person = json.loads(Path("anna").read_text())
    assertion = login.assertion
    assertion.subject.nameId.format, assertion.subject.nameId.content = EMAIL, person.pop("mail")[0]
    confirmation = assertion.subject.subjectConfirmation.subjectConfirmationData
    assertion.conditions.notBefore = moment(-5)
    assertion.conditions.notOnOrAfter = confirmation.notOnOrAfter = moment(300)
    statement = lasso.Saml2AttributeStatement()
    statement.attribute = [attribute(name, texts) for name, texts in person.items()]
    assertion.attributeStatement = [statement]
    login.buildAuthnResponseMsg()
    return login.msgUrl, login.msgBody, login.msgRelayState


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._show(FORM)

    def do_POST(self) -> None:
        said = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if (said.get("username"), said.get("password")) != (["anna"], ["secret"]):
            self._show("no", 403)
            return
        url, response, relay_state = map(html.escape, answer(sys.argv[2], self.path.partition("?")[2]))
        self._show(BACK.format(url=url, response=response, relay_state=relay_state))

    def _show(self, page: str, status: int = 200) -> None:
        body = f"<!doctype html>{page}".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    host, _, port = sys.argv[1].partition(":")
    served = ThreadingHTTPServer((host, int(port)), Pages)
    print("ready", flush=True)
    served.serve_forever()
