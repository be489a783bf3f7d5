"""Packet sizes against the numbers of openvpn-wire.md section 12."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.policy.model import ClientFacts, Transport
from cvpnd.policy.mtu import (
    P_DATA_V1_AEAD,
    P_DATA_V2_AEAD,
    P_DATA_V2_EPOCH,
    client_mtu,
    largest_tunnel_packet,
    mss,
    overhead,
    tunnel_mtu,
)


def facts(transport: Transport = "udp", address: str = "192.0.2.1", iv_mtu: int | None = 1600) -> ClientFacts:
    return ClientFacts(proto=990, iv_mtu=iv_mtu, platform="linux", transport=transport, address=ip_address(address))


@pytest.mark.parametrize(
    ("transport", "outer", "header", "expected"),
    [
        ("udp", 4, P_DATA_V2_AEAD, 1400),  # measured with OpenVPN 2.6, as are all but the last two
        ("udp", 4, P_DATA_V2_EPOCH, 1396),
        ("udp", 6, P_DATA_V2_AEAD, 1380),
        ("tcp", 4, P_DATA_V2_AEAD, 1386),
        ("tcp", 6, P_DATA_V2_AEAD, 1366),
        ("udp", 4, P_DATA_V1_AEAD, 1403),
    ],
)
def test_mss_is_what_the_reference_writes_for_its_default_of_1492(
    transport: Transport, outer: int, header: int, expected: int
) -> None:
    assert mss(1492, transport, outer, 4, header) == expected
    assert mss(1492, transport, outer, 6, header) == expected - 20


@pytest.mark.parametrize(
    ("outer", "header", "largest"),
    [(4, P_DATA_V2_AEAD, 1448), (6, P_DATA_V2_AEAD, 1428), (4, P_DATA_V2_EPOCH, 1444), (6, P_DATA_V2_EPOCH, 1424)],
)
def test_the_largest_tunnel_packet_that_crosses_a_path_of_1500(outer: int, header: int, largest: int) -> None:
    assert largest_tunnel_packet(1500, "udp", outer, header) == largest


@pytest.mark.parametrize(
    ("path_mtu", "expected"), [(1500, 1420), (1492, 1412), (1452, 1372), (1400, 1320), (1280, 1200)]
)
def test_the_tunnel_mtu_leaves_room_for_the_worst_outer_headers(path_mtu: int, expected: int) -> None:
    assert tunnel_mtu(path_mtu) == expected


@pytest.mark.parametrize(
    ("iv_mtu", "pushed", "mss_v4"),
    [
        (None, None, 1380),
        (1600, 1420, 1380),
        (1420, 1420, 1380),
        (1300, 1300, 1260),
        (0, 576, 536),
        (2**31, 1420, 1380),
    ],
)
def test_the_pushed_mtu_is_clamped_to_what_the_client_takes(
    iv_mtu: int | None, pushed: int | None, mss_v4: int
) -> None:
    sizes = client_mtu(1500, facts(iv_mtu=iv_mtu))
    assert (sizes.pushed, sizes.mss_v4, sizes.mss_v6) == (pushed, mss_v4, mss_v4 - 20)


def test_tcp_over_ipv6_has_the_largest_headers_and_so_smaller_segments() -> None:
    assert client_mtu(1500, facts("tcp", "2001:db8::1")).mss_v4 == 1500 - 62 - 24 - 40
    assert client_mtu(1500, facts("tcp", "192.0.2.1")).mss_v4 == 1380


@given(
    path_mtu=st.integers(1280, 1500),
    transport=st.sampled_from(["udp", "tcp"]),
    address=st.sampled_from(["192.0.2.1", "2001:db8::1"]),
    iv_mtu=st.none() | st.integers(-1, 70_000),
)
def test_nothing_exceeds_the_path(path_mtu: int, transport: Transport, address: str, iv_mtu: int | None) -> None:
    client = facts(transport, address, iv_mtu)
    sizes = client_mtu(path_mtu, client)
    around = overhead(transport, client.address.version)
    assert sizes.mss_v4 + 40 + around <= path_mtu
    assert sizes.mss_v6 + 60 + around <= path_mtu
    assert sizes.mss_v6 > 0
    if transport == "udp":
        assert (sizes.pushed or 0) + around <= path_mtu
        assert tunnel_mtu(path_mtu) + around <= path_mtu


@pytest.mark.parametrize(("header", "pushed", "v4"), [(P_DATA_V2_AEAD, 1420, 1380), (P_DATA_V2_EPOCH, 1416, 1376)])
def test_a_longer_header_leaves_less_for_the_tunnel(header: int, pushed: int, v4: int) -> None:
    told = client_mtu(1500, replace(facts(), data_header=header))
    assert (told.pushed, told.mss_v4, told.mss_v6) == (pushed, v4, v4 - 20)


def test_a_shorter_header_is_no_reason_for_a_larger_tunnel() -> None:
    assert client_mtu(1500, replace(facts(), data_header=P_DATA_V1_AEAD)) == client_mtu(1500, facts())
