"""A day at a gateway, and what a real Prometheus that scraped it says in PromQL afterwards."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from helpers import certs, web_login
from helpers.lab import wait_until
from helpers.prometheus import Prometheus, panels

GUIDE = Path(__file__).parents[2] / "docs" / "metrics.md"
PASSWORDS = """
[[endpoint]]
name = "guests"
client_cidr = "10.104.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = {{ certificate = "server.crt", private_key = "server.key", chain = "ca.crt" }}
authentication = [{{ type = "directory-service-authentication", directory = "local" }}]
[[local_users]]
name = "anna"
password_hash = "{password_hash}"
"""
ANSWER = {
    "error-msg-on-denied-connection": "no", "posture-compliance-statuses": [], "schema-version": "v3",
}  # fmt: skip
SAYS = f"case $(cat) in *carol*) a=false;; *) a=true;; esac; echo '{{\"allow\": '$a', {json.dumps(ANSWER)[1:]}'"
HANDLER = """
[[handler]]
name = "AWSClientVPN-day"
executable = "/bin/sh"
arguments = ["-c", {says}]
"""
METRICS = '[metrics]\nlisten = "127.0.0.1:9176"\nper_user = true\nopenvpn_exporter_names = true\n'


@pytest.fixture
def prometheus(site):
    """Starts one beside the gateway; returns what evaluates an expression there, as a number by its labels."""
    return lambda: Prometheus(site.lab.gateway, site.lab.directory / "prometheus").query


def value(answer):
    (only,) = answer.values()
    return only


def test_a_day_is_told_by_a_real_prometheus(site, prometheus, ping):
    """Logins, failures, the CRL, the handler, an end by the administrator, and traffic."""
    site.write_crl(certs.client("mallory"))
    status = site.lab.directory / "status.log"
    password_hash = PasswordHasher(time_cost=1, memory_cost=19456, parallelism=1).hash("right")
    gateway = site.start(
        'connect_handler = "AWSClientVPN-day"'
        + PASSWORDS.format(password_hash=password_hash)
        + HANDLER.format(says=json.dumps(SAYS)),
        daemon=f'{METRICS}[status_file]\npath = "{status}"\nversion = 2\ninterval_s = 1\n',
    )
    query = prometheus()
    first = site.connect(certs.client("alice"))
    second = site.connect(certs.client("bob"), client=site.lab.clients[1], name="bob")
    assert ping(count=5) == 1.0
    assert ping("10.30.0.10", 2) == 0.0  # no rule allows it
    mallory = site.connect(certs.client("mallory"), wait=False, name="mallory", port=443)
    wait_until(lambda: "certificate-revoked" in gateway.refusals(), what="mallory is refused")
    mallory.kill()
    guess = site.profile(name="anna", port=1195)
    (guess.parent / "login").write_text("anna\nwrong\n")
    guess.write_text(re.sub("(?m)^(cert|key) .*\n", "", guess.read_text()) + "auth-user-pass login\n")
    site.lab.openvpn(guess).wait_for("AUTH_FAILED", 10)
    carol = site.connect(certs.client("carol"), wait=False, name="carol")
    carol.wait_for("AUTH_FAILED,no", 10)
    gateway.ctl("connection", "terminate", "--username", "bob")
    second.wait_for("Terminated by the administrator|halt", 5)

    day = 'cvpnd_connection_ends_total{endpoint="staff", reason="terminated"}'
    wait_until(lambda: query(day) and value(query(day)) == 1, 10, "Prometheus has the end of the day")
    staff = '{endpoint="staff"}'
    assert value(query(f"cvpnd_active_connections{staff}")) == 1
    assert value(query('sum(cvpnd_authentication_failures_total{reason="certificate-revoked"})')) >= 1
    assert value(query('cvpnd_authentication_failures_total{endpoint="guests", reason="wrong-password"}')) == 1
    denied = '{endpoint="staff", reason="client-connect-failed"}'
    assert value(query(f"cvpnd_authentication_failures_total{denied}")) == 1
    late = denied.replace("failed", "handler-timed-out")
    assert value(query(f"cvpnd_authentication_failures_total{late}")) == 0
    assert value(query('cvpnd_connect_handler_seconds_count{handler="AWSClientVPN-day"}')) == 3
    assert value(query('cvpnd_directory_seconds_count{directory="local"}')) == 1
    assert value(query(f"cvpnd_ingress_packets_total{staff}")) >= 5
    assert value(query(f"cvpnd_ingress_bytes_total{staff}")) >= 5 * 84
    assert value(query(f"cvpnd_egress_packets_total{staff}")) >= 5
    assert value(query(f"cvpnd_egress_bytes_total{staff}")) >= 5 * 84
    assert value(query('sum(cvpnd_dropped_packets_total{reason="denied"})')) >= 2
    assert 0 < value(query(f"(cvpnd_crl_expiry_timestamp_seconds{staff} - time()) / 86400")) < 36_500
    assert value(query(f"cvpnd_lease_pool_used{staff}")) == 1
    assert value(query('cvpnd_handshake_stages_total{endpoint="staff", stage="keys", result="completed"}')) == 2
    assert value(query('cvpnd_handshake_stages_total{endpoint="staff", stage="tls", result="refused"}')) >= 1
    slowest = 'histogram_quantile(1, sum by (le) (cvpnd_handshake_stage_seconds_bucket{endpoint="staff", stage="tls"}))'
    assert 0 < value(query(slowest)) <= 30
    assert value(query('sum(cvpnd_thread_cpu_seconds_total{thread="main"})')) > 0
    assert value(query("count(cvpnd_thread_cpu_seconds_total{thread=~'worker-.*'}) - scalar(cvpnd_workers)")) == 0
    assert value(query(f"cvpnd_socket_dropped_packets_total{staff}")) == 0
    assert value(query('cvpnd_user_connections{user="alice"}')) == 1
    assert value(query('cvpnd_user_ingress_bytes_total{user="alice"}')) >= 5 * 84
    assert value(query('cvpnd_user_connections{user="bob"}')) == 0
    assert query('cvpnd_user_connections{user="anna"}') == {}, "she was refused"
    assert value(query('openvpn_server_connected_clients{status_path="staff"}')) == 1
    assert query('ALERTS{alertstate="firing"}') == {}
    for asked in panels():
        may_be_empty = asked.endswith("> 0") or "radius" in asked or "saml" in asked
        wait_until(lambda asked=asked, enough=may_be_empty: query(asked) or enough, 15, f"a panel: {asked}")

    wait_until(lambda: "alice" in status.read_text() and "bob" not in status.read_text(), 5, "the status file follows")
    (client,) = [line.split(",") for line in status.read_text().splitlines() if line.startswith("CLIENT_LIST,")]
    assert client[1] == "alice" and client[3] == first.address


def test_counters_go_on_when_a_reload_replaces_their_endpoint(site, ping):
    gateway = site.start()
    client = site.connect()
    assert ping(count=3) == 1.0
    before = gateway.metrics()
    assert before['cvpnd_egress_packets_total{endpoint="staff"}'] >= 3
    text = gateway.config_path.read_text()
    gateway.config_path.write_text(text.replace("10.100.0.0/22", "10.108.0.0/22"))
    gateway.ctl("reload")
    client.wait_connected(20, times=2)
    now = gateway.metrics()
    counters = [name for name in before if 'endpoint="staff"' in name and "_total" in name]
    assert len(counters) > 50 and [name for name in counters if now[name] < before[name]] == []


JUDGE = """#!/bin/sh
case $(cat) in
*'"common-name": "slow"'*) sleep 60;;
*'"common-name": "broken"'*) exit 3;;
*'"common-name": "odd"'*) echo maybe;;
*'"common-name": "denied"'*) echo '{denies}';;
*) echo '{allows}';;
esac
"""
SELF_SERVICE = 'self_service_portal = true\nremote = "{host}"\n[[local_users]]'


def twins() -> dict[str, str]:
    """CloudWatch's names in the guide, and the PromQL that stands beside them."""
    table = GUIDE.read_text().partition("| CloudWatch |")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        theirs, ours = (re.findall("`([^`]+)`", cell) for cell in line.strip("|").split("|"))
        assert 1 <= len(theirs) <= len(ours), line
        found |= dict(zip(theirs, ours, strict=False))
    return found


