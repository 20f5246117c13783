#!/usr/bin/env python3
"""Runs the benches against their peers, prints a row a measurement, writes BUILD/bench/results.json.

    bench/run.py [--build build] [--rounds 3] [--markdown] [BENCH...]
    BENCH: collective, start, cnn, memory, exactness, store, stream, accelerator, checkpoint; none: all

Both sides run in turn in the same run; figures are medians. A peer that is not installed makes a row `not measured`
(Open MPI: apt-get install libopenmpi-dev; PyTorch: make bench-peers). docs/performance.md says what each row means.
Exit code 1: a bench failed to run. A goal that is not met is a figure and not a failure.
"""
import argparse
import json
import os
import sys

from harness import NOT_MEASURED, Bench, Failed, machine, say_nothing
from rows import ALL

HEAD = ("name", "ours", "peer", "ratio", "goal", "met")
WIDTHS = (58, 18, 56, 8, 10, 12)


def line(texts):
    return "  ".join(text.ljust(width) for text, width in zip(texts, WIDTHS)).rstrip()


def figure(value, unit):
    return f"{value:.4g} {unit}" if value is not None else NOT_MEASURED


def cells(row):
    peer = "-" if row.peer_name is None else f"{figure(row.peer, row.unit)} ({row.peer_name})"
    met = {True: "yes", False: "no", None: "-"}.get(row.met, row.met)
    return (row.name, figure(row.ours, row.unit), peer, "-" if row.ratio is None else f"{row.ratio:.2f}x",
            "-" if row.goal is None else str(row.goal), met)


def markdown(rows):
    """The table of docs/performance.md."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [HEAD, ("---",) * len(HEAD), *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=3, help="how often both sides take their turn")
    parser.add_argument("--markdown", action="store_true", help="print the table once more, for docs/performance.md")
    parser.add_argument("benches", nargs="*", metavar="BENCH")
    arguments = parser.parse_args()
    for name in arguments.benches:
        if name not in ALL:
            parser.error(f"no bench '{name}'; there are {', '.join(ALL)}")
    if arguments.rounds < 2:
        parser.error("at least two rounds")

    bench = Bench(arguments.build, arguments.rounds)
    where, found, failed = machine(), [], []
    print(where)
    print(line(HEAD), flush=True)
    for name in arguments.benches or ALL:
        try:
            for row in ALL[name].rows(bench):
                say_nothing()
                print(line(cells(row)), flush=True)
                found.append(row)
        except Failed as reason:
            say_nothing()
            failed.append(name)
            print(f"{name}: {reason}", file=sys.stderr, flush=True)

    path = os.path.join(bench.build, "bench", "results.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump([row.record(where) for row in found], f, indent=1)
        f.write("\n")
    if arguments.markdown:
        print(markdown(map(cells, found)))
    print(f"{len(found)} rows are in {os.path.relpath(path)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
