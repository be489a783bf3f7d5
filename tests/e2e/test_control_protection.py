"""The control channel's protection as an administrator lives with it: profiles, reloads, a client key's end, and floods
of client keys (``CLIENT_KEY_FLOODS="repeated,changed,with a wrong cookie"``)."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from helpers import certs, flood
from helpers.lab import wait_until

from cvpnd.endpoints.protection import issue_client_key
from cvpnd.pki.authority import Authority
from cvpnd.pki.issue import issue_server
from cvpnd.pki.revocation import ensure_crl
from cvpnd.wire.packet import ControlPacket, Opcode
from cvpnd.wire.wrap import key_files
from cvpnd.wire.wrap.tls_crypt_v2 import ServerKey, TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import ReplayId

BENCH = Path(__file__).parents[2] / "bench"

PROTECTIONS = {
    "tls-auth": 'tls_auth = { key = "shared.key", digest = "SHA512" }',
    "tls-crypt": 'tls_crypt = { key = "shared.key" }',
    "tls-crypt-v2": 'tls_crypt_v2 = { server_key = "v2.key" }',
    "both": 'tls_crypt = { key = "shared.key" }, tls_crypt_v2 = { server_key = "v2.key" }',
}


@pytest.fixture
def start(site):
    """Start a gateway with an authority of its own and a protection; returns its TOML and itself."""
    pki = site.directory / "pki"
    authority = Authority.create(pki, "Test authority")
    issue_server(authority, "vpn.example.com")
    ensure_crl(authority)
    (site.directory / "shared.key").write_bytes(key_files.serialise_static_key(key_files.new_static_key()))
    (site.directory / "v2.key").write_bytes(key_files.serialise_v2_server_key(key_files.new_v2_server_key()))

    def toml(protection: str) -> str:
        text = site.toml(f'control_protection = {{ {protection} }}\nremote = "{site.lab.gateway_address}"')
        for old, new in (("server.crt", "pki/server.crt"), ("server.key", "pki/server.key"), ("ca.crt", "pki/ca.crt")):
            text = text.replace(f'"{old}"', f'"{new}"')
        return '[pki]\ndirectory = "pki"\n' + text.replace('"crl.pem"', '"pki/crl.pem"')

    def run(protection: str):
        site._gateway = site.lab.gateway_process(toml(protection))
        return site._gateway

    run.toml = toml  # type: ignore[attr-defined]
    return run


def profile(site, gateway, name: str, *options: str, transport: str = "udp"):
    path = site.lab.directory / f"{name}-{transport}" / f"{name}.ovpn"
    path.parent.mkdir(exist_ok=True)
    gateway.ctl("profile", name, *options, "--output", str(path), "--force")
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("remote ") or line.endswith(f"1194 {transport}")]
    path.write_text("\n".join([*kept, "connect-retry 1 1", ""]))
    return path


@pytest.mark.parametrize(("kind", "transport"), list(zip(PROTECTIONS, ("udp", "tcp", "udp", "tcp"), strict=True)))
def test_profiles_connect_and_nobody_without_one_hears_anything(site, start, ping, kind, transport):
    gateway = start(PROTECTIONS[kind])
    path = profile(site, gateway, "alice", "--issue", transport=transport)
    tag = "tls-crypt-v2" if kind == "both" else kind
    assert path.read_text().count(f"<{tag}>") == 1
    client = site.lab.openvpn(path).wait_connected()
    assert ping(count=1) == 1.0
    client.stop()
    text = re.sub(rf"(?s)<{tag}>.*</{tag}>|key-direction .|auth SHA512", "", path.read_text())
    path.write_text(text)
    without = site.lab.openvpn(path, "--verb", "4")
    wait_until(
        lambda: gateway.metrics().get('cvpnd_dropped_packets_total{plane="control",reason="not_authentic"}', 0) >= 2, 10
    )
    assert "TLS: Initial packet" not in without.log()
    assert without.connected_count == 0
    without.stop()


def test_revoking_a_certificate_silences_its_key_and_no_other(site, start, ping):
    gateway = start(PROTECTIONS["tls-crypt-v2"])
    alice = profile(site, gateway, "alice", "--issue")
    bob = profile(site, gateway, "bob", "--issue")
    site.lab.openvpn(bob, client=site.lab.clients[1])
    leaving = site.lab.openvpn(alice).wait_connected()
    keys = gateway.ctl_json("client-key", "list")
    assert [(key["name"], key["status"]) for key in keys] == [("alice", "valid"), ("bob", "valid")]
    assert keys[0]["serial"] in {c["serial"] for c in gateway.ctl_json("certificate", "list") if c["name"] == "alice"}
    gateway.ctl("certificate", "revoke", "alice")
    leaving.wait_for("Certificate revoked", 5)
    leaving.stop()
    again = site.lab.openvpn(alice)
    dropped = 'cvpnd_dropped_packets_total{plane="control",reason="client_key_revoked"}'
    wait_until(lambda: gateway.metrics().get(dropped, 0) >= 1, 10)
    assert "VERIFY OK" not in again.log(), "it has not seen our certificate, nor we its"
    statuses = {key["name"]: key["status"] for key in gateway.ctl_json("client-key", "list")}
    assert statuses == {"alice": "revoked", "bob": "valid"}
    assert ping(count=1, client=site.lab.clients[1]) == 1.0


def test_a_key_for_a_certificate_from_elsewhere(site, start):
    gateway = start(PROTECTIONS["tls-crypt-v2"])
    text = profile(site, gateway, "carol", "--serial", "0A:1B").read_text()
    assert "<tls-crypt-v2>" in text
    assert 'key "carol.key"' in text
    assert gateway.ctl_json("client-key", "list")[0]["serial"] == "0A1B"
    refused = gateway.ctl("profile", "dave", check=False)
    assert "--issue" in refused.stderr
    assert "--serial" in refused.stderr


def test_a_new_key_is_for_new_sessions_and_reload_may_change_the_kind(site, start, ping):
    gateway = start(PROTECTIONS["tls-crypt"])
    old = profile(site, gateway, "alice", "--issue")
    client = site.lab.openvpn(old).wait_connected()
    path = site.directory / "shared.key"
    path.write_bytes(key_files.serialise_static_key(key_files.new_static_key()))
    bob = profile(site, gateway, "bob", "--issue")
    wait_until(lambda: "control-channel keys reloaded" in gateway.log(), 5)
    site.lab.openvpn(bob, client=site.lab.clients[1]).wait_connected()
    path.write_text("half writ")
    wait_until(lambda: "shared.key: is not an" in gateway.log(), 5)
    assert "the key read before stays in use" in gateway.log()
    gateway.write_config(start.toml(PROTECTIONS["tls-crypt-v2"]))
    gateway.reload()
    wait_until(lambda: "reloaded: {" in gateway.log(), 5)
    carol = profile(site, gateway, "carol", "--issue")
    assert "<tls-crypt-v2>" in carol.read_text()
    assert ping(count=1) == 1.0
    assert ping(count=1, client=site.lab.clients[1]) == 1.0
    assert client.connected_count == 1


def light_clients(site, client_key: bytes, *options: str) -> int:
    """How many of five that cannot echo a cookie, as OpenVPN 2.5, got an answer to their ping."""
    place = site.profile(certs.client("crowd")).parent
    (place / "client.v2").write_bytes(client_key)
    command = [sys.executable, "-P", "-m", "light_client", "--remote", f"{site.lab.gateway_address}:1194", "--json"]
    for option, name in (
        ("--ca", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key"), ("--tls-crypt-v2", "client.v2"),
    ):  # fmt: skip
        command += [option, str(place / name)]
    command += ["--no-early-negotiation", "--count", "5", "--ping", "10.20.0.10", "--timeout", "5", *options]
    path = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    done = site.lab.client.run(*command, env={"PYTHONPATH": path}, timeout_s=60, check=False)
    return sum(not result["error"] for result in json.loads(done.stdout)["results"])


def test_openvpn_2_5_is_served_as_far_as_the_settings_allow(site):
    """It has no early negotiation, so over UDP it needs state before its address is proven."""
    server_key = key_files.new_v2_server_key()
    (site.directory / "v2.key").write_bytes(key_files.serialise_v2_server_key(server_key))
    client_key = issue_client_key(ServerKey(server_key), "crowd", 1)

    def toml(v2: str, unproven: int) -> str:
        protection = f'tls_crypt_v2 = {{ server_key = "v2.key"{v2} }}'
        return site.toml(f"control_protection = {{ {protection} }}\nlimits = {{ unproven_handshakes = {unproven} }}")

    gateway = site._gateway = site.lab.gateway_process(toml("", 5))
    dropped = 'cvpnd_dropped_packets_total{{plane="control",reason="{}"}}'
    assert light_clients(site, client_key) == 5
    assert light_clients(site, client_key) == 5, "who is done makes room for others"
    assert dropped.format("handshake_limit") not in gateway.metrics()
    for v2, unproven, reason in (("", 0, "handshake_limit"), (", allow_stateful = false", 5, "state_needed")):
        gateway.write_config(toml(v2, unproven))
        reloads = gateway.log().count("reloaded: {")
        gateway.reload()
        wait_until(lambda before=reloads: gateway.log().count("reloaded: {") > before, 5)
        assert light_clients(site, client_key) == 0
        assert gateway.metrics()[dropped.format(reason)] >= 5
        assert light_clients(site, client_key, "--tcp") == 5, "TCP has proven the address before"


FLOOD_PER_S = 100_000
FLOOD_S = 6.0
CLIENT_KEY_FLOODS = {
    "repeated": ControlPacket(Opcode.HARD_RESET_CLIENT_V3, 0, b"stranger", packet_id=0),
    "changed": ControlPacket(Opcode.HARD_RESET_CLIENT_V3, 0, b"stranger", packet_id=0),
    "with a wrong cookie": ControlPacket(Opcode.CONTROL_WKC_V1, 0, b"stranger", (0,), b"wrong-id", 1, bytes(200)),
}


@pytest.mark.parametrize("kind", os.environ.get("CLIENT_KEY_FLOODS", "repeated").split(","))
def test_flood_of_client_keys_costs_no_ping_and_keeps_nobody_out(site, start, kind):
    """Of somebody who has a key, or has seen one: tls-crypt-v2 shows it in the very first packet."""
    gateway = start(PROTECTIONS["tls-crypt-v2"])
    path = profile(site, gateway, "alice", "--issue")
    key = re.search(r"(?s)<tls-crypt-v2>\n(.*?)</tls-crypt-v2>", path.read_text())
    sealed = TlsCryptV2Client(*key_files.parse_v2_client_key(key[1].encode())).seal(
        CLIENT_KEY_FLOODS[kind], ReplayId(0x0F000001, int(time.time()))
    )
    if kind == "changed":
        sealed = sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:]
    recorded = site.lab.directory / "recorded"
    recorded.write_bytes(sealed)
    (site.lab.directory / "work").mkdir()
    elsewhere = site.lab.directory / "work/alice.ovpn"
    elsewhere.write_text(path.read_text().replace(site.lab.gateway_address, "198.51.100.1"))
    at_work = site.lab.openvpn(elsewhere, client=site.lab.clients[1]).wait_connected()
    before = gateway.metrics()
    siege = flood.besiege(
        site.lab, gateway.running, kind=f"@{recorded}", per_s=FLOOD_PER_S, seconds=FLOOD_S, at_work=at_work,
        genuine=lambda: site.lab.openvpn(path),
    )  # fmt: skip
    after = gateway.metrics()
    print(kind, siege, {name: after[name] - before[name] for name in after if "door_packets" in name})
    assert siege.packets_per_s > 5000
    assert siege.ping.lost <= max(1, siege.ping.sent // 100), siege
    assert siege.connected_after_s is not None and siege.connected_after_s < 5, siege
    assert siege.grown_bytes < 16 << 20, siege
