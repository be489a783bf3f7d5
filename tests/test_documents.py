"""What the documents name is there: links and headings, files, commands and their options, settings, metrics, targets
of make. Tests of one chapter's contents are in ``tests/ops/test_guide_reasons.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from helpers.command_tree import commands
from helpers.exposition import everything
from pydantic import BaseModel

from cvpnd.__main__ import app as cvpnd
from cvpnd.config import Config
from cvpnd.ctl.__main__ import app as cvpnctl
from cvpnd.dataplane.api import Drop
from cvpnd.wire.errors import DropReason

ROOT = Path(__file__).parents[1]
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md"), ROOT / "tests/data/README.md"))
ROOMS = ("cvpnd", "native", "tests", "docs", "conf", "bench", "systemd", "packaging")
BLOCK = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def outside_blocks(text: str) -> str:
    return BLOCK.sub("", text)


def spans(text: str) -> list[str]:
    """Code within sentences, which may go on in the next line."""
    return [" ".join(span.split()) for span in SPAN.findall(outside_blocks(text))]


# -- links --------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", outside_blocks(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_pages_and_headings_that_there_are() -> None:
    followed = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", SPAN.sub("", outside_blocks(page.read_text()))):
            if re.match("[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), (page, target)
            assert not anchor or anchor in anchors(there), (page, target)
            followed += 1
    assert followed > 40


def test_every_chapter_of_the_guide_is_in_its_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    chapters = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}
    assert chapters == set(re.findall(r"^\d+\. \[[^]]*\]\(([\w-]+\.md)\)", index, re.M))


# -- files --------------------------------------------------------------------------------------------------

FILE = re.compile(rf"(?:(?:{'|'.join(ROOMS)})/[\w./*-]*\w/?|[\w/*-]+\.(?:py|[ch]))(?:::\w+)?")
OF_A_FILE = re.compile(rf"(?<![\w./}}-])(?:{'|'.join(ROOMS)})/[\w./*-]+\.(?:py|[ch]|md|toml|sh|json|ya?ml|conf|mjs)\b")


PLACEHOLDER = re.compile("/[A-Z]+/")


def is_there(name: str, page: Path) -> bool:
    """From the repository's root, the page's own directory, or a room's; one without a path may be anywhere."""
    if "/" not in name:
        return any(next((ROOT / room).rglob(name), None) for room in ROOMS)
    places = (ROOT, page.parent, ROOT / "cvpnd", ROOT / "tests")
    return any(next(place.glob(name.rstrip("/")), None) for place in places)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_a_page_names_are_in_the_repository(page: Path) -> None:
    words = {word for span in spans(page.read_text()) for word in span.split() if FILE.fullmatch(word)}
    named = {word.partition("::")[0] for word in words if not PLACEHOLDER.search(word)}
    missing = {name for name in named if not is_there(name, page)}
    assert missing == set()


def test_files_that_comments_name_are_in_the_repository() -> None:
    found = 0
    kinds = ("*.py", "*.c", "*.h", "*.toml", "*.conf", "*.service", "*.yml", "meson.build", "Makefile")
    for path in (path for room in ROOMS for kind in kinds for path in (ROOT / room).rglob(kind)):
        for name in OF_A_FILE.findall(path.read_text()):
            assert is_there(name, path), f"{path}: {name}"
            found += 1
    assert found > 40


# -- commands -----------------------------------------------------------------------------------------------

QUOTED = r"\"[^\"\n]*\"|'[^'\n]*'"
WORD = rf"(?:{QUOTED}|[^\s`'\"|;&<>()]+(?:(?<==)(?:{QUOTED}))?)"
CTL, DAEMON = r"(?:^|[`'\"(]|: |; |, |\| |\$\()", "(?:^|`|sudo )"
"""Before ``cvpnctl``, and before ``cvpnd``, of which sentences speak too."""
TYPED = re.compile(rf"(?:{CTL}(?=cvpnctl )|{DAEMON}(?=cvpnd ))(\w+)((?: (?!\\){WORD})+)", re.M)
PROGRAMS = {"cvpnctl": typer.main.get_command(cvpnctl), "cvpnd": typer.main.get_command(cvpnd)}


def typed_words(text: str) -> Iterator[str]:
    """Up to the end of the sentence, where it is part of one."""
    for word in re.findall(WORD, text):
        yield word.rstrip(",.:")
        if word[-1] in ",.:":
            return


def first_unknown(command: Any, words: list[str]) -> str:
    """Command or option; empty: all are known."""
    values = 0
    for word in words:
        if values:
            values -= 1
        elif word.startswith("-") and len(word) > 1:
            option, _, value = word.partition("=")
            known = {each: param for param in command.params for each in (*param.opts, *param.secondary_opts)}
            if option not in known and option != "--help":
                return word
            values = 0 if option == "--help" or value or known[option].is_flag else known[option].nargs
        elif (inner := getattr(command, "commands", None)) is not None:
            if word not in inner:
                return word
            command = inner[word]
    return ""


