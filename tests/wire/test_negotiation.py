"""Cipher and features, client by client (openvpn-wire.md sections 13 and 20)."""

from __future__ import annotations

import pytest

from cvpnd.reasons import Refusal
from cvpnd.wire.key_method import parse_peer_info
from cvpnd.wire.negotiation import KeyDerivation, Negotiated, Unsupported, choose_cipher, negotiate

OURS = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")


@pytest.mark.parametrize(
    ("info", "options", "cipher"),
    [
        ("IV_CIPHERS=AES-128-GCM:AES-256-GCM\n", "V4", "AES-256-GCM"),
        ("IV_CIPHERS=CHACHA20-POLY1305\n", "V4", "CHACHA20-POLY1305"),
        ("IV_CIPHERS=CHACHA20-POLY1305\n", "V4,cipher AES-256-GCM", "CHACHA20-POLY1305"),
        ("IV_NCP=2\n", "V4,cipher BF-CBC", "AES-256-GCM"),
        ("IV_NCP=1\n", "V4", None),
        ("", "V4,cipher AES-128-GCM", "AES-128-GCM"),
        ("", "V4,cipher aes-128-gcm", None),
        ("", "V4,cipher BF-CBC", None),
        ("", "V4", None),
        ("IV_CIPHERS=\n", "V4,cipher AES-256-GCM", None),
    ],
)
def test_first_of_our_ciphers_that_the_client_takes(info: str, options: str, cipher: str | None) -> None:
    assert choose_cipher(OURS, parse_peer_info(info), options) == cipher


@pytest.mark.parametrize(
    ("proto", "extra", "pushed", "derivation"),
    [
        (990, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit tls-ekm dyn-tls-crypt"], KeyDerivation.TLS_EKM),
        (8094, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit tls-ekm dyn-tls-crypt"], KeyDerivation.TLS_EKM),
        (478, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit tls-ekm"], KeyDerivation.TLS_EKM),
        (6, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM"], KeyDerivation.PRF),
        (2 + 512, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM"], KeyDerivation.PRF),
        (2 + 8, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM", "key-derivation tls-ekm"], KeyDerivation.TLS_EKM),
        (2 + 128, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit"], KeyDerivation.PRF),
        (2, "", ["peer-id 9"], KeyDerivation.PRF),
    ],
    ids=["2.6.1", "2.7", "2.6.0", "2.5", "flags missing", "exporter only", "flags only", "minivpn"],
)  # fmt: skip
def test_a_feature_is_used_if_and_only_if_it_is_pushed(
    proto: int, extra: str, pushed: list[str], derivation: KeyDerivation
) -> None:
    outcome = negotiate(OURS, parse_peer_info(f"IV_PROTO={proto}\n{extra}"), "V4,cipher AES-256-GCM,dev-type tun")
    assert isinstance(outcome, Negotiated)
    assert outcome.push_options(9) == pushed
    assert outcome.derivation is derivation
    assert outcome.push_options(None) == pushed[1:]


@pytest.mark.parametrize(
    ("info", "options", "refusal"),
    [
        ("IV_CIPHERS=AES-256-GCM\n", "V4", Refusal.UNSUPPORTED_CLIENT),
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n", "V4,dev-type tap", Refusal.UNSUPPORTED_CLIENT),
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n", "V4,mtu-dynamic", Refusal.UNSUPPORTED_CLIENT),
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n", "V4,comp-lzo", Refusal.UNSUPPORTED_CLIENT),
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-CBC\n", "V4", Refusal.NO_SHARED_CIPHER),
    ],
    ids=["no DATA_V2", "tap", "fragment", "compression", "cipher"],
)
def test_client_that_cannot_be_served_is_told_why(info: str, options: str, refusal: Refusal) -> None:
    outcome = negotiate(OURS, parse_peer_info(info), options)
    assert isinstance(outcome, Unsupported)
    assert outcome.refusal is refusal
    assert outcome.text.isprintable()


def test_compression_framing_is_turned_off_where_the_client_can() -> None:
    info = parse_peer_info("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\nIV_COMP_STUBv2=1\n")
    outcome = negotiate(OURS, info, "V4,comp-lzo")
    assert isinstance(outcome, Negotiated)
    assert outcome.push_options(1)[-1] == "compress stub-v2"
