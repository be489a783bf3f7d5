"""Cipher and features, client by client (openvpn-wire.md sections 13 and 20)."""

from __future__ import annotations

import pytest

from cvpnd.reasons import Refusal
from cvpnd.wire.key_method import parse_peer_info
from cvpnd.wire.negotiation import Framing, KeyDerivation, Negotiated, Unsupported, choose_cipher, negotiate

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
    chosen, rule = choose_cipher(OURS, parse_peer_info(info), options)
    assert chosen == cipher
    assert (cipher or "no cipher") in rule


@pytest.mark.parametrize(
    ("proto", "extra", "pushed", "derivation"),
    [
        (990, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit tls-ekm dyn-tls-crypt"], KeyDerivation.TLS_EKM),
        (8094, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch"],
         KeyDerivation.TLS_EKM),
        (8094 & ~8, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit dyn-tls-crypt"], KeyDerivation.PRF),
        (8094 & ~128, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "key-derivation tls-ekm"], KeyDerivation.TLS_EKM),
        (478, "IV_CIPHERS=AES-256-GCM\n",
         ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit tls-ekm"], KeyDerivation.TLS_EKM),
        (6, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM"], KeyDerivation.PRF),
        (2 + 512, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM"], KeyDerivation.PRF),
        (2 + 8, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM", "key-derivation tls-ekm"], KeyDerivation.TLS_EKM),
        (2 + 128, "IV_NCP=2\n", ["peer-id 9", "cipher AES-256-GCM", "protocol-flags cc-exit"], KeyDerivation.PRF),
        (2, "", ["peer-id 9"], KeyDerivation.PRF),
    ],
    ids=["2.6.1", "2.7", "epoch without exporter", "epoch without flags", "2.6.0", "2.5", "flags missing",
         "exporter only", "flags only", "minivpn"],
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
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n", "V4,dev-type tap", Refusal.UNSUPPORTED_CLIENT),
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n", "V4,mtu-dynamic", Refusal.UNSUPPORTED_CLIENT),
        ("IV_PROTO=990\nIV_CIPHERS=AES-256-CBC\n", "V4", Refusal.NO_SHARED_CIPHER),
        ("IV_PROTO=170\nIV_CIPHERS=AES-256-GCM\n", "V4", Refusal.UNSUPPORTED_CLIENT),
    ],
    ids=["tap", "fragment", "cipher", "no pull"],
)
def test_client_that_cannot_be_served_is_told_why(info: str, options: str, refusal: Refusal) -> None:
    outcome = negotiate(OURS, parse_peer_info(info), options)
    assert isinstance(outcome, Unsupported)
    assert outcome.refusal is refusal
    assert outcome.text.isprintable()
    assert outcome.rule.isprintable()


@pytest.mark.parametrize(
    ("info", "options", "framing", "pushed"),
    [
        ("IV_COMP_STUBv2=1\n", "V4,comp-lzo", Framing.STUB_V2, "compress stub-v2"),
        ("IV_COMP_STUBv2=0\nIV_LZO=1\n", "V4,comp-lzo", Framing.COMP_LZO, "comp-lzo no"),
        ("", "V4,comp-lzo", Framing.COMP_LZO, "comp-lzo no"),
        ("IV_COMP_STUBv2=1\nIV_LZO=1\n", "V4", Framing.NONE, None),
    ],
)
def test_compression_framing_is_migrated(info: str, options: str, framing: Framing, pushed: str | None) -> None:
    outcome = negotiate(OURS, parse_peer_info(f"IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n{info}"), options)
    assert isinstance(outcome, Negotiated)
    assert outcome.framing is framing
    options_pushed = outcome.push_options(1)
    assert (options_pushed[-1] == pushed) if pushed else not any("comp" in option for option in options_pushed)


@pytest.mark.parametrize("proto", [0, 1024 + 8 + 128, 4])
def test_client_without_peer_ids_gets_none_and_no_epochs(proto: int) -> None:
    outcome = negotiate(OURS, parse_peer_info(f"IV_PROTO={proto}\n"), "V4,cipher AES-256-GCM")
    assert isinstance(outcome, Negotiated)
    assert outcome.data_v1 and not outcome.epoch
    assert not any("peer-id" in option or "epoch" in option for option in outcome.push_options(4))


@pytest.mark.parametrize(
    ("info", "options", "said"),
    [
        ("IV_PROTO=8094\nIV_CIPHERS=AES-128-GCM:AES-256-GCM\n", "V4",
         "cipher AES-256-GCM is the first of AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 for IV_CIPHERS "
         "(AES-128-GCM:AES-256-GCM); epoch format, keys by TLS exporter, framing none; pushed: peer-id 9, "
         "cipher AES-256-GCM, protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch"),
        ("IV_PROTO=2\nIV_NCP=2\n", "V4,cipher BF-CBC,comp-lzo",
         "cipher AES-256-GCM is the first of AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 for IV_NCP=2 and its "
         "configuration (AES-256-GCM:AES-128-GCM:BF-CBC); P_DATA_V2, keys by PRF, framing comp_lzo; pushed: "
         "peer-id 9, cipher AES-256-GCM, comp-lzo no"),
        ("", "V4,cipher AES-128-GCM",
         "cipher AES-128-GCM is the first of AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 for its configuration "
         "(AES-128-GCM); P_DATA_V1, keys by PRF, framing none; pushed: nothing"),
    ],
    ids=["2.7", "2.4", "before peer ids"],
)  # fmt: skip
def test_decision_is_explained_in_one_line(info: str, options: str, said: str) -> None:
    outcome = negotiate(OURS, parse_peer_info(info), options)
    assert isinstance(outcome, Negotiated)
    assert outcome.explain(9) == said


def test_why_there_is_no_cipher_is_explained() -> None:
    outcome = negotiate(OURS, parse_peer_info("IV_CIPHERS=AES-256-CBC\n"), "V4,cipher AES-256-GCM")
    assert isinstance(outcome, Unsupported)
    assert outcome.rule == (
        "no cipher among AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 for IV_CIPHERS (AES-256-CBC); "
        "CBC only where legacy_cbc_ciphers names it"
    )


CBC = (*OURS, "AES-256-CBC", "AES-128-CBC")


@pytest.mark.parametrize(
    ("proto", "options", "overhead"),
    [
        (990, "V4", (24, 0, 1)),
        (8094, "V4", (28, 0, 1)),
        (0, "V4", (21, 0, 1)),
        (990, "V4,comp-lzo", (24, 1, 1)),
        (8094, "V4,comp-lzo", (28, 1, 1)),
    ],
)
def test_overhead_is_what_the_negotiated_packets_have(proto: int, options: str, overhead: tuple[int, int, int]) -> None:
    outcome = negotiate(OURS, parse_peer_info(f"IV_PROTO={proto}\nIV_NCP=2\n"), options)
    assert isinstance(outcome, Negotiated)
    assert outcome.overhead == overhead


@pytest.mark.parametrize(
    ("proto", "options", "overhead"),
    [
        (2, "auth SHA256", (4 + 32 + 16, 4, 16)),
        (2, "auth SHA1,comp-lzo", (4 + 20 + 16, 5, 16)),
        (0, "auth SHA512", (1 + 64 + 16, 4, 16)),
    ],
)
def test_overhead_of_cbc(proto: int, options: str, overhead: tuple[int, int, int]) -> None:
    outcome = negotiate(CBC, parse_peer_info(f"IV_PROTO={proto}\n"), f"V4,cipher AES-256-CBC,{options}")
    assert isinstance(outcome, Negotiated)
    assert outcome.overhead == overhead


# -- CBC, where the operator allows it


@pytest.mark.parametrize(
    ("info", "options"),
    [
        ("IV_CIPHERS=AES-256-CBC:AES-128-GCM\n", "V4,cipher AES-256-CBC,auth SHA256"),
        ("IV_NCP=2\n", "V4,cipher AES-256-CBC,auth SHA256"),
        ("", "V4,cipher CHACHA20-POLY1305,auth [null-digest]"),
    ],
    ids=["2.5", "2.4", "by its configuration"],
)
def test_a_client_with_an_aead_cipher_gets_no_cbc(info: str, options: str) -> None:
    outcome = negotiate(CBC, parse_peer_info(info), options)
    assert isinstance(outcome, Negotiated)
    assert not outcome.cipher.endswith("CBC")
    assert outcome.digest == ""
    assert "CBC" not in outcome.explain(1).partition(";")[2]


@pytest.mark.parametrize(
    ("info", "options", "cipher", "digest", "pushed"),
    [
        ("", "V4,cipher AES-256-CBC,auth SHA256", "AES-256-CBC", "SHA256", []),
        ("", "V4,cipher AES-128-CBC", "AES-128-CBC", "SHA1", []),
        ("IV_PROTO=2\n", "V4,cipher AES-256-CBC,auth SHA512,keysize 256", "AES-256-CBC", "SHA512", ["peer-id 3"]),
        ("IV_PROTO=2\n", "V4,cipher AES-256-CBC,auth SHA2-384", "AES-256-CBC", "SHA384", ["peer-id 3"]),
        ("IV_PROTO=8094\nIV_CIPHERS=AES-128-CBC:AES-256-CBC\n", "V4,auth SHA1", "AES-256-CBC", "SHA1",
         ["peer-id 3", "cipher AES-256-CBC", "protocol-flags cc-exit tls-ekm dyn-tls-crypt"]),
    ],
    ids=["2.2", "the default auth", "2.3", "2.5.5 with OpenSSL 3", "2.7"],
)  # fmt: skip
def test_a_client_without_one_gets_cbc_with_the_hmac_of_its_configuration(
    info: str, options: str, cipher: str, digest: str, pushed: list[str]
) -> None:
    outcome = negotiate(CBC, parse_peer_info(info), options)
    assert isinstance(outcome, Negotiated)
    assert (outcome.cipher, outcome.digest) == (cipher, digest)
    assert outcome.push_options(3) == pushed, "auth is never pushed, cipher only to who takes it, epochs never"
    assert f"with legacy CBC and HMAC-{digest}, keys by" in outcome.explain(3)
    refused = negotiate(OURS, parse_peer_info(info), options)
    assert isinstance(refused, Unsupported)
    assert refused.refusal is Refusal.NO_SHARED_CIPHER
    assert refused.rule.endswith("; CBC only where legacy_cbc_ciphers names it")


@pytest.mark.parametrize(
    "auth", ["[null-digest]", "none", "", "MD5", "RSA-MD4", "sha1", "SHA224", "SHA256 ", "SHA1\nX", "BLAKE2b512"]
)
def test_cbc_with_another_hmac_is_refused_with_the_reason(auth: str) -> None:
    outcome = negotiate(CBC, parse_peer_info("IV_PROTO=2\n"), f"V4,cipher AES-256-CBC,auth {auth}")
    assert isinstance(outcome, Unsupported)
    assert outcome.refusal is Refusal.UNSUPPORTED_CLIENT
    assert outcome.text == (
        "Data channel authentication not supported: set auth to one of SHA1, SHA256, SHA384, SHA512"
    )
    assert "auth " in outcome.rule
    assert outcome.rule.isprintable()


def test_what_a_client_says_is_shown_without_control_characters() -> None:
    outcome = negotiate(OURS, parse_peer_info(""), "V4,cipher X\r\nALL GOOD\x1b[1A")
    assert isinstance(outcome, Unsupported)
    assert outcome.rule.isprintable()
