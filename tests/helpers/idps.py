"""Three identity providers of the test's own, which share no code: SimpleSAMLphp, samlp on Node, and one of lasso.

They live in one namespace and know one person, anna, with the password ``secret``."""

from __future__ import annotations

import json
from pathlib import Path

from helpers import certs, saml_idp
from helpers.lab import wait_until
from helpers.netns import Namespace, Process

BUILD = Path(__file__).resolve().parents[2] / "build"
SIMPLESAML = BUILD / "tools/usr/share/simplesamlphp"
SAMLP = BUILD / "samlp/node_modules"
ENTITY_ID = "urn:amazon:webservices:clientvpn"
ANNA = {
    "mail": ["anna@example.org"], "FirstName": ["Anna"], "LastName": ["Ash"], "memberOf": ["eng", "ops"],
}  # fmt: skip

_CONFIG = """<?php
$config = [
    'baseurlpath' => 'http://{address}/simplesaml/',
    'certdir' => '{directory}/', 'loggingdir' => '{directory}/', 'datadir' => '{directory}/',
    'tempdir' => '{directory}/tmp',
    'metadatadir' => '{directory}/metadata/', 'metadata.sources' => [['type' => 'flatfile']],
    'secretsalt' => 'of these tests', 'auth.adminpassword' => 'of these tests',
    'technicalcontact_name' => 'nobody', 'technicalcontact_email' => 'na@example.org', 'timezone' => 'UTC',
    'logging.level' => 4, 'logging.handler' => 'errorlog', 'language.default' => 'en', 'theme.use' => 'default',
    'enable.saml20-idp' => true, 'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
    'session.cookie.secure' => false, 'session.phpsession.savepath' => '{directory}/tmp', 'store.type' => 'phpsession',
    'production' => false,
];
"""
_HOSTED = """<?php
$metadata['http://{address}/idp'] = [
    'host' => '__DEFAULT__', 'privatekey' => 'idp.key', 'certificate' => 'idp.crt', 'auth' => 'people',
];
"""
_REMOTE = """<?php
$metadata['{entity_id}'] = [
    'AssertionConsumerService' => [{acs}],
    'NameIDFormat' => 'urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress',
    'saml20.sign.response' => true, 'saml20.sign.assertion' => true, {requests}
    'authproc' => [3 => ['class' => 'saml:AttributeNameID', 'attribute' => 'mail',
        'Format' => 'urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress']],
    'attributes.NameFormat' => 'urn:oasis:names:tc:SAML:2.0:attrname-format:basic',
];
"""
_PEOPLE = """<?php
$config = ['people' => ['exampleauth:UserPass', 'anna:secret' => {anna}]];
"""
_SAMLP = """
const express = require('express'), samlp = require('samlp'), fs = require('fs');
const [address, acs, entity] = process.argv.slice(2), [host, port] = address.split(':');
const cert = fs.readFileSync('idp.crt'), key = fs.readFileSync('idp.key'), anna = JSON.parse(fs.readFileSync('anna'));
const issuer = `http://${address}/idp`, app = express();
app.use(express.urlencoded({extended: false}));
app.get('/metadata', samlp.metadata({issuer, cert, redirectEndpointPath: '/login', postEndpointPath: '/login'}));
function profile() {
  return {getClaims: () => Object.fromEntries(Object.entries(anna).filter(([name]) => name !== 'mail')),
    getNameIdentifier: () => ({nameIdentifier: anna.mail[0],
      nameIdentifierFormat: 'urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress'})};
}
profile.prototype.metadata = [];
app.get('/login', (req, res) => res.send(`<form method=post action="/login?${req.originalUrl.split('?')[1] || ''}">
  <input name=username><input name=password type=password><button id=go>Log in</button></form>`));
app.post('/login', (req, res, next) => {
  if (req.body.username !== 'anna' || req.body.password !== 'secret') return res.status(403).send('no');
  req.user = anna;
  samlp.auth({issuer, cert, key, audience: entity, recipient: acs, destination: acs, signResponse: true,
    signatureAlgorithm: 'rsa-sha256', digestAlgorithm: 'sha256', lifetimeInSeconds: 300,
    getPostURL: (audience, dom, request, callback) => callback(null, acs),
    getUserFromRequest: request => request.user, profileMapper: profile})(req, res, next);
});
app.listen(+port, host, () => console.log('ready'));
"""


