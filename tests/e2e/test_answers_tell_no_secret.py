"""Nothing that the daemon answers tells a secret, whoever asks and however wrongly: the admin socket, the AWS API, the
portal, metrics. Nor is one to be read in the processes of the gateway.

All of it is written below the lab's log directory, where ``helpers/canaries.py`` looks for every secret there was, the
logs at their most talkative as well."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
from pathlib import Path
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from helpers import canaries, saml_idp
from helpers.answers import Answers
from helpers.lab import wait_until
from helpers.networks import endpoint
from helpers.totp import code_of, static

from cvpnd.wire.wrap import key_files

API, METRICS, PORTAL = ("127.0.0.1", 8443), ("127.0.0.1", 9176), ("127.0.0.1", 8444)
RIGHT, WRONG, NEVER_SET = "Canary-right-pAssw0rd", "Canary-wr0ng-guess", "Canary-n3w-pass\nword"
BIND, SHARED_SECRET, SIGNING = "Canary-b1nd-password", "Canary-sh4red-of-radius", "Canary-s1gns-requests"
PASSWORD = '{ type = "directory-service-authentication", directory = "local", mfa = "totp" }'
BESIDE = """
[daemon]
log_level = "debug"
[metrics]
listen = "127.0.0.1:9176"
per_user = true
openvpn_exporter_names = true
[status_file]
path = "log/status.log"
version = 3
[api]
listen = "http://127.0.0.1:8443"
[portal]
listen = "0.0.0.0:8444"
url = "https://vpn.example.com:8444"
certificate = "server.crt"
private_key = "server.key"
[[handler]]
name = "AWSClientVPN-never"
url = "http://127.0.0.1:9/connect"
secret_file = "handler.secret"
[[saml_provider]]
id = "sso"
metadata = "idp.xml"
[[directory]]
id = "corp"
type = "openldap"
servers = ["ldaps://127.0.0.1:9"]
bind_dn = "cn=reader,dc=example"
bind_password_file = "bind.password"
user_base = "dc=example"
[[radius]]
directory = "corp"
servers = ["radius://127.0.0.1:9"]
secret_file = "radius.secret"
[[local_users]]
name = "anna"
password_hash = "{hash}"
"""
ASKS = 'connect_handler = "AWSClientVPN-never"'


@pytest.fixture
def gateway(site):
    directory = site.directory
    (directory / "log").mkdir()
    (directory / "shared.key").write_bytes(key_files.serialise_static_key(key_files.new_static_key()))
    (directory / "v2.key").write_bytes(key_files.serialise_v2_server_key(key_files.new_v2_server_key()))
    (directory / "idp.xml").write_text(saml_idp.metadata())
    for name, secret in (("bind.password", BIND), ("radius.secret", SHARED_SECRET), ("handler.secret", SIGNING)):
        (directory / name).write_text(secret + "\n")
        (directory / name).chmod(0o600)
    hashed = PasswordHasher(time_cost=1, memory_cost=19456, parallelism=1).hash(RIGHT)
    protection = 'control_protection = { tls_crypt = { key = "shared.key" }, tls_crypt_v2 = { server_key = "v2.key" } }'
    staff = site.toml(protection).partition("\n[[vpc]]")[2]
    staff = re.sub(r"(?m)^authentication = .*", f"authentication = [{PASSWORD}]", staff)
    staff = staff.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
    by_assertion = 'type = "federated-authentication", saml_provider = "sso"'
    by_radius = 'type = "directory-service-authentication", directory = "corp", mfa = "radius"'
    others = endpoint("sso", 104, by_assertion, ASKS) + endpoint("corp", 108, by_radius, ASKS)
    site._gateway = site.lab.gateway_process(BESIDE.format(hash=hashed) + "\n[[vpc]]" + staff + others)
    return site._gateway


def test_a_daemon_that_crashes_leaves_none_of_its_memory_behind(site):
    """Wherever it was started from: systemd forbids it too (``LimitCORE``)."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        gateway = site.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert resource.prlimit(gateway.running.pid, resource.RLIMIT_CORE)[0] == 0
    gateway.running.signal(signal.SIGSEGV)
    assert gateway.running.wait() == -signal.SIGSEGV
    assert not list(gateway.directory.glob("core*"))


