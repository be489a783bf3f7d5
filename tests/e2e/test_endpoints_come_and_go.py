"""Years of endpoints that are made and deleted by the API: what is left of them is what is meant to be."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import certs
from helpers.lab import HELPERS, GatewayProcess, Lab, wait_until
from helpers.witness import in_use

CYCLES = int(os.environ.get("ENDPOINTS", "100"))
WARM_UP = 60
"""Until caches are as full as they get."""
CONNECTIONS = 6
"""To the database, that may be opened beside those that there are, when there is more to do at once."""
FILES_OF_ONE = 3
"""Itself, its log and what is shared about that."""
MOST_GROWTH = 12 << 10, 12
"""For each, of the bytes in use and of Python's blocks. Over 300 it is nothing. An SSL context that stays is 30 KiB,
an endpoint's settings are hundreds of blocks."""
STRETCHES = 2
"""In which it is looked for: a table of Python's that doubles (2 MB, once in 500) does so in one of them."""
LEFT = {"audit", "log_stream", "gone", "sqlite_sequence"}
"""The record of changes, streams for as long as that is kept, and what is shown for an hour."""


class Gateway:
    def __init__(self, lab: Lab) -> None:
        self.directory = lab.directory / "gateway"
        self.directory.mkdir()
        self._in_use = self.directory / "in-use"
        environment = {"CVPND_IN_USE": str(self._in_use), "PYTHONPATH": str(HELPERS / "witness")}
        toml = "[quotas]\nendpoints = 9\n" + lab.networks_toml()
        self.process = GatewayProcess(lab.gateway, self.directory, toml, environment)
        self.process.start()
        transport = httpx.HTTPTransport(uds=str(self.process.admin_socket))
        self._rest = httpx.Client(transport=transport, base_url="http://cvpnd/v1", timeout=20)

    def done(self, method: str, path: str, body: object = None, **query: str) -> Any:
        answer = self._rest.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def in_use(self) -> dict[str, int]:
        self._in_use.unlink(missing_ok=True)
        self.process.running.signal(in_use.SIGNAL)
        wait_until(self._in_use.exists, 10, "what it says of its memory")
        told: dict[str, int] = json.loads(self._in_use.read_text())
        self._in_use.unlink()
        return told

    def held(self) -> dict[str, Any]:
        process = Path(f"/proc/{self.process.running.pid}")
        with closing(sqlite3.connect(f"file:{self.directory}/state.db?mode=ro", uri=True)) as store:
            tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {name: store.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
        return {
            "descriptors": len(list((process / "fd").iterdir())),
            "threads": len(list((process / "task").iterdir())),
            "series": sorted(self.process.metrics()),
            "files": sorted(str(each.relative_to(self.directory)) for each in self.directory.rglob("*")),
            "rows": {name: count for name, count in rows.items() if name not in LEFT},
        }

    def come_and_go(self, number: int, trust: dict[str, str]) -> None:
        settings = {"split_tunnel": True, "connection_log": {"group": "vpn"}}
        made = {"name": f"lab-{number}", "client_cidr": "10.100.0.0/22", "port": 1194, "settings": settings, **trust}
        endpoint = self.done("POST", "/endpoints", made)["endpoint"]["endpoint_id"]
        self.done("POST", "/networks", {"endpoint": endpoint, "subnet": "subnet-a"})
        self.done("POST", "/rules", {"endpoint": endpoint, "network": "10.20.0.0/16", "group": f"group-{number}"})
        self.done("POST", "/routes", {"endpoint": endpoint, "destination": "10.77.0.0/16", "target": "subnet-a"})
        self.done("PUT", f"/endpoints/{endpoint}/crl", {"pem": CRL})
        self.done("DELETE", "/networks", endpoint=endpoint, network="subnet-a")
        self.done("DELETE", f"/endpoints/{endpoint}")


CRL = certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client("gone")])).decode()


@pytest.mark.timeout(400)
def test_nothing_of_hundreds_of_endpoints_is_left_but_their_records() -> None:
    with Lab() as lab:
        gateway = Gateway(lab)
        pem = {
            "certificate": certs.server().certificate_pem.decode(),
            "private_key": certs.server().private_key_pem.decode(),
            "chain": certs.authority().certificate_pem.decode(),
        }
        arn = gateway.done("POST", "/imported-certificates", pem)["certificate"]["arn"]
        trust = {"server_certificate": arn, "client_certificate": arn}
        gateway.done("POST", "/log-groups", {"name": "vpn"})
        for number in range(WARM_UP):
            gateway.come_and_go(number, trust)
        before = gateway.held()
        used, length = [gateway.in_use()], (CYCLES - WARM_UP) // STRETCHES
        for number in range(WARM_UP, WARM_UP + STRETCHES * length):
            gateway.come_and_go(number, trust)
            if (number + 1 - WARM_UP) % length == 0:
                used.append(gateway.in_use())
        after = gateway.held()
        grown = [
            min((later[kind] - earlier[kind]) / length for earlier, later in itertools.pairwise(used))
            for kind in used[0]
        ]
        print(f"in use for each of {CYCLES - WARM_UP} more endpoints: {grown[0]:+.0f} bytes, {grown[1]:+.1f} blocks")
        assert after.pop("descriptors") <= before.pop("descriptors") + CONNECTIONS * FILES_OF_ONE
        assert after == before
        assert all(each < most for each, most in zip(grown, MOST_GROWTH, strict=True)), grown
        rest = lab.gateway.run("ip", "rule").stdout + lab.gateway.run("ip", "-brief", "link").stdout
        assert "cvpn" not in rest, rest
        gateway.process.stop()
