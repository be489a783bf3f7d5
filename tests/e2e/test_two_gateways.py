"""Two gateways on one PostgreSQL, each on a host of its own: a change at one is in force at the other before a second
is over, and of two that contradict each other one is refused in words."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from helpers import certs
from helpers.lab import CLIENT_LEGS, GatewayProcess, Lab, OpenVpnClient, wait_until
from helpers.postgresql import PostgreSql, installed

API = "http://127.0.0.1:8443"
PROMPT_S = 5
"""For what takes less than a second on a machine that does nothing else."""


class Host:
    def __init__(self, lab: Lab, state: str, key: Path) -> None:
        self.lab = lab
        directory = lab.directory / "gateway"
        directory.mkdir()
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        daemon = (
            f'[daemon]\nstate = "{state}"\nstate_key = "{key}"\nadmin_socket = "{directory}/admin.sock"\n'
            f'log_directory = "{directory}/log"\n[api]\nlisten = "{API}"\n'
        )
        self.gateway = GatewayProcess(lab.gateway, directory, daemon + lab.networks_toml(), {})
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

    def done(self, method: str, path: str, body: object = None, **query: str) -> Any:
        answer = self.rest.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def client(self) -> OpenVpnClient:
        text = self.get("/endpoints/lab/profile")["profile"]
        alice = certs.client()
        text += f"<cert>\n{alice.certificate_pem.decode()}</cert>\n<key>\n{alice.private_key_pem.decode()}</key>\n"
        path, login = self.lab.directory / "alice.ovpn", self.lab.directory / "login"
        path.write_text(text)
        login.write_text("alice\nright\n")
        return self.lab.openvpn(path, "--auth-user-pass", str(login)).wait_connected()

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


@pytest.mark.skipif(
    not installed(), reason="PostgreSQL is not installed (Debian package postgresql), or this is not root"
)
def test_a_change_at_one_gateway_is_in_force_at_the_other(tmp_path: Path) -> None:
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key)
        arn = here.import_certificate()
        here.done("POST", "/users", {"name": "alice", "password": "right"})
        methods = [{"type": "certificate-authentication"}]
        methods.append({"type": "directory-service-authentication", "directory": "local"})
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1, "authentication": methods}
        trust = {"server_certificate": arn, "client_certificate": arn}
        made = {"name": "lab", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        endpoint = here.done("POST", "/endpoints", made)["endpoint"]["endpoint_id"]
        followed("a new endpoint", lambda: [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"])
        network = here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})["network"]
        rule = {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True}
        here.done("POST", "/rules", rule)
        followed("a network", lambda: there.get("/endpoints/lab")["endpoint"]["status"] == "available")
        followed("a rule", lambda: there.get("/rules")["rules"])
        client = there.client()
        assert there.passes()
        here.done("DELETE", "/rules", **{**rule, "all_groups": "true"})
        followed("a rule that is gone", lambda: there.get("/rules")["rules"] == [])
        assert not there.passes()
        here.done("POST", "/rules", rule)
        followed("the rule again", lambda: there.get("/rules")["rules"])
        assert there.passes()
        _contradict(here, there)
        here.done("PATCH", "/users/alice", {"disabled": True})
        followed("a disabled user's end", lambda: "account-disabled" in str(there.get("/connections")))
        client.stop()
        here.done("PATCH", "/users/alice", {"disabled": False})
        time.sleep(1)  # nothing that is shown tells when she may come back there
        client = there.client()

        credentials = here.done("POST", "/access-keys", {"role": "admin"})
        at_the_other = there.ec2(credentials)
        revoked = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client()]))
        here.done("PUT", "/endpoints/lab/crl", {"pem": revoked.decode()})
        followed("a revoked certificate's end", lambda: "certificate-revoked" in str(there.get("/connections")))
        client.stop()

        with there.lab.gateway.entered():
            here.done("DELETE", "/networks", endpoint="lab", network="subnet-a")
            (shown,) = at_the_other.describe_client_vpn_target_networks(
                ClientVpnEndpointId=endpoint, AssociationIds=[network["association_id"]]
            )["ClientVpnTargetNetworks"]
            assert shown["Status"]["Code"] == "disassociated"
            here.done("DELETE", "/endpoints/lab")

            def status() -> str:
                found = at_the_other.describe_client_vpn_endpoints(ClientVpnEndpointIds=[endpoint])
                return str(found["ClientVpnEndpoints"][0]["Status"]["Code"])

            followed("a deleted endpoint", lambda: status() == "deleted")
            here.done("DELETE", "/access-keys/" + credentials["access_key"]["access_key_id"])

            def key_is_known() -> bool:
                try:
                    return bool(status())
                except ClientError as error:
                    assert error.response["Error"]["Code"] == "AuthFailure"
                    return False

            followed("a deleted access key", lambda: not key_is_known())
        for host in (here, there):
            host.gateway.stop()


def _contradict(here: Host, there: Host) -> None:
    """The same rule at both at once, five times: one is told that it is there, and both have it."""
    begin = threading.Barrier(2)

    def add(host: Host, network: str) -> str:
        begin.wait(PROMPT_S)
        return host.rest.post("/rules", json={"endpoint": "lab", "network": network, "group": "staff"}).text

    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            told = list(pool.map(add, (here, there), [f"10.2{number}.0.0/16"] * 2))
            refused = ["InvalidClientVpnDuplicateAuthorizationRule" in each for each in told]
            assert sorted(refused) == [False, True], told
    rules = here.get("/rules")["rules"]
    assert len(rules) == 6
    followed("the rules of both", lambda: sorted(map(str, there.get("/rules")["rules"])) == sorted(map(str, rules)))


@pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")
def test_what_one_gateway_cannot_serve_keeps_it_from_no_other_change(tmp_path: Path) -> None:
    """An endpoint that another gateway has made, on a port that something else has here."""
    with PostgreSql() as server, Lab() as left, Lab() as right:
        state, key = server.everywhere(server.new_database("both")), tmp_path / "state.key"
        here, there = Host(left, state, key), Host(right, state, key)
        arn = here.import_certificate()
        trust = {"server_certificate": arn, "client_certificate": arn}
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "ping_s": 1}
        made = {"client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        here.done("POST", "/endpoints", {"name": "lab", **made})
        followed("an endpoint", lambda: [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"])
        here.done("POST", "/networks", {"endpoint": "lab", "subnet": "subnet-a"})
        here.done("POST", "/users", {"name": "alice", "password": "right"})
        rule = {"endpoint": "lab", "network": "10.20.0.0/16", "all_groups": True}
        here.done("POST", "/rules", rule)
        followed("a rule", lambda: there.get("/rules")["rules"])
        followed("a user", lambda: there.get("/users")["users"])
        client = there.client()
        wait_until(there.passes, PROMPT_S, "traffic")

        occupies = "import socket, time; s = socket.socket(type=2); s.bind(('', 1300)); print('bound', flush=True)"
        occupant = there.lab.gateway.start(sys.executable, "-c", occupies + "; time.sleep(300)", label="occupant")
        occupant.wait_for("bound")
        here.done("POST", "/endpoints", {**made, "name": "taken", "client_cidr": "10.104.0.0/22", "port": 1300})
        followed("that it cannot be served", lambda: "taken" in str(there.get("/status")["status"]["problems"]))
        (problem,) = [p for p in there.get("/status")["status"]["problems"] if "taken" in p["what"]]
        assert problem["severity"] == "critical" and "1300" in problem["what"]
        assert [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"] and there.passes()
        there.done("PATCH", "/users/alice", {"disabled": True})
        there.done("POST", "/rules", {**rule, "network": "10.30.0.0/16"})
        here.done("DELETE", "/rules", **{**rule, "all_groups": "true"})
        followed("a rule that is gone", lambda: len(there.get("/rules")["rules"]) == 1)
        assert not there.passes()
        revoked = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client()]))
        there.done("PUT", "/endpoints/lab/crl", {"pem": revoked.decode()})
        wait_until(
            lambda: "certificate-revoked" in str(there.get("/connections")), PROMPT_S, "a revoked certificate's end"
        )
        client.stop()
        assert there.gateway.log().count("it cannot be served here") == 1, "it is said once"
        there.gateway.kill()
        there.gateway.start()
        assert [e["name"] for e in there.get("/endpoints")["endpoints"]] == ["lab"], "it starts without it"
        assert there.gateway.log().count("it cannot be served here") == 1

        occupant.kill()
        here.done("POST", "/users", {"name": "bob", "password": "right"})
        followed("an endpoint that can be served now", lambda: len(there.get("/endpoints")["endpoints"]) == 2)
        assert not [p for p in there.get("/status")["status"]["problems"] if "cannot be served" in p["what"]]
        for host in (here, there):
            host.gateway.stop()
