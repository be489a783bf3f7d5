"""Who is refused, with which word in log and metric, while everybody else notices nothing."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from helpers import certs
from helpers.lab import wait_until

from cvpnd.reasons import Refusal

REFUSED = {
    Refusal.CERTIFICATE_UNKNOWN_CA: certs.client_of_another_authority,
    Refusal.CERTIFICATE_EXPIRED: certs.expired_client,
    Refusal.CERTIFICATE_NOT_YET_VALID: certs.client_not_yet_valid,
    Refusal.CERTIFICATE_NO_COMMON_NAME: certs.client_without_common_name,
    Refusal.CERTIFICATE_WRONG_PURPOSE: certs.client_with_server_usage,
    Refusal.CERTIFICATE_REVOKED: lambda: certs.client("revoked"),
    Refusal.CERTIFICATE_WEAK_KEY: lambda: certs.client("weak", "rsa1024"),
}


def failures(gateway) -> dict[str, float]:
    prefix = 'cvpnd_authentication_failures_total{endpoint="staff",reason="'
    return {k.removeprefix(prefix)[:-2]: v for k, v in gateway.metrics().items() if k.startswith(prefix) and v}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_each_bad_certificate_is_refused_by_name_and_others_notice_nothing(site, ping, transport, tls):
    site.write_crl(certs.client("revoked"))
    gateway = site.start()
    site.connect(certs.client("good"), name="good", client=site.lab.clients[1], host="198.51.100.1")
    for reason, make in REFUSED.items():
        options = ["--tls-version-min", tls, "--tls-cipher", "DEFAULT:@SECLEVEL=0"]
        options += ["--tls-version-max", tls] if tls == "1.2" else []
        client = site.connect(make(), *options, wait=False, name=reason, transport=transport)
        wait_until(lambda reason=reason: reason in failures(gateway), 8, f"{reason} in the metrics")
        client.kill()
        assert client.connected_count == 0
        entries = [e for e in gateway.connection_log() if e["connection-attempt-failure-reason"] == reason]
        assert entries, f"{reason} is not in the connection log"
        assert entries[0]["connection-attempt-status"] == "failed"
        name = {"certificate-no-common-name": "NA"}.get(reason) or entries[0]["common-name"]
        assert entries[0]["common-name"] == name != ""
    assert set(failures(gateway)) == set(REFUSED)
    assert ping(client=site.lab.clients[1]) == 1.0


@pytest.mark.parametrize("kind", ["rsa2048", "ec384", "ed25519"])
def test_every_good_kind_of_key_connects(site, ping, kind):
    site.start()
    site.connect(certs.client(f"kind-{kind}", kind))
    assert ping(count=1) == 1.0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_ten_authorities_with_long_keys_lead_in_and_a_crowd_of_them_is_told_that_it_is_one(site, ping, transport, tls):
    gateway, issuer = site.start(), certs.authority()
    options = ["--tls-version-min", tls, *(["--tls-version-max", tls] if tls == "1.2" else [])]
    for number in range(10):
        issuer = certs.issue(issuer, certs.common_name(f"Authority {number}"), kind="rsa4096", is_ca=True)
    alice = site.connect(certs.issue(issuer, certs.common_name("alice"), kind="rsa4096"), *options, transport=transport)
    assert ping(count=1) == 1.0
    alice.kill()
    crowd = tuple(certs.authority(f"One of a crowd {number}").certificate for number in range(150))
    stranger = replace(certs.client(), intermediates=crowd)
    client = site.connect(stranger, *options, wait=False, name="crowd", transport=transport)
    wait_until(lambda: "tls-failure" in failures(gateway), 8)
    client.wait_for("record overflow", 8)
    assert client.connected_count == 0
    (entry, *_) = [e for e in gateway.connection_log() if e["connection-attempt-failure-reason"] == "tls-failure"]
    assert "is too long" in entry["detail"]


def test_small_rsa_key_connects_where_the_setting_allows_it(site, ping):
    toml = site.toml().replace('crl = "crl.pem"', 'crl = "crl.pem", allow_rsa_1024 = true')
    site._gateway = site.lab.gateway_process(toml)
    site.connect(certs.client("weak", "rsa1024"), "--tls-cipher", "DEFAULT:@SECLEVEL=0")
    assert ping(count=1) == 1.0


def test_expired_crl_refuses_everybody(site):
    site.write_crl(start=certs.START - 2 * certs.DAY, end=certs.START - certs.DAY)
    gateway = site.start()
    site.connect(wait=False)
    wait_until(lambda: failures(gateway) == {"crl-expired": 1.0} or failures(gateway).get("crl-expired"), 8)
    (entry, *_) = gateway.connection_log()
    assert entry["connection-attempt-failure-reason"] == "crl-expired"
    assert entry["common-name"] == "alice"


def test_newly_revoked_client_is_disconnected_at_once_and_stays_out(site, ping):
    gateway = site.start()
    alice = site.connect()
    second = site.lab.clients[1]
    bob = site.connect(certs.client("bob"), name="bob", client=second, host="198.51.100.1")
    site.write_crl(certs.client())
    begun = time.monotonic()
    alice.wait_for("Certificate revoked", 5)
    assert time.monotonic() - begun < 3
    assert ping(count=1) == 0.0
    assert ping(client=second) == 1.0
    assert bob.connected_count == 1
    (entry,) = [e for e in gateway.connection_log() if e["connection-log-type"] == "connection-reset"]
    assert entry["connection-end-reason"] == "certificate-revoked"
    site.connect(wait=False, name="again")
    wait_until(lambda: "certificate-revoked" in failures(gateway), 8)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("sent", [True, False], ids=["the-client-sends-it", "it-is-in-the-bundle"])
def test_who_came_by_an_intermediate_that_is_revoked_leaves_at_once_and_stays_out(site, ping, transport, sent):
    middle = certs.intermediate()
    alice = certs.client(issuer=middle)
    if not sent:
        alice = replace(alice, intermediates=())
        (site.directory / "ca.crt").write_bytes(certs.authority().certificate_pem + middle.certificate_pem)
    gateway = site.start("renegotiate_s = 0")  # no key will ever ask again
    client = site.connect(alice, transport=transport)
    second = site.lab.clients[1]
    bob = site.connect(certs.client("bob"), name="bob", client=second, host="198.51.100.1", transport=transport)
    assert ping(count=1) == 1.0
    site.write_crl(middle)
    client.wait_for("Certificate revoked", 5)
    assert ping(count=1) == 0.0
    (entry,) = [e for e in gateway.connection_log() if e["connection-log-type"] == "connection-reset"]
    assert (entry["common-name"], entry["connection-end-reason"]) == ("alice", "certificate-revoked")
    site.connect(alice, wait=False, name="again", transport=transport)
    wait_until(lambda: "certificate-revoked" in failures(gateway), 8)
    assert ping(client=second) == 1.0 and bob.connected_count == 1


def test_an_authority_that_revokes_nobody_beside_one_that_does_is_told(site):
    middle, crl = certs.intermediate(), site.directory / "crl.pem"
    (site.directory / "ca.crt").write_bytes(certs.authority().certificate_pem + middle.certificate_pem)
    gateway = site.start()
    told = "no revocation list of CN=Test Intermediate CA: whom they let in cannot be revoked"
    assert gateway.log().count(told) == 1 and f"{crl}: it holds" in gateway.log()
    site.connect(certs.client(issuer=middle)).kill()  # told, not refused
    for command in ("status", "doctor"):
        shown = gateway.ctl(command, check=False).stdout
        assert told in shown and "put a list of each authority into that file" in shown
    crl.write_bytes(crl.read_bytes() + certs.crl_pem(certs.certificate_revocation_list(middle)))
    gateway.running.wait_for("certificates reloaded from")
    for command in ("status", "doctor"):
        assert told not in gateway.ctl(command, check=False).stdout
    assert gateway.log().count(told) == 1


def test_an_authority_with_which_no_client_gets_in_is_told(site):
    bundle, old = site.directory / "ca.crt", certs.authority("Old CA", "dsa")
    good = certs.authority().certificate_pem
    bundle.write_bytes(good + old.certificate_pem)
    gateway = site.start()
    told = f"{bundle}: CN=Old CA is a certificate with a key of unusual parameters"
    assert gateway.log().count(told) == 1
    shown = gateway.ctl("doctor", check=False).stdout
    assert told in shown and "put an authority with a usual key, on P-256, say, beside it" in shown
    site.connect(certs.client()).kill()
    bundle.write_bytes(good)
    gateway.running.wait_for("certificates reloaded from")
    assert told not in gateway.ctl("doctor", check=False).stdout


def test_a_list_of_last_month_that_comes_back_lets_nobody_in_again(site, ping):
    path = site.directory / "crl.pem"
    last_month = certs.crl_pem(certs.certificate_revocation_list(start=certs.START - 20 * certs.DAY))
    path.write_bytes(last_month)
    gateway = site.start()
    site.write_crl(certs.client("stolen"), number=2)
    gateway.ctl("reload")
    path.write_bytes(last_month)
    wait_until(lambda: "crl-goes-back" in gateway.log(), 5)
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1 and f"{path}: crl-goes-back" in refused.stderr
    site.connect(certs.client("stolen"), name="stolen", wait=False)
    wait_until(lambda: "certificate-revoked" in failures(gateway), 8)
    assert gateway.metrics()['cvpnd_certificate_files_usable{endpoint="staff"}'] == 0
    site.connect(certs.client("bob"), name="bob", client=site.lab.clients[1], host="198.51.100.1")
    assert ping(client=site.lab.clients[1]) == 1.0
    for client in site._clients:
        client.kill()
    gateway.stop()
    gateway.start()
    site.connect(certs.client("stolen"), name="after-a-restart", wait=False)
    wait_until(lambda: "crl-unusable" in failures(gateway), 8)
    assert f"{path}: crl-goes-back" in gateway.log() and "number 2 of" in gateway.log()
    assert gateway.metrics()['cvpnd_certificate_files_usable{endpoint="staff"}'] == 0
    assert gateway.metrics()['cvpnd_crl_usable{endpoint="staff"}'] == 0
    assert "crl-goes-back" in gateway.ctl("status", check=False).stdout
    site._clients[-1].kill()
    site.write_crl(certs.client("stolen"), number=3)
    wait_until(lambda: gateway.metrics()['cvpnd_certificate_files_usable{endpoint="staff"}'] == 1, 8)
    site.connect(certs.client("stolen"), name="still-out", wait=False)
    wait_until(lambda: "certificate-revoked" in failures(gateway), 8)
    site._clients[-1].kill()
    site.connect(certs.client("bob"), name="bob-again").kill()

    path.write_bytes(last_month)
    path.rename(site.directory / "restored.pem")  # that is how its operator says that it is meant
    config = gateway.config_path
    config.write_text(config.read_text().replace('crl = "crl.pem"', 'crl = "restored.pem"'))
    for restart in (False, True):
        if restart:
            gateway.stop()
            gateway.start()
        else:
            gateway.ctl("reload")
        site.connect(certs.client("stolen"), name=f"let-in-{restart}").kill()

    path.write_bytes(last_month)
    config.write_text(config.read_text().replace('crl = "restored.pem"', 'crl = "crl.pem"'))
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1 and f"{path}: crl-goes-back" in refused.stderr and "number 3 of" in refused.stderr
    site.connect(certs.client("stolen"), name="by-the-one-in-force").kill()
    site.write_crl(certs.client("stolen"), number=4)
    gateway.ctl("reload")
    for restart in (False, True):
        if restart:
            gateway.stop()
            gateway.start()
        site.connect(certs.client("stolen"), name=f"out-again-{restart}", wait=False)
        wait_until(lambda: "certificate-revoked" in failures(gateway), 8)
        site._clients[-1].kill()


def test_half_written_crl_keeps_the_old_one(site, ping):
    gateway = site.start()
    site.connect()
    whole = (site.directory / "crl.pem").read_bytes()
    (site.directory / "crl.pem").write_bytes(whole[: len(whole) // 2])
    wait_until(lambda: "crl.pem" in gateway.log(), 5)
    assert ping() == 1.0
    site.connect(certs.client("bob"), name="bob", client=site.lab.clients[1], host="198.51.100.1")


def test_replaced_server_certificate_serves_new_clients_and_keeps_old_sessions(site, ping):
    site.start()
    first = site.connect()
    certs.server("second.example.com").write(site.directory, "server")
    time.sleep(2.5)
    second = site.connect(certs.client("bob"), name="bob", client=site.lab.clients[1], host="198.51.100.1")
    assert "CN=second.example.com" in second.log()
    assert first.connected_count == 1
    assert ping() == 1.0
