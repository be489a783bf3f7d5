"""Years of endpoints that are made and deleted by the API: what is left of them is what is meant to be."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import certs
from helpers.lab import GatewayProcess, Lab
from helpers.process_cost import resident_bytes

CYCLES = int(os.environ.get("ENDPOINTS", "100"))
WARM_UP = 60
"""Until caches are as full as they get."""
POOL = 6
"""Threads that the event loop may begin beside those that there are, when there is more to do at once."""
FILES_OF_A_THREAD = 3
"""Of a connection to the database: itself, its log and what is shared about that."""
MOST_GROWTH = 128 << 10
"""Of resident memory, for each. Measured over 240: 22 KiB, ever less, as the caches of SQLite and of Python fill."""
LEFT = {"audit", "log_stream", "gone", "sqlite_sequence"}
"""The record of changes, streams for as long as that is kept, and what is shown for an hour."""


class Gateway:
    def __init__(self, lab: Lab) -> None:
        self.directory = lab.directory / "gateway"
        self.directory.mkdir()
        self.process = GatewayProcess(
            lab.gateway, self.directory, "[quotas]\nendpoints = 9\n" + lab.networks_toml(), {}
        )
        self.process.start()
        transport = httpx.HTTPTransport(uds=str(self.process.admin_socket))
        self._rest = httpx.Client(transport=transport, base_url="http://cvpnd/v1", timeout=20)

    def done(self, method: str, path: str, body: object = None, **query: str) -> Any:
        answer = self._rest.request(method, path, json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def held(self) -> dict[str, Any]:
        process = Path(f"/proc/{self.process.running.pid}")
        with closing(sqlite3.connect(f"file:{self.directory}/state.db?mode=ro", uri=True)) as store:
            tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {name: store.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
        return {
            "resident": resident_bytes(self.process.running.pid),
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
        for number in range(WARM_UP, CYCLES):
            gateway.come_and_go(number, trust)
        after = gateway.held()
        grown = after.pop("resident") - before.pop("resident")
        print(f"resident memory of {CYCLES - WARM_UP} more endpoints: {grown / (1 << 20):+.1f} MiB")
        assert after.pop("threads") <= before.pop("threads") + POOL
        assert after.pop("descriptors") <= before.pop("descriptors") + POOL * FILES_OF_A_THREAD
        assert after == before
        assert grown < MOST_GROWTH * (CYCLES - WARM_UP)
        rest = lab.gateway.run("ip", "rule").stdout + lab.gateway.run("ip", "-brief", "link").stdout
        assert "cvpn" not in rest, rest
        gateway.process.stop()
