"""Segmentation offload changes what a packet costs, and nothing else: the same bytes, over both IP versions, at every
level of it, whether or not the devices behind the gateway split for themselves. Longer: ``make soak-data``."""

from __future__ import annotations

import pytest
from helpers.lab import OTHER_LEG, TARGET_LEG

MEGABYTE = 1 << 20
DEVICE_FEATURES = ("rx", "tx", "tso", "gso", "tx-udp-segmentation")


@pytest.mark.parametrize("devices", ["on", "off"])
@pytest.mark.parametrize("ours", ["auto", "tcp", "off"])
def test_transfers_arrive_unchanged_at_every_level_of_offload(site, ours, devices):
    for leg in (TARGET_LEG, OTHER_LEG):
        site.lab.gateway.run("ethtool", "-K", leg.interface, *(w for f in DEVICE_FEATURES for w in (f, devices)))
    gateway = site.start(ipv6=True, packet_offload=ours)
    site.lab.start_servers()
    site.connect()
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        site.lab.download(site.lab.client, host, 10 * MEGABYTE)
        site.lab.upload(site.lab.client, host, 10 * MEGABYTE)
    done = gateway.operations()
    per_write = done["tun_packets_in"] / done["tun_write_calls"]
    per_message = done["link_packets_out"] / done["send_messages"]
    if ours == "off":
        assert (per_write, per_message) == (1, 1)
        assert done["link_packets_in"] == done["receive_messages"]
    else:
        assert per_write > 1.1 and per_message > 1.5
    gateway.stop()


@pytest.mark.parametrize("ours", ["auto", "tcp", "off"])
def test_datagrams_pass_in_order_through_two_workers(site, ours):
    """Two clients, whose peer ids differ by one, so that each has a worker of its own; both ways at once. A flow that
    has begun upwards stays on the queue of the TUN that it was written to for 3 s at least (native/README.md)."""
    gateway = site.start(packet_offload=ours, workers=2)
    before = gateway.worker_seconds()
    runs = []
    for number, (place, host) in enumerate(zip(site.lab.clients, (None, "198.51.100.1"), strict=True)):
        site.connect(name=f"client{number}", client=place, host=host)
        for port, direction in ((5300 + number, []), (5310 + number, ["-R"])):
            # while the path is measured, connections begin with segments for 1280 bytes; iperf3 warns of longer ones
            options = ("-u", "-b", "30M", "-l", "1100", *direction)
            runs.append(site.lab.start_iperf3(place, port, *options, seconds=2.4))
    for run in runs:
        report = run.report()
        assert report["packets"] > 5000
        assert report["out_of_order"] == 0
    used = [now - then for then, now in zip(before, gateway.worker_seconds(), strict=True)]
    assert min(used) > max(used) / 5, f"the work is not shared: {used}"
    gateway.stop()
