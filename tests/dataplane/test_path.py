"""What a path carries in one piece is found out, and what is longer is cut or its sender told (native/README.md, "Path
MTU")."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from helpers.netns import Namespace, unique_prefix
from helpers.packets import (
    ICMP,
    ICMPV6,
    OCC,
    UDP,
    checksum,
    checksums_are_right,
    icmp_echo,
    ip,
    pseudo_header,
    tcp,
    udp,
)
from helpers.plane import EVERYBODY, TARGET, TARGET_V6, Client, Gateway, wait_for

from cvpnd.dataplane import reference_path
from cvpnd.dataplane.api import PeerSettings

DF, MF = 0x4000, 0x2000
PATH = {"mss_v4": 1380, "mss_v6": 1360, "tunnel_mtu": 1420, "path_mtu": 1500}


def dont_fragment(packet: bytes) -> bytes:
    """The same IPv4 packet with DF."""
    return ip(packet[12:16], packet[16:20], packet[9], packet[20:], fragment=DF)


def sized(client: Client, length: int, *, v6: bool = False) -> bytes:
    """A UDP packet to the client of so many bytes in all."""
    content = bytes(range(256)) * 8
    if v6:
        return udp(TARGET_V6, client.address_v6, content[: length - 48])
    return udp(TARGET, client.address, content[: length - 28])


# -- what is too big -----------------------------------------------------------------------------------------------


def test_what_fits_passes_and_one_byte_more_is_answered_with_the_mtu(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=1300)
    fitting, more = dont_fragment(sized(client, 1300)), dont_fragment(sized(client, 1301))
    with gateway.dropping(too_big=1):
        gateway.inject(fitting)
        gateway.inject(more)
        answer = gateway.delivered()
    assert client.receive().payload == fitting
    assert checksums_are_right(answer)
    assert (answer[12:16], answer[16:20]) == (more[16:20], more[12:16])
    assert (answer[9], answer[20:22]) == (ICMP, b"\x03\x04")
    assert int.from_bytes(answer[26:28], "big") == 1300
    assert answer[28:] == more[: 576 - 28]
    assert gateway.plane.totals()["too_big_told"] == 1


def test_over_ipv6_the_answer_is_packet_too_big(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=1300)
    more = sized(client, 1301, v6=True)
    with gateway.dropping(too_big=1):
        gateway.inject(more)
        answer = gateway.delivered()
    assert checksums_are_right(answer)
    assert (answer[8:24], answer[24:40]) == (more[24:40], more[8:24])
    assert (answer[6], answer[40:42]) == (ICMPV6, b"\x02\x00")
    assert int.from_bytes(answer[44:48], "big") == 1300
    assert answer[48:] == more[: 1280 - 48] and len(answer) == 1280


def test_ipv6_up_to_1280_bytes_is_sent_whatever_fits(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=1200)
    packet = sized(client, 1280, v6=True)
    gateway.inject(packet)
    assert client.receive().payload == packet
    with gateway.dropping(too_big=1):
        gateway.inject(sized(client, 1281, v6=True))
        assert int.from_bytes(gateway.delivered()[44:48], "big") == 1280


@pytest.mark.parametrize(("length", "pieces"), [(1301, 2), (1400, 2), (2048, 2), (577, 1)])
def test_ipv4_that_may_be_fragmented_is(gateway: Gateway, length: int, pieces: int) -> None:
    client = gateway.client(tunnel_mtu=1300)
    packet = sized(client, length)
    gateway.inject(packet)
    received = [client.receive().payload for _ in range(pieces)]
    assert reassembled(received) == packet
    assert all(len(piece) <= 1300 and checksum(piece[:20]) == 0 for piece in received)


def test_a_fragment_is_cut_again(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=576)
    whole = sized(client, 1960)
    first = ip(whole[12:16], whole[16:20], UDP, whole[20 : 20 + 1400], fragment=MF)
    second = ip(whole[12:16], whole[16:20], UDP, whole[20 + 1400 :], fragment=1400 // 8)
    for fragment in (first, second):
        gateway.inject(fragment)
    received = [client.receive().payload for _ in range(3 + 1)]
    assert reassembled(received) == whole
    assert all(len(piece) <= 576 for piece in received)


def test_pieces_go_over_tcp_too(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=1300, connect=False)
    ours, theirs = socket.socketpair()
    with ours:
        gateway.plane.attach_tcp(client.peer_id, theirs.detach(), b"")
        packet = sized(client, 1400)
        gateway.inject(packet)
        ours.settimeout(5)
        stream, received = b"", []
        while len(received) < 2:
            stream += ours.recv(4096)
            while len(stream) >= 2 and len(stream) >= 2 + int.from_bytes(stream[:2], "big"):
                end = 2 + int.from_bytes(stream[:2], "big")
                received.append(client.keys[0].open(stream[2:end]).payload)
                stream = stream[end:]
    assert reassembled(received) == packet


def test_what_must_not_be_answered_is_dropped_in_silence(gateway: Gateway) -> None:
    gateway.set_rules(1, {"0.0.0.0/0": EVERYBODY, "::/0": EVERYBODY})
    client = gateway.client(tunnel_mtu=1300)
    body = bytes(1400)
    silent = [
        ip(TARGET, client.address, ICMP, b"\x03\x04" + body, fragment=DF),
        ip(TARGET, client.address, ICMP, b"\x0b\x00" + body, fragment=DF),
        ip(TARGET, client.address, UDP, body, fragment=DF | 100),
        ip("0.0.0.0", client.address, UDP, body, fragment=DF),
        ip("127.0.0.1", client.address, UDP, body, fragment=DF),
        ip("224.0.0.1", client.address, UDP, body, fragment=DF),
        ip("255.255.255.255", client.address, UDP, body, fragment=DF),
        ip(TARGET, client.address, UDP, body, fragment=0x1FFF),
        ip(TARGET_V6, client.address_v6, ICMPV6, b"\x01\x00" + body),
        ip(TARGET_V6, client.address_v6, 44, b"\x11\x00\x05\x01" + body),
        ip("ff02::1", client.address_v6, UDP, body),
        ip("::", client.address_v6, UDP, body),
        ip("::1", client.address_v6, UDP, body),
    ]
    with gateway.dropping(too_big=len(silent)):
        for packet in silent:
            gateway.inject(packet)
    assert gateway.plane.totals()["too_big_told"] == 0
    assert gateway.barrier() == []


def test_questions_are_answered_though_they_are_icmp(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=1300)
    with gateway.dropping(too_big=1):
        gateway.inject(dont_fragment(icmp_echo(TARGET, client.address, bytes(1400))))
        assert gateway.delivered()[20:22] == b"\x03\x04"


def test_a_storm_of_packets_that_are_too_big_gets_few_answers(gateway: Gateway) -> None:
    client = gateway.client(tunnel_mtu=1300)
    packet = dont_fragment(sized(client, 1400))
    with gateway.dropping(too_big=300):
        for _ in range(300):
            gateway.inject(packet)
    assert 1 <= gateway.plane.totals()["too_big_told"] < 100


# -- what fits -----------------------------------------------------------------------------------------------------


def fits(gateway: Gateway, client: Client) -> int:
    """What a sender is told."""
    gateway.inject(dont_fragment(sized(client, 2000)))
    return int.from_bytes(gateway.delivered()[26:28], "big")


def mss_written(gateway: Gateway, client: Client) -> int:
    client.send(tcp(client.address, TARGET, flags=2, options=b"\x02\x04\xff\xff"))
    return int.from_bytes(gateway.delivered()[-2:], "big")


def answer_requests(client: Client, largest: int, until: int) -> list[int]:
    """Play a client to which datagrams of ``largest`` bytes pass, and from which as well, until it has answered a
    request of ``until`` bytes of tunnel packet. The lengths of all requests that passed."""
    passed = []
    while True:
        datagram, _ = client.receive_raw()
        if len(datagram) > largest:
            continue
        payload = client.keys[datagram[0] & 7].open(datagram).payload
        assert payload.startswith(OCC + b"\x02")
        load = int.from_bytes(payload[17:19], "big")
        passed.append(len(payload))
        answer = (OCC + b"\x03").ljust(load - 24, b"\x00")  # as OpenVPN 2.6 counts
        if len(answer) + 24 <= largest:
            client.send(answer)
        if len(payload) == until:
            return passed


def test_a_client_that_answers_gets_all_that_its_path_takes(gateway: Gateway) -> None:
    client = gateway.client(answers_occ=True, **PATH)
    assert mss_written(gateway, client) in (1280 - 28 - 24 - 40, 1280 - 48 - 24 - 40)
    assert answer_requests(client, 1472, until=1420)
    assert wait_for(lambda: mss_written(gateway, client) == 1380)
    totals = gateway.plane.totals()
    assert totals["send_messages"] == totals["link_packets_out"] >= totals["path_probes"] > 0, "they are packets too"


def test_where_big_packets_get_lost_smaller_ones_are_made(gateway: Gateway) -> None:
    """A path of 1400 bytes whose routers say nothing."""
    client = gateway.client(answers_occ=True, **PATH)
    answer_requests(client, 1400 - 28, until=1400 - 52)
    wait_for(lambda: mss_written(gateway, client) == 1400 - 52 - 40)
    assert fits(gateway, client) == 1400 - 52


def test_who_does_not_know_the_questions_is_not_asked_and_believed_to_have_the_configured_path(
    gateway: Gateway,
) -> None:
    client = gateway.client(**PATH)
    assert mss_written(gateway, client) == 1380
    datagram, _ = client.receive_raw()
    assert datagram[0] >> 3 == 9 and datagram[0] & 7 not in client.keys
    assert len(datagram) + 28 == 1472


@pytest.fixture
def own_network(tmp_path: Path) -> Iterator[None]:
    """For ten minutes the kernel believes what it is told of an address: not of one of other tests."""
    network = Namespace(unique_prefix(), tmp_path)
    try:
        with network.entered():
            yield
    finally:
        network.close()


def say_too_big(host: str, mtu: int, port: int, client: Client, quoted: bytes) -> None:
    """As a router would about a datagram of the gateway's from this port to the client."""
    to = client.socket.getsockname()[1]
    quote = udp(host, host, quoted, source_port=port, port=to)
    v6 = ":" in host
    if v6:
        message = b"\x02\0\0\0" + mtu.to_bytes(4, "big") + quote
        total = checksum(pseudo_header(host, host, ICMPV6, len(message)) + message)
    else:
        message = b"\x03\x04\0\0\0\0" + mtu.to_bytes(2, "big") + quote
        total = checksum(message)
    message = message[:2] + total.to_bytes(2, "big") + message[4:]
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(ip(host, host, ICMPV6 if v6 else ICMP, message), (host, 0))


