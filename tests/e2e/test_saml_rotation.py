"""An identity provider gets a new key while people are logged in and others are on their way: UpdateSAMLProvider."""

from __future__ import annotations

import shutil
import signal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from helpers import saml_idp, web_login
from helpers.lab import GatewayProcess, wait_until
from helpers.web_login import ACS, Browser, Device, device

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")

API = "http://127.0.0.1:8444"
PORT = 1500
NEW = saml_idp.key("new")


def iam(gateway: GatewayProcess) -> Any:
    key = gateway.ctl_json("access-key", "create", "--role", "admin")
    return boto3.client(
        "iam", endpoint_url=API, region_name="local", aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
    )  # fmt: skip


def make_endpoint(site: Any, gateway: GatewayProcess, provider: str) -> None:
    files = (site.directory / "server.crt", site.directory / "server.key")
    arn = gateway.ctl_json("certificate", "import", *map(str, files), "--chain", str(site.directory / "ca.crt"))["arn"]
    gateway.ctl(
        "endpoint", "create", "10.105.0.0/22", "--name", "lab", "--server-certificate", arn,
        "--saml-provider", provider, "--port", str(PORT), "--set=split_tunnel=true", "--set=ping_s=1",
        f"--set=remote={web_login.HOST}",
    )  # fmt: skip
    gateway.ctl("network", "add", "lab", "subnet-a")
    gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")


def test_a_new_key_counts_at_once_and_who_is_logged_in_notices_nothing(site, ping):
    web_login.write_certificate(site.directory)
    settings = f'[api]\nlisten = "{API}"\n[managed]\nlisten = ["0.0.0.0"]\n{web_login.PORTAL}'
    site._gateway = gateway = site.lab.gateway_process(site.toml() + settings)
    browser = Browser(site.lab.client)

    def arrive(name: str) -> tuple[Device, str, str]:
        """Somebody, at the identity provider."""
        laptop = device(site, name, *web_login.WEB_AUTH, port=PORT)
        url = browser.sent_on(browser.get(laptop.link()))
        return laptop, url, parse_qs(urlsplit(url).query)["RelayState"][0]

    def let_in(laptop: Device, url: str, relay_state: str, **signed: object) -> None:
        answer = browser.post(ACS, SAMLResponse=saml_idp.answer(url, **signed), RelayState=relay_state)
        browser.decide(browser.consent_page(answer))
        laptop.client.wait_connected()

    with site.lab.gateway.entered():
        api = iam(gateway)
        old = saml_idp.metadata()
        arn = api.create_saml_provider(Name="corp", SAMLMetadataDocument=old)["SAMLProviderArn"]
        make_endpoint(site, gateway, arn)
    first, *visit = arrive("first")
    let_in(first, *visit)
    assert ping() == 1.0

    with_old_key, old_url, old_relay_state = arrive("with-old-key")
    with_new_key, new_url, new_relay_state = arrive("with-new-key")
    with site.lab.gateway.entered():
        api.update_saml_provider(SAMLProviderArn=arn, SAMLMetadataDocument=saml_idp.metadata(NEW))
        assert api.get_saml_provider(SAMLProviderArn=arn)["SAMLMetadataDocument"] == saml_idp.metadata(NEW)
    answer = browser.post(ACS, SAMLResponse=saml_idp.answer(old_url), RelayState=old_relay_state)
    assert answer.status_code == 403, "the old key may be why there is a new one"
    with_old_key.client.wait_for("AUTH_FAILED")
    wait_until(lambda: "saml-signature-invalid" in gateway.refusals(), 8)
    assert with_old_key.client.connected_count == 0
    with_old_key.client.kill()
    first.client.process.signal(signal.SIGUSR1)
    first.client.wait_connected(20, times=2)
    assert first.person.heard().count("WEB_AUTH") == 1, "by its token: the issuer is the same"
    assert ping() == 1.0
    first.client.stop()
    let_in(with_new_key, new_url, new_relay_state, response_key=NEW, assertion_key=NEW)
    assert ping() == 1.0
    with_new_key.client.stop()
    later, *visit = arrive("later")
    let_in(later, *visit, response_key=NEW, assertion_key=NEW)
    metrics = gateway.metrics()
    assert metrics[f'cvpnd_saml_responses_total{{provider="{arn}",result="accepted"}}'] == 3