def places_that_tell_what_to_type() -> Iterator[Path]:
    """The documents, the configuration, alerts, the service, and what the programs themselves say."""
    yield from PAGES
    for pattern in ("conf/**/*.*", "systemd/*.*", "packaging/*", "cvpnd/**/*.py"):
        yield from (path for path in ROOT.glob(pattern) if path.is_file())


def test_commands_and_options_that_people_are_told_to_type_are_there() -> None:
    told = set()
    for path in places_that_tell_what_to_type():
        for program, words in TYPED.findall(path.read_text()):
            typed = list(typed_words(words))
            unknown = first_unknown(PROGRAMS[program], typed)
            assert not unknown, f"{path}: {program}{words}: no {unknown}"
            told.add((program, *typed))
    assert len(told) > 120 and len({word for typed in told for word in typed if word.startswith("--")}) > 25


def test_every_command_has_its_place_in_the_guide() -> None:
    text = " ".join("".join(page.read_text() for page in PAGES if page.parent.name == "docs").split())
    assert [name for name, _ in commands(PROGRAMS["cvpnctl"]) if not re.search(rf"cvpnctl {name}\b", text)] == []


def test_targets_of_make_that_a_page_names_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z -]+)?:", (ROOT / "Makefile").read_text(), re.M))
    named = {
        target
        for page in PAGES
        for line in (*spans(page.read_text()), *"\n".join(m[0] for m in BLOCK.finditer(page.read_text())).splitlines())
        for target in re.findall(r"(?:^|sudo |&& )make ((?:[a-z][a-z-]*(?: |$))+)", line)
    }
    words = {word for target in named for word in target.split()}
    assert len(words) > 20 and words - targets == set()


# -- settings, metrics, drops -------------------------------------------------------------------------------


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def tables(model: type[BaseModel], at: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every table that a file may have, with its keys."""
    yield at, {field.alias or name for name, field in model.model_fields.items()}
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield from tables(inner, f"{at}.{field.alias or name}".lstrip("."))


TABLES: dict[str, set[str]] = {}
for _table, _keys in tables(Config):
    TABLES.setdefault(_table, set()).update(_keys)
KEYS = {key for keys in TABLES.values() for key in keys}
HEADING = re.compile(r"\[{1,2}([a-z_]+(?:\.[a-z_]+)*)\]{1,2}(?: ([a-z_]+))?")
"""``[metrics] listen``"""
SET = re.compile(r"((?:[a-z_]+\.)*[a-z_]+) = .*")
NAMED = re.compile(
    rf"[a-z]+(?:[._][a-z]+)*_[a-z]+|(?:{'|'.join({at.rpartition('.')[2] for at in TABLES if at})})\.[a-z_]+"
)
METRIC = re.compile(r"\bcvpnd_[a-z_]+(?<!_)")
"""``cvpnd_saml_*`` is those that begin so."""


def is_setting(name: str) -> bool:
    """Of a table, with as much of its path before it as makes it clear."""
    table, _, key = name.rpartition(".")
    return any(key in keys and f".{at}".endswith(f".{table}" if table else "") for at, keys in TABLES.items())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_that_a_page_names_are_there(page: Path) -> None:
    for span in spans(page.read_text()):
        if found := HEADING.fullmatch(span):
            table, key = found.groups()
            assert table in TABLES and (not key or key in TABLES[table]), span
        elif found := SET.fullmatch(span):
            assert is_setting(found[1]), span


def test_metrics_that_documents_and_configuration_name_are_there() -> None:
    names = {name for name, _, _ in everything()}
    there = names | {re.sub("_(bucket|count|sum|created)$", "", name) for name in names}
    found = 0
    for path in (*PAGES, ROOT / "conf/cvpnd.toml"):
        for name in METRIC.findall(path.read_text()):
            assert name in there or any(each.startswith(f"{name}_") for each in there), f"{path}: {name}"
            found += 1
    assert found > 80


OF_OTHERS = {"pg_dump", "portal.crt", "radius.secret"}
FOR_OPERATORS = [page for page in PAGES if page.parent.name in ("docs", "systemd") or page == ROOT / "README.md"]


@pytest.mark.parametrize("page", FOR_OPERATORS, ids=lambda page: str(page.relative_to(ROOT)))
def test_words_with_an_underscore_are_settings_metrics_or_reasons_of_dropped_packets(page: Path) -> None:
    words = {span for span in spans(page.read_text()) if NAMED.fullmatch(span) and not METRIC.fullmatch(span)}
    drops = {*map(str, Drop), *map(str, DropReason)}
    assert {word for word in words if not is_setting(word)} - drops - OF_OTHERS == set()