class Idp:
    """Started, with its ``metadata`` file."""

    def __init__(self, process: Process, metadata: Path) -> None:
        self.process, self.metadata = process, metadata


def _php(value: object) -> str:
    return (
        json.dumps(value).replace("{", "[").replace("}", "]").replace('": ', '" => ')
    )  # strings here have neither braces nor colons


def _prepare(directory: Path) -> None:
    directory.mkdir(parents=True)
    certs.issue(certs.authority(), certs.common_name("idp"), kind="rsa2048").write(directory, "idp")


def _fetch(place: Namespace, url: str, to: Path) -> None:
    done = place.run("curl", "-sS", "--noproxy", "*", "--fail", url)
    to.write_text(done.stdout)


def _answers(place: Namespace, address: str) -> bool:
    host, port = address.split(":")
    with place.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0


def simplesamlphp(place: Namespace, address: str, directory: Path, *acs: str, requests_by: str = "") -> Idp:
    """``requests_by``: a certificate, PEM; requests that are not signed with its key are refused."""
    _prepare(directory)
    (directory / "requests.crt").write_text(requests_by)
    signed = "'validate.authnrequest' => true, 'certificate' => 'requests.crt',"
    for name in ("metadata", "tmp", "www"):
        (directory / name).mkdir()
    (directory / "www/simplesaml").symlink_to(SIMPLESAML / "www")
    consumers = ", ".join(
        f"['Binding' => 'urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST', 'Location' => '{url}', 'index' => {number}]"
        for number, url in enumerate(acs)
    )
    values = {"address": address, "directory": directory, "entity_id": ENTITY_ID, "acs": consumers, "anna": _php(ANNA)}
    values["requests"] = signed if requests_by else "'validate.authnrequest' => false,"

    def write(name: str, template: str) -> None:
        for key, value in values.items():
            template = template.replace("{" + key + "}", str(value))
        (directory / name).write_text(template)

    write("config.php", _CONFIG)
    write("authsources.php", _PEOPLE)
    write("metadata/saml20-idp-hosted.php", _HOSTED)
    write("metadata/saml20-sp-remote.php", _REMOTE)
    process = place.start(
        "php", "-d", f"session.save_path={directory}/tmp", "-S", address, "-t", directory / "www",
        label="simplesamlphp", env={"SIMPLESAMLPHP_CONFIG_DIR": str(directory), "PHP_CLI_SERVER_WORKERS": "4"},
    )  # fmt: skip
    wait_until(lambda: _answers(place, address), 10, "SimpleSAMLphp")
    metadata = directory / "idp.xml"
    _fetch(place, f"http://{address}/simplesaml/saml2/idp/metadata.php", metadata)
    return Idp(process, metadata)


def samlp(place: Namespace, address: str, directory: Path, acs: str) -> Idp:
    _prepare(directory)
    (directory / "anna").write_text(json.dumps(ANNA))
    (directory / "idp.js").write_text(_SAMLP)
    process = place.start(
        "node", "idp.js", address, acs, ENTITY_ID, label="samlp", cwd=directory, env={"NODE_PATH": str(SAMLP)}
    )
    process.wait_for("^ready")
    metadata = directory / "idp.xml"
    _fetch(place, f"http://{address}/metadata", metadata)
    return Idp(process, metadata)


def lasso(place: Namespace, address: str, directory: Path, acs: str) -> Idp:
    _prepare(directory)
    (directory / "anna").write_text(json.dumps(ANNA))
    (directory / "sp.xml").write_text(saml_idp.our_metadata(acs))
    key = saml_idp.Key((directory / "idp.key").read_text(), (directory / "idp.crt").read_text())
    metadata = directory / "idp.xml"
    metadata.write_text(saml_idp.metadata(key, f"http://{address}/idp", f"http://{address}/login"))
    program = Path(__file__).with_name("lasso_idp.py")
    process = place.start("/usr/bin/python3", program, address, "sp.xml", label="lasso", cwd=directory)
    process.wait_for("^ready")
    return Idp(process, metadata)
