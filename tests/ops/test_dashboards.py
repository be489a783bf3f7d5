"""What is in conf/ for Prometheus and Grafana: judged by promtool, and only of metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.exposition import everything

CONF = Path(__file__).parents[2] / "conf"
RULES = CONF / "prometheus" / "cvpnd.rules.yml"
SCENARIOS = Path(__file__).parent / "alerts_test.yml"
OURS = re.compile(r"\b(?:cvpnd|process)_\w+")


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is missing: make test fetches it")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def known_series() -> set[str]:
    return {name for name, _, _ in everything()}


def dashboard() -> dict[str, Any]:
    loaded = json.loads((CONF / "grafana" / "cvpnd.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]


def test_the_rules_are_well_formed_and_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("check", "config", CONF / "prometheus" / "prometheus.yml")  # with the rules it names
    promtool("test", "rules", SCENARIOS)
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert alerts and alerts <= set(re.findall(r'alertname="(\w+)", severity', SCENARIOS.read_text()))


def test_alerts_and_panels_look_at_metrics_that_there_are() -> None:
    wanted = {*OURS.findall(RULES.read_text().partition("groups:")[2]), *OURS.findall(" ".join(expressions()))}
    assert wanted - known_series() == set()


def test_the_dashboards_queries_are_promql(tmp_path: Path) -> None:
    assert len(expressions()) > 20
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$instance", ".*").replace("$endpoint", ".*")}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", path)


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It brings no id and no data source of the Grafana that it was made in, and uses only variables that it has."""
    board = dashboard()
    assert "id" not in board and board["uid"] and board["title"] and board["schemaVersion"] >= 36
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(each["datasource"] == chosen for each in variables.values() if each["type"] == "query")
    for panel in board["panels"]:
        if panel["type"] == "row":
            assert not panel.get("targets"), panel["title"]
            continue
        assert panel["datasource"] == chosen and panel["targets"], panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__rate_interval", "__interval", "__range"}
            assert used <= variables.keys(), target["expr"]


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_what_a_panel_calls_seconds_and_bits_is_so() -> None:
    units = {"s": r"_seconds", "bps": r"8 \* .*_bytes"}
    for panel in (each for each in dashboard()["panels"] if each["type"] != "row"):
        form = units.get(panel["fieldConfig"]["defaults"]["unit"], "")
        assert all(re.search(form, target["expr"]) for target in panel["targets"]), panel["title"]
