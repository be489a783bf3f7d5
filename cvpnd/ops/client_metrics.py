"""Metrics and a status file that name clients, for those who ask for them.

Series by user grow with the users, hence ``[metrics] per_user``. The names of the widely used exporter for OpenVPN
(``[metrics] openvpn_exporter_names``) and OpenVPN's own status file (``[status_file]``, its versions 2 and 3) are for
dashboards and scripts that exist already. Of the exporter's labels the client's outside address and the time are left
away: they made a new series of each reconnect."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MOST_USERS = 10_000
"""Whose ended connections are remembered; whoever has been away for longest then counts as user ""."""
LOOKED_AT = 8
"""Of the oldest, each time that there are too many: who is connected is not away, and may be among them."""


@dataclass(frozen=True, slots=True)
class ClientMetrics:
    """One established connection."""

    endpoint: str
    common_name: str
    username: str
    address: str
    address_v6: str
    remote: str
    """Outside address and port."""
    bytes_in: int
    bytes_out: int
    connected_at: float
    idle_s: float
    peer_id: int
    cipher: str

    @property
    def user(self) -> str:
        return self.username or self.common_name


class UserTraffic:
    """Bytes of connections that ended, by endpoint and user, so that a user's counters never run backwards."""

    def __init__(self, is_connected: Callable[[str, str], bool], most: int = MOST_USERS) -> None:
        """``is_connected``: whether that endpoint has a connection of that user now."""
        self._is_connected = is_connected
        self._most = most
        self._ended: dict[tuple[str, str], tuple[int, int]] = {}
        """The one that has been away for longest first."""
        self._others: dict[str, tuple[int, int]] = {}
        """By endpoint: of those who were. The one that nobody was added to for longest first."""

    def add(self, endpoint: str, user: str, bytes_in: int, bytes_out: int) -> None:
        self._ended[endpoint, user] = _sum(self._ended.pop((endpoint, user), (0, 0)), (bytes_in, bytes_out))
        for of, name in list(itertools.islice(self._ended, LOOKED_AT)):
            if len(self._ended) <= self._most:
                break
            sums = self._ended.pop((of, name))
            if self._is_connected(of, name):
                self._ended[of, name] = sums
            else:
                self._others[of] = _sum(self._others.pop(of, (0, 0)), sums)
        while len(self._others) > self._most:  # so many endpoints there are not: that one is gone
            del self._others[next(iter(self._others))]

    def sums(self) -> dict[tuple[str, str], tuple[int, int]]:
        """By endpoint and user."""
        return {**{(endpoint, ""): sums for endpoint, sums in self._others.items()}, **self._ended}


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


class ClientSource(Protocol):
    user_traffic: UserTraffic

    def clients(self) -> Sequence[ClientMetrics]:
        """Called in the event loop."""
        ...

    def endpoint_names(self) -> Sequence[str]: ...


