"""Changes of every kind, made with unmodified boto3 beside clients that transfer: nobody loses a session or a byte for
a change that is none of theirs, and the first packet after the answer to a rule's change is judged by it."""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from helpers import certs
from helpers.crowd import crowd_command
from helpers.lab import CLIENT_LEGS, ECHO_PORT, TARGET_LEG, GatewayProcess, Lab, Namespace, OpenVpnClient

CHANGING_S = float(os.environ.get("CHANGING_S", "5"))
"""How long changes go on; ``make crash`` makes some hundreds."""
LIGHT = 50
"""Light clients, which learn by PUSH_UPDATE; beside them ``STOCK`` of the stock client, on a machine each."""
STOCK = 2
BYTES = 300_000
"""Of each transfer of a stock client, up and down in turns."""
PROBED = "10.20.0.11"
"""A second address in the target network: rules for it concern no transfer."""
PROBED_PORT = 7007
SILENCE_S = 0.05
"""A packet that has no answer by then did not get through: answers take a millisecond."""
API = "http://127.0.0.1:8443"
TOML = f"""
[api]
listen = "{API}"
[quotas]
rules = 300
[[security_group]]
id = "sg-lab"
vpc = "vpc-main"
egress = [{{ network = "10.20.0.0/16" }}]
[[security_group]]
id = "sg-more"
vpc = "vpc-main"
egress = [{{ network = "10.20.0.0/16" }}, {{ network = "172.16.0.0/12" }}]
"""


class Site:
    """``stock``: an endpoint at port 1195 whose routes and names stay; ``light``: one at port 1194 where they change;
    ``other``: one without clients."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "gateway"
        self.directory.mkdir()
        certs.server().write(self.directory, "server")
        (self.directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        self.gateway = GatewayProcess(lab.gateway, self.directory, TOML + lab.networks_toml(), {})
        self.gateway.start()
        files = (str(self.directory / "server.crt"), str(self.directory / "server.key"))
        chain = ("--chain", str(self.directory / "ca.crt"))
        self.arn = self.gateway.ctl_json("certificate", "import", *files, *chain)["arn"]
        self.ids = {
            name: self._create(name, port, f"10.{100 + number}.0.0/22")
            for number, (name, port) in enumerate((("light", 1194), ("stock", 1195), ("other", 1196)))
        }
        for name in ("light", "stock"):
            self.gateway.ctl("network", "add", name, "subnet-a")
            self.gateway.ctl("rule", "add", name, "10.20.0.0/16", "--all-groups")
        key = self.gateway.ctl_json("access-key", "create", "--role", "admin")
        self._key = key["access_key_id"], key["secret_access_key"]

    def _create(self, name: str, port: int, cidr: str) -> str:
        trust = ("--server-certificate", self.arn, "--client-certificate", self.arn, "--port", str(port))
        more = ("--set=split_tunnel=true", f"--set=remote={CLIENT_LEGS[0].gateway}")
        return str(self.gateway.ctl_json("endpoint", "create", cidr, "--name", name, *trust, *more)["endpoint_id"])

    def service(self, name: str) -> Any:
        return boto3.client(
            name,
            endpoint_url=API,
            region_name="eu-central-1",
            aws_access_key_id=self._key[0],
            aws_secret_access_key=self._key[1],
            config=Config(retries={"max_attempts": 1}),
        )

    def stock(self, machine: Namespace, number: int) -> OpenVpnClient:
        text = self.gateway.ctl("endpoint", "export", "stock").stdout
        text = re.sub(r"^remote \S+", f"remote {CLIENT_LEGS[number].gateway}", text, flags=re.MULTILINE)
        alice = certs.client(f"alice{number}")
        text += f"<cert>\n{alice.certificate_pem.decode()}</cert>\n<key>\n{alice.private_key_pem.decode()}</key>\n"
        path: Path = self.lab.directory / f"stock{number}.ovpn"
        path.write_text(text)
        return self.lab.openvpn(path, client=machine).wait_connected(30)


@pytest.fixture
def site() -> Iterator[Site]:
    with Lab(clients=STOCK) as lab:
        lab.target.run("ip", "address", "add", f"{PROBED}/24", "dev", "eth0")
        lab.start_servers()
        yield Site(lab)


class Transfer(threading.Thread):
    """Up and down in turns by TCP until ``stop``; what arrives changed, or not at all, ends it with ``failed``."""

    def __init__(self, lab: Lab, machine: Namespace) -> None:
        super().__init__()
        self._lab, self._machine = lab, machine
        self.stop = threading.Event()
        self.bytes = 0
        self.failed: str | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._lab.upload(self._machine, TARGET_LEG.host, BYTES)
                self._lab.download(self._machine, TARGET_LEG.host, BYTES)
                self.bytes += 2 * BYTES
                self.stop.wait(0.05)
        except Exception as error:
            self.failed = repr(error)


class Probe:
    """Single datagrams to ``PROBED``, from a stock client's machine, and what answers them there."""

    def __init__(self, machine: Namespace, target: Namespace) -> None:
        with machine.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with target.entered():
            self._there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._there.bind((PROBED, PROBED_PORT))  # the lab's own server answers from the first address
        self._socket.connect((PROBED, PROBED_PORT))
        self._socket.settimeout(SILENCE_S)
        self._number = 0
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        """Until the process ends; it holds the socket alone."""
        while True:
            self._there.sendto(*self._there.recvfrom(64))

    def passes(self) -> bool:
        self._number += 1
        sent = self._number.to_bytes(8, "big")
        try:
            self._socket.send(sent)
            while self._socket.recv(64) != sent:
                pass
        except TimeoutError:
            return False
        return True


