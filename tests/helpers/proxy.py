"""What stands between many offices and the Internet: an HTTP proxy (CONNECT) and a SOCKS 5 proxy, on loopback.

Run as a program; it says ``ready`` and lasts until it is killed."""

from __future__ import annotations

import asyncio
import socket

HTTP_PORT, SOCKS_PORT = 3128, 1080
MOST_BYTES = 65536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(MOST_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other direction ends with it
    finally:
        writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, said: bytes) -> None:
    try:
        onward, back = await asyncio.open_connection(host, port)
    except OSError:  # nobody listens there now; the client is to notice that at once
        writer.close()
        return
    writer.write(said)
    await asyncio.gather(_copy(reader, back), _copy(onward, writer))


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    host, _, port = head.split()[1].decode().rpartition(":")
    await _join(reader, writer, host.strip("[]"), int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")


async def _socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RFC 1928, without authentication."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(b"\x05\x00")
    kind = (await reader.readexactly(4))[3]
    if kind == 3:
        (length,) = await reader.readexactly(1)
        host = (await reader.readexactly(length)).decode()
    else:
        family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, await reader.readexactly(length))
    port = int.from_bytes(await reader.readexactly(2))
    await _join(reader, writer, host, port, b"\x05\x00\x00\x01" + bytes(6))


async def _main() -> None:
    await asyncio.start_server(_http, "127.0.0.1", HTTP_PORT)
    await asyncio.start_server(_socks, "127.0.0.1", SOCKS_PORT)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
