"""A plot of each growth curve, PNG and SVG: medians, and between what the rounds were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.experiment import CVPND
from benchmarks.results import Results

FORMATS = ("png", "svg")


class NoMatplotlib(Exception):
    """It is an extra, since nothing but this needs it."""


def plot(all_results: Iterable[Results], directory: Path) -> list[Path]:
    """The files that were written."""
    curves = [results for results in all_results if results.experiment.curves and results.positions()]
    return [file for results in curves for file in _plot(results, directory)]


def _plot(results: Results, directory: Path) -> list[Path]:
    try:
        import matplotlib
    except ImportError as error:
        raise NoMatplotlib("no plots without matplotlib: pip install '.[bench]'") from error
    matplotlib.use("Agg")  # no window
    matplotlib.rcParams["svg.hashsalt"] = results.experiment.name  # the same results make the same file
    from matplotlib import pyplot

    experiment, curves, positions = results.experiment, results.experiment.curves, results.positions()
    assert curves is not None
    metric = next(metric for metric in experiment.metrics if metric.name == curves.metric)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for row in results.rows():
        rounds = [results.values(row, CVPND, metric.name, at) for at in positions]
        if not all(rounds):
            continue
        medians = [results.median(row, CVPND, metric.name, at) for at in positions]
        (line,) = axes.plot(positions, medians, marker="o", label=row)
        axes.fill_between(positions, [*map(min, rounds)], [*map(max, rounds)], color=line.get_color(), alpha=0.15)
    axes.set(title=experiment.title, xlabel=curves.axis, ylabel=metric.title, xscale="log")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    files = [directory / f"{experiment.name}.{kind}" for kind in FORMATS]
    for file in files:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
    return files
