"""The search for secrets finds them: in each form and place, and where a badly written daemon would leave them."""

import base64
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest
from helpers import canaries, certs
from helpers.canaries import SecretTold, look_at, look_below
from helpers.lab import Lab

PASSWORD = 'Tr0ub4dor&3 "ü"'
TOKEN = "SESS_ID_AT_" + base64.b64encode(bytes(range(90))).decode()
SAML = base64.b64encode(b'<samlp:Response xmlns:samlp="urn:oasis" ID="_1">' + os.urandom(600)).decode()
KEY = certs.client("canary").private_key_pem.decode()
LINE = KEY.splitlines()[2]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A lab's directory, after a daemon was told these."""
    (tmp_path / "witness").mkdir()
    (tmp_path / "log").mkdir()
    (tmp_path / "anna.key").write_text(KEY)
    (tmp_path / "cvpnd.toml").write_text('[daemon]\nstate = "postgresql://cvpnd:of-the-database@db/cvpnd"\n')
    said = [["password", ["anna", PASSWORD]], ["password", ["ben", SAML]], ["password", ["anna", "918273"]]]
    said += [["token", TOKEN], ["command", ["nft", "-f", "-"]]]
    (tmp_path / "witness/7").write_text("".join(json.dumps(each) + "\n" for each in said))
    (tmp_path / "witness/cvpnctl").write_text(json.dumps(["secret", ["wJalrXUtnFEMI", "a secret access key"]]) + "\n")
    return tmp_path


FORMS = {
    "as it is": PASSWORD,
    "in JSON": json.dumps({"password": PASSWORD}),
    "in a URL": f"POST /login?password={quote(PASSWORD)}",
    "in hex": PASSWORD.encode().hex(),
    "in base64": base64.b64encode(f"anna:{PASSWORD}".encode()).decode(),
    "in base64, one further": base64.b64encode(f"ann:{PASSWORD}".encode()).decode(),
    "in base64, two further": base64.b64encode(f"an:{PASSWORD}".encode()).decode(),
    "a key": KEY,
    "a key in JSON": json.dumps(KEY),
    "a line of a key": f"cannot read {LINE!r}",
    "a line of a key in a URL": quote(LINE, safe=""),
    "a key's bytes in hex": base64.b64decode(LINE + "=" * (-len(LINE) % 4)).hex(),
    "a token": f"renewed {TOKEN}",
    "a token's end": TOKEN[-70:],
    "a token in base64": base64.b64encode(f"x{TOKEN}".encode()).decode(),
    "a SAML response": SAML,
    "a part of one": SAML[len(SAML) // 3 :],
    "a SAML response in a URL": quote(SAML, safe=""),
    "a code": "otp 918273 is wrong",
    "of the database": "cannot reach postgresql://cvpnd:of-the-database@db",
    "what cvpnctl printed": "made a key wJalrXUtnFEMI",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "place", ["gateway-cvpnd-0.log", "log/connections.log", "status", "state.db-wal", "bundle.tar.gz"]
)
def test_a_secret_is_found_in_each_form_and_place(told: Path, form: str, place: str) -> None:
    look_below(told)
    text = f"12:00:00 info  {FORMS[form]}\n".encode()
    if place.endswith(".tar.gz"):
        with tarfile.open(told / place, "w:gz") as archive:
            member = tarfile.TarInfo("cvpnd/log/journal.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    else:
        (told / place).write_bytes(text)
    with pytest.raises(SecretTold):
        look_below(told)


def test_a_secret_on_a_command_line_or_in_an_environment_is_found(told: Path) -> None:
    with (told / "witness/7").open("a") as file:
        file.write(json.dumps(["command", ["PATH=/bin", f"PASSWORD={PASSWORD}"]]) + "\n")
    with pytest.raises(SecretTold, match="a command line of process 7"):
        look_below(told)


def test_a_number_that_is_somebodys_code_may_be_a_count_elsewhere(told: Path) -> None:
    (told / "log/connections.log").write_text('{"authentication-method": "local+totp", "ingress-bytes": "918273"}\n')
    look_below(told)


def test_what_this_process_was_told_is_found_in_what_it_logs() -> None:
    canaries.plant("told-in-this-process", "a password")
    with pytest.raises(SecretTold, match="tells a password"):
        look_at("here", "refused: told-in-this-process")


TELLS_WHAT_WAS_TYPED = 'from cvpnd.wire.events import QuestionAnswered; print(QuestionAnswered("blue-canary").answer)'
TELLS_OF_ITS_DATABASE = 'import os; print(open(os.environ["PGPASSFILE"]).read().split(":")[-1])'


@pytest.mark.skipif(os.geteuid() != 0, reason="builds network namespaces: needs root")
@pytest.mark.parametrize(
    ("program", "what"),
    [
        (TELLS_WHAT_WAS_TYPED, "tells a password of somebody"),
        (TELLS_OF_ITS_DATABASE, "tells what a daemon's file, or its environment, keeps secret"),
    ],
)
def test_a_daemon_that_tells_a_password_fails_its_test(program: str, what: str) -> None:
    """From a password that a client typed, or a file that only an environment names, to a log that has it: nobody has
    said what the secret is."""
    lab = Lab().__enter__()
    try:
        directory = lab.directory
        config, passwords = directory / "cvpnd.toml", directory / "of-libpq"
        config.write_text('[daemon]\nstate = "postgresql://cvpnd@db/cvpnd"\n')
        passwords.write_text("db:5432:cvpnd:cvpnd:red-canary\n")
        witness = Path(canaries.__file__).parent / "witness"
        environment = {"PYTHONPATH": str(witness), "CVPND_WITNESS": str(directory / "witness")}
        environment["PGPASSFILE"] = str(passwords)
        command = (sys.executable, "-c", program, "cvpnd", "--config", config)
        lab.gateway.start(*command, env=environment, label="cvpnd").wait()
    finally:
        with pytest.raises(SecretTold, match=what):
            lab.close()
    assert not directory.exists()