class UserCollector(Collector):
    def __init__(self, source: ClientSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        sums = {key: [0, *ended] for key, ended in self._source.user_traffic.sums().items()}
        for client in self._source.clients():
            of_user = sums.setdefault((client.endpoint, client.user), [0, 0, 0])
            for index, value in enumerate((1, client.bytes_in, client.bytes_out)):
                of_user[index] += value
        labels = ["endpoint", "user"]
        families: tuple[GaugeMetricFamily | CounterMetricFamily, ...] = (
            GaugeMetricFamily("cvpnd_user_connections", "Connections of this user now.", labels=labels),
            CounterMetricFamily("cvpnd_user_ingress_bytes", "Bytes of inner packets from this user.", labels=labels),
            CounterMetricFamily("cvpnd_user_egress_bytes", "Bytes of inner packets to this user.", labels=labels),
        )
        for key, values in sorted(sums.items()):
            for family, value in zip(families, values, strict=True):
                family.add_metric(key, value)
        yield from families


class OpenVpnExporterCollector(Collector):
    """``status_path`` is the endpoint. The count of clients comes under both names that exporters have given it."""

    def __init__(self, source: ClientSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        clients, endpoints, now = self._source.clients(), self._source.endpoint_names(), time.time()
        by_endpoint = {name: sum(client.endpoint == name for client in clients) for name in endpoints}
        yield _gauge("openvpn_up", "1: the endpoint is served.", ((name, 1) for name in endpoints))
        yield _gauge("openvpn_status_update_time_seconds", "Now.", ((name, now) for name in endpoints))
        for name in ("openvpn_server_connected_clients", "openvpn_openvpn_server_connected_clients"):
            yield _gauge(name, "Clients connected now.", by_endpoint.items())
        labels = ["status_path", "common_name", "virtual_address", "username"]
        received = CounterMetricFamily(
            "openvpn_server_client_received_bytes", "Bytes of inner packets from the client.", labels=labels
        )
        sent = CounterMetricFamily(
            "openvpn_server_client_sent_bytes", "Bytes of inner packets to the client.", labels=labels
        )
        heard = GaugeMetricFamily(
            "openvpn_server_route_last_reference_time_seconds", "When the client was last heard.", labels=labels[:3]
        )
        for client in clients:
            of_client = [client.endpoint, client.common_name, client.address, client.username]
            received.add_metric(of_client, client.bytes_in)
            sent.add_metric(of_client, client.bytes_out)
            heard.add_metric(of_client[:3], now - client.idle_s)
        yield from (received, sent, heard)


def _gauge(name: str, help_text: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=["status_path"])
    for endpoint, value in values:
        family.add_metric([endpoint], value)
    return family


# -- OpenVPN's status file --------------------------------------------------------------------------------------

CLIENT_COLUMNS = (
    "Common Name", "Real Address", "Virtual Address", "Virtual IPv6 Address", "Bytes Received", "Bytes Sent",
    "Connected Since", "Connected Since (time_t)", "Username", "Client ID", "Peer ID", "Data Channel Cipher",
)  # fmt: skip
ROUTE_COLUMNS = ("Virtual Address", "Common Name", "Real Address", "Last Ref", "Last Ref (time_t)")
SEPARATORS = {2: ",", 3: "\t"}

_BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029,]")


def render_status(clients: Sequence[ClientMetrics], *, title: str, version: int, now: float) -> str:
    """What OpenVPN 2.6 writes with ``--status-version 2`` or ``3``. What would break out of its column becomes "_"."""
    rows: list[tuple[object, ...]] = [
        ("TITLE", title),
        ("TIME", _local(now), int(now)),
        ("HEADER", "CLIENT_LIST", *CLIENT_COLUMNS),
    ]
    rows += [
        (
            "CLIENT_LIST", c.common_name or "UNDEF", c.remote, c.address, c.address_v6, c.bytes_in, c.bytes_out,
            _local(c.connected_at), int(c.connected_at), c.username or "UNDEF", c.peer_id, c.peer_id, c.cipher,
        )
        for c in clients
    ]  # fmt: skip
    rows.append(("HEADER", "ROUTING_TABLE", *ROUTE_COLUMNS))
    for c in clients:
        heard = now - c.idle_s
        for address in (c.address, c.address_v6):
            if address:
                rows.append(("ROUTING_TABLE", address, c.common_name or "UNDEF", c.remote, _local(heard), int(heard)))
    rows += [("GLOBAL_STATS", "Max bcast/mcast queue length", 0), ("GLOBAL_STATS", "dco_enabled", 0), ("END",)]
    return "".join(SEPARATORS[version].join(_BREAKING.sub("_", str(cell)) for cell in row) + "\n" for row in rows)


def write_status(path: Path, text: str) -> None:
    """Whoever reads sees the old file or the new one. Raises ``OSError``. Blocks."""
    scratch = path.with_name(f".{path.name}.new")
    file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
    os.replace(scratch, path)  # noqa: PTH105 - the name says what it does: atomically


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
