"""Logins that are ended while the state database takes nothing: they stay ended, and are stored as soon as it does."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers.lab import GatewayProcess, wait_until
from helpers.tokens import written_token

from cvpnd.auth.passwords import hash_password
from cvpnd.auth.tokens import Token

CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
PASSWORD = '{ type = "directory-service-authentication", directory = "local" }'
HASH = hash_password("right")
ENDED = "AUTH_FAILED,SESSION: token expired"


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def full(place: Path) -> Iterator[None]:
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    try:
        yield
    finally:
        (place / "filler").unlink()


def unstored(gateway: GatewayProcess) -> str:
    problems = json.loads(gateway.ctl("status", "--json", check=False).stdout)["problems"]
    return "".join(each["what"] for each in problems if each["subject"] == "ended logins")


def test_who_is_ended_while_the_disk_is_full_stays_so_and_it_is_stored_when_there_is_room(site, connect):
    """Over a reload, other changes, and a restart once it is stored; and it is the administrator's in the audit."""
    place = site.directory / "state"
    local = "".join(f'[[local_users]]\nname = "{user}"\npassword_hash = "{HASH}"\n' for user in ("alice", "bob"))
    toml = (site.toml() + local).replace(f"[{CERTIFICATE}]", f"[{PASSWORD}]")
    with small_disk(place):
        site._gateway = gateway = GatewayProcess(site.lab.gateway, site.directory, toml, {})
        gateway.write_config(gateway.config_path.read_text().replace("/state.db", "/state/state.db"))
        gateway.start()
        state = f"sqlite:///{place}/state.db"
        tokens = {
            user: written_token(gateway, Token.new(time.time(), 3600), user, HASH, state) for user in ("alice", "bob")
        }

        def again(user: str, name: str) -> None:
            client = connect(user, tokens[user], name=name)
            client.wait_for(ENDED)
            client.stop()

        alice = connect("alice", tokens["alice"], name="alice").wait_connected()
        elsewhere = {"client": site.lab.clients[1], "host": "198.51.100.1"}
        bob = connect("bob", tokens["bob"], name="bob", **elsewhere).wait_connected()
        (bobs,) = (c["connection_id"] for c in gateway.ctl_json("connection", "list") if c["username"] == "bob")
        with full(place):
            told = gateway.ctl("connection", "terminate", "--username", "alice", check=False)
            assert told.returncode == 1 and "That is not stored" in told.stderr and "disk is full" in told.stderr
            alice.wait_for("Terminated by the administrator")
            for _ in range(2):
                told = gateway.ctl("connection", "terminate", bobs, check=False)
                assert told.returncode == 1 and "That is not stored" in told.stderr, "it is not, also when asked again"
            bob.wait_for("Terminated by the administrator")
            assert "user alice" in unstored(gateway) and bobs in unstored(gateway)
            again("alice", "at-once")
            gateway.ctl("reload", check=False)
            again("alice", "reloaded")
            again("bob", "bob-reloaded")
        wait_until(lambda: not unstored(gateway), 15, "stored by itself")
        gateway.ctl("user", "add", "carol", input="secret\n")
        again("alice", "changed")
        gateway.kill()
        gateway.start()
        again("alice", "restarted")
        again("bob", "bob-restarted")
        connect("alice", "right").wait_connected()
        records = [each for each in gateway.ctl_json("audit") if each["action"] == "terminate-connections"]
        assert {each["who"] for each in records} == {"uid:0"} and len(records) == 2
        gateway.stop()
