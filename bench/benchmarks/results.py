"""What was measured, kept in one file for each experiment: written after every round, so that nothing is lost."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.experiment import Experiment, Sample, Settings


@dataclass
class Results:
    experiment: Experiment
    settings: Settings
    machine: dict[str, Any]
    rounds: list[list[Sample]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Of rounds that were tried again or given up."""

    @property
    def complete(self) -> bool:
        return len(self.rounds) >= self.settings.rounds

    def samples(self) -> list[Sample]:
        return [sample for samples in self.rounds for sample in samples]

    def rows(self) -> list[str]:
        """In the order in which they were first measured."""
        return _unique(sample.row for sample in self.samples())

    def servers(self) -> list[str]:
        return sorted({sample.server for sample in self.samples()}, key=str.casefold)

    def positions(self) -> list[float]:
        return sorted({sample.at for sample in self.samples() if sample.at is not None})

    def median(self, row: str, server: str, metric: str, at: float | None = None) -> float | None:
        """None if it was never measured."""
        values = self.values(row, server, metric, at)
        return statistics.median(values) if values else None

    def values(self, row: str, server: str, metric: str, at: float | None = None) -> list[float]:
        """One of each round."""
        return [
            sample.values[metric]
            for sample in self.samples()
            if (sample.row, sample.server, sample.at) == (row, server, at) and metric in sample.values
        ]

    # -- the file

    def as_json(self) -> dict[str, Any]:
        medians = {
            (sample.row, sample.server, sample.at, metric): self.median(sample.row, sample.server, metric, sample.at)
            for sample in self.samples()
            for metric in sample.values
        }
        return {
            "experiment": self.experiment.name,
            "title": self.experiment.title,
            "machine": self.machine,
            "settings": asdict(self.settings),
            "medians": [
                {"row": row, "server": server, "at": at, "metric": metric, "median": median}
                for (row, server, at, metric), median in medians.items()
            ],
            "rounds": [[asdict(sample) for sample in samples] for samples in self.rounds],
            "errors": self.errors,
        }

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"{self.experiment.name}.json"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        new.rename(file)

    @classmethod
    def load(cls, experiment: Experiment, directory: Path) -> Results | None:
        """Of an earlier run, or None."""
        file = directory / f"{experiment.name}.json"
        if not file.exists():
            return None
        stored = json.loads(file.read_text())
        settings = Settings(**{key: _tuple(value) for key, value in stored["settings"].items()})
        rounds = [[Sample(**sample) for sample in samples] for samples in stored["rounds"]]
        return cls(experiment, settings, stored["machine"], rounds, stored["errors"])


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
