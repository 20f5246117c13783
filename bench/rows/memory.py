"""Resident memory of a worker whose model is almost nothing (the regression example), less that of a C program that does
nothing at all. Pages of files (code of libraries) and of the ranks' shared segment count; the anonymous part, which is
what a worker has for itself alone, is a row of its own."""
import os
import time

from harness import AtMost, Failed, Row, children, median, say


def status(pid):
    """RSS and its anonymous part, in bytes."""
    with open(f"/proc/{pid}/status") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return tuple(int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))


def is_worker(pid):
    return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "regression"


def workers_of(bench):
    """RSS of both workers, once they train."""
    job = os.path.join(os.path.dirname(bench.source), "examples", "regression", "job.toml")
    command = bench.trainrun("--set", "train.epochs=100000", "--set", "metrics.log-every='200 steps'", job)
    path = os.path.join(bench.run_folder("regression"), "metrics.jsonl")
    process, begun, output = bench.start(command)
    with output:
        try:
            while not (os.path.exists(path) and os.path.getsize(path) > 0):
                if process.poll() is not None or time.monotonic_ns() - begun > 60e9:
                    raise Failed("no step: " + " ".join(command))
                time.sleep(0.01)
            return [status(pid) for pid in children(process.pid) if is_worker(pid)]
        finally:
            bench.stop(process)


def rows(bench):
    say("resident memory")
    process, _, output = bench.start([bench.program("trivial")])
    time.sleep(0.2)
    nothing = status(process.pid)
    bench.stop(process)
    output.close()
    workers = workers_of(bench)
    if len(workers) != 2:
        raise Failed(f"{len(workers)} workers instead of two")
    for at, name, goal in ((0, "resident memory of the runtime, a worker", AtMost(15, "MB")),
                           (1, "anonymous memory of the runtime, a worker", None)):
        yield Row(name, "MB", (median([worker[at] for worker in workers]) - nothing[at]) / 1e6, goal=goal)
