"""One spelling for each source address, whatever the socket says."""

from __future__ import annotations

import pytest

from cvpnd.dataplane.api import SocketAddress
from cvpnd.server.admission import prefixes
from cvpnd.server.listener import canonical


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.7", 40000), SocketAddress("192.0.2.7", 40000)),
        (("::ffff:192.0.2.7", 40000, 0, 0), SocketAddress("192.0.2.7", 40000)),
        (("2001:db8::7", 40000, 0, 0), SocketAddress("2001:db8::7", 40000)),
        (("fe80::7%eth0", 40000, 0, 3), SocketAddress("fe80::7", 40000, 3)),
    ],
)
def test_zone_and_mapping_are_folded_and_the_scope_stays(address, expected):
    assert canonical(address) == expected


def test_an_ipv6_site_is_one_stranger():
    assert prefixes("2001:db8:0:1::7")[0] == prefixes("2001:db8:0:1:ffff::8")[0]
    assert prefixes("2001:db8:0:1::7")[0] != prefixes("2001:db8:0:2::7")[0]
    assert prefixes("192.0.2.7")[0] != prefixes("192.0.2.8")[0]