def test_each_metric_of_cloudwatch_has_its_twin_in_the_guide_with_the_value_of_the_day(site, prometheus, ping):
    """Each way in which a handler fails, and a download by a person."""
    for directory in (site.lab.directory, site.directory):
        directory.chmod(0o755)  # the handler's user has to find it
    judge = site.directory / "judge"
    allows, denies = (json.dumps({"allow": yes, **ANSWER}) for yes in (True, False))
    judge.write_text(JUDGE.format(allows=allows, denies=denies))
    judge.chmod(0o755)
    handler = f'[[handler]]\nname = "AWSClientVPN-day"\nexecutable = "{judge}"\n'
    guests = PASSWORDS.format(password_hash=PasswordHasher(time_cost=1, memory_cost=19456, parallelism=1).hash("right"))
    web_login.write_certificate(site.directory)
    gateway = site.start(
        'connect_handler = "AWSClientVPN-day"'
        + guests.replace("[[local_users]]", SELF_SERVICE.format(host=web_login.HOST))
        + handler + "timeout_s = 5\nconcurrency = 1\nqueue = 0\n" + web_login.PORTAL,
        daemon=METRICS,
    )  # fmt: skip
    query = prometheus()
    site.connect(certs.client("alice"))
    assert ping(count=5) == 1.0

    def come(name):
        return site.connect(certs.client(name), wait=False, name=name)

    slow = come("slow")
    wait_until(lambda: gateway.metrics()['cvpnd_queue_depth{queue="connect_handlers"}'] == 1)
    for name in ("throttled", "denied", "broken", "odd", "lost"):
        if name == "denied":
            slow.wait_for("AUTH_FAILED", 15)
            slow.stop()
        if name == "lost":
            judge.chmod(0o775)
        refused = come(name)
        refused.wait_for("AUTH_FAILED", 15)
        refused.stop()
    download(web_login.Browser(site.lab.client))

    def of_the_day() -> dict[str, float]:
        return {name: value(query(f"sum({expression})")) for name, expression in twins().items()}

    (alice,) = gateway.ctl_json("connection", "list")
    expected = {
        "ActiveConnectionsCount": 1,
        "AuthenticationFailures": 6,
        "SelfServicePortalClientConfigurationDownloads": 1,
        **{f"{way}{counted}": alice[f"{way.lower()}_{counted.lower()}"]
           for way in ("Egress", "Ingress") for counted in ("Bytes", "Packets")},
        **{f"ClientConnectHandler{what}": 1 for what in (
            "DeniedConnections", "FailedServiceErrors", "InvalidResponses", "OtherExecutionErrors", "ThrottlingErrors",
            "Timeouts")},
    }  # fmt: skip
    assert alice["ingress_packets"] >= 5
    downloads = twins()["SelfServicePortalClientConfigurationDownloads"]
    wait_until(lambda: query(downloads) and value(query(f"sum({downloads})")) == 1, 15, "Prometheus has the day's end")
    told = of_the_day()
    assert 0 < told.pop("CrlDaysToExpiry") < 36_500
    assert told == expected


def download(browser):
    page = f"{web_login.URL}/self-service/endpoints/cvpn-endpoint-{hashlib.sha256(b'guests').hexdigest()[:17]}"
    word = re.search('name="word" value="([^"]*)"', browser.get(page).text)[1]
    browser.get(browser.sent_on(browser.post(f"{page}/login", word=word, username="anna", password="right")))
    assert browser.get(f"{page}/profile/openvpn").status_code == 200
