"""The reference file has every key, and shows and explains it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from helpers.config_file import load_text, problems_of
from pydantic import BaseModel

from cvpnd.config import Config, load

REFERENCE = Path(__file__).parents[2] / "conf" / "cvpnd.toml"


def with_every_key(text: str) -> str:
    return re.sub(r"(?m)^#(?=[a-z_0-9]+ = )", "", text)


def tables(model: type[BaseModel], raw: dict[str, Any], at: str = "") -> Iterator[tuple[str, type[BaseModel], Any]]:
    """Every table of a raw file with its model."""
    yield at, model, raw
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = next((m for m in models_in(field.annotation)), None)
        if inner is not None and key in raw:
            for number, table in enumerate(raw[key] if isinstance(raw[key], list) else [raw[key]]):
                yield from tables(inner, table, f"{at}{key}[{number}].")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def test_the_reference_file_loads_as_it_is_and_with_every_key_switched_on(file: Path) -> None:
    load(REFERENCE)
    text = with_every_key(REFERENCE.read_text()).replace(
        'cidr = ["10.20.0.0/16"]', 'cidr = ["10.20.0.0/16", "fd00:20::/48"]'
    )
    load_text(file, re.sub("(?m)^tls_auth = .*$", "", text))
    load_text(file, re.sub("(?m)^tls_crypt = .*$", "", text))
    assert "tls_auth and tls_crypt exclude each other" in problems_of(file, text)[0]


def test_the_reference_file_has_every_key_of_the_models_and_no_other() -> None:
    raw = tomllib.loads(with_every_key(REFERENCE.read_text()))
    shown: dict[type[BaseModel], set[str]] = {}
    for _, model, table in tables(Config, raw):
        shown.setdefault(model, set()).update(table)
    known = {model: {field.alias or name for name, field in model.model_fields.items()} for model in shown}
    known[Config].remove("path")
    assert shown == known
    assert len(shown) == 34, "tables found"


def test_the_reference_file_shows_the_defaults() -> None:
    raw = tomllib.loads(REFERENCE.read_text())
    examples = {key for key, comment, _ in documented_keys() if "(example" in comment}
    compared = 0
    for at, model, table in tables(Config, raw):
        for name, field in model.model_fields.items():
            key = field.alias or name
            if key not in table or list(models_in(field.annotation)):
                continue
            if field.is_required():
                assert key in examples, f"{at}{key} has no default: say that the value is an example"
            elif key not in examples:
                default = field.get_default()
                shown = tuple(table[key]) if isinstance(table[key], list) else table[key]
                assert shown == (str(default) if isinstance(default, Path) else default), f"{at}{key}"
                compared += 1
    assert compared >= 25


def test_each_key_of_the_reference_file_is_explained_by_a_sentence_above_it() -> None:
    for key, comment, line in documented_keys():
        assert re.fullmatch(r"# .*[.;)]", comment), f"line {line}: {key} has no sentence"


def documented_keys() -> Iterator[tuple[str, str, int]]:
    """Key, the comment above it, line number; a key of a table shown before needs no second comment."""
    seen: set[tuple[str, str]] = set()
    table, above = "", ""
    for number, line in enumerate(REFERENCE.read_text().splitlines(), 1):
        if header := re.fullmatch(r"\[+([a-z_.]+)\]+", line):
            table = header[1]
        if found := re.match(r"#?([a-z_0-9]+) = ", line):
            if (table, found[1]) not in seen:
                yield found[1], above, number
            seen.add((table, found[1]))
        above = line


def test_no_key_is_shown_twice_with_a_sentence() -> None:
    sentences = [comment for _, comment, _ in documented_keys()]
    for comment in set(sentences):
        if sentences.count(comment) > 1:
            assert comment in ("# For people only.", "# Name for use in this file (example).")
