"""CBC for the stock client whose configuration allows nothing else, where ``legacy_cbc_ciphers`` says so and nowhere
else (openvpn-wire.md sections 11.2 and 13)."""

from __future__ import annotations

import pytest
from helpers import certs
from helpers.lab import wait_until

ON = 'legacy_cbc_ciphers = ["AES-256-CBC", "AES-128-CBC"]'
CBC_ONLY = ("--data-ciphers", "AES-256-CBC", "--cipher", "AES-256-CBC", "--disable-dco")
TARGET_V6 = "fd00:20::a"
MEGABYTE = 1 << 20


def fragments(*hosts) -> int:
    total = 0
    for host in hosts:
        head, values = host.run("sh", "-c", "grep ^Ip: /proc/net/snmp").stdout.splitlines()
        total += int(dict(zip(head.split(), values.split(), strict=True))["FragCreates"])
    return total


@pytest.mark.parametrize("digest", ["SHA256", "SHA1", "SHA512"])
def test_cbc_carries_both_families_over_both_transports(site, ping, digest):
    gateway = site.start(f"{ON}\nrenegotiate_s = 5", ipv6=True)
    site.lab.start_servers()
    assert "endpoint staff: CBC is on, for clients that have none of its data_ciphers, because" in gateway.log()
    hosts = (*site.lab.clients, site.lab.gateway)
    before = fragments(*hosts)
    clients = []
    for number, transport in enumerate(("udp", "tcp")):
        host = site.lab.clients[number]
        certificate = certs.client(f"old-{transport}")
        client = site.connect(
            certificate, *CBC_ONLY, "--auth", digest, transport=transport, client=host, name=transport
        )
        said = client.wait_for(r"Data Channel: cipher '([^']*)', auth '([^']*)'")
        assert (said[1], said[2]) == ("AES-256-CBC", digest)
        for target in ("10.20.0.10", TARGET_V6):
            assert ping(target, client=host) == 1.0
            site.lab.download(host, target, 2 * MEGABYTE)
            site.lab.upload(host, target, 2 * MEGABYTE)
        clients.append(client)
    assert fragments(*hosts) == before, "a segment was too large for the path"
    for client, host in zip(clients, site.lab.clients, strict=False):
        client.process.wait_for(r"(?s)(Outgoing Data Channel: Cipher 'AES-256-CBC'.*){2}", 15)  # renewed keys
        assert ping(client=host, count=10) == 1.0
        assert client.connected_count == 1
    assert {c["cipher"] for c in gateway.ctl_json("connection", "list")} == {"AES-256-CBC"}
    log = gateway.log()
    assert log.count(f"P_DATA_V2 with legacy CBC and HMAC-{digest}") == 2
    metrics = gateway.metrics()
    assert metrics.get('cvpnd_dropped_packets_total{plane="data",reason="auth_failed"}', 0) == 0


def test_a_client_that_has_both_gets_aead(site, ping):
    gateway = site.start(ON)
    client = site.connect(None, "--data-ciphers", "AES-256-CBC:AES-128-CBC:AES-128-GCM", "--auth", "SHA256")
    assert client.wait_for(r"Data Channel: cipher '([^']*)'")[1] == "AES-128-GCM"
    assert ping() == 1.0
    assert "legacy CBC" not in gateway.log()


def test_without_the_setting_the_client_is_refused_by_the_word(site):
    gateway = site.start()
    client = site.connect(None, *CBC_ONLY, "--auth", "SHA256", wait=False)
    client.wait_for(r"AUTH_FAILED,Data channel cipher negotiation failed \(no shared cipher\)")
    wait_until(lambda: gateway.connection_log(), 5)
    (entry,) = gateway.connection_log()
    assert entry["connection-attempt-failure-reason"] == "no-shared-cipher"
    assert entry["detail"].endswith("for IV_CIPHERS (AES-256-CBC); CBC only where legacy_cbc_ciphers names it")
    assert "CBC is on" not in gateway.log()


def test_another_hmac_is_refused_with_the_reason(site):
    gateway = site.start(ON)
    client = site.connect(None, *CBC_ONLY, "--auth", "SHA224", wait=False)
    client.wait_for("AUTH_FAILED,Data channel authentication not supported: set auth to one of SHA1, SHA256, SHA384")
    wait_until(lambda: gateway.connection_log(), 5)
    (entry,) = gateway.connection_log()
    assert entry["connection-attempt-failure-reason"] == "unsupported-client"
    assert entry["detail"].endswith("but there is auth SHA224 in its options string")


def test_switching_it_off_ends_the_sessions_that_need_it_and_no_other(site, ping):
    gateway = site.start(ON)
    modern = site.connect(certs.client("modern"), client=site.lab.clients[1], name="modern")
    old = site.connect(certs.client("old"), *CBC_ONLY, "--auth", "SHA1", name="old")
    assert ping() == 1.0
    gateway.write_config(site.toml())
    gateway.reload()
    old.wait_for(r"AUTH_FAILED,Data channel cipher negotiation failed")
    assert ping(client=site.lab.clients[1]) == 1.0
    assert modern.connected_count == 1
    assert [c["cipher"] for c in gateway.ctl_json("connection", "list") if c["status"] == "active"] == ["AES-256-GCM"]
