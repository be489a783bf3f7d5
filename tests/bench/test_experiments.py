"""Every experiment once and short, so that none has stopped working when figures are wanted. No figure is judged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import micro
from benchmarks.__main__ import EXPERIMENTS, main
from benchmarks.experiment import CVPND, Experiment, Sample, Settings
from benchmarks.machine import machine
from benchmarks.plots import plot
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.run import run

TINY = Settings(
    rounds=1, seconds=1, transports=("udp",), streams=(1,), clients=3, peers=(1, 300), rules=(5, 500), packets=2048,
    pings=50, flood_s=1.5, brief=True,
)  # fmt: skip
OVER_TCP = replace(TINY, transports=("tcp",), streams=(2,))
OURS = {"servers": (CVPND,)}
"""Where the other server has its turn in another test."""


def named(name: str) -> Experiment:
    return next(experiment for experiment in EXPERIMENTS if experiment.name == name)


def once(name: str, settings: Settings = TINY) -> list[Sample]:
    experiment = named(name)
    samples = list(experiment.round(settings, 1))
    names = {metric.name for metric in experiment.metrics}
    for sample in samples:
        assert sample.values and sample.values.keys() <= names
        assert all(math.isfinite(value) for value in sample.values.values()), sample
    return samples


def assert_costs_something(samples: list[Sample], metric: str, settings: Settings = TINY) -> None:
    rows = {sample.row for sample in samples}
    every = {(row, server) for row in rows for server in settings.servers}
    assert {(sample.row, sample.server) for sample in samples} == every
    assert all(sample.values[metric] > 0 for sample in samples), samples


TRANSFERS = [
    ("stock", OVER_TCP),
    ("batching", TINY),
    ("batching", replace(OVER_TCP, **OURS)),
    ("batching-split", replace(TINY, **OURS)),
]


@pytest.mark.parametrize(("name", "settings"), TRANSFERS)
def test_transfers_are_measured(name, settings):
    samples = once(name, settings)
    assert_costs_something(samples, "mbit_per_s", settings)
    assert_costs_something(samples, "cpu_s_per_gb", settings)


def test_small_packets_round_trips_and_handshakes_are_measured():
    settings = replace(TINY, **OURS)
    assert_costs_something(once("packets", settings), "us_per_packet", settings)
    assert_costs_something(once("round-trip", settings), "p99_ms", settings)
    assert_costs_something(once("handshakes", settings), "cpu_ms", settings)


@pytest.mark.parametrize("name", ["peers", "rules"])
def test_growth_is_measured_at_each_point(name):
    samples = once(name)
    assert {sample.at for sample in samples} == set(getattr(TINY, name))
    assert all(sample.values["ns"] > 0 for sample in samples)


def test_flood_is_measured():
    settings = replace(TINY, **OURS)
    assert_costs_something(once("flood-reset", settings), "packets_per_s", settings)


@pytest.mark.parametrize("name", ["aead", "replay", "lpm"])
def test_small_pieces_are_measured(name, monkeypatch):
    built = [place for build in ("release", "asan") if (place := Path("build", build, "tests/native")).is_dir()]
    if not built:
        pytest.skip("the C benchmarks are not built: make test-native or make bench does")
    monkeypatch.setattr(micro, "PROGRAMS", built[0])
    samples = once(name)
    assert {metric for sample in samples for metric in sample.values} <= {"ns", "built_ns"}
    assert all(value > 0 for sample in samples for value in sample.values.values())
    assert all(sample.row.startswith("building") for sample in samples if "built_ns" in sample.values)


# -- what becomes of the figures ---------------------------------------------------------------------------------


def made_up(round_number_that_fails: int = -1) -> Experiment:
    """Three rounds of 1, 2, 3 seconds for us, twice that for them."""

    def measure(settings, number):
        yield Sample("Way", "cvpnd", {"cpu_s_per_gb": number + 1.0})
        if number == round_number_that_fails:
            raise RuntimeError("the lab broke")
        yield Sample("Way", "OpenVPN", {"cpu_s_per_gb": 2.0 * (number + 1)})

    return Experiment("made-up", "Made up", named("stock").metrics, measure, lambda settings: 1.0)


def test_report_shows_medians_and_their_ratio(tmp_path):
    [results] = run([made_up()], Settings(rounds=3), machine(), tmp_path, resume=False)
    assert results.complete
    line = next(line for line in report([results]).splitlines() if line.startswith("| Way"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["Way: server CPU s/GB", "2.00", "4.00", "0.50"]


def test_each_growth_curve_is_plotted(tmp_path):
    pytest.importorskip("matplotlib", reason="make bench installs it")
    points = [Sample("up", "cvpnd", {"ns": 100.0 + number * at}, at) for number in range(3) for at in (1.0, 1000.0)]
    results = Results(named("peers"), Settings(rounds=3), machine(), [points[:2], points[2:4], points[4:]])
    flat = Results(named("stock"), Settings(rounds=1), machine(), [[Sample("Way", "cvpnd", {"mbit_per_s": 5.0})]])
    png, svg = plot([results, flat], tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text()


def test_failed_experiment_keeps_its_rounds_loses_nobody_elses_and_is_resumed(tmp_path):
    settings, here = Settings(rounds=3), machine()
    broken, sound = run([made_up(1), made_up()], settings, here, tmp_path, resume=False)
    assert (broken.complete, len(broken.rounds), sound.complete) == (False, 1, True)
    assert len(broken.errors) == 2 and "the lab broke" in broken.errors[0], "tried once more"

    broken.save(tmp_path)
    [resumed] = run([made_up()], settings, here, tmp_path, resume=True)
    assert resumed.complete and resumed.rounds[0] == broken.rounds[0]
    stored = Results.load(made_up(), tmp_path)
    assert stored is not None and stored.rounds == resumed.rounds and stored.settings == settings


def test_exit_status_says_what_became_of_it(tmp_path, capsys):
    assert main(["--report", "--directory", str(tmp_path)]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "nonsense"])
    assert "no such experiment: nonsense" in capsys.readouterr().err

    results = Results(named("stock"), Settings(rounds=2), machine(), [[Sample("Way", "cvpnd", {"mbit_per_s": 5.0})]])
    results.save(tmp_path)
    everything = tmp_path / "all.json"
    assert main(["--report", "--only", "stock", "--directory", str(tmp_path), "--json", str(everything)]) == 1
    assert "NOT MEASURED as asked: stock" in capsys.readouterr().err
    assert json.loads(everything.read_text())["stock"]["medians"][0]["median"] == 5.0
