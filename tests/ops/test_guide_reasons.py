"""The guide has each reason and its cure, and what it quotes of the configuration exists."""

import re
import tomllib
from pathlib import Path

import pytest
from helpers.exposition import everything
from pydantic import ValidationError

from cvpnd import reasons
from cvpnd.config import Config
from cvpnd.config.daemon import QuotasConfig
from cvpnd.config.values import parse_address, parse_network
from cvpnd.policy.decide import decide
from cvpnd.policy.model import Rule

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("words", [each for each in vars(reasons).values() if isinstance(each, type)], ids=str)
def test_each_reason_has_its_line_in_the_troubleshooting_chapter(words: type) -> None:
    if not getattr(words, "__members__", None):
        return  # StrEnum itself
    told = {
        word for cells in rows((DOCS / "troubleshooting.md").read_text()) for word in re.findall("`([^`]+)`", cells[0])
    }
    missing = {str(word) for word in words} - told  # type: ignore[attr-defined]
    assert not missing, f"docs/troubleshooting.md needs a line with the cure of: {sorted(missing)}"


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
    told = {cells[1].strip("`"): cells[2] for cells in rows((DOCS / "quotas.md").read_text())[2:]}
    assert told == {name: str(value) for name, value in QuotasConfig().model_dump().items()}


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []
