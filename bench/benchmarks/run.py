"""Experiments one after another, round by round; whoever waits is told how far it is, on stderr."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiment import Experiment, Sample, Settings
from benchmarks.results import Results

ATTEMPTS = 2
"""For one round: a lab on a machine that does other things too may fail for reasons that are not the server's."""


class Progress:
    """Scales the experiments' own estimates by how long things really take here."""

    def __init__(self, expected_s: float) -> None:
        self._expected_s = expected_s
        self._done_s = 0.0
        self._began = time.monotonic()

    def done(self, estimate_s: float) -> None:
        self._done_s += estimate_s

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self._began
        pace = elapsed / self._done_s if self._done_s else 1.0
        left = max(0.0, (self._expected_s - self._done_s) * pace)
        print(f"[{_minutes(elapsed)}, {_minutes(left)} to go] {text}", file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def run(
    experiments: Sequence[Experiment], settings: Settings, machine: dict[str, Any], directory: Path, *, resume: bool
) -> list[Results]:
    """What was measured, also where something failed: then the results are not ``complete`` and have ``errors``."""
    begun = [_begin(experiment, settings, machine, directory, resume=resume) for experiment in experiments]
    progress = Progress(
        sum(
            results.experiment.estimate_s(settings) * max(0, settings.rounds - len(results.rounds)) for results in begun
        )
    )
    for results in begun:
        try:
            _measure(results, directory, progress)
        except KeyboardInterrupt:
            progress.say("interrupted; --resume goes on from here")
            raise
    return begun


def _begin(
    experiment: Experiment, settings: Settings, machine: dict[str, Any], directory: Path, *, resume: bool
) -> Results:
    """From scratch, or where an earlier run with the same settings on the same machine stopped."""
    earlier = Results.load(experiment, directory) if resume else None
    if earlier is not None and (earlier.settings, earlier.machine) == (settings, machine):
        return earlier
    return Results(experiment, settings, machine)


def _measure(results: Results, directory: Path, progress: Progress) -> None:
    experiment, settings = results.experiment, results.settings
    failures = 0
    while not results.complete:
        number = len(results.rounds)
        where = f"{experiment.name}, round {number + 1} of {settings.rounds}"
        samples: list[Sample] = []
        try:
            for sample in experiment.round(settings, number):
                samples.append(sample)
                progress.say(f"{where}: {_line(experiment, sample)}")
        except Exception:
            failures += 1
            results.errors.append(f"{where}:\n{traceback.format_exc()}")
            results.save(directory)
            progress.say(f"{where} FAILED:\n{traceback.format_exc()}")
            if failures == ATTEMPTS:
                progress.done(experiment.estimate_s(settings) * (settings.rounds - number))
                return
            continue
        failures = 0
        results.rounds.append(samples)
        results.save(directory)
        progress.done(experiment.estimate_s(settings))


def _line(experiment: Experiment, sample: Sample) -> str:
    titled = {metric.name: metric for metric in experiment.metrics}
    values = ", ".join(
        f"{value:.{titled[name].digits}f} {titled[name].title}"
        for name, value in sample.values.items()
        if name in titled
    )
    at = "" if sample.at is None else f" at {sample.at:g}"
    return f"{sample.server}, {sample.row}{at}: {values}"
