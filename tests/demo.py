"""The whole path on one machine: a stock client, the gateway and a target network in namespaces (`make demo`).

Nothing outside the namespaces is touched, and nothing is left behind.
"""

import json
import subprocess
import sys
import time

from helpers.lab import CLIENT_LEGS, OTHER_LEG, TARGET_LEG, GatewayProcess, Lab, LabError, OpenVpnClient, wait_until
from helpers.tunnel import write_pki, write_profile

MEGABYTES = 20

ENDPOINT = """
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = ["udp://0.0.0.0:1194", "tcp://0.0.0.0:443"]
server_certificate = { certificate = "pki/server.crt", private_key = "pki/server.key" }
authentication = [{ type = "certificate-authentication", client_ca = "pki/ca.crt" }]
split_tunnel = true
associate = ["subnet-a", "subnet-b"]
authorize = [{ network = "10.20.0.0/16", all_groups = true }]
"""


def step(text: str) -> None:
    print(f"==> {text}", flush=True)


def say(text: str) -> None:
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def connect(lab: Lab, transport: str, port: int) -> OpenVpnClient:
    profile = write_profile(
        lab.directory,
        lab.gateway_address,
        transport=transport,
        port=port,
        extra="explicit-exit-notify" * (port == 1194),
    )
    begun = time.monotonic()
    client = lab.openvpn(profile).wait_connected()
    say(f"connected after {time.monotonic() - begun:.2f} s, address {client.address} on {client.interface}")
    return client


def show_reach(lab: Lab, gateway: GatewayProcess) -> None:
    step(f"Pinging {TARGET_LEG.host} in the target network, through the tunnel and SNAT")
    answer = lab.client.ping(TARGET_LEG.host, count=5)
    if answer.received == 0:
        raise LabError("nothing came back")
    say(f"{answer.received} of {answer.sent} answered, {answer.average_ms:.2f} ms on average")

    step(f"Fetching and sending a file of {MEGABYTES} MB, SHA-256 compared")
    length = MEGABYTES * 1_000_000
    down_s = lab.download(lab.client, TARGET_LEG.host, length)
    up_s = lab.upload(lab.client, TARGET_LEG.host, length)
    say(f"equal: {down_s:.1f} s down, {up_s:.1f} s up")

    step(f"Pinging {OTHER_LEG.host}, which no rule allows")
    say(f"{lab.client.ping(OTHER_LEG.host, count=3).received} of 3 answered")
    step(f"cvpnctl rule add staff {OTHER_LEG.network} --all-groups")
    gateway.ctl("rule", "add", "staff", OTHER_LEG.network, "--all-groups")
    begun = time.monotonic()
    wait_until(lambda: lab.client.ping(OTHER_LEG.host, count=1, wait_s=0.2).received, what="an answer after the rule")
    say(f"the same session reaches it after {time.monotonic() - begun:.2f} s")


def show_throughput(lab: Lab) -> None:
    step("Throughput, one TCP stream through the stock client (iperf3, 3 s each way)")
    for title, options in (("up", []), ("down", ["-R"])):
        report = lab.iperf3(lab.client, TARGET_LEG.host, *options, seconds=3)
        say(f"{title:5}{report['end']['sum_received']['bits_per_second'] / 1e6:7.0f} Mbit/s")


def demo() -> None:
    leg = CLIENT_LEGS[0]
    step("Building the networks: client, gateway, target")
    say(f"client {leg.host} ── {leg.gateway} gateway {TARGET_LEG.gateway} ── {TARGET_LEG.host} target")
    with Lab() as lab:
        write_pki(lab.directory / "gateway")
        lab.start_servers()
        step("Starting cvpnd")
        gateway = lab.gateway_process(lab.networks_toml() + ENDPOINT)
        version = subprocess.run(["openvpn", "--version"], capture_output=True, text=True, check=False).stdout
        step(f"Connecting the stock client over UDP: {' '.join(version.split()[:2])}")
        client = connect(lab, "udp", 1194)
        show_reach(lab, gateway)
        show_throughput(lab)
        step("cvpnctl connection list")
        say(gateway.ctl("connection", "list").stdout)
        client.stop()

        step("Once more over TCP, port 443")
        client = connect(lab, "tcp", 443)
        show_throughput(lab)
        client.stop()

        step("Stopping cvpnd; the connection log it leaves:")
        gateway.stop()
        for entry in gateway.connection_log():
            say(json.dumps(entry))
    step("Done; the namespaces are gone")


def main() -> int:
    try:
        demo()
    except LabError as error:
        print(f"==> The demonstration failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
