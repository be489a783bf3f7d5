"""The light client against the installed ``openvpn`` 2.6 server: if they agree, it may stand in for real clients.

Both run in a network namespace of their own, so the server's TUN device and addresses are nobody else's.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from helpers.openvpn_client import OPENVPN
from helpers.other_releases import generation
from helpers.pair import client_context, pki
from helpers.pump import write_client_files
from light_client.__main__ import main
from light_client.driver import ClientResult, Runner, TcpWire
from light_client.icmp import checksum, echo_request, parse_echo_reply
from light_client.protocol import LightClient

from cvpnd.wire.packet import Transport
from cvpnd.wire.wrap.client_key import ClientKeyMetadata, new_client_key
from cvpnd.wire.wrap.key_files import (
    new_static_key,
    new_v2_server_key,
    serialise_static_key,
    serialise_v2_client_key,
    serialise_v2_server_key,
)
from cvpnd.wire.wrap.tls_crypt_v2 import ServerKey

REPOSITORY = Path(__file__).parents[2]
needs_server = pytest.mark.skipif(
    os.geteuid() != 0 or generation() < (2, 6) or not Path("/dev/net/tun").exists(),
    reason="needs root, /dev/net/tun and an openvpn program, 2.6 or later",
)


def run_against_openvpn(directory: Path, server: str, client: str) -> dict[str, object]:
    """Start a server in a fresh namespace, run the command line client in it, return its JSON."""
    files = write_client_files(directory)
    (directory / "server.pem").write_bytes(pki().server.pem)
    (directory / "server-key.pem").write_bytes(pki().server.key_pem)
    script = textwrap.dedent(f"""
        ip link set lo up
        {" ".join(OPENVPN)} --mode server --tls-server --server 10.77.0.0 255.255.255.0 --topology subnet \
            --dev tun --port 1194 --ca ca.pem --cert server.pem --key server-key.pem --dh none --keepalive 1 20 \
            --verb 3 --log server.log --duplicate-cn {server} &
        server=$!
        trap 'kill $server; wait $server' EXIT
        for _ in $(seq 100); do
            grep -q 'Initialization Sequence Completed' server.log 2>/dev/null && break; sleep 0.05
        done
        {sys.executable} -m light_client --remote 127.0.0.1:1194 --json --timeout 20 {" ".join(files)} {client}
    """)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "bench")}
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], cwd=directory, env=environment, stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, (output, (directory / "server.log").read_text())
    answer: dict[str, object] = json.loads(output)
    return answer


@needs_server
@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("--proto udp4", "--tls 1.3"),
        ("--proto udp4", "--tls 1.2"),
        ("--proto tcp4-server", "--tcp"),
        ("--proto udp4 --data-ciphers CHACHA20-POLY1305", ""),
    ],
    ids=["udp-tls1.3", "udp-tls1.2", "tcp", "chacha20"],
)
def test_ping_through_a_stock_server(tmp_path: Path, server: str, client: str) -> None:
    answer = run_against_openvpn(tmp_path, server, f"--ping 10.77.0.1 --pings 2 {client}")
    assert (answer["failed"], answer["pings_answered"]) == (0, 2)


@needs_server
@pytest.mark.parametrize("proto", ["udp4", "tcp4-server"])
@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("--tls-auth static.key 0 --auth SHA256", "--tls-auth static.key --key-direction 1 --auth SHA256"),
        ("--tls-auth static.key --auth SHA512", "--tls-auth static.key --auth SHA512"),
        ("--tls-crypt static.key", "--tls-crypt static.key"),
        ("--tls-crypt-v2 server.key force-cookie", "--tls-crypt-v2 client.key"),
        ("--tls-crypt-v2 server.key", "--tls-crypt-v2 client.key --no-early-negotiation"),
    ],
    ids=["tls-auth", "tls-auth without direction", "tls-crypt", "tls-crypt-v2", "tls-crypt-v2 as 2.5"],
)
def test_every_wrapping_with_a_stock_server_and_renegotiations(
    tmp_path: Path, server: str, client: str, proto: str
) -> None:
    server_key = new_v2_server_key()
    (tmp_path / "static.key").write_bytes(serialise_static_key(new_static_key()))
    (tmp_path / "server.key").write_bytes(serialise_v2_server_key(server_key))
    client_key = new_client_key(ServerKey(server_key), ClientKeyMetadata("light", 1, 2))
    (tmp_path / "client.key").write_bytes(serialise_v2_client_key(client_key))
    tcp = "--tcp" if proto == "tcp4-server" else ""
    answer = run_against_openvpn(
        tmp_path, f"--proto {proto} --reneg-sec 1 {server}", f"--ping 10.77.0.1 --hold 3 {client} {tcp}"
    )
    (result,) = answer["results"]  # type: ignore[misc]
    assert result["keys"] >= 2
    assert answer["pings_answered"] == answer["pings_sent"]
    log = (tmp_path / "server.log").read_text()
    assert "dyn-tls-crypt" in log
    assert "TLS Error" not in log


@needs_server
def test_many_clients_and_renegotiations_of_a_stock_server(tmp_path: Path) -> None:
    answer = run_against_openvpn(
        tmp_path, "--proto udp4 --reneg-sec 2", "--count 5 --ping 10.77.0.1 --pings 1 --hold 5"
    )
    results = answer["results"]
    assert isinstance(results, list)
    assert len({result["address"] for result in results}) == 5
    assert min(result["keys"] for result in results) >= 3
    assert answer["pings_answered"] == answer["pings_sent"], "no ping is lost over a renegotiation"


def test_unreachable_server_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_client_files(tmp_path)
    assert main(["--remote", "127.0.0.1:9", "--tcp", "--count", "2", "--timeout", "2", *files]) == 1
    table = capsys.readouterr().out
    assert table.startswith("2 clients, 2 failed")
    assert "client 1: cannot connect" in table


async def test_a_connection_that_the_server_has_reset_is_this_clients_failure_and_ends_no_other() -> None:
    def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    client = LightClient(client_context(), 0.0, transport=Transport.TCP)
    runner = Runner(client, TcpWire(reader, writer), ClientResult(0))
    await runner.pump()  # raises nothing
    assert client.failed == runner.result.error != ""


def test_echo_packets_are_what_a_kernel_would_take() -> None:
    source, target = IPv4Address("10.8.0.2"), IPv4Address("10.8.0.1")
    packet = echo_request(source, target, 7, 9, b"odd")
    assert checksum(packet[:20]) == 0
    assert checksum(packet[20:]) == 0
    assert parse_echo_reply(packet) is None, "a request is no reply"
    reply = packet[:20] + b"\0" + packet[21:]
    assert parse_echo_reply(reply) == (source, 7, 9)
    for length in range(len(reply)):
        assert parse_echo_reply(reply[:length]) is None or length >= 28
