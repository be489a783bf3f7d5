"""uvicorn as a guest: socket modes, stale and live sockets, credentials, signals left alone, clean ends."""

import asyncio
import contextlib
import gc
import os
import selectors
import signal
import socket
import ssl
import stat
import threading
import time
import tracemalloc
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from helpers import certs
from helpers.served import wait_until
from prometheus_client import CollectorRegistry, Gauge
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cvpnd.api.listener import SharedListener
from cvpnd.api.metrics import build_metrics_app
from cvpnd.api.server import HttpServer, bind_tcp, bind_unix


async def who(scope: dict, receive: object, send: object) -> None:
    peer = scope["state"].get("peer")
    await JSONResponse({"peer": peer and peer._asdict()})(scope, receive, send)


def client_of(path: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://cvpnd")


async def test_a_unix_server_knows_its_callers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "run" / "admin.sock"
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = HttpServer(who, bind_unix(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    await server.start()
    assert server.address == str(path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    async with client_of(path) as client:
        peer = (await client.get("/")).json()["peer"]
    assert peer == {"pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid()}
    await server.stop()
    await server.stop()
    assert not path.exists()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_nobody_can_connect_between_binding_and_listening(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    umask = os.umask(0)
    try:
        listener = bind_unix(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
        early.connect(str(path))
    listener.close()


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen()
    dead.close()
    server = HttpServer(who, bind_unix(path))
    await server.start()
    with pytest.raises(OSError, match="another cvpnd is listening here"):
        bind_unix(path)
    async with client_of(path) as client:
        assert (await client.get("/")).status_code == 200
    await server.stop()


def test_a_live_socket_with_a_full_backlog_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    hung = socket.socket(socket.AF_UNIX)
    hung.bind(str(path))
    hung.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(str(path))
    with pytest.raises(OSError, match="another cvpnd is listening here"):
        bind_unix(path)
    waiting.close()
    hung.close()


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="in the way of the socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


async def test_a_socket_that_another_process_put_there_survives_our_stop(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    server = HttpServer(who, bind_unix(path))
    await server.start()
    path.rename(tmp_path / "ours")
    other = bind_unix(path)
    await server.stop()
    assert path.exists()
    other.close()


async def test_stop_lets_a_running_request_finish_and_takes_no_new_one(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: dict, receive: object, send: object) -> None:
        entered.set()
        await leave.wait()
        await Response(b"done")(scope, receive, send)

    server = HttpServer(slow, bind_unix(path))
    await server.start()
    async with client_of(path) as client:
        running = asyncio.create_task(client.get("/"))
        await entered.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        assert not path.exists()
        with pytest.raises(httpx.ConnectError):
            async with client_of(path) as late:
                await late.get("/")
        leave.set()
        assert (await running).content == b"done"
    await stopping


async def test_metrics_over_tcp() -> None:
    registry = CollectorRegistry()
    Gauge("cvpnd_answer", "The answer.", registry=registry).set(42)
    listener = bind_tcp("127.0.0.1", 0)
    assert listener.proto == socket.IPPROTO_TCP, "else asyncio leaves out TCP_NODELAY, and answers wait for 40 ms"
    server = HttpServer(build_metrics_app(registry), listener)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        scrape = await client.get("/metrics")
        assert "cvpnd_answer 42.0" in scrape.text
        assert scrape.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        index, elsewhere, posted = await client.get("/"), await client.get("/etc/passwd"), await client.post("/metrics")
        assert "/metrics" in index.text
        assert [each.status_code for each in (scrape, index, elsewhere, posted)] == [200, 200, 404, 405]
        for each in (scrape, index, elsewhere, posted):
            assert each.headers["connection"] == "close", "what asks anew is counted"
    await server.stop()


async def test_ipv6_and_an_address_that_is_taken() -> None:
    server = HttpServer(build_metrics_app(CollectorRegistry()), bind_tcp("::1", 0))
    await server.start()
    host, _, port = server.address.rpartition(":")
    assert host == "[::1]"
    with pytest.raises(OSError, match=f"cannot listen on ::1 port {port}"):
        bind_tcp("::1", int(port))
    await server.stop()


async def test_a_failing_application_answers_500_and_the_server_lives(tmp_path: Path) -> None:
    async def failing(scope: dict, receive: object, send: object) -> None:
        if Request(scope).url.path == "/fail":
            raise RuntimeError("planted")
        await Response(b"fine")(scope, receive, send)

    path = tmp_path / "admin.sock"
    server = HttpServer(failing, bind_unix(path))
    await server.start()
    async with client_of(path) as client:
        assert (await client.get("/fail")).status_code == 500
        assert (await client.get("/")).content == b"fine"
    await server.stop()


async def test_headers_without_an_end_are_refused(tmp_path: Path) -> None:
    server = HttpServer(who, bind_unix(tmp_path / "admin.sock"))
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "admin.sock"))
    writer.write(b"GET / HTTP/1.1\r\nHost: cvpnd\r\nX: " + b"y" * 100_000)
    assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
    writer.close()
    await server.stop()


class _CountingSelector(selectors.EpollSelector):
    looks = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.looks += 1
        return super().select(timeout)


def test_a_server_that_nobody_asks_sleeps_and_knows_what_time_it_is_and_stops_at_once(tmp_path: Path) -> None:
    selector = _CountingSelector()

    async def idle() -> None:
        path = tmp_path / "admin.sock"
        server = HttpServer(who, bind_unix(path))
        await server.start()
        before = selector.looks
        await asyncio.sleep(2.5)
        assert selector.looks - before < 15
        async with client_of(path) as client:
            answered = parsedate_to_datetime((await client.get("/")).headers["Date"])
        assert abs(answered.timestamp() - time.time()) < 4
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 2

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(idle())


def test_it_runs_in_a_loop_of_another_thread(tmp_path: Path) -> None:
    async def cycle() -> None:
        server = HttpServer(who, bind_unix(tmp_path / "admin.sock"))
        await server.start()
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=[cycle()])
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_whoever_says_nothing_makes_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: socket.AddressFamily
) -> None:
    monkeypatch.setattr("cvpnd.api.server.HEAD_S", 0.2)
    path = tmp_path / "admin.sock"
    listener = bind_unix(path) if family == socket.AF_UNIX else bind_tcp("127.0.0.1", 0)
    server = HttpServer(who, listener)
    await server.start()
    for said in (b"", b"GET / HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /"):
        client = socket.socket(family)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
        reader, writer = await asyncio.open_connection(sock=client)
        writer.write(said)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 200") == (b"\r\n\r\n" in said)
        writer.close()
    monkeypatch.setattr("cvpnd.api.server.HEAD_S", 30)  # a busy machine is no stranger
    uds = str(path) if family == socket.AF_UNIX else None
    address = "cvpnd" if uds else server.address
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds)) as client_again:
        for _ in range(3):
            assert (await client_again.get(f"http://{address}/")).status_code == 200
    await server.stop()


@pytest.fixture
def directory_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: those above it are root's alone."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_one_user_of_this_host_does_not_shut_another_one_out_of_the_admin_socket(
    monkeypatch: pytest.MonkeyPatch, directory_for_all: Path
) -> None:
    monkeypatch.setattr("cvpnd.api.server.CONNECTIONS_PER_USER", 3)
    server = HttpServer(who, bind_unix(directory_for_all / "admin.sock", 0o666))
    await server.start()

    async def connect(uid: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        os.seteuid(uid)  # SO_PEERCRED is who connected, whatever becomes of them
        try:
            client = socket.socket(socket.AF_UNIX)
            client.connect("admin.sock")
        finally:
            os.seteuid(0)
        return await asyncio.open_connection(sock=client)

    idle = [await connect(12345) for _ in range(3)]
    (reader, one_more), (answer, other) = await connect(12345), await connect(0)
    assert await asyncio.wait_for(reader.read(), 5) == b"", "more than its share"
    other.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b'"uid":0' in await asyncio.wait_for(answer.read(), 5)
    idle[0][1].close()
    await asyncio.sleep(0.1)
    reader, again = await connect(12345)
    again.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b'"uid":12345' in await asyncio.wait_for(reader.read(), 5)
    for writer in (one_more, other, again, *(each for _, each in idle)):
        writer.close()
    await server.stop()


async def test_a_tls_handshake_that_stalls_and_a_goodbye_that_does_not_come_make_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cvpnd.api.server.HANDSHAKE_S", 0.3)
    monkeypatch.setattr("cvpnd.api.server.HEAD_S", 0.3)
    monkeypatch.setattr("cvpnd.api.server.GRACE_S", 0.3)
    listener = bind_tcp("127.0.0.1", 0)
    server = HttpServer(who, listener, tls=certs.server("localhost").write(tmp_path, "api"))
    await server.start()
    context = ssl.create_default_context(cadata=certs.authority().certificate_pem.decode())
    for shakes in (False, True):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(arrived, leaving, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        writer.write(leaving.read())
        while shakes and client.version() is None:
            arrived.write(await reader.read(65_536))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            writer.write(leaving.read())
        assert await asyncio.wait_for(reader.read(), 5), "it hears until the end, to which it says nothing"
        writer.close()
    await server.stop()


async def test_handshakes_that_fail_leave_little_until_their_memory_is_collected(tmp_path: Path) -> None:
    """Each left 256 kB: some minutes of them, from many addresses, were half a gigabyte."""
    listener = bind_tcp("127.0.0.1", 0)
    server = HttpServer(who, listener, tls=certs.server("vpn.example.com").write(tmp_path, "api"))
    await server.start()
    address, tries = listener.getsockname(), 20
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(tries):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()
            writer.close()
        assert await wait_until(lambda: len(listener._open) == 0)
        after, _ = tracemalloc.get_traced_memory()
        assert after - before < tries * 64 * 1024
    finally:
        tracemalloc.stop()
        gc.enable()
        await server.stop()


@pytest.mark.parametrize("renewed", [False, True])
async def test_no_client_chooses_a_key_exchange_that_is_work_for_us_alone(tmp_path: Path, renewed: bool) -> None:
    """CVE-2002-20001: whoever offers ffdhe8192 alone, for which he computes nothing, keeps the loop busy for 244 ms."""
    listener = bind_tcp("127.0.0.1", 0)
    server = HttpServer(who, listener, tls=certs.server("localhost").write(tmp_path, "api"))
    await server.start()
    if renewed:
        server.reload_certificate()

    async def shakes_hands(*options: str) -> bool:
        port, silent = listener.getsockname()[1], asyncio.subprocess.DEVNULL
        command = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options)
        client = await asyncio.create_subprocess_exec(*command, stdin=silent, stdout=silent, stderr=silent)
        return await asyncio.wait_for(client.wait(), 10) == 0

    for group in ("ffdhe2048", "ffdhe3072", "ffdhe8192"):
        assert not await shakes_hands("-groups", group)
    for options in (("-tls1_3", "-groups", "X25519:P-256"), ("-tls1_3", "-groups", "P-256"), ("-tls1_2",), ()):
        assert await shakes_hands(*options)
    await server.stop()


async def test_a_source_gets_its_share_of_connections_and_leaves_the_rest_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cvpnd.api.listener.CONNECTIONS_PER_SOURCE", 3)
    monkeypatch.setattr("cvpnd.api.listener.CONNECTIONS", 5)
    certs.server("localhost").write(tmp_path, "api")
    listener = bind_tcp("0.0.0.0", 0)
    server = HttpServer(who, listener, tls=(tmp_path / "api.crt", tmp_path / "api.key"))
    await server.start()
    port = listener.getsockname()[1]

    async def connect(source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))

    async def is_closed(reader: asyncio.StreamReader) -> bool:
        try:
            return await asyncio.wait_for(reader.read(1), 0.3) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    silent = [await connect("127.0.0.1") for _ in range(5)]  # which never begin their TLS handshake
    assert [await is_closed(reader) for reader, _ in silent] == [False] * 3 + [True] * 2
    others = [await connect("127.0.0.2") for _ in range(3)]
    assert [await is_closed(reader) for reader, _ in others] == [False] * 2 + [True], "five in all"
    assert listener.refused == 3
    for _, writer in (*silent, *others):
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with httpx.AsyncClient(verify=context) as client:
        for _ in range(50):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"https://127.0.0.1:{port}/")).status_code == 200:
                    break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("those who are gone still count")
    await server.stop()


