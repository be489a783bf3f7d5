"""Profiles that were written for another server, years ago: what is in them is served, or refused in words."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
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
)
REFUSED = {
    "--dev tap": "This server is a routed VPN: use dev tun, not dev tap",
    "--fragment 1300": "Remove fragment from the client configuration",
    "--data-ciphers AES-192-GCM": r"Data channel cipher negotiation failed \(no shared cipher\)",
}


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
        else:
            client.wait_connected()
            assert ping(client=site.lab.clients[place], count=2) == 1.0, (options[number], client.log())
        client.kill()

    options = [*SERVED, *REFUSED]
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(lambda first: [play(n, options) for n in range(first, len(options), 4)], first)
            for first in range(4)
        ]
    for each in done:
        each.result()
    assert sorted(filter(lambda reason: reason != "NA", gateway.refusals())) == [
        "no-shared-cipher", "unsupported-client", "unsupported-client",
    ]  # fmt: skip
