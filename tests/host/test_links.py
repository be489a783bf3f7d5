"""In which network of this host's interfaces an address is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.host.links import narrowest

NETWORKS = [
    ip_network(each) for each in ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/25", "2001:db8::/32", "::/0")
]
ADDRESSES = st.one_of(
    st.integers(0, 0xFFFF).map(lambda low: IPv4Address("10.1.0.0") + low),
    st.integers(0, 0xFF).map(lambda low: IPv4Address("192.0.2.0") + low),
    st.ip_addresses(v=4),
    st.integers(0, 0xFF).map(lambda low: IPv6Address("2001:db8::") + low),
    st.ip_addresses(v=6),
)


@given(ADDRESSES, st.permutations(NETWORKS), st.integers(0, len(NETWORKS)))
def test_address_is_in_the_narrowest_network_around_it(
    address: IPv4Address | IPv6Address, networks: list[IPv4Network | IPv6Network], count: int
) -> None:
    around = [network for network in networks[:count] if address in network]
    found = narrowest(networks[:count])(address)
    assert found == max(around, key=lambda network: network.prefixlen, default=None)


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.1.2.3", "10.1.2.0/24"), ("10.1.3.3", "10.1.0.0/16"), ("192.0.2.128", None), ("::a01:203", "::/0")],
)
def test_families_are_kept_apart(address: str, network: str | None) -> None:
    assert narrowest(NETWORKS)(ip_address(address)) == (None if network is None else ip_network(network))
