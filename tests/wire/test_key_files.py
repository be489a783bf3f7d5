"""OpenVPN's key files: ours for the real program, the real program's for us, and what a broken one is told as."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import wire_vectors as v

from cvpnd.wire.wrap import key_files
from cvpnd.wire.wrap.client_key import ClientKeyMetadata, new_client_key
from cvpnd.wire.wrap.key_files import ClientKeyFile, KeyFileError
from cvpnd.wire.wrap.tls_crypt_v2 import MAX_METADATA_BYTES, ClientKey, ServerKey

OPENVPN = shutil.which("openvpn") or "/usr/sbin/openvpn"
needs_openvpn = pytest.mark.skipif(not Path(OPENVPN).exists(), reason="the openvpn program is not installed")


def genkey(directory: Path, kind: str, *options: str) -> bytes:
    path = directory / f"{kind}.key"
    subprocess.run([OPENVPN, *options, "--genkey", kind, path], check=True, capture_output=True)
    return path.read_bytes()


@needs_openvpn
@pytest.mark.parametrize("kind", ["secret", "tls-auth", "tls-crypt"])
def test_static_keys_of_the_real_program_are_written_back_as_they_were(tmp_path: Path, kind: str) -> None:
    text = genkey(tmp_path, kind)
    key = key_files.parse_static_key(text)
    assert key_files.serialise_static_key(key) == text[text.index(b"-----BEGIN") :], "all but its comments"


@needs_openvpn
def test_tls_crypt_v2_keys_of_the_real_program(tmp_path: Path) -> None:
    text = genkey(tmp_path, "tls-crypt-v2-server")
    server_key = key_files.parse_v2_server_key(text)
    assert key_files.serialise_v2_server_key(server_key) == text
    path = tmp_path / "tls-crypt-v2-server.key"
    client_text = genkey(tmp_path, "tls-crypt-v2-client", "--tls-crypt-v2", str(path))
    client = key_files.parse_v2_client_key(client_text)
    assert key_files.serialise_v2_client_key(client) == client_text
    kc, raw = ServerKey(server_key).unwrap(client.wkc)
    assert kc == client.kc
    metadata = ClientKeyMetadata.parse(raw)
    assert metadata.created_at is not None
    assert abs(metadata.created_at - path.stat().st_mtime) < 60
    assert (metadata.name, metadata.serial) == ("", None)


@needs_openvpn
def test_the_real_program_makes_client_keys_with_our_server_key(tmp_path: Path) -> None:
    key = key_files.new_v2_server_key()
    path = tmp_path / "ours.key"
    path.write_bytes(key_files.serialise_v2_server_key(key))
    client = key_files.parse_v2_client_key(genkey(tmp_path, "tls-crypt-v2-client", "--tls-crypt-v2", str(path)))
    assert ServerKey(key).unwrap(client.wkc).kc == client.kc


def test_comments_line_lengths_and_line_ends_do_not_matter() -> None:
    text = key_files.serialise_static_key(v.V0_STATIC_KEY)
    begin, *lines, end = text.decode().splitlines()
    digits = "".join(lines)
    for variant in (
        "# a comment\n; another\n" + text.decode(),
        text.decode().replace("\n", "\r\n"),
        "\n".join((begin, digits, end)),
        "\n".join((begin, digits.upper()[:100], "", digits[100:], end)),
    ):
        assert key_files.parse_static_key(variant.encode()) == v.V0_STATIC_KEY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "is not an"),
        (b"-----BEGIN CERTIFICATE-----\n", 'is not an "OpenVPN Static key V1" file; make one with'),
        (key_files.serialise_static_key(v.V0_STATIC_KEY)[:300], "is not an"),
        (key_files.serialise_static_key(v.V0_STATIC_KEY[:255]), "does not hold 256 bytes"),
        (key_files.serialise_static_key(v.V0_STATIC_KEY + b"x"), "does not hold 256 bytes"),
        (key_files.serialise_static_key(v.V0_STATIC_KEY).replace(b"9919", b"99xy"), "does not hold 256 bytes"),
        (key_files.serialise_static_key(v.V0_STATIC_KEY).replace(b"9919", "99é1".encode()), "does not hold"),
    ],
)
def test_what_is_no_static_key_is_told_without_its_content(text: bytes, problem: str) -> None:
    with pytest.raises(KeyFileError, match=problem) as caught:
        key_files.parse_static_key(text)
    assert "5bec8562" not in str(caught.value)


def test_what_is_no_tls_crypt_v2_key_is_told() -> None:
    static = key_files.serialise_static_key(v.V0_STATIC_KEY)
    server = key_files.serialise_v2_server_key(v.V3_SERVER_KEY)
    for parse in (key_files.parse_v2_server_key, key_files.parse_v2_client_key):
        with pytest.raises(KeyFileError, match="is not an"):
            parse(static)
    with pytest.raises(KeyFileError, match="holds 127 bytes"):
        key_files.parse_v2_server_key(key_files.serialise_v2_server_key(v.V3_SERVER_KEY[:-1]))
    with pytest.raises(KeyFileError, match="base64"):
        key_files.parse_v2_server_key(server.replace(b"=", b"!"))
    with pytest.raises(KeyFileError, match="cut off"):
        key_files.parse_v2_client_key(key_files.serialise_v2_client_key(ClientKeyFile(v.V3_KC, v.V3_WKC[:200])))


def test_our_metadata_comes_back() -> None:
    server_key = ServerKey(v.V3_SERVER_KEY)
    written = ClientKeyMetadata('Zoë "K", 64 characters ' + 41 * "x", 2**160 - 1, 1_800_000_000)
    first, second = new_client_key(server_key, written), new_client_key(server_key, written)
    assert first.kc != second.kc
    kc, raw = server_key.unwrap(first.wkc)
    assert kc == first.kc
    assert len(raw) < MAX_METADATA_BYTES
    assert ClientKeyMetadata.parse(raw) == written
    assert repr(first) == "ClientKeyFile(…)"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\0", v.V3_METADATA, b"\0[]", b"\0null", b'\0{"cvpnd":2,"name":"","serial":"1","created":1}',
        b'\0{"cvpnd":1,"name":"","serial":"xyz","created":1}', b'\0{"cvpnd":1}', b"\0" + b"[" * 700, b"\0\xff\xfe",
        b"\x01", b"\x01" + bytes(7), b"\x01" + bytes(9), b"\x02whatever",
        b'\0{"cvpnd":1,"name":"","serial":{},"created":1}', b'\0{"cvpnd":1,"name":"","serial":null,"created":1e999}',
    ],
)  # fmt: skip
def test_metadata_of_others_says_nothing_and_is_no_error(raw: bytes) -> None:
    assert ClientKeyMetadata.parse(raw) == ClientKeyMetadata()
    assert ServerKey(v.V3_SERVER_KEY).unwrap(ServerKey(v.V3_SERVER_KEY).wrap(ClientKey(v.V3_KC, raw))).metadata == raw
