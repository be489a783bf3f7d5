"""What an operator looks with: status, top, log follow, doctor with planted faults, and a bundle without secrets."""

from __future__ import annotations

import datetime
import json
import re
import signal
import socket
import tarfile
from functools import partial

from argon2 import PasswordHasher
from helpers import certs
from helpers.ctl_inside import cvpnctl
from helpers.lab import TARGET_LEG, wait_until

from cvpnd.ctl.client import Client
from cvpnd.doctor.diagnosis import diagnose

CANARIES = ("canary-bind-password", "canary-typed-password", "canary-right-password")
USERS = """
[[endpoint]]
name = "guests"
client_cidr = "10.104.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = {{ certificate = "server.crt", private_key = "server.key" }}
authentication = [{{ type = "directory-service-authentication", directory = "local" }}]
authorize = [{{ network = "10.20.0.0/16", all_groups = true }}]
[[local_users]]
name = "anna"
password_hash = "{password_hash}"
"""
DIRECTORY = """
[[directory]]
id = "corp"
type = "openldap"
servers = ["ldaps://10.20.0.10:636"]
bind_dn = "cn=reader,dc=example"
bind_password_file = "corp.password"
user_base = "dc=example"
[[radius]]
directory = "local"
servers = ["radius://127.0.0.1:1812"]
secret_file = "corp.password"
[[saml_provider]]
id = "sso"
metadata = "http://127.0.0.1:8/metadata"
[[saml_provider]]
id = "empty"
metadata = "ca.crt"
[portal]
listen = "0.0.0.0:8444"
url = "https://vpn.invalid:8444"
certificate = "server.crt"
private_key = "server.key"
"""


def start(site, more=""):
    password_hash = PasswordHasher(time_cost=1, memory_cost=19456, parallelism=1).hash("canary-right-password")
    (site.directory / "corp.password").write_text("canary-bind-password\n")
    for name in ("server.key", "corp.password"):
        (site.directory / name).chmod(0o600)
    gateway = site.start(USERS.format(password_hash=password_hash) + more)
    return gateway, password_hash


def doctor(gateway, *, running=True, status=None):
    """Findings that are no mere praise. ``status``: what the daemon said before it was stopped."""
    if running and status is None:
        status = Client(gateway.admin_socket).get("/status")["status"]
    with gateway.namespace.entered():
        found = diagnose(gateway.config_path, status)
    # the machine of a test may have no one who keeps its clock
    return [each for each in found if each.level != "ok" and "keeps this host's clock" not in each.what]


def test_an_operator_sees_who_is_there_and_what_is_wrong_and_a_bundle_tells_no_secret(site, ping):
    gateway, password_hash = start(site)
    host = site.lab.gateway
    ctl = partial(cvpnctl, host, gateway.admin_socket)
    assert "in order: daemon, configuration, certificates" in ctl("doctor")
    shown = ctl("status")
    assert "all is well" in shown and "staff" in shown and "0/1021" in shown

    site.connect(certs.client("alice"))
    assert ping(count=2) == 1.0
    guess = site.profile(name="anna", port=1195)
    (guess.parent / "login").write_text("anna\ncanary-typed-password\n")
    guess.write_text(re.sub("(?m)^(cert|key) .*\n", "", guess.read_text()) + "auth-user-pass login\n")
    site.lab.openvpn(guess, client=site.lab.clients[1]).wait_for("AUTH_FAILED", 10)
    shown = ctl("top", "--count", "1", "--interval", "0.3")
    assert "1 connected" in shown and "alice" in shown and "B/s" in shown
    wait_until(lambda: "wrong-password" in gateway.refusals())
    lines = ctl("log", "follow", "--once").splitlines()
    assert len(lines) == 2 and "connected" in lines[0] and "alice" in lines[0]
    assert "refused" in lines[1] and "anna" in lines[1] and "wrong-password" in lines[1]
    (only,) = ctl("log", "follow", "--once", "--failed", "guests", "--json").splitlines()
    assert json.loads(only)["connection-attempt-failure-reason"] == "wrong-password"
    assert ctl("log", "follow", "--once", "--user", "nobody") == ""
    mistyped = gateway.ctl("log", "follow", "guest", check=False)
    assert (mistyped.returncode, mistyped.stdout) == (1, "")
    assert "no endpoint guest; there are: staff, guests" in mistyped.stderr

    key = json.loads(ctl("access-key", "create", "--role", "admin", "--json"))["secret_access_key"]
    enrolment = json.loads(ctl("user", "totp", "enrol", "anna", "--json"))
    one_time = re.search(r"secret=(\w+)", enrolment["uri"])[1]
    bundle = site.lab.directory / "bundle.tar.gz"
    ctl("support-bundle", "--output", str(bundle))
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as archive:
        parts = {member.name.partition("/")[2]: archive.extractfile(member).read().decode() for member in archive}
    assert {"status.json", "doctor.json", "configuration.json", "metrics.txt", "log/connections.log"} <= set(parts)
    assert "cvpn0" in parts["host/addresses.txt"] and "10.100.0.0/22" in parts["configuration.json"]
    assert "wrong-password" in parts["log/connections.log"] and "alice" in parts["connections.json"]
    assert not [name for name, text in parts.items() if text.startswith("could not be had")]
    secrets = [*CANARIES, password_hash, key, one_time, *enrolment["recovery_codes"]]
    secrets += [line for line in (site.directory / "server.key").read_text().splitlines() if "-----" not in line]
    places = {f"bundle {name}": text for name, text in parts.items()}
    places["log"] = gateway.log()
    places["processes"] = host.run("ps", "-eo", "args").stdout
    for path in gateway.log_directory.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_text()
    assert [(secret, place) for secret in secrets for place, text in places.items() if secret in text] == []


