"""The guide has each reason and its cure, and what it quotes of the configuration exists."""

import re
import tomllib
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import pytest
from helpers.connections import CONNECTION
from helpers.exposition import everything
from pydantic import ValidationError

from cvpnd import reasons
from cvpnd.config import Config
from cvpnd.config.daemon import QuotasConfig
from cvpnd.config.values import parse_address, parse_network
from cvpnd.dataplane.api import Drop
from cvpnd.ops.connection_log import reset_entry
from cvpnd.policy.decide import decide
from cvpnd.policy.model import Rule
from cvpnd.wire.errors import DropReason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


TABLES: dict[str, type[StrEnum]] = {
    "## Why an attempt was refused": reasons.Refusal,
    "## Why a connection ended": reasons.End,
    "## Why a request to the AWS-compatible API was refused": reasons.ApiRefusal,
    "## Why a page of the portal was refused": reasons.PortalRefusal,
    '### Of the control channel (`plane="control"`)': DropReason,
    '### Of the tunnel (`plane="data"`)': Drop,
}


def test_every_kind_of_reason_has_a_table() -> None:
    kinds = {each for each in vars(reasons).values() if isinstance(each, type) and getattr(each, "__members__", None)}
    assert kinds <= set(TABLES.values())


@pytest.mark.parametrize("heading", TABLES)
def test_each_reason_has_one_line_under_its_heading_and_no_other_word_has(heading: str) -> None:
    level = heading.partition(" ")[0]
    _, found, section = (DOCS / "troubleshooting.md").read_text().partition(f"\n{heading}\n")
    assert found
    table = re.split(rf"^#{{2,{len(level)}}} ", section, maxsplit=1, flags=re.M)[0]
    told = [word for cells in rows(table) for word in re.findall("`([^`]+)`", cells[0])]
    assert sorted(told) == sorted(map(str, TABLES[heading]))


def test_each_refusal_says_what_happened_or_what_to_do() -> None:
    for cells in rows((DOCS / "troubleshooting.md").read_text()):
        assert len(cells) == 3 and (cells[1] or cells[2]), cells


def test_settings_in_the_guide_are_settings_that_there_are() -> None:
    found = 0
    for page in (*PAGES, DOCS.parent / "README.md"):
        for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S):
            found += 1
            try:
                Config.model_validate({**tomllib.loads(block), "path": page}, context={"directory": DOCS})
            except ValidationError as error:  # fragments lack what stands elsewhere in a file
                wrong = [e for e in error.errors() if e["type"] != "missing"]
                assert wrong == [], page
    assert found >= 8


def test_the_scenarios_in_the_guide_are_decided_as_it_says() -> None:
    text = (DOCS / "authorization.md").read_text().partition("## The scenarios")[2]
    decided = 0
    for scenario in text.split("\n### ")[1:]:
        rules_table, _, decisions_table = scenario.partition("| member of |")
        rules = [
            Rule(parse_network(network.strip("`")), None if who == "all users" else who.strip("`"), "", "file")
            for who, network in rows(rules_table)[2:]
        ]
        heading, _, *lines = rows("| member of |" + decisions_table)
        for groups, *cells in lines:
            members = frozenset(group.strip(" `") for group in groups.split(","))
            for destination, cell in zip(heading[1:], cells, strict=True):
                allowed = decide(rules, members, parse_address(destination.strip("`"))).allowed
                assert cell == ("yes" if allowed else "no"), (scenario, groups, destination)
                decided += 1
    assert decided > 150


def test_each_metric_is_in_the_guide_and_no_other() -> None:
    text = (DOCS / "metrics.md").read_text()
    told = set(re.findall(r"cvpnd_[a-z_]+", text))
    names = {name for name, _, _ in everything() if name.startswith("cvpnd_")}
    there = {re.sub("_(bucket|count|sum|created)$", "", name) for name in names}
    assert told == there


def test_each_quota_in_the_guide_is_that_of_the_code() -> None:
    table = rows((DOCS / "quotas.md").read_text())[2:]
    told = {cells[1].strip("`"): cells[2] for cells in table}
    assert told == {name: str(value) for name, value in QuotasConfig().model_dump().items()}
    code = "".join(path.read_text() for path in (ROOT / "cvpnd/endpoints").glob("*.py"))
    for cells in table:
        assert f'"{cells[3].strip("`")}"' in code


def test_each_key_of_the_connection_log_is_in_the_guide_and_no_other() -> None:
    table, _, _ = (DOCS / "logs.md").read_text().partition("```")
    keys = [word for cells in rows(table) for word in re.findall("`([^`]+)`", cells[0])]
    assert sorted(keys) == sorted(reset_entry(replace(CONNECTION, posture_compliance_statuses=("a",)), 0.0))
