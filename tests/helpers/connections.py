"""A connection as operators see it, for tests that change what they are about."""

from __future__ import annotations

from cvpnd.endpoints.model import ConnectionView

CONNECTION = ConnectionView(
    connection_id="cvpn-connection-0123456789abcdef0",
    endpoint_id="cvpn-endpoint-0123456789abcdef0",
    endpoint_name="staff",
    status="active",
    common_name="client1",
    username="",
    method="certificate",
    client_ip="10.0.1.2",
    device_ip="98.247.202.82",
    port=50096,
    transport="udp",
    device_type="mac",
    cipher="AES-256-GCM",
    connected_at=1585255035.4,  # 2020-03-26 20:37:15 UTC, the time in AWS's own example
    ended_at=None,
    end_reason="",
    ingress_bytes=0,
    egress_bytes=0,
    ingress_packets=0,
    egress_packets=0,
)
