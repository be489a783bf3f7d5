"""A change that can be neither made nor taken back, as nft fails in the middle of it: nobody reaches more by that than
before and after it alike, nothing says otherwise, and all is made good once nft works again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import certs, saml_idp
from helpers.lab import TARGET_LEG, GatewayProcess, wait_until

SOON_S = 20
EVERYBODY = '{ network = "10.20.0.0/16", all_groups = true }'
BEFORE = '{ network = "10.20.0.0/16", group = "eng" }, { network = "10.20.0.30/32", all_groups = true }'
AFTER = '{ network = "10.20.0.0/16", group = "ops" }'
HOST, ANOTHER, NEW = "10.20.0.10/32", "10.20.0.20/32", "10.20.0.40/32"
LOGINS = """
[[directory]]
id = "corp"
type = "openldap"
servers = ["ldaps://localhost"]
ca = "{there}/corp.ca"
bind_dn = "cn=cvpnd,dc=example,dc=org"
bind_password_file = "{there}/corp.password"
user_base = "dc=example,dc=org"
[[radius]]
directory = "corp"
servers = ["radius://localhost"]
secret_file = "{there}/corp.secret"
[[saml_provider]]
id = "sso"
metadata = "{there}/sso.xml"
[[handler]]
name = "AWSClientVPN-posture"
executable = "{there}/posture"
"""


@pytest.fixture
def broken(faulty_nft, logins):
    """While this file is there, nft is. And somebody takes the old provider's metadata away just then."""
    return faulty_nft(f"rm -f {logins}/sso.xml && echo planted >&2 && exit 1")


@pytest.fixture
def logins(tmp_path) -> Path:
    """The files of what nobody logs in with meanwhile."""
    there = tmp_path / "logins"
    there.mkdir()
    (there / "corp.ca").write_bytes(certs.authority().certificate_pem)
    (there / "corp.password").write_text("of the service")
    (there / "corp.secret").write_text("0123456789abcdef")
    for name in ("sso.xml", "new-sso.xml"):
        (there / name).write_text(saml_idp.metadata())
    (there / "posture").write_text("#!/bin/sh\n")
    (there / "posture").chmod(0o755)
    return there


@pytest.fixture
def half_made(site, broken, logins) -> GatewayProcess:
    """By a reload that takes a network away, so that the firewall has to be another."""
    for number in (20, 30, 40):
        site.lab.target.run("ip", "address", "add", f"10.20.0.{number}/24", "dev", "eth0")
    before = site.toml().replace(EVERYBODY, BEFORE) + LOGINS.format(there=logins)
    path = f"{broken.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    gateway = site._gateway = site.lab.gateway_process(before, PATH=path)
    for rule in (HOST, ANOTHER):
        gateway.ctl("rule", "add", "staff", rule, "--all-groups")
    broken.touch()
    after = before.replace(BEFORE, AFTER).replace(', "subnet-b"', "").replace("/sso.xml", "/new-sso.xml")
    gateway.write_config(after)
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1 and "could not be put back in force" in refused.stderr
    return gateway


def problems(gateway: GatewayProcess) -> list[dict[str, str]]:
    found = json.loads(gateway.ctl("status", "--json", check=False).stdout)["problems"]
    return [each for each in found if "less than its authorization rules say" in each["what"]]


def goes_back_and_replaces_a_device(site, ping, broken, gateway: GatewayProcess) -> None:
    broken.unlink()
    wait_until(lambda: not problems(gateway), SOON_S, what="the configuration before is in force")
    client = site.connect()
    assert ping("10.20.0.30") == 1.0
    (endpoint,) = gateway.ctl_json("endpoint", "list")
    site.lab.gateway.run("ip", "link", "delete", endpoint["interface"])
    client.wait_connected(SOON_S, times=2)
    assert ping("10.20.0.30") == 1.0


def test_only_what_holds_before_and_after_holds_and_no_rule_comes_in_force(site, ping, broken, half_made):
    gateway = half_made
    site.connect()
    assert ping(TARGET_LEG.host) == 1.0, "by a rule that is in both"
    assert ping("10.20.0.30") == 0, "by a rule that is not there after it"
    (problem,) = problems(gateway)
    assert problem["severity"] == "critical" and problem["subject"] == "endpoint staff"
    assert gateway.metrics()['cvpnd_authorization_rules_in_force{endpoint="staff"}'] == 0
    told = gateway.ctl("explain", "Test Client", "10.20.0.30", check=False).stdout
    assert "may not reach 10.20.0.30" in told and "cvpnctl status" in told

    refused = gateway.ctl("rule", "add", "staff", NEW, "--all-groups", check=False)
    assert refused.returncode == 1 and "cvpnctl status" in refused.stderr
    assert NEW not in gateway.ctl("rule", "list").stdout and ping("10.20.0.40") == 0

    gateway.ctl("rule", "remove", "staff", HOST, "--all-groups")
    assert ping(TARGET_LEG.host) == 0 and HOST not in gateway.ctl("rule", "list").stdout
    assert ping("10.20.0.20") == 1.0
    gateway.ctl("rule", "remove", "staff", ANOTHER, "--all-groups")
    assert ping(TARGET_LEG.host) == 0, "what was revoked stays so whatever is revoked after it"

    broken.unlink()
    wait_until(lambda: not problems(gateway), SOON_S, what="the configuration before is in force")
    assert ping("10.20.0.30") == 1.0 and gateway.metrics()['cvpnd_authorization_rules_in_force{endpoint="staff"}'] == 1
    gateway.ctl("rule", "add", "staff", NEW, "--all-groups")


def test_a_list_on_disk_that_goes_back_keeps_the_gateway_from_nothing_else(site, ping, broken, half_made):
    """The one in force stays, which is told; what was before is put back all the same, and a lost device replaced."""
    gateway = half_made
    site.write_crl(start=certs.START - 20 * certs.DAY)
    wait_until(lambda: "crl-goes-back" in gateway.log(), SOON_S)
    goes_back_and_replaces_a_device(site, ping, broken, gateway)
    assert gateway.metrics()['cvpnd_certificate_files_usable{endpoint="staff"}'] == 0
    assert gateway.metrics()['cvpnd_crl_usable{endpoint="staff"}'] == 1


def test_broken_files_of_logins_keep_the_gateway_from_nothing_but_a_reload(site, ping, broken, half_made, logins):
    """Whoever renews them may be in the midst of it."""
    gateway = half_made
    for name, text in (("corp.ca", "none"), ("corp.password", ""), ("new-sso.xml", "<html/>")):
        (logins / name).write_text(text)
    for name in ("corp.secret", "posture"):
        (logins / name).unlink()
    goes_back_and_replaces_a_device(site, ping, broken, gateway)
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1 and str(logins) in refused.stderr