def let_through(host: str, mtu: int, client: Client) -> int:
    """As a router that passes no more than so many bytes on: it speaks of each packet that is longer. The length of the
    first one that is not."""
    while True:
        datagram, (_, port) = client.receive_raw()
        assert datagram[0] & 7 not in client.keys
        outer = len(datagram) + (48 if ":" in host else 28)
        if outer <= mtu:
            return outer
        say_too_big(host, mtu, port, client, datagram[:20])


speaks_as_a_router = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to speak as a router")


@speaks_as_a_router
@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_router_is_believed_that_quotes_what_only_the_way_to_the_client_has_seen(
    make_gateway: Callable[..., Gateway], host: str
) -> None:
    gateway = make_gateway(host=host)
    client = gateway.client(**PATH)
    longest, (_, port) = client.receive_raw()
    listening = gateway.ports[1][0][1]
    assert port != listening
    for quoted in (longest[:8], longest[:19], longest[:19] + bytes([longest[19] ^ 1]), bytes(20)):
        say_too_big(host, 1300, port, client, quoted)
    say_too_big(host, 1300, listening, client, longest[:20])
    again, _ = client.receive_raw()
    assert len(again) == len(longest)
    say_too_big(host, 1400, port, client, again[:20])
    around = 24 + (48 if host == "::1" else 28)
    for passes in (1400, 1300):  # two routers, of which the second is heard when so much gets as far as there
        assert let_through(host, passes, client) == passes
        assert mss_written(gateway, client) == passes - around - 40
        assert fits(gateway, client) == passes - around


