"""The MSS option of TCP SYN segments is lowered both ways, and nothing else is touched (openvpn-wire.md 12)."""

import pytest
from helpers.packets import ACK, SYN, checksums_are_right, tcp, udp
from helpers.plane import TARGET, TARGET_V6, Client, Gateway

NOP, END = b"\x01", b"\x00"
WINDOW_SCALE, SACK_PERMITTED, TIMESTAMP = b"\x03\x03\x07", b"\x04\x02", b"\x08\x0a" + bytes(8)


def mss(value: int) -> bytes:
    return b"\x02\x04" + value.to_bytes(2, "big")


def there_and_back(gateway: Gateway, client: Client, flags: int, options: bytes, v6: bool = False) -> list[bytes]:
    """The segment as it comes out after the way to the target network, and after the way back."""
    inside, outside = (client.address_v6, TARGET_V6) if v6 else (client.address, TARGET)
    client.send(tcp(inside, outside, flags=flags, options=options))
    there = gateway.delivered()
    gateway.inject(tcp(outside, inside, flags=flags, options=options))
    return [there, client.receive().payload]


# UDP over IPv4, UDP over IPv6, TCP over IPv4 outside; 20 less for IPv6 inside.
@pytest.mark.parametrize("bound", [1400, 1380, 1386])
@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("flags", [SYN, SYN | ACK], ids=["SYN", "SYN+ACK"])
def test_a_larger_mss_is_lowered(gateway: Gateway, bound: int, v6: bool, flags: int) -> None:
    client = gateway.client(mss_v4=bound, mss_v6=bound - 20)
    for packet in there_and_back(gateway, client, flags, mss(1460), v6):
        assert packet.endswith(mss(bound - 20 if v6 else bound))
        assert checksums_are_right(packet)


@pytest.mark.parametrize("value", [0, 536, 1399, 1400])
def test_a_small_mss_stays(gateway: Gateway, value: int) -> None:
    client = gateway.client(mss_v4=1400, mss_v6=1380)
    for packet in there_and_back(gateway, client, SYN, mss(value)):
        assert packet.endswith(mss(value))
        assert checksums_are_right(packet)


@pytest.mark.parametrize("value", [1401, 1460, 8960, 65535])
def test_only_the_option_and_the_checksum_change(gateway: Gateway, value: int) -> None:
    client = gateway.client(mss_v4=1400)
    sent = tcp(client.address, TARGET, flags=SYN, options=mss(value))
    client.send(sent)
    changed = [at for at, (a, b) in enumerate(zip(sent, gateway.delivered(), strict=True)) if a != b]
    assert set(changed) <= {36, 37, 42, 43}


@pytest.mark.parametrize(
    "options",
    [
        NOP + mss(1460),
        NOP + NOP + mss(1460),
        SACK_PERMITTED + TIMESTAMP + mss(1460) + NOP + WINDOW_SCALE,
        WINDOW_SCALE + mss(1460),
        WINDOW_SCALE * 9 + mss(1460),
        mss(9000) + b"\xfe\x02",
    ],
    ids=lambda options: options.hex(),
)
@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_the_option_is_found_wherever_it_stands(gateway: Gateway, options: bytes, v6: bool) -> None:
    client = gateway.client(mss_v4=1400, mss_v6=1380)
    for packet in there_and_back(gateway, client, SYN, options, v6):
        assert mss(1380 if v6 else 1400) in packet
        assert checksums_are_right(packet)


@pytest.mark.parametrize(
    "options",
    [
        END + mss(1460),
        b"\x02",
        b"\x02\x04",
        b"\x02\x04\x05",
        b"\x02\x03\x05" + NOP,
        b"\x02\x06\x05\xb4\x00\x00",
        b"\x02\x00\x05\xb4" + mss(1460),
        b"\x02\x01\x05\xb4" + mss(1460),
        b"\x03\x00" + mss(1460),
        b"\x08\x0a" + mss(1460),
        b"\x05\xff" + mss(1460),
        NOP * 37 + b"\x02\x04\x05",
    ],
    ids=lambda options: options.hex(),
)
def test_options_that_make_no_sense_pass_as_they_are(gateway: Gateway, options: bytes) -> None:
    client = gateway.client(mss_v4=1400, mss_v6=1380)
    sent = tcp(client.address, TARGET, flags=SYN, options=options)
    client.send(sent)
    assert gateway.delivered() == sent


def test_a_syn_in_fragments_passes_as_it_is(gateway: Gateway) -> None:
    client = gateway.client(mss_v4=1400)
    first = tcp(client.address, TARGET, flags=SYN, options=mss(1460), fragment=0x2000)
    last = tcp(client.address, TARGET, flags=SYN, options=mss(1460), fragment=0x0003)
    for fragment in (first, last):
        client.send(fragment)
    assert [gateway.delivered(), gateway.delivered()] == [first, last]


def test_what_is_no_syn_passes_as_it_is(gateway: Gateway) -> None:
    client = gateway.client(mss_v4=1400, mss_v6=1380)
    syn = tcp(client.address, TARGET, flags=SYN, options=mss(1460))
    offset = 20 + 12
    for packet in (
        tcp(client.address, TARGET, flags=ACK, options=mss(1460)),
        udp(client.address, TARGET, syn[20:]),
        syn[:2] + (39).to_bytes(2, "big") + syn[4:39],
        syn[:offset] + b"\x40" + syn[offset + 1 :],
        syn[:offset] + b"\xf0" + syn[offset + 1 :],
        syn[:2] + (20).to_bytes(2, "big") + syn[4:20],
    ):
        client.send(packet)
        assert gateway.delivered() == packet


def test_without_a_bound_every_mss_passes(gateway: Gateway) -> None:
    client = gateway.client()
    for v6 in (False, True):
        for packet in there_and_back(gateway, client, SYN, mss(9000), v6):
            assert packet.endswith(mss(9000))


def test_each_family_has_its_own_bound(gateway: Gateway) -> None:
    client = gateway.client(mss_v4=0, mss_v6=1200)
    assert there_and_back(gateway, client, SYN, mss(1460))[0].endswith(mss(1460))
    assert there_and_back(gateway, client, SYN, mss(1460), v6=True)[0].endswith(mss(1200))


def test_a_syn_behind_ipv4_options_is_lowered_too(gateway: Gateway) -> None:
    client = gateway.client(mss_v4=1400)
    plain = tcp(client.address, TARGET, flags=SYN, options=mss(1460))
    sent = b"\x46" + plain[1:2] + (len(plain) + 4).to_bytes(2, "big") + plain[4:20] + bytes(4) + plain[20:]
    client.send(sent)
    packet = gateway.delivered()
    assert packet[:24] == sent[:24]
    assert packet.endswith(mss(1400))
    assert checksums_are_right(plain[:20] + packet[24:])
