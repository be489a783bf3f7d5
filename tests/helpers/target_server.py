"""What stands in the target network: a small HTTP server and an echo server (TCP and UDP), both over IPv4 and IPv6.

GET /            "target network\n"
GET /peer        the client's address and port as seen here (behind SNAT, or not)
GET /bytes/N     N bytes of `content`
PUT /            the SHA-256 of what was sent, in hex
"""

from __future__ import annotations

import argparse
import hashlib
import random
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 1 << 20
SO_RCVBUFFORCE = 33
"""What Python has no name for: this one thread may be late, and what is lost here says nothing of the tunnel."""


def content(length: int) -> Iterator[bytes]:
    """Blocks that do not compress and are all different, so that a lost, doubled or swapped one changes the hash."""
    noise = random.Random(length).randbytes(BLOCK - 8)
    for index in range(0, length, BLOCK):
        yield (index.to_bytes(8, "big") + noise)[: length - index]


def sha256_of(length: int) -> str:
    digest = hashlib.sha256()
    for block in content(length):
        digest.update(block)
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/bytes/"):
            length = int(self.path.removeprefix("/bytes/"))
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            for block in content(length):
                self.wfile.write(block)
            return
        host, port = self.client_address[:2]
        self.answer(f"{host.removeprefix('::ffff:')} {port}" if self.path == "/peer" else "target network\n")

    def do_PUT(self) -> None:
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (data := self.rfile.read(min(left, BLOCK))):
            digest.update(data)
            left -= len(data)
        self.answer(digest.hexdigest())

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        print(self.client_address[0], format % args, flush=True)


class DualStackServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512  # 200 clients at once
    daemon_threads = True


class EchoStream(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class EchoStreamServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


def echo_datagrams(port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as echo:
        echo.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        echo.bind(("::", port))
        while True:
            data, source = echo.recvfrom(65536)
            echo.sendto(data, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", type=int, default=8000)
    parser.add_argument("--echo", type=int, default=7)
    arguments = parser.parse_args()
    http = DualStackServer(("::", arguments.http), Handler)
    echo = EchoStreamServer(("::", arguments.echo), EchoStream)
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    threading.Thread(target=echo_datagrams, args=(arguments.echo,), daemon=True).start()
    print("ready", flush=True)
    http.serve_forever()


if __name__ == "__main__":
    main()
