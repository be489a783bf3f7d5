"""An endpoint that was made at run time logs people in by the file's identity provider, which it knows by its ARN."""

from __future__ import annotations

import shutil
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import saml_idp, web_login
from helpers.web_login import ACS, HOST, Browser, device


@pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")
def test_somebody_logs_in_by_the_arn_of_the_files_provider(site, ping):
    metadata = site.directory / "idp.xml"
    metadata.write_text(saml_idp.metadata())
    gateway = site._gateway = site.lab.gateway_process(web_login.toml(site, metadata))
    files = [str(site.directory / name) for name in ("server.crt", "server.key")]
    arn = gateway.ctl_json("certificate", "import", *files, "--chain", str(site.directory / "ca.crt"))["arn"]
    provider = "arn:aws:iam::000000000000:saml-provider/corp"
    gateway.ctl(
        "endpoint", "create", "10.104.0.0/22", "--name", "people", "--server-certificate", arn, "--port", "1195",
        "--saml-provider", provider, f"--set=remote={HOST}", "--set=split_tunnel=true",
    )  # fmt: skip
    gateway.ctl("network", "add", "people", "subnet-a")
    gateway.ctl("rule", "add", "people", "10.20.0.0/16", "--group", "eng")
    profile = gateway.ctl("profile", "anna", "--endpoint", "people").stdout
    laptop, browser = device(site, "laptop", text=profile), Browser(site.lab.client)
    url = browser.sent_on(browser.get(laptop.link()))
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    page = browser.consent_page(browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state))
    assert "people" in page.text and laptop.client.connected_count == 0
    assert "Connected" in browser.decide(page).text
    laptop.client.wait_connected()
    assert ping() == 1.0, "the provider's groups count"
    (view,) = gateway.ctl_json("connection", "list")
    assert (view["endpoint_name"], view["username"]) == ("people", "anna@example.com")
