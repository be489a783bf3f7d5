"""A real Prometheus beside a gateway, with the rules of conf/, which scrapes and judges every second."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from helpers.netns import Namespace

CONF = Path(__file__).parents[2] / "conf"
DASHBOARD = CONF / "grafana" / "cvpnd.json"
RULES = CONF / "prometheus" / "cvpnd.rules.yml"
URL = "http://127.0.0.1:9090/api/v1"


class Prometheus:
    def __init__(self, place: Namespace, directory: Path, rules: str = RULES.read_text()) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.fail("prometheus is missing: make test fetches it")
        self._place = place
        directory.mkdir()
        (directory / RULES.name).write_text(rules)
        text = (CONF / "prometheus" / "prometheus.yml").read_text()
        (directory / "prometheus.yml").write_text(f"global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n{text}")
        process = place.start(
            program,
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            "--web.listen-address=127.0.0.1:9090",
            label="prometheus",
        )
        process.wait_for("Server is ready")

    def _get(self, what: str) -> Any:
        answer = json.loads(self._place.run("curl", "-sS", f"{URL}/{what}").stdout)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """What it is now, by its labels."""
        found = self._get(f"query?{urlencode({'query': expression})}")["result"]
        return {tuple(each["metric"].values()): float(each["value"][1]) for each in found}

    def firing(self) -> dict[str, dict[str, str]]:
        """The annotations of each alert that fires; where one does for several reasons, of one of them."""
        alerts = self._get("alerts")["alerts"]
        return {each["labels"]["alertname"]: each["annotations"] for each in alerts if each["state"] == "firing"}


def hasty(rules: str, range_s: int, counting_s: int) -> str:
    """The same rules over a range of seconds, and without patience: what takes an hour there can be seen here.
    ``counting_s``: of restarts and guesses, for which a busy machine takes its time."""
    rules, patience = re.subn(r"(?m)^( +for: ).*$", r"\g<1>1s", rules)
    rules, counting = re.subn(r"(changes\(.*|login-throttled.*)\[\d+[mh]\]", rf"\g<1>[{counting_s}s]", rules)
    rules, ranges = re.subn(r"\[\d+[mh]\]", f"[{range_s}s]", rules)
    assert patience > 20 and ranges > 5 and counting == 2, "it is the file that was meant"
    return rules


def panels() -> list[str]:
    """What the dashboard asks about every gateway and endpoint."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [each.replace("$instance", ".*").replace("$endpoint", ".*") for each in asked]
