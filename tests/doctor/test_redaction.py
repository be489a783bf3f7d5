"""What a support bundle may show of the configuration, and what is cut out of everything else."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cvpnd.doctor.bundle import UnknownSecretsError, _tail, write_bundle
from cvpnd.doctor.libpq import environment_of
from cvpnd.doctor.redaction import HIDDEN, Scrubber, redacted, secrets_of

REFERENCE = Path(__file__).parents[2] / "conf" / "cvpnd.toml"


def test_text_under_a_key_that_nobody_called_harmless_is_hidden() -> None:
    shown = redacted({"endpoint": [{"name": "staff", "new_secret": "canary", "number": 3, "flag": True}]})
    assert shown == {"endpoint": [{"name": "staff", "new_secret": HIDDEN, "number": 3, "flag": True}]}
    assert redacted({"state": "postgresql://u:canary@h/d"}) == {"state": HIDDEN}
    assert redacted({"new": ["canary"], "deep": {"er": {"yet": "canary"}}}) == {
        "new": [HIDDEN], "deep": {"er": {"yet": HIDDEN}},
    }  # fmt: skip


def test_of_the_reference_file_hashes_and_urls_are_hidden_and_the_rest_can_be_read() -> None:
    document = tomllib.loads(REFERENCE.read_text())
    text = repr(redacted(document))
    assert "argon2" not in text and "sqlite" not in text
    assert "10.20.0.0/16" in text and "subnet-a" in text and "AES-256-GCM" in text


def test_secrets_of_the_file_and_of_the_files_it_names_are_cut_out_of_any_text(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("-----BEGIN PRIVATE KEY-----\nMIGcanarykeyline1\nMIGcanarykeyline2\n-----END")
    (tmp_path / "corp.password").write_text("canary-bind-password\n")
    config = tmp_path / "cvpnd.toml"
    config.write_text(
        '[daemon]\nstate = "postgresql://cvpnd:canary-database@db/cvpnd"\n[[local_users]]\nname = "anna"\n'
        'password_hash = "$argon2id$canary-hash"\n[[directory]]\nbind_password_file = "corp.password"\n'
        '[[endpoint]]\nserver_certificate = { private_key = "server.key" }\n'
        '[[radius]]\nshared_secret = "canary-radius"\n'
        '[[handler]]\nurl = "https://posture.example.com/connect?code=canary-handler"\n'
    )
    secrets = set(secrets_of(config))
    assert {
        "canary-database",
        "$argon2id$canary-hash",
        "canary-bind-password",
        "MIGcanarykeyline2",
        "canary-radius",
    } <= secrets
    assert f"POST /connect?{HIDDEN} 200" == Scrubber(secrets)("POST /connect?code=canary-handler 200")
    scrub = Scrubber(secrets)
    said = "bind with canary-bind-password at db: canary-database; MIGcanarykeyline1 anna 10.20.0.1"
    assert scrub(said) == f"bind with {HIDDEN} at db: {HIDDEN}; {HIDDEN} anna 10.20.0.1"


def test_a_secret_is_cut_out_however_it_is_written(tmp_path: Path) -> None:
    config = tmp_path / "cvpnd.toml"
    config.write_text(
        '[daemon]\nstate = "postgresql://cvpnd:can%2Fary%2Fdb@db/cvpnd?connect_timeout=3&password=can%40ary+2&sslPassword=canary3"\n'
        '[[saml_provider]]\nmetadata = "https://idp.example.com/metadata?key=canary4&more=can%2Fary5"\n'
    )
    scrub = Scrubber([*secrets_of(config), 'can"ary\u00fc'])
    assert scrub("sqlite connect_timeout=3") == "sqlite connect_timeout=3"
    for said in (
        "can%2Fary%2Fdb",
        "can/ary/db",
        "can%40ary+2",
        "can@ary 2",
        "canary3",
        "GET /metadata?key=canary4&more=can%2Fary5",
        'can"ary\u00fc',
        json.dumps({"detail": 'can"ary\u00fc'}),
    ):
        assert "ary" not in scrub(said), said


@pytest.mark.parametrize(
    "mistake",
    [
        "[daemon",
        "a = b",
        "a = 1\na = 2",
        'more = { secret = "canary-more }',
        "secret = canary-more",
        "secret = 'canary-more",
    ],
)
def test_of_a_file_with_a_mistake_in_it_secrets_are_known_too(tmp_path: Path, mistake: str) -> None:
    (tmp_path / "bind").write_text("canary-of-a-file\n")
    config = tmp_path / "cvpnd.toml"
    config.write_text(
        "[daemon]\nstate = 'postgresql://u:canary-database@db/cvpnd'\n"
        f'[[directory]]\nbind_password_file="bind"\n{mistake}\n[[x]]\nshared_secret = "canary-radius" # not "this"\n'
    )
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(config.read_text())
    scrub = Scrubber(secrets_of(config))
    for secret in ("canary-database", "canary-of-a-file", "canary-radius", *re.findall("canary-more", mistake)):
        assert scrub(f"it was {secret}.") == f"it was {HIDDEN}."


@pytest.mark.parametrize(
    ("written", "secret"),
    [
        ('secret = "it\'s canary"', "it's canary"),
        ('"secret" = "canary-1"', "canary-1"),
        ('x.secret = "canary=2"', "canary=2"),
        ('secrets = [\n  "other", # "this"\n  "canary-3",\n]', "canary-3"),
        ('secret = """\ncanary-4 "quoted" """', 'canary-4 "quoted" '),
        ("secret = '''canary\\5'''", "canary\\5"),
        ('secret = "can\\u0061ry \\"6\\""', 'canary "6"'),
        ('more = { a = 1, secret = "canary-7", b = "c" }', "canary-7"),
    ],
)
def test_of_a_file_with_a_mistake_in_it_every_way_to_write_a_secret_is_known(
    tmp_path: Path, written: str, secret: str
) -> None:
    config = tmp_path / "cvpnd.toml"
    config.write_text(f'name = "shown"\n{written}\n[table] x\nmore-that-is = "shown"\n')
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(config.read_text())
    scrub = Scrubber(secrets_of(config))
    assert scrub(f"shown: {secret}!") == f"shown: {HIDDEN}!"


@pytest.mark.parametrize("written", ["https://[canary-of-no-url", "postgresql://u:canary-of-no-url@[db/x"])
def test_what_should_be_a_url_and_is_none_is_cut_out_as_a_whole(tmp_path: Path, written: str) -> None:
    config = tmp_path / "cvpnd.toml"
    config.write_text(f'url = "{written}"\nstate = "{written}"\n')
    assert Scrubber(secrets_of(config))(f"bad: {written}") == f"bad: {HIDDEN}"


def test_what_libpq_reads_besides_the_url_is_cut_out(tmp_path: Path) -> None:
    """From files that the URL, the daemon's environment or nobody names."""
    home = tmp_path / "home"
    (home / ".postgresql").mkdir(parents=True)
    (home / ".pgpass").write_text("# of old\ndb:5432:cvpnd:cvpnd:can\\:ary-home\n")
    (home / ".postgresql" / "postgresql.key").write_text("MIGcanary-key-line\n")
    (tmp_path / "named").write_text("*:*:*:*:canary-of-variable\n")
    (tmp_path / "in-url").write_text("[::1]:5432:cvpnd:cvpnd:not this\n\\[\\:\\:1]:5432:cvpnd:cvpnd:canary-of-url\n")
    config = tmp_path / "cvpnd.toml"
    config.write_text(f'[daemon]\nstate = "postgresql+psycopg://cvpnd@db/cvpnd?passfile={tmp_path}/in-url"\n')
    environment = {"HOME": str(home), "PGPASSFILE": str(tmp_path / "named"), "PGPASSWORD": "canary-itself"}
    with subprocess.Popen(["cat"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdin is not None and daemon.stdout is not None
        daemon.stdin.write(b"\n")
        daemon.stdin.flush()
        daemon.stdout.readline()  # in the first moment of a program the kernel shows no environment of it
        scrub = Scrubber(secrets_of(config, lambda: environment_of(daemon.pid)))
        daemon.kill()
    for secret in (
        "can:ary-home", "can\\:ary-home", "MIGcanary-key-line", "canary-of-variable", "canary-of-url", "canary-itself",
    ):  # fmt: skip
        assert scrub(f"it was {secret}.") == f"it was {HIDDEN}.", secret
    config.write_text('[daemon]\nstate = "sqlite:///state.db"\n')
    assert Scrubber(secrets_of(config, lambda: pytest.fail("asked for")))("canary-itself") == "canary-itself"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_who_cannot_read_a_secret_gets_no_bundle_and_hears_of_which_file(open_directory: Path) -> None:
    (open_directory / "bind").write_text("canary")
    (open_directory / "bind").chmod(0o600)
    config = open_directory / "cvpnd.toml"
    config.write_text('[[directory]]\nbind_password_file = "bind"\n')
    script = f"""
import os
from pathlib import Path
from cvpnd.doctor.bundle import UnknownSecretsError, write_bundle
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    write_bundle(Path("/nonexistent/bundle"), Path({str(config)!r}), None, lambda _: {{}})
except UnknownSecretsError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert said.stdout.startswith(f"{open_directory}/bind: Permission denied; "), said
    assert said.stdout.endswith("run this with sudo\n")


def test_without_the_file_no_bundle_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownSecretsError, match=r"cvpnd\.toml: No such file"):
        write_bundle(tmp_path / "bundle.tar.gz", tmp_path / "cvpnd.toml", None, lambda _: {})
    assert list(tmp_path.iterdir()) == []


def test_the_tail_of_a_log_is_of_no_file_that_it_leads_to(tmp_path: Path) -> None:
    own, foreign = tmp_path / "connections.log", tmp_path / "shadow"
    foreign.write_text("root:canary\n")
    own.symlink_to(foreign)
    with pytest.raises(OSError, match="symbolic links"):
        _tail(own)
    own.unlink()
    os.mkfifo(own)
    assert "is no file" in _tail(own)
    own.unlink()
    own.write_text("entry\n")
    assert _tail(own) == "entry\n"


def test_what_looks_like_a_private_key_is_cut_out_wherever_it_comes_from() -> None:
    scrub = Scrubber([])
    for kind in ("PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OpenVPN Static key V1".upper()):
        assert "canary" not in scrub(f"before\n-----BEGIN {kind}-----\ncanary\n-----END {kind}-----\nafter"), kind
    for kind in ("OpenVPN Static key V1", "OpenVPN tls-crypt-v2 server key", "OpenVPN tls-crypt-v2 client key"):
        assert "canary" not in scrub(f"-----BEGIN {kind}-----\ncanary\n-----END {kind}-----"), kind
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    assert scrub(certificate) == certificate
