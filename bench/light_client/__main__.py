"""``python -m light_client``: connect many clients, ping through each tunnel, print a table; exit 1 if one failed."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from ipaddress import IPv4Address
from pathlib import Path

from OpenSSL import SSL

from cvpnd.wire.packet import Transport
from cvpnd.wire.wrap.key_files import parse_static_key, parse_v2_client_key
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.tls_auth import DIGEST_BYTES, TlsAuth
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import Wrapping
from light_client.driver import ClientResult, Gathering, Plan, run_clients
from light_client.generations import GENERATIONS, LEGACY_GENERATIONS, Generation, generation

SHOWN_FAILURES = 10
SETS = {"all": GENERATIONS, "legacy": LEGACY_GENERATIONS}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="light_client", description=__doc__)
    parser.add_argument("--remote", required=True, metavar="HOST:PORT", help="[IPv6]:PORT for IPv6")
    parser.add_argument("--tcp", action="store_true", help="TCP instead of UDP")
    parser.add_argument("--count", type=int, default=1, help="clients in this process (default %(default)s)")
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--ping", type=IPv4Address, metavar="ADDRESS", help="ICMP echo to this inner address")
    parser.add_argument("--pings", type=int, default=1, help="answers to wait for (default %(default)s)")
    parser.add_argument("--hold", type=float, default=0.0, metavar="SECONDS", help="stay connected afterwards")
    parser.add_argument("--together", action="store_true", help="and until all others have connected or failed")
    parser.add_argument("--spread", type=float, default=0.0, metavar="SECONDS", help="start them over this time")
    parser.add_argument("--at-once", type=int, default=0, metavar="COUNT", help="no more than these at any time")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    names = [*SETS, *(each.name for generations in SETS.values() for each in generations)]
    parser.add_argument(
        "--generation", choices=names, help="which client to play, or one of each; legacy: those that have only CBC"
    )
    parser.add_argument("--renegotiate", action="store_true", help="renew the keys after the pings, and ping again")
    parser.add_argument("--ping-interval", type=float, default=1.0, metavar="SECONDS", help="while they stay")
    parser.add_argument("--transfer", metavar="HOST:PORT", help="datagrams to this echo server while they stay")
    parser.add_argument("--transfer-interval", type=float, default=0.1, metavar="SECONDS")
    parser.add_argument("--logins", type=Path, metavar="FILE", help="lines of user name and password, used in turn")
    parser.add_argument("--rounds", type=int, default=1, help="come back so often from the same port, unannounced")
    parser.add_argument("--goodbyes", action="store_true", help="between rounds, and from another port each time")
    parser.add_argument("--tls", choices=("1.2", "1.3"), help="only this version")
    parser.add_argument("--announce", action="store_true", help='say "all connected" when they are')
    wrapping = parser.add_mutually_exclusive_group()
    wrapping.add_argument("--tls-auth", type=Path, metavar="FILE")
    wrapping.add_argument("--tls-crypt", type=Path, metavar="FILE")
    wrapping.add_argument("--tls-crypt-v2", type=Path, metavar="FILE")
    parser.add_argument("--key-direction", type=int, choices=(0, 1), help="of --tls-auth")
    parser.add_argument("--auth", choices=tuple(DIGEST_BYTES), default="SHA1", help="of --tls-auth")
    parser.add_argument("--no-early-negotiation", action="store_true", help="tls-crypt-v2 as OpenVPN 2.5 does it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(arguments)


def wrapping_of(options: argparse.Namespace) -> Wrapping:
    if options.tls_auth is not None:
        return TlsAuth(parse_static_key(options.tls_auth.read_bytes()), options.key_direction, options.auth)
    if options.tls_crypt is not None:
        return TlsCrypt(parse_static_key(options.tls_crypt.read_bytes()), server=False)
    if options.tls_crypt_v2 is not None:
        return TlsCryptV2Client(*parse_v2_client_key(options.tls_crypt_v2.read_bytes()))
    return PLAIN


def read_logins(path: Path | None) -> tuple[tuple[str, str], ...]:
    if path is None:
        return ()
    pairs = (line.partition(" ") for line in path.read_text().splitlines())
    return tuple((name, password) for name, _, password in pairs)


def echo_server(text: str | None) -> tuple[IPv4Address, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return IPv4Address(host), int(port)


def announcer(count: int) -> Callable[[], None]:
    """To be called once for each client that has connected."""
    left = count

    def connected() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            print("all connected", flush=True)

    return connected


def client_context(ca: Path, certificate: Path, key: Path, version: str | None = None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION if version == "1.3" else SSL.TLS1_2_VERSION)
    if version == "1.2":
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.load_verify_locations(str(ca))
    context.use_certificate_chain_file(str(certificate))
    context.use_privatekey_file(str(key))
    context.set_verify(SSL.VERIFY_PEER, lambda _connection, _certificate, _error, _depth, ok: bool(ok))
    return context


def summary(results: list[ClientResult], seconds: float) -> dict[str, object]:
    connects = sorted(result.connect_ms for result in results if result.connect_ms is not None)
    trips = sorted(trip for result in results for trip in result.round_trips_ms)
    return {
        "clients": len(results),
        "failed": sum(not result.ok for result in results),
        "seconds": round(seconds, 3),
        "connect_ms": _spread(connects),
        "round_trip_ms": _spread(trips),
        "pings_sent": sum(result.pings_sent for result in results),
        "pings_answered": len(trips),
        "datagrams_sent": sum(result.datagrams_sent for result in results),
        "datagrams_back": sum(result.datagrams_back for result in results),
        "datagrams_wrong": sum(result.datagrams_wrong for result in results),
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "min": round(values[0], 2),
        "median": round(statistics.median(values), 2),
        "p99": round(values[min(len(values) - 1, int(len(values) * 0.99))], 2),
        "max": round(values[-1], 2),
    }


def print_table(results: list[ClientResult], numbers: dict[str, object]) -> None:
    print(f"{numbers['clients']} clients, {numbers['failed']} failed, {numbers['seconds']} s")
    print(f"{'':18}{'min':>10}{'median':>10}{'p99':>10}{'max':>10}")
    for title, name in (("connect, ms", "connect_ms"), ("round trip, ms", "round_trip_ms")):
        spread = numbers[name]
        if isinstance(spread, dict):
            print(f"{title:18}" + "".join(f"{spread[column]:>10.2f}" for column in ("min", "median", "p99", "max")))
    if numbers["pings_sent"]:
        print(f"pings: {numbers['pings_answered']} answered of {numbers['pings_sent']} sent")
    failures = [result for result in results if not result.ok]
    for result in failures[:SHOWN_FAILURES]:
        print(f"client {result.index}: {result.error}")
    if len(failures) > SHOWN_FAILURES:
        print(f"… and {len(failures) - SHOWN_FAILURES} more")


def print_generations(results: list[ClientResult]) -> None:
    """The matrix: one line for each kind of client."""
    head = f"{'generation':12}{'address':16}{'connect':>9}  {'cipher':18}{'keys':6}{'packets':14}"
    print(head + f"{'renewed':>8}{'pings':>7}  result")
    for result in results:
        pings = f"{len(result.round_trips_ms)}/{result.pings_sent}"
        connect = f"{result.connect_ms:.0f} ms" if result.connect_ms is not None else "-"
        print(
            f"{result.generation:12}{result.address:16}{connect:>9}  {result.cipher:18}{result.derivation:6}"
            f"{result.data_format:14}{max(0, result.keys - 1):>8}{pings:>7}  {result.error or 'ok'}"
        )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    host, _, port = options.remote.rpartition(":")
    plan = Plan(
        host=host.strip("[]"),
        port=int(port),
        transport=Transport.TCP if options.tcp else Transport.UDP,
        ping=options.ping,
        pings=options.pings,
        hold_s=options.hold,
        timeout_s=options.timeout,
        spread_s=options.spread,
        at_once=options.at_once,
        wrapping=wrapping_of(options),
        early_negotiation=not options.no_early_negotiation,
        renegotiate=options.renegotiate,
        logins=read_logins(options.logins),
        ping_interval_s=options.ping_interval,
        transfer=echo_server(options.transfer),
        transfer_interval_s=options.transfer_interval,
        rounds=options.rounds,
        goodbyes=options.goodbyes,
        on_connected=announcer(options.count) if options.announce else None,
    )

    async def run(played: Sequence[Generation | None]) -> list[ClientResult]:
        def clients(playing: Generation | None) -> Awaitable[list[ClientResult]]:
            version = options.tls or (playing.tls if playing else None)
            context = client_context(options.ca, options.cert, options.key, version)
            gathering = Gathering(options.count) if options.together else None
            return run_clients(context, replace(plan, generation=playing, gathering=gathering), options.count)

        return [result for results in await asyncio.gather(*map(clients, played)) for result in results]

    started = time.perf_counter()
    if options.generation in SETS:
        with_own_key = options.tls_crypt_v2 is not None
        played = [each for each in SETS[options.generation] if each.knows_own_keys or not with_own_key]
        results = asyncio.run(run(played))
    else:
        results = asyncio.run(run([generation(options.generation) if options.generation else None]))
    numbers = summary(results, time.perf_counter() - started)
    if options.json:
        print(json.dumps({**numbers, "results": [asdict(result) for result in results]}))
    elif options.generation is not None:
        print_generations(results)
    else:
        print_table(results, numbers)
    return 1 if numbers["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
