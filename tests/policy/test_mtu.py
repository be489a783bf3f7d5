"""Packet sizes against the numbers of openvpn-wire.md section 12."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.config.crosscheck import MIN_PATH_MTU_FOR_IPV6, MIN_PATH_MTU_FOR_IPV6_AND_CBC
from cvpnd.policy.model import P_DATA_V2_AEAD, ClientFacts, DataOverhead, Transport
from cvpnd.policy.mtu import IPV4_TCP_HEADERS, client_mtu, largest_tunnel_packet, tunnel_mtu

P_DATA_V2_EPOCH = DataOverhead(28)
P_DATA_V1_AEAD = DataOverhead(21)
UDP_V4, STREAM_V6 = 28, 62


def cbc(digest_bytes: int, opcode: int = 4, framing: int = 0) -> DataOverhead:
    return DataOverhead(clear=opcode + digest_bytes + 16, inside=4 + framing, block=16)


def outer_length(length: int, outer: int, data: DataOverhead) -> int:
    """Of the packet outside that carries a tunnel packet of ``length`` bytes."""
    inside = data.inside + length
    padding = data.block - inside % data.block if data.block > 1 else 0
    return outer + data.clear + inside + padding


def facts(
    transport: Transport = "udp", address: str = "192.0.2.1", iv_mtu: int | None = 1600, own_mtu: int | None = 1500
) -> ClientFacts:
    return ClientFacts(
        proto=990, iv_mtu=iv_mtu, own_mtu=own_mtu, platform="linux", transport=transport, address=ip_address(address)
    )


@pytest.mark.parametrize(
    ("transport", "outer", "header", "expected"),
    [
        ("udp", 4, P_DATA_V2_AEAD, 1400),  # measured with OpenVPN 2.6, as are all but "tcp" over IPv6 and V1
        ("udp", 4, P_DATA_V2_EPOCH, 1396),
        ("udp", 6, P_DATA_V2_AEAD, 1380),
        ("tcp", 4, P_DATA_V2_AEAD, 1386),
        ("tcp", 6, P_DATA_V2_AEAD, 1366),
        ("udp", 4, P_DATA_V1_AEAD, 1403),
        ("tcp", 4, cbc(32), 1347),
    ],
)
def test_mss_is_what_the_reference_writes_for_its_default_of_1492(
    transport: Transport, outer: int, header: DataOverhead, expected: int
) -> None:
    assert largest_tunnel_packet(1492, transport, outer, header) - IPV4_TCP_HEADERS == expected


@pytest.mark.parametrize(
    ("outer", "header", "largest"),
    [(4, P_DATA_V2_AEAD, 1448), (6, P_DATA_V2_AEAD, 1428), (4, P_DATA_V2_EPOCH, 1444), (6, P_DATA_V2_EPOCH, 1424)],
)
def test_the_largest_tunnel_packet_that_crosses_a_path_of_1500(outer: int, header: DataOverhead, largest: int) -> None:
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


@pytest.mark.parametrize(
    ("own_mtu", "longest"), [(None, 1420), (1500, 1420), (9000, 1420), (1420, 1420), (1300, 1300), (0, 576), (68, 576)]
)
def test_a_client_that_takes_no_pushed_mtu_gets_nothing_longer_than_its_own(own_mtu: int | None, longest: int) -> None:
    sizes = client_mtu(1500, facts(iv_mtu=None, own_mtu=own_mtu))
    assert (sizes.pushed, sizes.tunnel, sizes.mss_v4) == (None, longest, min(longest, 1420) - 40)
    assert client_mtu(1500, facts(own_mtu=own_mtu)).tunnel == 1420, "one that does is told ours"


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
    headers = 20 * (1 if client.address.version == 4 else 2) + (8 if transport == "udp" else 22)
    for data in (P_DATA_V2_AEAD, P_DATA_V2_EPOCH, P_DATA_V1_AEAD, cbc(20), cbc(64, 1), cbc(48, 4, 1)):
        told = client_mtu(path_mtu, replace(client, data_overhead=data))
        assert outer_length(told.mss_v4 + 40, headers, data) <= path_mtu
        assert outer_length(told.mss_v6 + 60, headers, data) <= path_mtu
        if transport == "udp":
            assert outer_length(told.pushed or 0, headers, data) <= path_mtu
    around = headers + 24
    assert sizes.mss_v6 > 0
    if transport == "udp":
        assert (sizes.pushed or 0) + around <= path_mtu
        assert tunnel_mtu(path_mtu) + around <= path_mtu


@pytest.mark.parametrize("outer", [UDP_V4, STREAM_V6])
@pytest.mark.parametrize("data", [cbc(20), cbc(32), cbc(64, 1), cbc(48, 4, 1), P_DATA_V2_AEAD], ids=str)
def test_the_largest_packet_fits_and_one_byte_more_does_not(outer: int, data: DataOverhead) -> None:
    transport, version = ("udp", 4) if outer == UDP_V4 else ("tcp", 6)
    for path_mtu in range(1400, 1440):
        largest = largest_tunnel_packet(path_mtu, transport, version, data)  # type: ignore[arg-type]
        assert outer_length(largest, outer, data) <= path_mtu < outer_length(largest + 1, outer, data)


@pytest.mark.parametrize(
    ("header", "pushed", "v4"),
    [
        (P_DATA_V2_AEAD, 1420, 1380),
        (P_DATA_V2_EPOCH, 1416, 1376),
        (cbc(32), 1387, 1347),
        (cbc(64), 1355, 1315),
    ],
)
def test_a_longer_header_leaves_less_for_the_tunnel(header: DataOverhead, pushed: int, v4: int) -> None:
    told = client_mtu(1500, replace(facts(), data_overhead=header))
    assert (told.pushed, told.mss_v4, told.mss_v6) == (pushed, v4, v4 - 20)


def test_a_shorter_header_is_no_reason_for_a_larger_tunnel() -> None:
    shorter, usual = client_mtu(1500, replace(facts(), data_overhead=P_DATA_V1_AEAD)), client_mtu(1500, facts())
    assert replace(shorter, data_header=usual.data_header) == usual


def test_ipv6_fits_where_the_configuration_check_says_so() -> None:
    worst = cbc(64, framing=1)
    client = replace(facts(), data_overhead=worst)
    assert (client_mtu(MIN_PATH_MTU_FOR_IPV6_AND_CBC, client).pushed or 0) >= 1280
    assert (client_mtu(MIN_PATH_MTU_FOR_IPV6_AND_CBC - 1, client).pushed or 0) < 1280
    assert tunnel_mtu(MIN_PATH_MTU_FOR_IPV6) == 1280


def test_only_a_path_over_udp_is_looked_at_and_only_where_wanted() -> None:
    assert client_mtu(1400, facts("udp")).path == 1400
    assert client_mtu(1400, facts("tcp")).path == 0
    assert client_mtu(1400, facts("udp"), discovery=False).path == 0
    assert client_mtu(1400, replace(facts("udp"), data_overhead=cbc(20))).path == 0


def test_no_client_is_sent_more_than_it_takes() -> None:
    assert client_mtu(1500, facts(iv_mtu=1300)).tunnel == 1300
    assert client_mtu(1500, facts(iv_mtu=None)).tunnel == tunnel_mtu(1500)
