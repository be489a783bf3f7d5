"""What the coverage-guided fuzzer has found worth keeping, once more: no parser raises what it should not."""

from pathlib import Path

import pytest
from helpers.wire_targets import TARGETS, one_input

CORPUS = Path(__file__).parent / "corpus" / "wire"


@pytest.mark.parametrize("number", range(len(TARGETS)), ids=[target.__name__ for target in TARGETS])
def test_kept_inputs(number: int) -> None:
    kept = [data for path in CORPUS.iterdir() if (data := path.read_bytes()) and data[0] % len(TARGETS) == number]
    assert kept
    for data in kept:
        one_input(data)
