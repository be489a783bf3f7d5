"""The data channel's cipher is the endpoint's first that the client takes (openvpn-wire.md section 13). That each works
is in test_matrix.py."""

from __future__ import annotations

from helpers.lab import NEW_KEY
from helpers.other_releases import generation


def test_the_endpoints_order_wins_over_the_clients(site, ping):
    site.start('data_ciphers = ["CHACHA20-POLY1305", "AES-128-GCM", "AES-256-GCM"]')
    client = site.connect(None, "--data-ciphers", "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305")
    assert client.wait_for(NEW_KEY)[1] == "CHACHA20-POLY1305"
    client.stop()
    client = site.connect(None, "--data-ciphers", "AES-256-GCM:AES-128-GCM", name="no-chacha")
    assert client.wait_for(NEW_KEY)[1] == "AES-128-GCM"
    assert ping() == 1.0


def test_a_client_without_a_common_cipher_is_told_so(site):
    site.start('data_ciphers = ["AES-128-GCM"]')
    client = site.connect(None, "--data-ciphers", "AES-256-GCM", wait=False)
    client.wait_for(r"AUTH_FAILED,Data channel cipher negotiation failed")


def test_debug_log_says_in_one_line_how_each_session_was_negotiated(site):
    site._gateway = site.lab.gateway_process(site.toml().replace("[daemon]\n", '[daemon]\nlog_level = "debug"\n', 1))
    site.connect(None, "--data-ciphers", "AES-128-GCM:CHACHA20-POLY1305").stop()
    refused = site.connect(None, "--data-ciphers", "AES-256-CBC", wait=False, name="refused")
    refused.wait_for("AUTH_FAILED")
    lines = [line for line in site.gateway.log().splitlines() if " negotiated: " in line]
    assert len(lines) == 2, lines
    assert "cipher AES-128-GCM is the first of AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 for IV_CIPHERS" in lines[0]
    keys = "TLS exporter" if generation() >= (2, 6) else "PRF"
    packets = "epoch format" if generation() >= (2, 7) else "P_DATA_V2"
    assert f"{packets}, keys by {keys}, framing none; pushed: peer-id " in lines[0]
    assert "no cipher among AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 for IV_CIPHERS (AES-256-CBC" in lines[1]
