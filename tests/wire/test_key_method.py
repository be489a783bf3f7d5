"""Key method 2, options string and peer info: what comes from the peer and what we answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.secret import Secret
from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.key_method import (
    MAX_USERNAME_BYTES,
    Capability,
    KeyMessage,
    KeySource,
    PeerInfo,
    configured_mtu,
    mirror_options,
    option_value,
    parse_key_message,
    parse_peer_info,
    serialise_answer,
    serialise_key_message,
)

OCC_26 = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"
RANDOM = bytes(range(112))
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=50).filter(str.isprintable)


def message(**changes: str) -> KeyMessage:
    fields = {"options": OCC_26, "username": "ann", "password": "s3cret", "peer_info": "IV_VER=2.6.14\n"} | changes
    password = Secret.of_text(fields.pop("password"))
    return KeyMessage(KeySource.cut(RANDOM, with_pre_master=True), password=password, **fields)


@given(username=TEXT, password=TEXT, peer_info=TEXT)
def test_what_is_serialised_parses_back(username: str, password: str, peer_info: str) -> None:
    sent = message(username=username, password=password, peer_info=peer_info)
    got = parse_key_message(serialise_key_message(sent), from_client=True)
    assert got is not None
    assert (got.options, got.username, got.password.text(), got.peer_info) == (OCC_26, username, password, peer_info)
    assert (got.source.pre_master, got.source.random1, got.source.random2) == (RANDOM[:48], RANDOM[48:80], RANDOM[80:])


def test_every_prefix_waits_for_more_but_the_one_without_peer_info() -> None:
    raw = serialise_key_message(message())
    without_peer_info = len(raw) - 2 - len("IV_VER=2.6.14\n\0")
    for length in range(len(raw)):
        parsed = parse_key_message(raw[:length], from_client=True)
        assert (parsed is not None) == (length == without_peer_info)
    assert parse_key_message(raw + b"ignored", from_client=True) is not None


@pytest.mark.parametrize("peer_info", ["", "ID=5\n"])
def test_answer_of_a_server_is_its_message_without_credentials(peer_info: str) -> None:
    source = KeySource.cut(RANDOM[:64], with_pre_master=False)
    whole = serialise_key_message(KeyMessage(source, mirror_options(OCC_26), "", Secret(), peer_info))
    assert [serialise_answer(source, OCC_26, peer_info) for _ in range(2)] == [whole, whole]


def test_servers_message_has_no_pre_master() -> None:
    raw = serialise_answer(KeySource.cut(RANDOM[:64], with_pre_master=False), "V4,tls-client", "")
    assert raw[:5] == b"\0\0\0\0\x02"
    assert raw[-6:] == bytes(6), "absent strings have length 0 and no bytes"
    got = parse_key_message(raw, from_client=False)
    assert got is not None
    assert got.options == "V4,tls-server"


def test_last_byte_is_taken_for_the_nul_and_an_early_nul_cuts() -> None:
    raw = serialise_key_message(message(username="")).replace(b"s3cret\0", b"s3\0ret!")
    got = parse_key_message(raw, from_client=True)
    assert got is not None
    assert got.password.text() == "s3"


def test_control_characters_in_the_username_become_underscores() -> None:
    raw = serialise_key_message(message(username="a\nb\x1b[2J"))
    got = parse_key_message(raw, from_client=True)
    assert got is not None
    assert got.username == "a_b_[2J"


@pytest.mark.parametrize("method", [0, 1, 3, 15])
def test_other_key_methods_fail(method: int) -> None:
    raw = bytearray(serialise_key_message(message()))
    raw[4] = method
    with pytest.raises(PeerError) as caught:
        parse_key_message(bytes(raw), from_client=True)
    assert caught.value.reason is DropReason.BAD_KEY_METHOD


def test_reserved_bits_of_the_method_are_ignored() -> None:
    raw = bytearray(serialise_key_message(message()))
    raw[4] |= 0xF0
    assert parse_key_message(bytes(raw), from_client=True) is not None


def test_long_options_fail_before_they_have_arrived() -> None:
    raw = serialise_key_message(message())[:117]
    with pytest.raises(PeerError):
        parse_key_message(raw + (513).to_bytes(2, "big"), from_client=True)
    assert parse_key_message(raw + (512).to_bytes(2, "big"), from_client=True) is None


def test_secrets_do_not_show() -> None:
    assert "s3cret" not in repr(message())
    assert "0102" not in repr(message().source)
    source = message().source
    source.wipe()
    assert not any(source.pre_master + source.random1 + source.random2)
    with pytest.raises(UsageError):
        KeySource.cut(b"short", with_pre_master=False)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (OCC_26, OCC_26.replace("tls-client", "tls-server")),
        ("V4,proto TCPv4_CLIENT,keydir 1,tls-client", "V4,proto TCPv4_SERVER,keydir 0,tls-server"),
        ("V4,keydir 0", "V4,keydir 1"),
        ("", "V4,tls-server"),
    ],
)
def test_options_are_mirrored(theirs: str, ours: str) -> None:
    assert mirror_options(theirs) == (ours if theirs else mirror_options(""))
    assert mirror_options(theirs), "patched 2.5 clients abort on an empty string"


def test_option_value() -> None:
    assert option_value(OCC_26, "auth") == "SHA1"
    assert option_value(OCC_26, "tls-client") == ""
    assert option_value(OCC_26, "cipher") is None


@pytest.mark.parametrize(
    ("options", "mtu"),
    [(OCC_26, 1500), ("V4,tun-mtu 1300", 1300), ("V4", None), ("V4,tun-mtu", None), ("V4,tun-mtu -1", None)],
)
def test_mtu_of_a_clients_own_configuration(options: str, mtu: int | None) -> None:
    assert configured_mtu(options) == mtu


def test_peer_info_of_2_6() -> None:
    info = parse_peer_info(
        "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\nIV_PROTO=990\n"
    )
    assert (info.version, info.platform, info.mtu, info.ncp) == ("2.6.14", "linux", 1600, 2)
    assert info.ciphers == ("AES-256-GCM", "AES-128-GCM")
    assert Capability.TLS_KEY_EXPORT | Capability.CC_EXIT_NOTIFY in info.capabilities
    assert Capability.DATA_EPOCH not in info.capabilities


@pytest.mark.parametrize("garbage", ["-1", "0x10", "1e3", "٣", "99999999999999999999", "4294967296", "", " 2"])
def test_garbage_numbers_are_zero(garbage: str) -> None:
    info = parse_peer_info(f"IV_PROTO={garbage}\nIV_MTU={garbage}\nIV_NCP={garbage}\n")
    assert (info.capabilities, info.mtu, info.ncp) == (Capability.NONE, None, 0)


def test_peer_info_is_bounded_and_printable() -> None:
    info = parse_peer_info("".join(f"UV_{i}={i}\n" for i in range(10_000)) + "IV_VER=late")
    assert len(info.values) == 128
    info = parse_peer_info(f"IV_VER=2\x1b[31m\nUV_X={'x' * 600}\nno equals sign\n=nameless\nIV_VER=second\n")
    assert info.values == {"IV_VER": "2_[31m"}
    with pytest.raises(TypeError):
        info.values["IV_VER"] = "of all clients that say the same"  # type: ignore[index]


@given(st.text())
def test_peer_info_never_raises(text: str) -> None:
    assert isinstance(parse_peer_info(text), PeerInfo)


@pytest.mark.parametrize(
    ("lines", "device"),
    [
        ("IV_HWADDR=AA:bb:00:00:00:01", "aa:bb:00:00:00:01"),
        ("IV_HWADDR=00:00:00:00:00:00", ""),
        ("IV_HWADDR=aa:bb:00:00:00:01\nUV_ID=laptop", "laptop"),
        ("IV_VER=2.6.14", ""),
    ],
)
def test_device_is_what_the_profile_says_or_its_hardware_address(lines: str, device: str) -> None:
    assert parse_peer_info(lines + "\n").device_id == device


# -- AWS's client -------------------------------------------------------------------------------------------


def wide(*strings: bytes, length: int | None = None) -> bytes:
    """With the strings as they stand, NULs included."""
    body = b"\2" + bytes(range(112)) + b"".join(len(each).to_bytes(4, "big") + each for each in strings)
    return (len(body) + 4 if length is None else length).to_bytes(4, "little") + body


V15_STRINGS = (
    b"V4,dev-type tun".ljust(128, b" ") + b"\0",
    b"N/A\0",
    b"ACS::35001\0",
    b"IV_VER=2.5.1\n".ljust(134, b"x") + b"\0",
)


def test_v15_wide_lengths_of_awss_client() -> None:
    """What of V-15 is known: the lengths, and the bytes of user name and password."""
    data = wide(*V15_STRINGS)
    assert data[:5].hex() == "9c01000002"
    assert bytes.fromhex("00000081") == data[117:121]
    assert bytes.fromhex("000000044e2f41000000000b4143533a3a33353030310000000087") in data
    got = parse_key_message(data, from_client=True)
    assert got is not None
    assert (got.username, got.password.text()) == ("N/A", "ACS::35001")
    assert (got.options.rstrip(), got.peer_info.partition("\n")[0]) == ("V4,dev-type tun", "IV_VER=2.5.1")
    assert bytes(got.source.pre_master + got.source.random1 + got.source.random2) == bytes(range(112))


def test_every_prefix_of_a_wide_message_waits_for_more() -> None:
    data = wide(*V15_STRINGS)
    assert all(parse_key_message(data[:end], from_client=True) is None for end in range(len(data)))
    assert parse_key_message(data + b"behind", from_client=True) is not None


def test_a_name_that_is_nobodys_is_not_kept_however_long_the_rest_may_be() -> None:
    longest, endless = "n" * (MAX_USERNAME_BYTES - 1), "n" * 60_000
    for sent in (
        lambda name: serialise_key_message(message(username=name)),
        lambda name: wide(b"V4\0", f"{name}\0".encode(), b"ACS::35001\0", b"IV_VER=2.5.1\n\0"),
    ):
        parsed = parse_key_message(sent(longest), from_client=True)
        assert parsed is not None and parsed.username == longest
        assert outcome(sent(endless)) == ("refused", DropReason.BAD_KEY_METHOD)


def outcome(data: bytes) -> tuple[object, ...]:
    """What parsing comes to, for comparison."""
    try:
        got = parse_key_message(data, from_client=True)
    except PeerError as error:
        return ("refused", error.reason)
    return () if got is None else (got.options, got.username, got.password.text(), got.peer_info)


def test_lengths_that_do_not_meet_the_end_are_none_of_awss() -> None:
    """A client that leaves something in the first field is read like any other."""
    stock = serialise_key_message(message()) + bytes(200)
    for first in (1, 132, 133, 200, len(stock) - 1, len(stock), 0x7FFFFFFF):
        assert outcome(first.to_bytes(4, "little") + stock[4:]) == outcome(stock) != (), first
    wrong = [(b"a\0",) * 3, (b"a\0",) * 5, (b"o" * 600, b"", b"", b""), (b"", b"", b"", b"i" * 20_000)]
    for strings in wrong:
        data = wide(*strings)
        assert outcome(data) == outcome(bytes(4) + data[4:])


@given(st.binary(min_size=140, max_size=400))
def test_random_wide_messages_raise_nothing_but_peer_errors(data: bytes) -> None:
    assert outcome(len(data).to_bytes(4, "little") + b"\2" + data[5:]) is not None
