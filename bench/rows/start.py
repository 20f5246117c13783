"""From a command to the first thing done: the smallest program's first all-reduce, the CNN's first step.

Time runs from just before the command is started until the last rank has finished, on CLOCK_MONOTONIC; programs and data
are in the page cache."""
import json
import os
import time

from harness import AtMost, Failed, Row, Times, in_turn, median, peer_side, say


def first_all_reduce(bench, command):
    begun, lines = bench.run(command)
    finished = [line["finished_ns"] for line in lines if "finished_ns" in line]
    if len(finished) != 2 or any(line.get("sum", 2) != 2 for line in lines):
        raise Failed(f"two ranks should have summed to 2: {' '.join(command)}")
    return [(max(finished) - begun) / 1e6]


def first_step(bench):
    """The launcher writes metrics.jsonl as rank 0 reports; the file is looked at every millisecond."""
    command = bench.trainrun("--set", "train.steps=1", "--set", "metrics.log-every='1 step'",
                             os.path.join(bench.source, "cnn.toml"))
    path = os.path.join(bench.run_folder("bench-cnn"), "metrics.jsonl")
    process, begun, output = bench.start(command)
    with output:
        while process.poll() is None and time.monotonic_ns() - begun < 60e9:
            try:
                with open(path) as f:
                    if json.loads(f.readline() or "{}").get("step") == 1:
                        finished = time.monotonic_ns()
                        process.wait(60)
                        return [(finished - begun) / 1e9]
            except (OSError, ValueError):
                pass
            time.sleep(0.001)
        bench.stop(process)
        raise Failed("no first step: " + " ".join(command))


def first_step_torch(bench, command):
    begun, lines = bench.run(command)
    finished = [line["first_step_ns"] for line in lines if "first_step_ns" in line]
    if not finished:
        raise Failed("no first step: " + " ".join(command))
    return [(max(finished) - begun) / 1e9]


def rows(bench):
    say("command to first all-reduce")

    def ours():
        return first_all_reduce(bench, bench.trainrun(bench.program("first_all_reduce")))

    mpi = bench.mpirun("mpi_first_all_reduce")
    torch = bench.torchrun(bench.peer_script("torch_first_all_reduce.py"))
    ours()  # fills the page cache
    mine, with_mpi = in_turn(5 * bench.rounds, ours, peer_side(lambda command: first_all_reduce(bench, command), mpi))
    with_torch = in_turn(bench.rounds - 1, peer_side(lambda command: first_all_reduce(bench, command), torch))[0]
    name = "command to first all-reduce, 2 workers"
    yield Row(name, "ms", median(mine), goal=AtMost(30, "ms"))
    yield Row(name, "ms", median(mine), median(with_mpi), "mpirun", False, Times(10))
    yield Row(name, "ms", median(mine), median(with_torch), "torchrun, gloo", False, Times(100))

    say("command to first step")
    torch = bench.python(bench.peer_script("ddp_cnn.py"), "--first", "--variants", "plain")
    first_step(bench)
    mine = in_turn(bench.rounds, lambda: first_step(bench))[0]
    with_torch = in_turn(bench.rounds - 1, peer_side(lambda command: first_step_torch(bench, command), torch))[0]
    name = "command to first step of the CNN, 2 workers"
    yield Row(name, "s", median(mine), goal=AtMost(0.5, "s"))
    yield Row(name, "s", median(mine), median(with_torch), "PyTorch DDP, gloo", False, None)
