"""Profiles that were written for another server, years ago: what is in them is served, or refused in words."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import certs
from helpers.lab import wait_until
from helpers.other_releases import generation

SERVED = (
    "--comp-lzo no",
    "--comp-lzo adaptive",
    "--compress lz4",
    "--compress stub-v2",
    "--cipher BF-CBC --auth none",
    "--cipher none --auth SHA512",
    "--tun-mtu 9000 --mssfix 0",
    "--link-mtu 1400 --topology net30",
    "--tls-version-min 1.0 --tls-version-max 1.2 --tls-groups X448:P-256",
    "--route-nopull --route 10.20.0.0 255.255.0.0 vpn_gateway",
    "--tran-window 1 --reneg-sec 2 --replay-window 8 3",
    "--ping 30 --ping-exit 20 --float --multihome --passtos",
    "--pull-filter ignore peer-id",  # sends P_DATA_V1 and understands P_DATA_V2
    "--allow-compression yes --comp-lzo yes --auth MD5",
    "--link-mtu 1300 --mssfix 1400 fixed --topology p2p",
    "--tun-mtu 576 --mtu-test --replay-window 1 1",
    "--tls-version-max 1.2 --tls-cipher TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256 --ecdh-curve secp384r1",
    "--tls-version-min 1.3 --tls-ciphersuites TLS_CHACHA20_POLY1305_SHA256 --tls-groups secp521r1",
    "--push-peer-info --setenv UV_ID $(reboot);`x`%s --setenv IV_PROTO 4294967295",
    "--reneg-bytes 50000 --reneg-pkts 50 --hand-window 5 --single-session",
    "--remote 127.0.0.9 1194 --remote-random --server-poll-timeout 2",
    "--data-ciphers ?FOO:CHACHA20-POLY1305 --explicit-exit-notify 3 --mssfix 1492 mtu",
    "--replay-window 0 --mute-replay-warnings --key-direction 1 --ping 1 --ping-restart 3",
    "--redirect-gateway def1 ipv6 block-local --pull-filter ignore redirect-gateway --tls-cert-profile insecure",
    "--dhcp-option DNS 192.0.2.53 --mtu-disc no --route-metric 50 --dev-type tun --dev odd0",
)
REFUSED = {
    "--dev tap": "This server is a routed VPN: use dev tun, not dev tap",
    "--fragment 1300": "Remove fragment from the client configuration",
    "--data-ciphers AES-192-GCM": r"Data channel cipher negotiation failed \(no shared cipher\)",
}
REFUSED_BY_TLS = {
    "--tls-version-min 1.0 --tls-version-max 1.1 --tls-cert-profile insecure": "unsupported protocol",
    "--tls-version-max 1.2 --tls-cipher TLS-RSA-WITH-AES-128-CBC-SHA": "no shared cipher",
    "--tls-groups ffdhe2048": "no suitable key share",
}
"""The client hears TLS's own alert; the connection log names what was missing."""


@pytest.mark.skipif(generation() < (2, 6), reason="2.5 has other names for some of them")
@pytest.mark.parametrize("site", [4], indirect=True)
def test_options_of_old_profiles_are_served_or_refused_in_words(site, ping):
    gateway = site.start()

    def play(number: int, options: list[str]) -> None:
        """One place takes every fourth profile, one after the other."""
        place = number % 4
        client = site.connect(
            None, *options[number].split(), wait=False, name=f"old-{number}", client=site.lab.clients[place],
            host=site.lab.gateway_address_of(place, 4),
        )  # fmt: skip
        if (told := REFUSED.get(options[number])) is not None:
            client.wait_for(f"AUTH_FAILED,{told}")
        elif options[number] in REFUSED_BY_TLS:
            client.wait_for("Received fatal SSL alert")
        else:
            client.wait_connected()
            assert ping(client=site.lab.clients[place], count=2) == 1.0, (options[number], client.log())
        client.kill()

    options = [*SERVED, *REFUSED, *REFUSED_BY_TLS]
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(lambda first: [play(n, options) for n in range(first, len(options), 4)], first)
            for first in range(4)
        ]
    for each in done:
        each.result()
    refused = [entry for entry in gateway.connection_log() if entry["connection-attempt-failure-reason"] != "NA"]
    by_tls = {entry["detail"] for entry in refused if entry["connection-attempt-failure-reason"] == "tls-failure"}
    assert by_tls == set(REFUSED_BY_TLS.values())
    assert sorted({entry["connection-attempt-failure-reason"] for entry in refused} - {"tls-failure"}) == [
        "no-shared-cipher", "unsupported-client",
    ]  # fmt: skip
    assert gateway.metrics().get('cvpnd_dropped_packets_total{plane="data",reason="auth_failed"}', 0) == 0


@pytest.mark.skipif(generation() < (2, 6), reason="2.5 does not say that it pulls nothing")
def test_who_takes_no_options_from_a_server_is_refused_instead_of_connected_in_vain(site):
    gateway = site.start()
    profile = site.profile()
    profile.write_text(profile.read_text().replace("client\n", "tls-client\n", 1))
    site.lab.openvpn(profile, "--ifconfig", "10.100.0.9", "10.100.0.1")
    wait_until(lambda: "unsupported-client" in gateway.refusals(), 10)
    assert {entry["connection-attempt-status"] for entry in gateway.connection_log()} == {"failed"}


@pytest.mark.parametrize(("transport", "reason"), [("udp", "handshake-timeout"), ("tcp", "handshake-abandoned")])
def test_who_distrusts_the_server_is_found_where_the_guide_looks(site, transport, reason):
    """It sends no alert, but falls silent or closes the connection."""
    gateway = site.start("hand_window_s = 3")
    profile = site.profile(transport=transport)
    (profile.parent / "ca.crt").write_bytes(certs.authority("Another CA").certificate_pem)
    site.lab.openvpn(profile).wait_for("VERIFY ERROR")
    wait_until(lambda: reason in gateway.refusals(), 15)
    assert set(gateway.refusals()) == {reason}
