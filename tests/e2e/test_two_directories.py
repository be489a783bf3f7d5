"""One name in two directories of one gateway, each for an endpoint of its own: two people."""

from __future__ import annotations

import os
import re

import pytest
from helpers.crowd import Crowd, errors, pushed_token
from helpers.lab import wait_until
from helpers.openldap import BASE, SLAPD
from helpers.totp import code_of, static

from cvpnd.auth.throttle import FREE_FAILURES

pytestmark = [
    pytest.mark.skipif(not SLAPD.exists() or os.geteuid() != 0, reason="make test unpacks slapd"),
    pytest.mark.skipif("LOGINS" not in os.environ, reason="make test-logins runs it"),
]

EXPIRED = ["AUTH_FAILED,SESSION: token expired"]


def test_neither_groups_nor_codes_nor_tokens_nor_failures_of_one_are_the_others(site, start_corp):
    corp = start_corp({"alice": "right"}, {"eng": ["alice"]}, mfa="totp")
    admin, gateway = corp.admin(), site.gateway
    for unit in ("partners", "clubs"):
        assert admin.add(f"ou={unit},{BASE}", ["organizationalUnit"], {"ou": unit})
    hers = f"uid=alice,ou=partners,{BASE}"
    assert admin.add(hers, ["inetOrgPerson"], {"uid": "alice", "cn": "alice", "sn": "alice", "userPassword": "of hers"})
    assert admin.add(f"cn=chess,ou=clubs,{BASE}", ["groupOfNames"], {"cn": "chess", "member": hers})
    guests = site.gateway.config_path.read_text().partition("[[endpoint]]")[2].partition("[[directory]]")[0]
    for old, new in (
        ('"staff"', '"guests"'), (":1194", ":1195"), (":443", ":444"), ("10.100.0.0", "10.101.0.0"),
        ('"corp"', '"partners"'),
    ):  # fmt: skip
        guests = guests.replace(old, new)
    partners = re.sub('id = "corp"', 'id = "partners"', corp.toml())
    partners = partners.replace("ou=people", "ou=partners").replace("ou=groups", "ou=clubs")
    gateway.write_config(gateway.config_path.read_text() + f"[[endpoint]]\n{guests}\n{partners}")
    gateway.ctl("reload")

    def log_in(port: int, *passwords: str, ping: bool = False) -> dict:
        """As alice."""
        more = ("--ping", "10.30.0.10", "--timeout", "4") if ping else ()
        remote = f"{site.lab.gateway_address}:{port}"
        return Crowd(site.lab, [("alice", each) for each in passwords], *more, "--remote", remote).report()

    def enrol(directory: str) -> dict:
        return gateway.ctl_json("user", "totp", "enrol", "alice", "--directory", directory)

    enrolled = {1194: enrol("corp")}
    assert errors(log_in(1195, static("of hers", code_of(enrolled[1194])))) == ["AUTH_FAILED"]
    wait_until(lambda: "mfa-not-enrolled" in gateway.refusals(), 5)
    enrolled[1195] = enrol("partners")
    reports = {
        port: log_in(port, static(password, code_of(enrolled[port])), ping=True)
        for port, password in ((1194, "right"), (1195, "of hers"))
    }
    assert [errors(report) for report in reports.values()] == [[], ["no answer from 10.30.0.10"]], "eng is of one alone"
    tokens = {port: pushed_token(report["results"][0]) for port, report in reports.items()}
    assert errors(log_in(1195, tokens[1194])) == errors(log_in(1194, tokens[1195])) == EXPIRED
    assert gateway.refusals().count("token-invalid") == 2

    guesses = FREE_FAILURES + 1
    wrong = static("guess", "000000")
    assert errors(log_in(1195, *(guesses * [wrong]))) == guesses * ["AUTH_FAILED"]
    recovery = enrolled[1194]["recovery_codes"][0]
    assert errors(log_in(1194, static("right", recovery))) == []
    told = errors(log_in(1195, wrong, wrong, wrong))
    throttled = sum("Too many failed logins" in each for each in told)  # one may be looked at if 2 s have gone by
    assert throttled >= 2, "her failures there are not forgotten for it"

    enrol("partners")
    assert errors(log_in(1195, tokens[1195])) == EXPIRED and errors(log_in(1194, tokens[1194])) == []