def wrong_bodies(key: str) -> list[object]:
    """With a secret each, for whoever answers with what it did not understand."""
    return [
        {"name": "otto", "password": NEVER_SET, "groups": "no list"},
        {"name": {"password": NEVER_SET}, "password": [NEVER_SET]},
        {"certificate": key, "private_key": key, "chain": key},
        {"certificate": "x", "private_key": key[:-40], "name": key},
        json.dumps({"password": NEVER_SET}).encode()[:-3],
        NEVER_SET.encode(),
        key.encode() * 2000,
    ]


def test_no_answer_and_no_process_tells_a_secret(site, gateway, connect, ping):
    lab = site.lab
    for secret in (RIGHT, WRONG, NEVER_SET, BIND, SHARED_SECRET, SIGNING):
        canaries.plant(secret, "what this test made up")
    enrolment = gateway.ctl_json("user", "totp", "enrol", "anna")
    keys = gateway.ctl_json("access-key", "create", "--role", "admin")
    secret_key = keys["secret_access_key"]
    crypt = ("--tls-crypt", str(site.directory / "shared.key"))
    for number, typed in enumerate((static(WRONG, "123456"), static(RIGHT, "654321"))):
        refused = connect("anna", typed, *crypt, name=f"refused{number}")
        refused.wait_for("AUTH_FAILED")
        refused.stop()
    client = connect("anna", static(RIGHT, code_of(enrolment)), *crypt).wait_connected()
    assert ping() == 1.0
    (connection,) = gateway.ctl_json("connection", "list")
    client.process.signal(signal.SIGHUP)  # once more, with its token
    wait_until(lambda: client.connected_count == 2, 15)

    answers = Answers(lab.gateway, gateway.admin_socket, gateway.directory / "log")
    status, document = answers.ask(None, "GET", "/v1/openapi.json")
    assert status == 200
    key = (site.directory / "server.key").read_text()
    values = {"connection_id": connection["connection_id"], "endpoint": "staff"}
    served = 0
    paths = json.loads(document)["paths"]
    del paths["/v1/endpoints/{endpoint}/profile"]  # which is to tell the keys that clients share
    for path, operations in paths.items():
        filled = re.sub(r"\{(\w+)\}", lambda name: quote(values.get(name[1], "anna"), safe=""), path)
        for method, operation in operations.items():
            if method == "get":
                asked = [p["name"] for p in operation["parameters"] if p["in"] == "query"]
                query = "&".join(f"{name}={quote(WRONG + key)}" for name in asked)
                served += answers.ask(None, "GET", filled)[0] == 200
                answers.ask(None, "GET", f"{filled}?{query}")
            elif method in ("post", "put", "patch") and "requestBody" in operation:
                for body in wrong_bodies(key):
                    assert answers.ask(None, method.upper(), filled, body)[0] >= 400
    assert served > 15

    signed = f"AWS4-HMAC-SHA256 Credential={keys['access_key_id']}/20260101/us-east-1/ec2/aws4_request, "
    signed += f"SignedHeaders=host;x-amz-date, Signature={secret_key}"
    for body in (b"Action=DescribeClientVpnEndpoints", f"Action={quote(key)}&Password={quote(NEVER_SET)}".encode()):
        form = {"Content-Type": "application/x-www-form-urlencoded", "X-Amz-Date": "20260101T000000Z"}
        assert answers.ask(API, "POST", "/", body, Authorization=signed, **form)[0] >= 400
        assert answers.ask(API, "POST", f"/{quote(secret_key)}", body, Authorization=secret_key, **form)[0] >= 400
    text = answers.ask(METRICS, "GET", "/metrics")[1]
    assert b'user="anna"' in text
    answers.ask(METRICS, "GET", f"/{quote(WRONG)}")

    bundle = gateway.directory / "bundle.tar.gz"
    gateway.ctl("support-bundle", "--config", str(gateway.config_path), "--output", str(bundle))
    processes = lab.gateway.run("ip", "netns", "pids", lab.gateway.name).stdout.split()
    assert str(gateway.running.pid) in processes
    seen = b""
    for process in processes:
        for what in ("cmdline", "environ"):
            with contextlib.suppress(FileNotFoundError):  # one that has just ended
                seen += (Path("/proc") / process / what).read_bytes().replace(b"\0", b"\n")
    (gateway.directory / "log" / "processes").write_bytes(seen)
    assert (gateway.directory / "log" / "status.log").read_text()
    client.stop()
    canaries.look_below(lab.directory)
