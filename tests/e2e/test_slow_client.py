"""A client on TCP that does not read what it is sent costs nobody else anything, and comes back to life."""

from __future__ import annotations

import signal

import pytest
from helpers import certs
from helpers.lab import TARGET_LEG, wait_until

MEGABYTE = 1 << 20


@pytest.mark.parametrize("ours", ["auto", "off"])
def test_a_tcp_client_that_stops_reading_delays_nobody_and_goes_on_later(site, ping, ours):
    """One worker, so that both share all there is to share; super-packets for both where there is offload."""
    gateway = site.start(packet_offload=ours, workers=1, ping_s=10, ping_restart_s=120)
    site.lab.start_servers()
    slow, other = site.lab.clients
    frozen = site.connect(certs.client("slow"), transport="tcp", name="slow", client=slow)
    site.connect(certs.client("quick"), transport="tcp", name="quick", client=other, host="198.51.100.1")

    flood = site.lab.start_iperf3(slow, 5300, "-u", "-b", "300M", "-l", "1200", "-R", seconds=60)
    wait_until(lambda: gateway.operations()["link_packets_out"] > 5000, what="the flood")
    stream = site.lab.start_iperf3(slow, 5301, "-R", "-P", "4", seconds=60)
    flooded = gateway.operations()["link_packets_out"]
    wait_until(lambda: gateway.operations()["link_packets_out"] > 2 * flooded, what="the streams beside it")
    frozen.process.signal(signal.SIGSTOP)
    try:
        full = 'cvpnd_dropped_packets_total{plane="data",reason="tcp_queue_full"}'
        wait_until(lambda: gateway.metrics().get(full, 0) > 100, what="a full send queue")
        for _ in range(2):
            site.lab.download(other, TARGET_LEG.host, 10 * MEGABYTE)
            site.lab.upload(other, TARGET_LEG.host, 10 * MEGABYTE)
        assert ping(client=other) == 1.0
        assert gateway.metrics()[full] > 100
    finally:
        frozen.process.signal(signal.SIGCONT)
        flood.stop()
        stream.stop()
    wait_until(lambda: ping(client=slow) == 1.0, what="an answer for the client that reads again")
    site.lab.download(slow, TARGET_LEG.host, MEGABYTE)  # no frame was cut
    assert frozen.process.running and "Connection reset" not in frozen.process.log()
    gateway.stop()