@speaks_as_a_router
@pytest.mark.usefixtures("own_network")
def test_no_router_is_believed_about_who_can_answer(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    client = gateway.client(answers_occ=True, **PATH)
    datagram, (_, port) = client.receive_raw()
    for _ in range(3):
        say_too_big("127.0.0.1", 1300, port, client, datagram[:20])
    assert answer_requests(client, 1472, until=1420)
    assert wait_for(lambda: mss_written(gateway, client) == 1380)


def test_nobody_looks_at_a_path_without_mtu(gateway: Gateway) -> None:
    client = gateway.client(mss_v4=1380, answers_occ=True, ping_interval_s=1)
    assert client.receive().payload[:4] == bytes.fromhex("2a187bf3")
    assert gateway.plane.totals()["path_probes"] == 0


def test_a_path_that_becomes_narrow_in_silence_is_found_within_a_minute_of_use() -> None:
    """The specification alone, in virtual time: ``tests/native/test_path.c`` has the same of what serves."""
    found = found_each_second({10: 1400, 1000: 1500}, {300: 5, 500: 5}, 1700)
    assert found[80] == 1472, "nothing that is long went there"
    assert set(found[160:990]) == {1400}
    assert found[-1] == 1472


def test_who_was_away_for_a_while_gets_long_packets_again_soon_after() -> None:
    """As above."""
    found = found_each_second({}, {100: 1000, 180: 0}, 255)
    assert found[180] == 1280
    assert found[-1] == 1472


def test_a_search_ends_however_late_the_first_answer_is() -> None:
    """As above."""
    for lost in range(12):
        assert found_each_second({0: 1400}, {0: lost}, 25)[-1] == 1400, f"after {lost} packets that were lost"


@pytest.mark.parametrize(
    ("routers", "expected"),
    [((1452, 1300), 1300), ((1300, 1452), 1300), ((1400, 1400), 1400), ((1460, 1452, 1400, 1), 1280)],
)
def test_behind_one_narrow_link_there_may_be_another(routers: tuple[int, ...], expected: int) -> None:
    """As above: each says what its own link takes, and drops what is longer."""
    path = reference_path.Path(PeerSettings(1, (ip_address("10.100.0.2"),), 1, 0, 0, **PATH))
    path.moved = True
    for second in range(20):
        if path.due(second) and (length := path.look(28, second).blind):
            narrow = [each for each in routers if length + 52 > each]
            if narrow:
                path.told(narrow[0])
    assert path.fits + 52 == expected and path.mss_v4 == path.fits - 40
    assert not path.due(600) and path.proven == 0


def found_each_second(path_mtus: dict[int, int], lost_from: dict[int, int], seconds: int) -> list[int]:
    """What goes through whole, where long packets go from the 80th second on. Both by second: what the path takes then,
    and how many requests are lost from then on."""
    settings = PeerSettings(1, (ip_address("10.100.0.2"),), 1, 0, 0, answers_occ=True, **PATH)
    path, passes, lost = reference_path.Path(settings), 1500, 0
    path.moved = True
    found = []
    for second in range(seconds):
        passes = path_mtus.get(second, passes)
        lost = lost_from.get(second, lost)
        if second > 80:
            path.use(1300)
        if path.due(second):
            wish = path.look(28, second)
            for length, load in ((wish.request, wish.request_load), (19, wish.small_load)):
                lost -= lost > 0
                if load and not lost and max(length, load - 24) + 52 <= passes:
                    path.answered(load - 24, second)
        found.append(path.fits + 52)
    return found


@pytest.mark.parametrize(
    "settings",
    [{"path_mtu": 1279}, {"path_mtu": 2049}, {"tunnel_mtu": 575}, {"data_header": 256}, {"data_header": -1}],
    ids=str,
)
def test_sizes_out_of_range_are_refused(gateway: Gateway, settings: dict[str, int]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        gateway.client(**settings)


# -- small parts ---------------------------------------------------------------------------------------------------


def reassembled(fragments: list[bytes]) -> bytes:
    """The packet as its sender made it (RFC 815); fragments in any order."""
    data: dict[int, bytes] = {}
    ends = []
    for fragment in fragments:
        field = int.from_bytes(fragment[6:8], "big")
        assert int.from_bytes(fragment[2:4], "big") == len(fragment)
        data[(field & 0x1FFF) * 8] = fragment[20:]
        if not field & MF:
            ends.append((field & 0x1FFF) * 8 + len(fragment) - 20)
    payload = b"".join(data[at] for at in sorted(data))
    assert ends == [len(payload)]
    first = fragments[0]
    return ip(first[12:16], first[16:20], first[9], payload)
