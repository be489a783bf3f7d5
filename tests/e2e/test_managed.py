"""Endpoints that are made at run time: live for the stock client, kept over a crash, whole on a full disk."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import certs, saml_idp
from helpers.lab import CLIENT_LEGS, GatewayProcess, Lab, LabError, wait_until
from helpers.postgresql import PostgreSql
from helpers.totp import code_of, static

CRASHES = int(os.environ.get("CRASHES", "4"))
"""``make crash`` tries fifty."""

SETTINGS = ("split_tunnel=true", "ping_s=1", f"remote={CLIENT_LEGS[0].gateway}")
SPLIT = ("--port", "1194", *(f"--set={setting}" for setting in SETTINGS))

QUOTAS = "[quotas]\nrules = 20000\nroutes = 2000\n"


class Managed:
    """A gateway with networks and no endpoint, and what it takes to make one."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "gateway"
        self.directory.mkdir()
        certs.server().write(self.directory, "server")
        (self.directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        self.toml = QUOTAS + lab.networks_toml()
        self.gateway = GatewayProcess(lab.gateway, self.directory, self.toml, {})

    def start(self, state: str | None = None) -> GatewayProcess:
        """``state``: another database than that of the lab."""
        if state is not None:
            self.gateway.write_config(
                f'[daemon]\nstate = "{state}"\nstate_key = "{self.directory}/other-state.key"\n'
                f'admin_socket = "{self.gateway.admin_socket}"\n'
                f'log_directory = "{self.gateway.log_directory}"\n' + self.toml
            )
        self.gateway.start()
        return self.gateway

    def import_certificate(self) -> str:
        files = (self.directory / "server.crt", self.directory / "server.key")
        arguments = ("certificate", "import", *map(str, files), "--chain", str(self.directory / "ca.crt"))
        return self.gateway.ctl_json(*arguments)["arn"]

    def create(self, arn: str, *more: str, cidr: str = "10.100.0.0/22") -> dict[str, Any]:
        trust = ("--server-certificate", arn, "--client-certificate", arn)
        return self.gateway.ctl_json("endpoint", "create", cidr, *trust, *more)

    def profile(self) -> Path:
        """As ExportClientVpnClientConfiguration gives it, with certificate and key appended."""
        text = Api(self.gateway)("GET", "/endpoints/lab/profile")["profile"]
        alice = certs.client()
        text += f"<cert>\n{alice.certificate_pem.decode()}</cert>\n<key>\n{alice.private_key_pem.decode()}</key>\n"
        path = self.lab.directory / "exported.ovpn"
        path.write_text(text)
        return path


class Api:
    """REST over the admin socket, without the cost of a process for each request."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._path = str(gateway.admin_socket)

    def text(self, method: str, path: str, body: object = None) -> str:
        connection = http.client.HTTPConnection("cvpnd")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(self._path)
        with closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v1{path}", data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status >= 400:
            raise LabError(f"{method} {path}: {answer.status} {text}")
        return text

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self.text(method, path, body))


@pytest.fixture
def managed() -> Iterator[Managed]:
    with Lab() as lab:
        yield Managed(lab)


@pytest.fixture
def ping(managed: Managed) -> Callable[..., float]:
    """The share of answers, 0..1."""

    def run(host: str = "10.20.0.10", count: int = 3) -> float:
        statistics = managed.lab.client.ping(host, count, 0.1)
        return statistics.received / count

    return run


def test_an_endpoint_is_made_changed_under_a_live_client_and_deleted(
    managed: Managed, ping: Callable[..., float]
) -> None:
    gateway, lab = managed.start(), managed.lab
    assert gateway.ctl_json("endpoint", "list") == []
    clean = lab.gateway.run("nft", "list", "ruleset").stdout, lab.gateway.run("ip", "-brief", "link").stdout
    arn = managed.import_certificate()
    made = managed.create(arn, "--name", "lab", *SPLIT)
    assert (made["status"], made["listen"], made["remote"]) == (
        "pending-associate", ["udp://0.0.0.0:1194"], lab.gateway_address,
    )  # fmt: skip
    gateway.ctl("network", "add", "lab", "subnet-a")
    gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")
    client = lab.openvpn(managed.profile()).wait_connected()
    assert ping() == 1.0

    gateway.ctl("rule", "remove", "lab", "10.20.0.0/16", "--all-groups")
    assert ping(count=1) == 0.0, "a rule is out of force when the command returns"
    gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")
    assert (ping(count=1), client.connected_count) == (1.0, 1)

    gateway.ctl("endpoint", "modify", "lab", "--set", 'description="for the lab"', "--server-certificate", arn)
    said = gateway.ctl_json("endpoint", "show", "lab")["settings"]
    assert (said["ping_s"], said["description"]) == (1, "for the lab"), "all that was set reads back"
    assert (ping(count=1), client.connected_count) == (1.0, 1), "nothing of that concerns a session"
    gateway.ctl("route", "add", "lab", "172.16.0.0/16", "subnet-a")
    client.wait_connected(times=2)  # 2.6 knows no PUSH_UPDATE: it is sent back, and comes with the new route
    assert "172.16.0.0/16" in lab.client.run("ip", "route").stdout
    assert ping(count=1) == 1.0

    refused = gateway.ctl("endpoint", "delete", "lab", check=False)
    assert refused.returncode == 1 and "DependencyViolation" in refused.stderr
    gateway.ctl("network", "remove", "lab", "subnet-a")
    gateway.ctl("endpoint", "delete", "lab")
    assert gateway.ctl_json("endpoint", "list") == []
    assert all(c["status"] == "terminated" for c in gateway.ctl_json("connection", "list"))
    now = lab.gateway.run("nft", "list", "ruleset").stdout, lab.gateway.run("ip", "-brief", "link").stdout
    assert now == clean
    actions = [record["action"] for record in gateway.ctl_json("audit")]
    assert actions[:3] == ["delete-endpoint", "disassociate", "add-route"]
    assert {record["who"] for record in gateway.ctl_json("audit")} == {f"uid:{os.getuid()}"}


def test_security_groups_let_through_what_they_name(managed: Managed, ping: Callable[..., float]) -> None:
    managed.gateway.write_config(
        managed.toml
        + """
[[security_group]]
id = "web-only"
vpc = "vpc-main"
egress = [{ network = "10.20.0.0/24", protocol = "tcp", ports = "8000-8001" }, { network = "10.20.0.1/32" }]
"""
    )
    gateway, lab = managed.start(), managed.lab
    lab.start_servers()
    gateway.ctl("user", "add", "alice", "--group", "staff", input="right\n")
    made = managed.create(managed.import_certificate(), "--name", "lab", *SPLIT, "--directory", "local")
    assert [method["type"] for method in made["authentication"]] == [
        "certificate-authentication", "directory-service-authentication",
    ]  # fmt: skip
    gateway.ctl("network", "add", "lab", "subnet-a")
    gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--group", "staff")
    profile = managed.profile()
    assert "\nauth-user-pass\n" in profile.read_text()
    login = lab.directory / "login"
    login.write_text("alice\nright\n")
    client = lab.openvpn(profile, "--auth-user-pass", str(login)).wait_connected()
    assert ping(count=1) == 1.0
    unknown = gateway.ctl("endpoint", "modify", "lab", "--set", 'security_groups=["web-onl"]', check=False)
    assert '"web-onl" is no security_group; did you mean "web-only"?' in unknown.stderr
    nowhere = gateway.ctl("endpoint", "modify", "lab", "--self-service-portal", check=False)
    assert "self_service_portal: there is no portal; add [portal]" in nowhere.stderr
    gateway.ctl("endpoint", "modify", "lab", "--set", 'security_groups=["web-only"]')
    assert ping(count=2) == 0.0
    assert lab.get(lab.client, "10.20.0.10", "/peer").split()[0] == "10.20.0.1"
    told = gateway.ctl("explain", "alice", "10.20.0.10").stdout
    assert "security groups let through tcp/10.20.0.0/24:8000-8001\n" in told
    kept = gateway.ctl("explain", "alice", "10.20.9.9", check=False)
    assert kept.returncode == 1 and "security groups keep it back" in kept.stdout
    web_only, default, _ = gateway.ctl_json("security-group", "list")
    assert web_only["denied"]["lab"] >= 2
    assert "tcp/10.20.0.0/24:8000-8001 10.20.0.1/32" in gateway.ctl("security-group", "list").stdout
    managed.create(managed.import_certificate(), "--name", "other", cidr="10.101.0.0/22")  # replaces the host's table
    assert gateway.ctl_json("security-group", "list")[0]["denied"]["lab"] >= web_only["denied"]["lab"]
    gateway.ctl("endpoint", "modify", "lab", "--set", "security_groups=")
    assert (ping(count=1), client.connected_count) == (1.0, 1)
    assert gateway.ctl_json("endpoint", "show", "lab")["security_groups"] == [default["group"]["id"]]
    assert ping("10.20.0.10") == 1.0 and ping("10.30.0.10", count=1) == 0.0
    gateway.ctl("rule", "remove", "lab", "10.20.0.0/16", "--group", "staff")
    assert ping(count=2) == 0.0
    metrics = gateway.metrics()
    assert metrics['cvpnd_denied_packets_total{by="security-groups",endpoint="lab"}'] >= web_only["denied"]["lab"]
    assert metrics['cvpnd_denied_packets_total{by="rules",endpoint="lab"}'] >= 2
    (connection,) = gateway.ctl_json("connection", "list")
    assert connection["denied_packets"] >= 2
    refused = gateway.ctl("endpoint", "modify", "lab", "--set", "authentication=[]", check=False)
    assert "authentication cannot be changed" in refused.stderr


def test_a_session_ends_when_it_has_lasted_as_long_as_it_may_and_hears_the_banner(managed: Managed) -> None:
    gateway, lab = managed.start(), managed.lab
    comes_back = ("--set", "disconnect_on_session_timeout=false", "--set", "session_timeout_s=3")
    banner = ("--set", "login_banner=Hello, all: 100% & more")
    made = managed.create(managed.import_certificate(), "--name", "lab", *SPLIT, *comes_back, *banner)
    assert made["login_banner"] == "Hello, all: 100% & more"
    client = lab.openvpn(managed.profile()).wait_connected()
    reply = re.findall("PUSH_REPLY.*", client.log())
    assert ",echo,echo," in reply[0], "the client keeps what they say out of its log"
    client.wait_connected(times=2)
    gateway.ctl("endpoint", "modify", "lab", "--set", "disconnect_on_session_timeout=true")
    client.wait_for("Halt command was pushed by server .'Session timeout'")
    reasons = [c["end_reason"] for c in gateway.ctl_json("connection", "list")]
    assert len(reasons) >= 2 and set(reasons) == {"session-timeout"}


def test_the_api_has_tls_without_any_further_word(managed: Managed) -> None:
    managed.gateway.write_config('[api]\nlisten = "https://127.0.0.1:8443"\n' + managed.toml)
    gateway = managed.start()
    key = gateway.ctl_json("access-key", "create", "--role", "read-only")
    environment = {
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_DEFAULT_REGION": "local",
        "AWS_ENDPOINT_URL": "https://127.0.0.1:8443",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    trusting = {"AWS_CA_BUNDLE": str(managed.directory / "api.crt")}
    describe = ("aws", "ec2", "describe-vpcs", "--query", "Vpcs[].VpcId", "--output", "text")
    shown = managed.lab.gateway.run(*describe, env=environment | trusting).stdout
    assert shown.split() == ["vpc-main", "vpc-other"]
    distrusting = managed.lab.gateway.run(*describe, env=environment, check=False)
    assert distrusting.returncode and "CERTIFICATE_VERIFY_FAILED" in distrusting.stderr
    assert stat.S_IMODE((managed.directory / "api.key").stat().st_mode) == 0o600


def test_a_renewed_certificate_of_the_api_is_told_and_shown_from_a_reload_on(managed: Managed) -> None:
    first, second = certs.server("first.example"), certs.server("second.example")
    first.write(managed.directory, "renewed")
    files = f'certificate = "{managed.directory}/renewed.crt"\nprivate_key = "{managed.directory}/renewed.key"\n'
    managed.gateway.write_config(f'[api]\nlisten = "https://127.0.0.1:8443"\n{files}' + managed.toml)
    gateway = managed.start()

    def shown() -> str:
        command = ("openssl", "s_client", "-connect", "127.0.0.1:8443", "-showcerts")
        return managed.lab.gateway.run(*command, input="", check=False).stdout

    def told() -> bool:
        return "renewed.crt was changed at" in gateway.ctl("status", check=False).stdout

    wait_until(lambda: first.certificate_pem.decode() in shown(), 10)  # the admin socket answers before the API does
    assert not told()
    second.write(managed.directory, "renewed")
    wait_until(told, 10)
    assert first.certificate_pem.decode() in shown()
    gateway.ctl("reload")
    assert second.certificate_pem.decode() in shown() and not told()
    (managed.directory / "renewed.crt").write_text("nonsense")
    assert gateway.ctl("reload", check=False).returncode == 0
    assert "the API's certificate cannot be used, the one before is shown" in gateway.log()
    trouble = "API: its certificate was read last and cannot be used"
    assert trouble in gateway.ctl("status", check=False).stdout
    assert second.certificate_pem.decode() in shown()
    second.write(managed.directory, "renewed")
    gateway.ctl("reload")
    assert trouble not in gateway.ctl("status", check=False).stdout


def test_the_other_nouns_of_cvpnctl(managed: Managed) -> None:
    gateway, directory = managed.start(), managed.directory
    arn, spare = managed.import_certificate(), managed.import_certificate()
    made = managed.create(arn, "--name", "lab")
    endpoint_id = made["endpoint_id"]

    crl = directory / "revoked.pem"
    crl.write_bytes(certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client("bob")])))
    assert "none was imported" in gateway.ctl("crl", "export", "lab").stderr
    assert gateway.ctl("crl", "import", "lab", str(crl)).stdout == "in force: lab\n"
    assert gateway.ctl("crl", "export", "lab").stdout == crl.read_text()
    old = directory / "old.pem"
    old.write_bytes(certs.crl_pem(certs.certificate_revocation_list(start=certs.START - 9 * certs.DAY)))
    refused = gateway.ctl("crl", "import", "lab", str(old), check=False)
    assert refused.returncode == 1 and "crl-goes-back" in refused.stderr and "--older" in refused.stderr
    assert gateway.ctl("crl", "export", "lab").stdout == crl.read_text()
    assert gateway.ctl("crl", "import", "lab", str(old), "--older").returncode == 0
    assert gateway.ctl("crl", "export", "lab").stdout == old.read_text()

    assert gateway.ctl("certificate", "imported").stdout.count("arn:aws:acm:") == 2
    assert "ResourceInUseException" in gateway.ctl("certificate", "delete", arn, check=False).stderr
    shown = gateway.ctl("certificate", "show", spare).stdout
    assert shown.encode() == certs.server().certificate_pem + certs.authority().certificate_pem
    gateway.ctl("certificate", "delete", spare)
    assert [each["arn"] for each in gateway.ctl_json("certificate", "imported")] == [arn]

    gateway.ctl("log", "create", "/vpn")
    gateway.ctl("log", "create", "/vpn", "--stream", "lab")
    assert "/vpn   lab" in gateway.ctl("log", "list").stdout
    gateway.ctl("endpoint", "modify", "lab", "--set", 'connection_log={"group": "/vpn", "stream": "lab"}')
    assert gateway.ctl_json("log", "show", "/vpn", "--stream", "lab") == []

    gateway.ctl("tag", "set", endpoint_id, "team=net", "env=lab")
    gateway.ctl("tag", "remove", endpoint_id, "env")
    assert gateway.ctl_json("tag", "list") == {endpoint_id: {"team": "net"}}
    assert "tags            team=net" in gateway.ctl("endpoint", "show", "lab").stdout

    metadata = directory / "idp.xml"
    metadata.write_text(saml_idp.metadata())
    provider = gateway.ctl("saml-provider", "create", "idp", str(metadata)).stdout.strip()
    gateway.ctl("saml-provider", "update", provider, str(metadata))
    assert provider in gateway.ctl("saml-provider", "list").stdout
    assert [line.split()[0] for line in gateway.ctl("vpc", "list").stdout.splitlines()] == [
        "ID",
        "vpc-main",
        "vpc-other",
    ]
    assert gateway.ctl("subnet", "list").stdout.splitlines()[1].split() == [
        "subnet-a", "vpc-main", "10.20.0.0/24", "-", "lan",
    ]  # fmt: skip
    tagged = managed.create(arn, "--vpc", "vpc-main", "--tag", "a=1", "--port", "2000", cidr="10.101.0.0/22")
    assert (tagged["vpc"], tagged["tags"]) == ("vpc-main", {"a": "1"})
    modified = gateway.ctl_json("endpoint", "modify", tagged["endpoint_id"], "--vpc", "vpc-other")
    assert modified["vpc"] == "vpc-other"
    gateway.ctl("endpoint", "delete", tagged["endpoint_id"])
    gateway.ctl("saml-provider", "delete", provider)
    assert gateway.ctl_json("saml-provider", "list") == []

    gateway.ctl("network", "add", "lab", "subnet-a")
    rules, routes = directory / "rules.json", directory / "routes.json"
    rules.write_text(
        json.dumps([{"network": "10.20.1.0/24", "all_groups": True}, {"network": "10.20.2.0/24", "group": "g"}])
    )
    routes.write_text(json.dumps([{"destination": "10.77.0.0/16", "target": "subnet-a"}]))
    assert gateway.ctl("rule", "import", "lab", str(rules)).stdout == "imported: lab: 2 rules\n"
    assert gateway.ctl("route", "import", "lab", str(routes)).stdout == "imported: lab: 1 routes\n"
    gateway.ctl("route", "remove", "lab", "10.77.0.0/16")
    assert [route["origin"] for route in gateway.ctl_json("route", "list", "lab")] == ["associate"]
    assert "remote vpn.example.com 443 udp\n" in gateway.ctl("endpoint", "export", "lab").stdout
    assert gateway.ctl("audit", "--limit", "1").stdout.count("remove-route") == 1


def test_a_reload_that_takes_the_ground_from_a_managed_endpoint_is_refused(managed: Managed) -> None:
    gateway = managed.start()
    managed.create(managed.import_certificate(), "--name", "lab")
    gateway.ctl("network", "add", "lab", "subnet-b")
    gateway.write_config(managed.toml.replace("subnet-b", "subnet-new"))
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1
    assert "endpoint lab, made at run time, is associated with subnet-b" in refused.stderr
    assert gateway.ctl_json("endpoint", "list")[0]["status"] == "available"
    gateway.write_config(managed.toml + '[[vpc]]\nid = "more"\ncidr = ["10.100.2.0/24"]\n')
    assert "client_cidr: 10.100.0.0/22 overlaps" in gateway.ctl("reload", check=False).stderr
    gateway.write_config(managed.toml)
    gateway.ctl("reload")


def test_thousands_of_rules_and_routes_are_imported_whole_or_not_at_all(managed: Managed) -> None:
    gateway = managed.start()
    api = Api(gateway)
    managed.create(managed.import_certificate(), "--name", "lab")
    gateway.ctl("network", "add", "lab", "subnet-a")
    rules = [{"network": f"10.{20 + n // 256}.{n % 256}.0/24", "group": f"group{n % 7}"} for n in range(10_000)]
    assert api("POST", "/rules/import", {"endpoint": "lab", "rules": rules}) == {"imported": 10_000}
    routes = [{"destination": f"172.16.{n // 4}.{n % 4 * 64}/26", "target": "subnet-a"} for n in range(1000)]
    assert api("POST", "/routes/import", {"endpoint": "lab", "routes": routes}) == {"imported": 1000}
    assert len(api("GET", "/rules")["rules"]) == 10_000
    assert managed.lab.gateway.run("ip", "route", "show", "table", "all").stdout.count("172.16.") == 1000
    with pytest.raises(LabError, match="Duplicate"):
        api("POST", "/rules/import", {"endpoint": "lab", "rules": [{"network": "9.0.0.0/8", "group": "a"}, rules[5]]})
    assert len(api("GET", "/rules")["rules"]) == 10_000
    api("POST", "/rules", {"endpoint": "lab", "network": "9.0.0.0/8", "group": "a"})
    took = []
    for number in range(5):
        begun = time.monotonic()
        api("POST", "/routes", {"endpoint": "lab", "destination": f"172.31.{number}.0/24", "target": "subnet-a"})
        took.append(time.monotonic() - begun)
    print("one route beside 1,000:", ", ".join(f"{each:.3f} s" for each in took))
    assert managed.lab.gateway.run("ip", "route", "show", "table", "all").stdout.count("172.31.") == 5


def read_only(gateway: GatewayProcess, directory: Path) -> Callable[[], int]:
    """As a disk becomes that has failed: no path in there can be written to any more. Undone by what is returned."""
    inside = f"nsenter --target {gateway.running.pid} --mount"
    os.system(f"{inside} mount --bind {directory} {directory} && {inside} mount -o remount,bind,ro {directory}")
    return lambda: os.system(f"{inside} umount {directory}")


def test_a_full_or_read_only_disk_refuses_changes_and_leaves_sessions_and_store_whole(
    managed: Managed, ping: Callable[..., float]
) -> None:
    state = managed.directory / "state"
    state.mkdir()
    lab = managed.lab
    lab.gateway.run("true")
    os.system(f"mount -t tmpfs -o size=2m tmpfs {state}")
    try:
        gateway = managed.start(state=f"sqlite:///{state}/state.db")
        arn = managed.import_certificate()
        managed.create(arn, "--name", "lab", *SPLIT)
        gateway.ctl("network", "add", "lab", "subnet-a")
        gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")
        client = lab.openvpn(managed.profile()).wait_connected()
        before = (
            gateway.ctl_json("endpoint", "list"),
            gateway.ctl_json("rule", "list"),
            gateway.ctl_json("route", "list"),
        )
        with suppress(OSError), (state / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
        refused = gateway.ctl("rule", "add", "lab", "10.30.0.0/16", "--all-groups", check=False)
        assert refused.returncode == 1 and "the disk is full" in refused.stderr
        assert "Unavailable" in gateway.ctl("route", "add", "lab", "172.16.0.0/16", "subnet-a", check=False).stderr
        assert "Unavailable" in gateway.ctl("network", "remove", "lab", "subnet-a", check=False).stderr
        assert "Unavailable" in gateway.ctl("endpoint", "modify", "lab", "--port", "443", check=False).stderr
        after = (
            gateway.ctl_json("endpoint", "list"),
            gateway.ctl_json("rule", "list"),
            gateway.ctl_json("route", "list"),
        )
        assert after == before
        assert "172.16." not in lab.gateway.run("ip", "route", "show", "table", "all").stdout
        assert (ping(count=1), client.connected_count) == (1.0, 1)
        (state / "filler").unlink()
        undo = read_only(gateway, state)
        refused = gateway.ctl("rule", "add", "lab", "10.30.0.0/16", "--all-groups", check=False)
        assert refused.returncode == 1 and "read-only" in refused.stderr
        assert (gateway.ctl_json("rule", "list"), ping(count=1), client.connected_count) == (before[1], 1.0, 1)
        undo()
        gateway.ctl("route", "add", "lab", "172.16.0.0/16", "subnet-a")
        kept = gateway.ctl_json("rule", "list")
        gateway.kill()
        gateway.start()
        assert gateway.ctl_json("rule", "list") == kept
    finally:
        managed.gateway.kill()
        os.system(f"umount -l {state}")


def test_postgresql_may_go_and_come_back_under_sessions(managed: Managed, ping: Callable[..., float]) -> None:
    lab = managed.lab
    with PostgreSql() as server:
        state = server.everywhere(server.new_database("gateway"))
        gateway = managed.start(state=state)
        managed.create(managed.import_certificate(), "--name", "lab", *SPLIT, "--set", "ping_restart_s=3")
        gateway.ctl("network", "add", "lab", "subnet-a")
        gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")
        client = lab.openvpn(managed.profile()).wait_connected()
        server.stop()
        refused = gateway.ctl("rule", "add", "lab", "10.30.0.0/16", "--all-groups", check=False)
        assert refused.returncode == 1 and "Unavailable" in refused.stderr, refused.stderr
        assert state.partition("@")[0] not in refused.stderr + gateway.log(), "the password is in there"
        assert (ping(), client.connected_count, len(gateway.ctl_json("rule", "list"))) == (1.0, 1, 1)
        server.start()
        gateway.ctl("rule", "add", "lab", "10.30.0.0/16", "--all-groups")
        kept = gateway.ctl_json("rule", "list"), gateway.ctl_json("endpoint", "list")
        gateway.kill()
        gateway.start()
        assert kept[0] == gateway.ctl_json("rule", "list") and len(kept[0]) == 2
        client.wait_connected(times=2)
        assert ping() == 1.0


class Changer(threading.Thread):
    """Makes changes at random until the daemon is gone, and keeps what was answered."""

    def __init__(self, gateway: GatewayProcess, arn: str, seed: int) -> None:
        super().__init__()
        self._api, self._arn, self._random = Api(gateway), arn, random.Random(seed)
        self.answered = 0
        self.failed: str | None = None

    def run(self) -> None:
        try:
            while True:
                self._change()
                self.answered += 1
        except (OSError, http.client.HTTPException):
            pass  # killed
        except Exception as error:
            self.failed = repr(error)

    def _change(self) -> None:
        api, pick = self._api, self._random
        endpoints = [e for e in api("GET", "/endpoints")["endpoints"]]
        if len(endpoints) < 2 or (len(endpoints) < 4 and pick.random() < 0.2):
            number = next(n for n in range(100, 200) if all(f"10.{n}." not in e["client_cidr"] for e in endpoints))
            trust = {"server_certificate": self._arn, "client_certificate": self._arn}
            api("POST", "/endpoints", {"client_cidr": f"10.{number}.0.0/22", "port": 1000 + number, **trust})
            return
        endpoint = pick.choice(endpoints)["endpoint_id"]
        networks = [n["subnet"] for n in api("GET", f"/networks?endpoint={endpoint}")["networks"]]
        routes = [r for r in api("GET", f"/routes?endpoint={endpoint}")["routes"] if r["origin"] == "add-route"]
        match pick.randrange(6):
            case 0 if not networks:
                api("POST", "/networks", {"endpoint": endpoint, "subnet": "subnet-a"})
            case 0:
                api("DELETE", f"/networks?endpoint={endpoint}&network={networks[0]}")
            case 1 if networks and len(routes) < 5:
                free = next(n for n in range(9) if all(f"172.{16 + n}.0.0/16" != r["destination"] for r in routes))
                body = {"endpoint": endpoint, "destination": f"172.{16 + free}.0.0/16", "target": networks[0]}
                api("POST", "/routes", body)
            case 2 if routes:
                api("DELETE", f"/routes?endpoint={endpoint}&destination={routes[0]['destination']}")
            case 3:
                number = pick.randrange(1 << 16)
                body = {"endpoint": endpoint, "network": f"10.{number >> 8}.{number & 255}.0/24", "group": str(number)}
                with suppress(LabError):  # that one is there already
                    api("POST", "/rules", body)
            case 4:
                body = {"settings": {"description": str(pick.random()), "split_tunnel": pick.random() < 0.5}}
                api("PATCH", f"/endpoints/{endpoint}", body)
            case 5 if not networks:
                api("DELETE", f"/endpoints/{endpoint}")


@pytest.mark.timeout(60 + 20 * CRASHES)
def test_killed_at_any_moment_store_and_kernel_agree_again(managed: Managed) -> None:
    gateway, place = managed.start(), managed.lab.gateway
    arn = managed.import_certificate()
    seed = random.randrange(1 << 32)
    pick = random.Random(seed)
    changes = 0
    for crash in range(CRASHES):
        changer = Changer(gateway, arn, seed + crash)
        changer.start()
        enough = pick.randrange(8)
        wait_until(lambda changer=changer, enough=enough: changer.failed or changer.answered >= enough, 30)
        time.sleep(pick.uniform(0, 0.1))
        gateway.kill()
        changer.join(30)
        assert changer.failed is None, (seed, crash, changer.failed)
        changes += changer.answered
        gateway.start()
        api = Api(gateway)
        endpoints = api("GET", "/endpoints")["endpoints"]
        routes = [r for r in api("GET", "/routes")["routes"] if r["origin"] == "add-route"]
        devices = set(re.findall(r"^(cvpn\d+)", place.run("ip", "-brief", "link").stdout, re.MULTILINE))
        assert devices == {e["interface"] for e in endpoints}, (seed, crash)
        listening = place.run("ss", "-lunH").stdout
        ports = {int(port) for port in re.findall(r":(1[01]\d\d)\s", listening)}
        assert ports == {int(e["listen"][0].rpartition(":")[2]) for e in endpoints}, (seed, crash)
        table = place.run("ip", "route", "show", "table", "all").stdout
        assert table.count("172.") == len(routes), (seed, crash, table)
        rules = api("GET", "/rules")["rules"]
        assert {r["endpoint_id"] for r in rules} <= {e["endpoint_id"] for e in endpoints}
        assert api("GET", "/audit?limit=1")["records"], "nothing was ever recorded"
    assert changes, "nothing was ever changed"
    gateway.stop()


def test_a_listener_that_cannot_be_opened_takes_the_change_back(managed: Managed) -> None:
    gateway, place = managed.start(), managed.lab.gateway
    arn = managed.import_certificate()
    managed.create(arn, "--name", "lab", "--port", "1194")
    with place.socket(kind=socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 443))
        refused = gateway.ctl("endpoint", "modify", "lab", "--port", "443", check=False)
        assert refused.returncode == 1 and "443" in refused.stderr
        taken = managed.gateway.ctl(
            "endpoint", "create", "10.101.0.0/22", "--server-certificate", arn, "--client-certificate", arn, check=False
        )
        assert taken.returncode == 1
    (endpoint,) = gateway.ctl_json("endpoint", "list")
    assert endpoint["listen"] == ["udp://0.0.0.0:1194"]
    wait_until(lambda: ":1194 " in place.run("ss", "-lunH").stdout, what="the old port again")
    gateway.ctl("endpoint", "modify", "lab", "--port", "443")
    assert gateway.ctl_json("endpoint", "list")[0]["listen"] == ["udp://0.0.0.0:443"]


def test_a_postgresql_that_hangs_is_given_up_and_logins_that_need_it_come_back(
    managed: Managed, ping: Callable[..., float]
) -> None:
    lab = managed.lab
    with PostgreSql() as server:
        state = server.everywhere(server.new_database("gateway"))
        gateway, arn = managed.start(state=state), managed.import_certificate()
        api = Api(gateway)
        managed.create(arn, "--name", "lab", *SPLIT)
        gateway.ctl("network", "add", "lab", "subnet-a")
        gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")
        profile = managed.profile()
        codes = {"type": "directory-service-authentication", "directory": "local", "mfa": "totp"}
        settings = {"split_tunnel": True, "remote": CLIENT_LEGS[0].gateway, "authentication": [codes]}
        made = {"name": "codes", "client_cidr": "10.104.0.0/22", "port": 1195, "settings": settings}
        api("POST", "/endpoints", {**made, "server_certificate": arn})
        api("POST", "/users", {"name": "bob", "password": "right"})
        enrolment = gateway.ctl_json("user", "totp", "enrol", "bob", "--directory", "local")
        client = lab.openvpn(profile).wait_connected()

        def cannot_add() -> float:
            begun = time.monotonic()
            with pytest.raises(LabError, match="Unavailable") as refused:
                api("POST", "/rules", {"endpoint": "lab", "network": "10.30.0.0/16", "all_groups": True})
            assert state.partition("@")[0] not in str(refused.value)
            return time.monotonic() - begun

        server.pause()
        try:
            first, later = cannot_add(), cannot_add()
            print(f"given up after {first:.1f} s, then refused within {later:.1f} s")
            assert first < 25 and later < 5
            refused = gateway.ctl("rule", "add", "lab", "10.30.0.0/16", "--all-groups", check=False)
            assert refused.returncode == 1 and "Unavailable" in refused.stderr, refused.stderr
            assert (ping(), client.connected_count) == (1.0, 1)
            assert gateway.metrics()["cvpnd_store_up"] == 0
            problems = {each["subject"]: each for each in api("GET", "/status")["status"]["problems"]}
            problem = problems["state database"]
            assert problem["severity"] == "critical" and state.partition("@")[0] not in str(problem)
            client.stop()
            client = lab.openvpn(profile).wait_connected()  # nothing of the store is needed for a certificate
            text = api("GET", "/endpoints/codes/profile")["profile"]
            path, login = lab.directory / "codes.ovpn", lab.directory / "login"
            path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("static-challenge")))
            login.write_text(f"bob\n{static('right', code_of(enrolment))}\n")
            bob = lab.openvpn(path, "--auth-user-pass", str(login))
            assert bob.wait_for(r"AUTH: Received control message: (.*)")[1].startswith("AUTH_FAILED,TEMP")
            wait_until(lambda: "database-unavailable" in gateway.refusals(), 5)
        finally:
            server.resume()
        bob.wait_for(bob.COMPLETED, 30)
        wait_until(lambda: gateway.metrics()["cvpnd_store_up"] == 1, 10)
        gateway.ctl("rule", "add", "lab", "10.30.0.0/16", "--all-groups")
        assert (ping(), client.connected_count) == (1.0, 1)
        told = [line for line in gateway.log().splitlines() if "state database" in line or "Traceback" in line]
        assert len(told) == 2 and "cannot be used" in told[0] and "can be used again" in told[1], told


def test_a_postgresql_whose_disk_is_full_refuses_changes_until_there_is_room(
    managed: Managed, ping: Callable[..., float]
) -> None:
    lab = managed.lab
    with PostgreSql(disk_mib=80) as server:
        gateway = managed.start(state=server.everywhere(server.new_database("gateway")))
        managed.create(managed.import_certificate(), "--name", "lab", *SPLIT)
        gateway.ctl("network", "add", "lab", "subnet-a")
        gateway.ctl("rule", "add", "lab", "10.20.0.0/16", "--all-groups")
        client = lab.openvpn(managed.profile()).wait_connected()
        many = managed.directory / "many"
        rules = [{"network": f"10.{n >> 8}.{n & 255}.0/24", "group": f"group-{n:0>200}"} for n in range(2000)]
        many.write_text(json.dumps(rules))
        with server.full():
            refused = gateway.ctl("rule", "import", "lab", str(many), check=False)
            assert refused.returncode == 1 and "Unavailable" in refused.stderr, refused.stderr
            assert "No space left on device" in refused.stderr and "free disk space" in refused.stderr
            assert (ping(), client.connected_count, len(gateway.ctl_json("rule", "list"))) == (1.0, 1, 1)
            wait_until(lambda: gateway.metrics()["cvpnd_store_up"] == 0, 5)
            time.sleep(3)  # it is looked at meanwhile, and the row that says so could still be changed
            client.stop()
            client = lab.openvpn(managed.profile()).wait_connected()  # nothing of the store is needed for a certificate
        wait_until(lambda: gateway.metrics()["cvpnd_store_up"] == 1, 15)
        gateway.ctl("rule", "import", "lab", str(many))
        assert len(gateway.ctl_json("rule", "list")) == 2001 and (ping(), client.connected_count) == (1.0, 1)
        told = [line for line in gateway.log().splitlines() if "state database" in line or "Traceback" in line]
        assert len(told) == 2 and "No space left" in told[0] and "can be used again" in told[1], told