def test_a_reload_by_cvpnctl_reaches_the_log_and_says_what_only_a_restart_does(site):
    gateway, _ = start(site)
    with site.lab.gateway.entered(), socket.socket(type=socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(10)
        text = gateway.config_path.read_text()
        more = f'[connection_log]\nsyslog = "udp://127.0.0.1:{syslog.getsockname()[1]}"\n'
        gateway.config_path.write_text(f'{text}{more}[api]\nlisten = "http://127.0.0.1:8443"\n')
        told = gateway.ctl_json("reload")
        assert told["needs_restart"] == ["[api]"]
        site.connect(certs.client("alice"))
        assert b"alice" in syslog.recv(10_000)
    shown = gateway.ctl("status", check=False)
    assert shown.returncode == 1 and "[api] changed in the file, and is read when the daemon starts" in shown.stdout
    gateway.config_path.write_text(text + more)
    assert "needs_restart" not in gateway.ctl_json("reload")
    assert "all is well" in gateway.ctl("status").stdout


def test_explain_tells_who_is_connected_from_who_is_not_and_from_who_cannot_be(site):
    gateway, _ = start(site)
    explain = partial(cvpnctl, site.lab.gateway, gateway.admin_socket, "explain")
    site.connect(certs.client("alice"))
    assert explain("alice", "10.20.0.10", "--endpoint", "staff").startswith("alice may reach 10.20.0.10: ")
    said = explain("bob", "10.20.0.10", "--endpoint", "staff")
    assert said.startswith("bob is not connected; whoever logs in by that name may reach 10.20.0.10: ")
    ctl = partial(cvpnctl, site.lab.gateway, gateway.admin_socket)
    ctl("rule", "add", "guests", "10.20.9.0/24", "--group", "lab")
    gateway.ctl("user", "add", "eve", "--group", "lab", input="canary-of-eve\n")
    guests = partial(explain, "--endpoint", "guests")
    assert "allows it, but no route leads there." in guests("eve", "10.20.9.9", code=1)
    for address in ("10.20.0.1/32", "10.100.0.1/32"):
        ctl("rule", "add", "staff", address, "--all-groups")
    assert "may reach 10.100.0.1: it is the endpoint's own" in explain("alice", "10.100.0.1", "--endpoint", "staff")
    assert site.lab.client.ping("10.100.0.1", 2).received and not site.lab.client.ping("10.20.0.1", 2).received
    assert "but it is the gateway's own address." in explain("alice", "10.20.0.1", "--endpoint", "staff", code=1)
    text = gateway.config_path.read_text()
    gateway.write_config(text.replace('"10.104.0.0/22"', '"10.104.0.0/22"\nassociate = ["subnet-a"]'))
    ctl("reload")
    assert guests("eve", "10.20.9.9").startswith("eve is not connected; whoever logs in by that name may reach")
    assert guests("anna", "10.20.9.9", code=1).startswith("anna is not connected; whoever logs in by that name may not")
    ctl("user", "disable", "eve")
    assert guests("eve", "10.20.0.10", code=1).startswith("eve may not reach 10.20.0.10: eve is disabled.")
    said = json.loads(guests("nobody", "10.20.0.10", "--group", "lab", "--json", code=1))
    assert (said["allowed"], said["connected"]) == (False, False)
    assert said["sentence"] == "nobody may not reach 10.20.0.10: no local user nobody."


def test_the_doctor_finds_eighteen_planted_faults_beside_a_running_daemon(site):
    gateway, _ = start(site)
    host = site.lab.gateway
    assert doctor(gateway) == []
    host.run("ip", "link", "set", "lan2", "down")
    host.run(
        "nft", "add table ip docker; add chain ip docker FORWARD { type filter hook forward priority 0; policy drop; }"
    )
    host.run(
        "nft", "add table inet strict; add chain inet strict in { type filter hook input priority 0; policy drop; }"
    )
    host.run("nft", "add rule inet strict in udp dport 1195 accept")
    host.run("ip", "address", "add", "10.100.2.1/24", "dev", "wan2")
    host.run("ip", "link", "set", "wan1", "mtu", "1400")
    now = datetime.datetime.now(datetime.UTC)
    site.write_crl(start=now - datetime.timedelta(days=9), end=now - datetime.timedelta(hours=1), number=2)
    (site.directory / "server.key").chmod(0o644)
    faults = 'remote = "vpn.invalid"\ndns_servers = ["10.20.0.10"]\n'
    text = gateway.config_path.read_text()
    gateway.write_config(text.replace("split_tunnel = true\n", f"split_tunnel = true\n{faults}", 1) + DIRECTORY)

    wait_until(lambda: Client(gateway.admin_socket).get("/status")["status"]["problems"], 5)
    status = Client(gateway.admin_socket).get("/status")["status"]
    gateway.running.signal(signal.SIGSTOP)  # it would put the next two right, as it tries again and again for lan2
    host.sysctl("net/ipv4/conf/cvpn0/forwarding", 0)
    host.run("nft", "delete table inet cvpnd")
    found = doctor(gateway, status=status)
    gateway.running.signal(signal.SIGCONT)
    assert all(each.fix for each in found) and len(found) == len(set(found))
    told = "\n".join(f"{each.level}: {each.check}: {each.what}" for each in found)
    for fault in (
        "problem: forwarding: IPv4 is not forwarded from cvpn0",
        "problem: firewall: table ip docker, chain FORWARD, drops forwarded packets",
        "drops what comes to tcp port 443 and no rule there lets in",
        "problem: firewall: cvpnd's own nftables table is gone",
        "problem: interfaces: subnet subnet-b: lan2 is down",
        "problem: addresses: wan2 has 10.100.2.1/24",
        "warning: mtu: wan1 carries 1400 bytes",
        "problem: certificates: endpoint staff: the revocation list has expired",
        f"warning: keys: {site.directory}/server.key can be read by everybody",
        "problem: dns: endpoint staff: its remote vpn.invalid has no address",
        "problem: dns: endpoint staff: resolver 10.20.0.10, which clients are told, does not answer",
        "problem: directories: directory corp: ldaps://10.20.0.10:636 cannot be reached",
        "problem: radius: directory local: radius://127.0.0.1:1812 has not answered",
        "problem: saml: saml_provider sso: http://127.0.0.1:8/metadata cannot be read",
        f"problem: saml: saml_provider empty: {site.directory}/ca.crt is no XML",
        "problem: portal: its name vpn.invalid has no address",
        "and not for vpn.invalid: browsers warn",
        "problem: portal: nothing answers at 0.0.0.0:8444",
    ):
        assert fault in told, told
    assert "comes to udp port 1195" not in told

    shown = gateway.ctl("status", check=False).stdout
    assert "CRITICAL: endpoint staff: its revocation list has expired\n    sign a new list" in shown


def test_the_doctor_works_where_the_daemon_does_not_start(site):
    gateway, _ = start(site)
    gateway.stop()
    assert [each.check for each in doctor(gateway, running=False)] == ["daemon"]
    taken = site.lab.gateway.socket()
    taken.bind(("0.0.0.0", 443))
    taken.listen()
    certs.server("other").write(site.directory, "other")
    (site.directory / "server.key").write_bytes((site.directory / "other.key").read_bytes())
    site.write_crl()
    text = gateway.config_path.read_text().replace('interface = "lan2"', 'interface = "eth7"')
    gateway.write_config('[api]\nlisten = "http://127.0.0.1:443"\n' + text)
    found = doctor(gateway, running=False)
    taken.close()
    told = "\n".join(f"{each.check}: {each.what} | {each.fix}" for each in found)
    assert "ports: endpoint staff cannot listen on tcp://0.0.0.0:443" in told and "ss -lnpt" in told
    assert "ports: api cannot listen on tcp://127.0.0.1:443" in told
    assert "certificates: endpoint staff:" in told and "server.key" in told
    assert "interfaces: subnet subnet-b: there is no interface eth7" in told

    gateway.write_config(gateway.config_path.read_text().replace("split_tunnel", "split_tunel"))
    done = gateway.ctl("doctor", "--config", str(gateway.config_path), check=False)
    assert done.returncode == 1
    assert "PROBLEM: configuration: " in done.stdout and "split_tunel" in done.stdout
    assert 'did you mean "split_tunnel"?' in done.stdout
    assert "\nnot looked at, as the file cannot be used: certificates, interfaces, " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("in order: keys, ")


ELSEWHERE = """
[[handler]]
name = "AWSClientVPN-far"
url = "http://127.0.0.1:9/connect?key=canary-typed-password"
[connection_log]
syslog = "tcp://127.0.0.1:10"
"""


def test_the_doctor_says_who_else_does_not_answer_and_what_became_of_the_state(site):
    gateway, _ = start(site, ELSEWHERE)

    def told(running):
        return [f"{each.check}: {each.what}" for each in doctor(gateway, running=running)]

    found = "\n".join(told(True))
    assert "handlers: handler AWSClientVPN-far: 127.0.0.1 port 9 cannot be reached" in found
    assert "syslog: tcp://127.0.0.1:10 cannot be reached" in found and "canary" not in found
    gateway.write_config(gateway.config_path.read_text().replace(ELSEWHERE, ""))
    gateway.stop()
    database = gateway.directory / "state.db"
    assert [each.partition(":")[0] for each in told(False)] == ["daemon"], "it is whole"
    assert not database.with_name("state.db-wal").exists(), "and as it was"
    whole = database.read_bytes()
    half = len(whole) // 8192 * 4096
    for written, damage in ((b"no database" * 999, "is no database"), (whole[:half], "is damaged")):
        database.write_bytes(written)
        assert f"state: daemon.state: {database} {damage}" in told(False)[-1]
        gateway.start(wait=False)
        assert gateway.running.wait() == 1, "it is right"
    nobody = "postgresql://cvpnd:canary-typed-password@127.0.0.1:9/x"
    gateway.write_config(gateway.config_path.read_text().replace(f"sqlite:///{gateway.directory}/state.db", nobody))
    assert told(False)[-1].startswith("state: daemon.state: PostgreSQL on 127.0.0.1 takes no connections")


def test_a_daemon_that_hangs_is_told_as_such_and_nothing_false_with_it(site):
    """That it does not run, that its devices and ports are somebody else's: whoever is called at night would obey."""
    gateway, _ = start(site)
    assert doctor(gateway) == []
    gateway.running.signal(signal.SIGSTOP)
    try:
        shown = gateway.ctl("doctor", "--config", str(gateway.config_path), check=False)
        bundle = site.lab.directory / "bundle.tar.gz"
        gateway.ctl("support-bundle", "--config", str(gateway.config_path), "--output", str(bundle))
    finally:
        gateway.running.signal(signal.SIGCONT)
    assert shown.returncode == 1
    told = [line for line in shown.stdout.splitlines() if re.match("WARNING|PROBLEM", line)]
    (hangs,) = (line for line in told if "keeps this host's clock" not in line)
    assert hangs.startswith("PROBLEM: daemon: cvpnd: it runs, and does not answer")
    assert "systemctl restart cvpnd, after which clients come back" in shown.stdout
    with tarfile.open(bundle) as archive:
        parts = {member.name.partition("/")[2] for member in archive}
    assert {"status.json", "doctor.json", "host/nftables.txt"} <= parts and "connections.json" not in parts


def test_a_client_outlives_what_others_do_to_the_host(site):
    """The way to its network goes and comes back, forwarding is switched off, its device is set down and deleted."""
    gateway, _ = start(site)
    client = site.connect()
    host, target = site.lab.gateway, TARGET_LEG.host
    assert site.lab.client.ping(target, 3).received == 3

    def works() -> bool:
        return site.lab.client.ping(target, 1, 0.05, 0.3).received == 1

    def changed(what: str) -> float:
        return gateway.metrics()[f'cvpnd_host_changes_total{{what="{what}"}}']

    host.run("ip", "link", "set", TARGET_LEG.interface, "down")
    (wrong,) = wait_until(lambda: Client(gateway.admin_socket).get("/status")["status"]["problems"], 10)
    assert (wrong["severity"], wrong["subject"]) == ("critical", "host")
    host.run("ip", "link", "set", TARGET_LEG.interface, "up")
    wait_until(lambda: works() and not Client(gateway.admin_socket).get("/status")["status"]["problems"], 10)
    assert changed("routes") == 2
    host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv4.ip_forward=0")
    wait_until(lambda: changed("forwarding") == 1 and works(), 10)
    host.run("ip", "link", "set", "cvpn0", "down")
    wait_until(lambda: changed("device") == 1 and works(), 10)
    host.run("ip", "link", "delete", "cvpn0")
    client.wait_connected(30, times=2)
    wait_until(works, 10)
    assert changed("device") == 2
    assert "device-lost" in [entry["connection-end-reason"] for entry in gateway.connection_log()]
    gateway.running.wait_for("changed its device cvpn0 .gone.")
