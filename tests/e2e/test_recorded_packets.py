"""Who has listened between an old client and the gateway has its data packets, which name no peer (P_DATA_V1): whose
they are is told by where they come from, which anybody can forge. Sent again, they do nothing."""

from __future__ import annotations

import socket
import time

import pytest
from helpers import certs
from helpers.lab import CLIENT_LEGS, TARGET_LEG, wait_until
from helpers.packets import udp

from .conftest import Site

ETH_P_IP = 0x0800
P_DATA_V1 = 6
PORT, SOURCE_PORT = 9, 40000
KEYS = 3
RENEGOTIATE_S = 5


@pytest.mark.timeout(120)
def test_what_was_recorded_of_a_client_without_peer_id_does_nothing_again(site: Site) -> None:
    gateway = site.start(f"renegotiate_s = {RENEGOTIATE_S}")
    victim, attacker = site.lab.clients
    options = ("--pull-filter", "ignore", "peer-id", "--lport", str(SOURCE_PORT))
    site.connect(certs.client("old"), *options, client=victim, binding="")
    recorded: list[bytes] = []
    with (
        site.lab.gateway.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as wire,
        site.lab.target.socket(socket.AF_INET, socket.SOCK_DGRAM) as service,
        victim.socket(socket.AF_INET, socket.SOCK_DGRAM) as device,
    ):
        wire.bind((CLIENT_LEGS[0].interface, ETH_P_IP))
        service.bind((TARGET_LEG.host, PORT))
        wire.setblocking(False)
        service.settimeout(2)
        sent = 0
        deadline = time.monotonic() + 2 * KEYS * RENEGOTIATE_S
        while len({packet[0] & 7 for packet in recorded}) < KEYS:
            assert time.monotonic() < deadline, "the client does not renew its keys"
            device.sendto(sent.to_bytes(4, "big"), (TARGET_LEG.host, PORT))
            assert service.recv(100) == sent.to_bytes(4, "big")
            sent += 1
            recorded += data_packets(wire)
            time.sleep(0.05)
        before = gateway.metrics()
        near, far = CLIENT_LEGS[0], CLIENT_LEGS[1]
        with attacker.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for source, port in ((near.host, SOURCE_PORT), (far.host, SOURCE_PORT), (near.host, SOURCE_PORT + 1)):
                for packet in recorded:
                    for first in {packet[0], *(P_DATA_V1 << 3 | key_id for key_id in range(KEYS))}:
                        again = udp(source, near.gateway, bytes([first]) + packet[1:], source_port=port, port=1194)
                        sock.sendto(again, (near.gateway, 0))
        dropped = [f'cvpnd_dropped_packets_total{{plane="data",reason="{why}"}}' for why in ("replayed", "auth_failed")]
        wait_until(
            lambda: (now := gateway.metrics()) and all(now[name] > before[name] for name in dropped), 5, "the drops"
        )
        service.settimeout(1)
        with pytest.raises(TimeoutError):
            service.recv(100)
    assert len(gateway.ctl_json("connection", "list")) == 1
    assert victim.ping(TARGET_LEG.host, 5, 0.1).received == 5
    assert [entry["connection-log-type"] for entry in gateway.connection_log()] == ["connection-attempt"]


def data_packets(wire: socket.socket) -> list[bytes]:
    """The ones without peer id that have come from the client since."""
    found = []
    while True:
        try:
            packet = wire.recv(4096)
        except BlockingIOError:
            return found
        if packet[9] == 17 and packet[22:24] == (1194).to_bytes(2, "big") and packet[28] >> 3 == P_DATA_V1:
            found.append(packet[28:])