class Changes:
    """One change of every kind after the other."""

    def __init__(self, site: Site, probe: Probe) -> None:
        self._site, self._probe = site, probe
        self._ec2, self._acm = site.service("ec2"), site.service("acm")
        self._number = 0
        self.took: dict[str, list[float]] = {}
        self.felt: Counter[str] = Counter()

    def _timed(self, what: str, call: Any, endpoint: str, **given: Any) -> None:
        start = time.perf_counter()
        call(ClientVpnEndpointId=self._site.ids[endpoint], **given)
        self.took.setdefault(what, []).append(time.perf_counter() - start)

    def round(self) -> None:
        ec2, number = self._ec2, self._number
        self._number += 1
        self._rules_of_the_probe()
        rule = {"TargetNetworkCidr": f"10.{50 + number % 100}.0.0/16", "AccessGroupId": f"eng{number % 7}"}
        route = {"DestinationCidrBlock": f"172.16.{number % 200}.0/24", "TargetVpcSubnetId": "subnet-a"}
        for endpoint in ("light", "stock"):
            self._timed("rule", ec2.authorize_client_vpn_ingress, endpoint, **rule)
        self._timed("route", ec2.create_client_vpn_route, "light", **route)
        names = {"CustomDnsServers": [f"10.20.0.{20 + number % 9}"], "Enabled": True}
        self._timed("DNS", ec2.modify_client_vpn_endpoint, "light", DnsServers=names)
        for endpoint in ("light", "stock"):
            modify = ec2.modify_client_vpn_endpoint
            banner = {"Enabled": True, "BannerText": f"Number {number}"}
            self._timed("banner", modify, endpoint, ClientLoginBannerOptions=banner)
            self._timed("timeout", modify, endpoint, SessionTimeoutHours=(8, 10, 12, 24)[number % 4])
            revoked = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client(f"gone{number % 3}")]))
            load = ec2.import_client_vpn_client_certificate_revocation_list
            self._timed("CRL", load, endpoint, CertificateRevocationList=revoked.decode())
            groups = ["sg-more"] if number % 2 else ["sg-lab"]
            apply = ec2.apply_security_groups_to_client_vpn_target_network
            self._timed("security groups", apply, endpoint, VpcId="vpc-main", SecurityGroupIds=groups)
            self._timed("rule", ec2.revoke_client_vpn_ingress, endpoint, **rule)
        self._timed("route", ec2.delete_client_vpn_route, "light", **route)
        made: dict[str, str] = {}

        def associate(**given: Any) -> None:
            made.update(ec2.associate_client_vpn_target_network(**given))

        self._timed("network", associate, "other", SubnetId="subnet-b")
        leave = ec2.disassociate_client_vpn_target_network
        self._timed("network", leave, "other", AssociationId=made["AssociationId"])

    def _rules_of_the_probe(self) -> None:
        """What no longer prefix allows is kept out from the first packet on that leaves after the answer, and let in
        again as soon."""
        rule = {"TargetNetworkCidr": f"{PROBED}/32", "AccessGroupId": "nobody"}
        assert self._probe.passes() or self._probe.passes(), "nothing passes before the rule"
        self._timed("rule", self._ec2.authorize_client_vpn_ingress, "stock", **rule)
        assert not self._probe.passes(), "a packet passed after the answer to the rule that keeps it out"
        self.felt["no"] += 1
        self._timed("rule", self._ec2.revoke_client_vpn_ingress, "stock", **rule)
        first = self._probe.passes()
        assert first or self._probe.passes(), "nothing passes after the answer that let it in"
        self.felt["yes, with the first packet" if first else "yes, with the second"] += 1


