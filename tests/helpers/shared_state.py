"""Gateways on one PostgreSQL, each on a host of its own."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config
from helpers import certs
from helpers.lab import CLIENT_LEGS, GatewayProcess, Lab, OpenVpnClient, wait_until
from helpers.netns import Process
from helpers.tokens import token_key

from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.tokens import Token, TokenOwner
from cvpnd.store import Store
from cvpnd.wire.tls import fingerprint

API = "http://127.0.0.1:8443"
PROMPT_S = 5
"""For what takes less than a second on a machine that does nothing else."""


class Host:
    def __init__(self, lab: Lab, state: str, key: Path, toml: str = "", **env: str) -> None:
        self.lab = lab
        directory = lab.directory / "gateway"
        directory.mkdir()
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        daemon = (
            f'[daemon]\nstate = "{state}"\nstate_key = "{key}"\nadmin_socket = "{directory}/admin.sock"\n'
            f'log_directory = "{directory}/log"\n[api]\nlisten = "{API}"\n'
        )
        self.gateway = GatewayProcess(lab.gateway, directory, daemon + lab.networks_toml() + toml, env)
        self.gateway.start()
        self.gateway.running.wait_for("ready: ")  # the admin socket answers before the API listens
        transport = httpx.HTTPTransport(uds=str(self.gateway.admin_socket))
        self.rest = httpx.Client(transport=transport, base_url="http://cvpnd/v1", timeout=20)

    def get(self, path: str) -> Any:
        return self.rest.get(path).raise_for_status().json()

    def import_certificate(self) -> str:
        pem = {
            "certificate": certs.server().certificate_pem.decode(),
            "private_key": certs.server().private_key_pem.decode(),
            "chain": certs.authority().certificate_pem.decode(),
        }
        return str(self.done("POST", "/imported-certificates", pem)["certificate"]["arn"])

    def serve_people(self, *names: str) -> str:
        """By an endpoint "lab", which asks each for a certificate and a password. Its id."""
        arn = self.import_certificate()
        for name in names:
            self.done("POST", "/users", {"name": name, "password": "right"})
        methods = [{"type": "certificate-authentication"}]
        methods.append({"type": "directory-service-authentication", "directory": "local"})
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1, "authentication": methods}
        trust = {"server_certificate": arn, "client_certificate": arn}
        made = {"name": "lab", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        return str(self.done("POST", "/endpoints", made)["endpoint"]["endpoint_id"])

    def done(self, method: str, path: str, body: object = None, **query: str) -> Any:
        answer = self.rest.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def client(self, *, wait: bool = True, user: str = "alice", password: str = "right") -> OpenVpnClient:
        text = self.get("/endpoints/lab/profile")["profile"]
        alice = certs.client()
        text += f"<cert>\n{alice.certificate_pem.decode()}</cert>\n<key>\n{alice.private_key_pem.decode()}</key>\n"
        path, login = self.lab.directory / "alice.ovpn", self.lab.directory / "login"
        path.write_text(text)
        login.write_text(f"{user}\n{password}\n")
        client = self.lab.openvpn(path, "--auth-user-pass", str(login))
        return client.wait_connected() if wait else client

    def refused(self, reason: str) -> bool:
        tried = [e for e in self.gateway.connection_log() if e["connection-log-type"] == "connection-attempt"]
        return any(e.get("connection-attempt-failure-reason") == reason for e in tried)

    def occupy(self, port: int) -> Process:
        """Something else on this host has that UDP port."""
        program = f"import socket, time; s = socket.socket(type=2); s.bind(('', {port})); print('bound', flush=True)"
        occupant = self.lab.gateway.start(sys.executable, "-c", program + "; time.sleep(300)", label="occupant")
        occupant.wait_for("bound")
        return occupant

    def problems(self) -> list[dict[str, str]]:
        found = self.get("/status")["status"]["problems"]
        return [each for each in found if "cannot be served here" in each["what"]]

    def passes(self) -> bool:
        return self.lab.client.ping("10.20.0.10", 1, 0.1).received == 1

    def ec2(self, key: dict[str, Any]) -> Any:
        with self.lab.gateway.entered():
            return boto3.client(
                "ec2",
                endpoint_url=API,
                region_name="eu-central-1",
                aws_access_key_id=key["access_key"]["access_key_id"],
                aws_secret_access_key=key["secret_access_key"],
                config=Config(retries={"max_attempts": 1}),
            )


def followed(what: str, condition: Callable[[], object]) -> None:
    begun = time.monotonic()
    wait_until(condition, PROMPT_S, what)
    print(f"{what}: {time.monotonic() - begun:.2f} s after the answer at the other gateway")


def token_of(name: str, state: str, key: Path, endpoint: str) -> str:
    """As either gateway writes it now."""
    with closing(Store.open(state, key)) as store:
        revoked = RevokedLogins()
        revoked.replace(store.revoked_logins(), 0.0)
        (password_hash,) = (user.password_hash for user in store.local_users() if user.name == name)
    stamp = hashlib.sha256(password_hash.encode()).digest()
    owner = TokenOwner(endpoint, "local", name, fingerprint(certs.client().certificate).hex(), stamp)
    token = Token.new(time.time(), 3600, mark=revoked.mark(endpoint, "local", name))
    return token_key(state, key).write(token, owner)