@pytest.mark.parametrize("over", ["tls", "plain"])
async def test_a_crowd_that_others_make_room_for_holds_hardly_more_files_than_there_are_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, over: str
) -> None:
    monkeypatch.setattr("cvpnd.api.listener.CONNECTIONS", 100)
    certs.server("localhost").write(tmp_path, "api")
    listener = bind_tcp("0.0.0.0", 0)
    server = HttpServer(who, listener, tls=(tmp_path / "api.crt", tmp_path / "api.key") if over == "tls" else None)
    await server.start()
    accepted: list[socket.socket] = []
    accept, most = SharedListener.accept, 0

    def watched(self: SharedListener) -> tuple[socket.socket, object]:
        nonlocal most
        connection, address = accept(self)
        accepted.append(connection)
        most = max(most, sum(each.fileno() >= 0 for each in accepted))
        return connection, address

    async def all_in(number: int) -> None:
        while len(accepted) < number:  # noqa: ASYNC110 - what is watched waits for nobody
            await asyncio.sleep(0.01)

    monkeypatch.setattr(SharedListener, "accept", watched)
    sources = [f"127.0.0.{1 + number % 4}" for number in range(100)] + [f"127.{number}.0.1" for number in range(1, 61)]
    clients = []
    for number, source in enumerate(sources, 1):
        client = socket.socket()
        client.bind((source, 0))
        client.connect(("127.0.0.1", listener.getsockname()[1]))  # the kernel does, as many as the backlog holds
        clients.append(client)
        if number in (50, 100, 160):
            await asyncio.wait_for(all_in(number), 10)
    assert listener.refused == 60, "everybody else got a place of those who had many"
    assert 100 < most <= 103
    for client in clients:
        client.close()
    await server.stop()