@pytest.mark.timeout(120 + 2 * int(CHANGING_S))
def test_changes_of_every_kind_beside_transfers_cost_no_session_and_no_byte(site: Site) -> None:
    lab, gateway = site.lab, site.gateway
    clients = [site.stock(machine, number) for number, machine in enumerate(lab.clients)]
    hold = ("--hold", str(CHANGING_S + 3), "--transfer", f"{TARGET_LEG.host}:{ECHO_PORT}", "--generation", "2.7")
    command, env = crowd_command(lab, "--count", str(LIGHT), *hold)
    crowd = lab.client.start(*command, "--announce", env=env, label="crowd")
    crowd.wait_for("all connected", 60)
    transfers = [Transfer(lab, machine) for machine in lab.clients]
    for transfer in transfers:
        transfer.start()
    with lab.gateway.entered():
        changes = Changes(site, Probe(lab.clients[0], lab.target))
        end = time.monotonic() + CHANGING_S
        while time.monotonic() < end:
            changes.round()
    for transfer in transfers:
        transfer.stop.set()
        transfer.join(60)
    crowd.wait(60)
    report = json.loads(crowd.log().partition("all connected")[2])
    assert [transfer.failed for transfer in transfers] == [None] * STOCK
    assert all(transfer.bytes for transfer in transfers)
    assert [client.connected_count for client in clients] == [1] * STOCK
    assert (report["clients"], report["failed"], report["datagrams_wrong"]) == (LIGHT, 0, 0), report
    sent, lost = report["datagrams_sent"], report["datagrams_sent"] - report["datagrams_back"]
    assert sent > LIGHT * 5 * CHANGING_S and lost <= sent // 100, report
    assert {result["push_replies"] for result in report["results"]} == {1}, "somebody had to connect again"
    assert min(result["updates"] for result in report["results"]) > 1, "routes and names did not reach everybody"
    ends = {c["end_reason"] for c in gateway.ctl_json("connection", "list") if c["status"] == "terminated"}
    assert ends <= {"client-exit"}, ends
    assert len(gateway.ctl_json("rule", "list")) == 2
    print(f"{sum(map(len, changes.took.values()))} changes beside {LIGHT} light and {STOCK} stock clients")
    for what, took in sorted(changes.took.items()):
        took.sort()
        print(f"{what:16}{len(took):5} median {statistics.median(took):.3f} s, longest {took[-1]:.3f} s")
    print(f"felt after the answer: {dict(changes.felt)}")
    print(f"{sent} datagrams each way, {lost} lost; {sum(t.bytes for t in transfers) / 1e6:.1f} MB by TCP, all as sent")
