"""Tables in Markdown, aligned so that they read as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.experiment import CVPND, OPENVPN, Asked, Experiment, Metric
from benchmarks.results import Results


def report(all_results: Iterable[Results]) -> str:
    """Every experiment that has results, and the machine they came from."""
    measured = [results for results in all_results if results.rounds]
    parts = []
    machines: list[dict] = []
    for results in measured:
        if results.machine not in machines:
            machines.append(results.machine)
            parts.append("\n".join(f"- {key}: {value}" for key, value in results.machine.items()))
        rounds = len(results.rounds)
        rows = wide_rows(results) if results.positions() else rows_of_servers(results)
        median = f"Medians of {rounds}" if rounds > 1 else "One round, not a median"
        parts.append(f"### {results.experiment.title}\n\n{median}.\n\n{markdown(rows)}")
    return "\n\n".join(parts)


def rows_of_servers(results: Results) -> list[list[str]]:
    """One row for each figure; ours beside theirs where both were measured."""
    experiment, beside = results.experiment, OPENVPN in results.servers()
    asked = bool(experiment.asked)
    head = ["", CVPND, *([OPENVPN, "ratio"] if beside else []), *(["asked for"] if asked else [])]
    rows = [head]
    for metric in experiment.metrics:
        for row in results.rows():
            ours, theirs = (results.median(row, server, metric.name) for server in (CVPND, OPENVPN))
            if ours is None and theirs is None:
                continue
            cells = [f"{row}: {metric.title}", number(ours, metric.digits)]
            if beside:
                ratio = ours / theirs if ours is not None and theirs else None
                cells += [number(theirs, metric.digits), number(ratio, 2)]
            if asked:
                cells.append(asked_for(metric, experiment.asked.get((row, metric.name)), ours, theirs))
            rows.append(cells)
    return rows


def wide_rows(results: Results) -> list[list[str]]:
    """One row for each curve, one column for each place on it."""
    experiment, positions = results.experiment, results.positions()
    axis = experiment.curves.axis if experiment.curves else ""
    rows = [[axis, *(f"{at:,g}" if at < 1e6 else f"{at:g}" for at in positions)]]
    if experiment.asked:
        rows[0].append("asked for")
    for metric in experiment.metrics:
        for row in results.rows():
            values = [results.median(row, CVPND, metric.name, at) for at in positions]
            if all(value is None for value in values):
                continue
            cells = [f"{row}: {metric.title}", *(number(value, metric.digits) for value in values)]
            if experiment.asked:
                cells.append(asked_for(metric, experiment.asked.get((row, metric.name)), values[-1], values[0]))
            rows.append(cells)
    return rows


def asked_for(metric: Metric, asked: Asked | None, ours: float | None, reference: float | None) -> str:
    """What must be reached, the goal behind it, and whether it was. ``reference`` is what a ratio is taken by: the
    other server, or the beginning of the curve."""
    if asked is None or ours is None:
        return ""
    sign = "≥" if metric.more_is_better else "≤"

    def reached(limit: float, value: float) -> bool:
        return value >= limit if metric.more_is_better else value <= limit

    if asked.ratio is not None:
        if not reference:
            return ""
        verdict = "reached" if reached(asked.ratio, ours / reference) else "missed"
        return f"ratio {sign} {asked.ratio:.2f}: {verdict}"
    assert asked.must is not None
    goal = "" if asked.goal is None else f", goal {asked.goal:g}"
    if asked.goal is not None and reached(asked.goal, ours):
        verdict = "goal reached"
    else:
        verdict = "reached" if reached(asked.must, ours) else "missed"
    return f"{sign} {asked.must:g}{goal}: {verdict}"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; the first column and a last one of words are text, the others numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    words = rows[0][-1] == "asked for"

    def is_text(column: int) -> bool:
        return column == 0 or (words and column == len(widths) - 1)

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if is_text(column) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if is_text(column) else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def titles(experiments: Iterable[Experiment]) -> str:
    """One line for each; those that run only when asked for in brackets."""
    names = [each.name if each.by_default else f"({each.name})" for each in experiments]
    return "\n".join(f"  {name:18} {each.title}" for name, each in zip(names, experiments, strict=True))
