"""``make fuzz``: the parsers of ``wire`` under atheris, with coverage to lead it. Arguments are libFuzzer's."""

import sys

import atheris

with atheris.instrument_imports(include=["cvpnd"]):
    from helpers.wire_targets import one_input

atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
