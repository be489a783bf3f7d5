"""Sessions of clients whose data packets differ: epochs, peer ids of their own, none at all, framing."""

from __future__ import annotations

import pytest
from helpers.pair import Pair, client_context, same_keys
from light_client.generations import LEGACY_GENERATIONS, generation
from light_client.protocol import KeyInstalled, LightClient

from cvpnd.wire.errors import UsageError
from cvpnd.wire.events import KeysReady
from cvpnd.wire.key_material import CBC_DIGESTS
from cvpnd.wire.key_method import parse_peer_id
from cvpnd.wire.packet import Transport
from cvpnd.wire.settings import SessionSettings


def pair_with(
    name: str, *, reserve: int | None = 5, settings: SessionSettings | None = None, **info: str
) -> tuple[Pair, list[int]]:
    """A client of that generation, and the peer ids that were reserved for it."""
    played = generation(name)
    client = LightClient(
        client_context(),
        0.0,
        peer_info={**played.peer_info, **info},
        options=played.options(Transport.UDP),
        habits=played.habits,
    )
    reserved: list[int] = []

    def reserve_peer_id() -> int:
        reserved.append(reserve or 0)
        return reserved[-1]

    callback = None if reserve is None else reserve_peer_id
    return Pair(client, settings or SessionSettings(), reserve_peer_id=callback), reserved


def renegotiate(pair: Pair) -> None:
    assert pair.session is not None
    pair.session.renegotiate(pair.now)
    assert pair.run(lambda pair: len(pair.of_client(KeyInstalled)) == 2, seconds=10)


@pytest.mark.parametrize("name", ["2.7", "openvpn3"])
def test_epoch_secrets_are_the_same_on_both_sides_and_after_a_renegotiation(name: str) -> None:
    pair, reserved = pair_with(name)
    pair.connect()
    renegotiate(pair)
    assert same_keys(pair)
    for event in pair.of_server(KeysReady):
        assert event.keys.epoch
        assert (len(event.keys.open_key), event.keys.open_iv) == (32, b"")
    assert pair.client.option("protocol-flags") == "cc-exit tls-ekm dyn-tls-crypt aead-epoch"
    assert pair.client.option("peer-id") == "5"
    assert reserved == []


@pytest.mark.parametrize("cipher", ["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"])
def test_epoch_secrets_have_one_size_whatever_the_cipher(cipher: str) -> None:
    pair, _ = pair_with("2.7", IV_CIPHERS=cipher)
    pair.connect()
    (ready,) = pair.of_server(KeysReady)
    assert (ready.keys.cipher, len(ready.keys.seal_key)) == (cipher, 32)
    assert same_keys(pair)


def test_client_that_names_its_peer_id_is_told_ours_in_the_key_exchange_and_not_again() -> None:
    pair, reserved = pair_with("2.8")
    pair.connect()
    assert pair.session is not None
    assert pair.session.remote_peer_id == 0x2A
    assert reserved == [5]
    assert pair.client.option("peer-id") is None
    assert pair.client.data_format.endswith("ID=")
    renegotiate(pair)
    assert reserved == [5]
    assert pair.session.remote_peer_id == 0x2A
    assert same_keys(pair)


@pytest.mark.parametrize(
    ("name", "info", "reserve"),
    [
        pytest.param("2.7", {}, 5, id="none named"),
        pytest.param("2.8", {"ID": "ffffff"}, 5, id="the id that means none"),
        pytest.param("2.8", {"ID": "1000000"}, 5, id="too large"),
        pytest.param("2.8", {"ID": "0x2a"}, 5, id="no number"),
        pytest.param("2.8", {}, None, id="we do not offer it"),
    ],
)
def test_everybody_else_gets_it_pushed(name: str, info: dict[str, str], reserve: int | None) -> None:
    pair, reserved = pair_with(name, reserve=reserve, **info)
    pair.connect()
    assert pair.session is not None
    assert pair.session.remote_peer_id is None
    assert pair.client.option("peer-id") == "5"
    assert reserved == []


def test_the_told_peer_id_cannot_be_exchanged_for_another() -> None:
    pair, _ = pair_with("2.8", reserve=6)
    with pytest.raises(UsageError):
        pair.connect()


def test_client_without_peer_ids_gets_none_and_keys_of_its_own_cipher() -> None:
    pair, reserved = pair_with("no peer id", ID="2a")
    pair.connect()
    assert same_keys(pair)
    assert pair.session is not None
    assert pair.session.negotiated is not None
    assert pair.session.negotiated.data_v1
    assert pair.session.remote_peer_id is None
    assert reserved == []
    assert not [option for option in pair.client.options if option.startswith(("peer-id", "cipher", "protocol-flags"))]


@pytest.mark.parametrize("name", [each.name for each in LEGACY_GENERATIONS])
def test_client_with_nothing_but_cbc_gets_it_for_all_of_its_keys_where_it_is_allowed(name: str) -> None:
    pair, _ = pair_with(name, settings=SessionSettings(data_ciphers=("AES-256-GCM", "AES-256-CBC", "AES-128-CBC")))
    pair.connect()
    renegotiate(pair)
    assert same_keys(pair)
    played = generation(name)
    for event in pair.of_server(KeysReady):
        assert event.keys.cipher == (played.cipher or "AES-256-CBC")
        assert event.keys.digest == played.mac
        assert len(event.keys.open_iv) == CBC_DIGESTS[played.mac]
    refused, _ = pair_with(name)
    refused.run(seconds=10)
    assert refused.client.failed == "AUTH_FAILED,Data channel cipher negotiation failed (no shared cipher)"


def test_decision_can_be_read_when_it_is_made() -> None:
    pair, _ = pair_with("2.8")
    pair.connect()
    assert pair.session is not None
    assert "epoch format" in pair.session.negotiation
    assert "peer-id" not in pair.session.negotiation


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("2a", 42), ("fFfFfE", 0xFFFFFE), ("000001", 1), ("", None), ("ffffff", None), ("0000001", None),
     ("-1", None), ("+1", None), (" 1", None), ("1_0", None), ("\u0661", None)],
)  # fmt: skip
def test_peer_id_is_up_to_six_hexadecimal_digits(text: str, number: int | None) -> None:
    assert parse_peer_id(text) == number
