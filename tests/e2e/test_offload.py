"""Segmentation offload changes what a packet costs, and nothing else: the same bytes, over both IP versions, with every
offload and with none, whether or not the devices behind the gateway split for themselves."""

from __future__ import annotations

import re

import pytest
from helpers.lab import OTHER_LEG, TARGET_LEG

MEGABYTE = 1 << 20


def operations(site) -> dict[str, int]:
    metrics = site.lab.gateway.run("curl", "-s", "http://127.0.0.1:9176/metrics").stdout
    return {kind: int(float(value)) for kind, value in re.findall(r'\{kind="(\w+)"\} (\S+)', metrics)}


@pytest.mark.parametrize("devices", ["on", "off"])
@pytest.mark.parametrize("ours", ["auto", "off"])
def test_transfers_arrive_unchanged_with_and_without_offload(site, ours, devices):
    for leg in (TARGET_LEG, OTHER_LEG):
        features = ("tx", "tso", "gso", "tx-udp-segmentation")
        site.lab.gateway.run("ethtool", "-K", leg.interface, *(word for f in features for word in (f, devices)))
    gateway = site.start(ipv6=True, packet_offload=ours)
    site.lab.start_servers()
    site.connect()
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        site.lab.download(site.lab.client, host, 10 * MEGABYTE)
        site.lab.upload(site.lab.client, host, 10 * MEGABYTE)
    done = operations(site)
    per_write = done["tun_packets_in"] / done["tun_write_calls"]
    per_message = done["link_packets_out"] / done["send_messages"]
    if ours == "auto":
        assert per_write > 1.1 and per_message > 1.5
    else:
        assert per_write == 1
    gateway.stop()