async def test_over_tls_the_certificate_is_shown_and_plain_http_gets_no_answer(tmp_path: Path) -> None:
    certs.server("localhost").write(tmp_path, "api")
    (tmp_path / "ca.crt").write_bytes(certs.authority().certificate_pem)
    server = HttpServer(who, bind_tcp("127.0.0.1", 0), tls=(tmp_path / "api.crt", tmp_path / "api.key"))
    await server.start()
    port = server.address.rpartition(":")[2]
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    async with httpx.AsyncClient(verify=trust) as client:
        assert (await client.get(f"https://localhost:{port}/")).json() == {"peer": None}
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://localhost:{port}/")
    async with httpx.AsyncClient() as stranger:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.get(f"https://localhost:{port}/")
    await server.stop()


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    def shown(port: int) -> bytes:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=5).encode()

    first, second = certs.server("first.example"), certs.server("second.example")
    files = first.write(tmp_path, "portal")
    server = HttpServer(who, bind_tcp("127.0.0.1", 0), tls=files)
    await server.start()
    port = int(server.address.rpartition(":")[2])
    assert await asyncio.to_thread(shown, port) == first.certificate_pem
    second.write(tmp_path, "portal")
    server.reload_certificate()
    assert await asyncio.to_thread(shown, port) == second.certificate_pem
    files[0].write_text("nonsense")
    with pytest.raises(OSError):
        server.reload_certificate()
    assert await asyncio.to_thread(shown, port) == second.certificate_pem
    await server.stop()
