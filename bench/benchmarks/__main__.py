"""``make bench``: exit status 0 when everything was measured, 1 when something failed, 2 when it cannot even begin, 130
after Ctrl-C and SIGTERM."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from helpers.gateway_process import UNWATCHED

from benchmarks import flood, growth, handshakes, micro, packets, plots, round_trip, throughput
from benchmarks.experiment import FULL, QUICK, Experiment
from benchmarks.machine import machine
from benchmarks.report import report, titles
from benchmarks.results import Results
from benchmarks.run import run

EXPERIMENTS: tuple[Experiment, ...] = (
    *throughput.EXPERIMENTS,
    *packets.EXPERIMENTS,
    *round_trip.EXPERIMENTS,
    *handshakes.EXPERIMENTS,
    *growth.EXPERIMENTS,
    *micro.EXPERIMENTS,
    *flood.EXPERIMENTS,
)
RESULTS = Path("build/bench")
FAILED, CANNOT_BEGIN, INTERRUPTED = 1, 2, 130


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description="Measures our daemon and the stock OpenVPN server alternately.",
        epilog=f"experiments:\n{titles(EXPERIMENTS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [experiment.name for experiment in EXPERIMENTS]
    parser.add_argument("--only", metavar="NAME,NAME", help="these experiments; default: all but those in brackets")
    parser.add_argument("--quick", action="store_true", help="everything once and short: does it work at all?")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}")
    parser.add_argument("--seconds", type=int, help=f"length of one transfer, default {FULL.seconds}")
    parser.add_argument("--clients", type=int, help=f"that shake hands, default {FULL.clients}")
    parser.add_argument("--transports", metavar="udp,tcp", help="default both")
    parser.add_argument("--servers", metavar="cvpnd,OpenVPN", help="default both")
    parser.add_argument("--resume", action="store_true", help="go on where a run with the same options stopped")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--directory", type=Path, default=RESULTS, help="of results and plots, default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything measured, in one file")
    options = parser.parse_args(arguments)
    by_default = [experiment.name for experiment in EXPERIMENTS if experiment.by_default]
    options.names = options.only.split(",") if options.only else by_default
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no such experiment: {', '.join(unknown)}; there are {', '.join(names)}")
    for name, known in (("transports", FULL.transports), ("servers", FULL.servers)):
        if given := getattr(options, name):
            setattr(options, name, tuple(given.split(",")))
            if not set(getattr(options, name)) <= set(known):
                parser.error(f"--{name}: choose from {', '.join(known)}")
    if any(value is not None and value <= 0 for value in (options.rounds, options.seconds, options.clients)):
        parser.error("--rounds, --seconds and --clients are more than 0")
    return options


def measure(options: argparse.Namespace) -> list[Results]:
    chosen = [experiment for experiment in EXPERIMENTS if experiment.name in options.names]
    if options.report:
        stored = [Results.load(experiment, options.directory) for experiment in chosen]
        return [results for results in stored if results is not None]
    given = {name: getattr(options, name) for name in ("rounds", "seconds", "clients", "transports", "servers")}
    settings = replace(
        QUICK if options.quick else FULL, **{name: value for name, value in given.items() if value is not None}
    )
    return run(chosen, settings, machine(), options.directory, resume=options.resume)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if os.geteuid() != 0 and not options.report:
        print("The benchmarks build network namespaces: sudo make bench", file=sys.stderr)
        return CANNOT_BEGIN
    os.environ[UNWATCHED] = "1"
    # Also where a shell has them ignored (nohup, &): a lab that is not taken apart leaves an iperf3 that spins for
    # ever, beside which the next run would measure.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        all_results = measure(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    print(report(all_results))
    try:
        for file in plots.plot(all_results, options.directory):
            print(f"plotted: {file}", file=sys.stderr)
    except plots.NoMatplotlib as missing:
        print(missing, file=sys.stderr)
    if options.json is not None:
        everything = {results.experiment.name: results.as_json() for results in all_results}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    failed = [results.experiment.name for results in all_results if not results.complete]
    if failed:
        print(f"\nNOT MEASURED as asked: {', '.join(failed)}; see stderr and {options.directory}", file=sys.stderr)
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
