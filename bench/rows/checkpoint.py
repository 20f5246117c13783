"""A checkpoint of 1.5 GB (values and two moments of 124 million parameters) beside a training step that keeps all cores
busy, against PyTorch's distributed checkpoint (DCP) and safetensors.

Stalled: what the step thread was blocked (beginning, and waiting in the update for the snapshot), DCP: the call of
async_save. Slower: the mean step while it uploads against the mean step before and after, the copying included. The longest
step says what of that falls on one step. Durable: begun, written and synced, with nothing beside it."""
import os
import shutil

from harness import AtMost, Row, Times, in_turn, median, peer_side, say

PARAMETERS, STEP_MS, STEPS = 124_000_000, 400, 10


def mean(figures):
    return sum(figures) / len(figures)


def rows(bench):
    say("a checkpoint of 1.5 GB")
    folder = os.path.join(bench.folder.name, "checkpoint")
    arguments = [folder, str(PARAMETERS), str(STEP_MS), str(STEPS)]
    found = {}

    def side(command):
        os.makedirs(folder, exist_ok=True)
        for line in bench.run(command, limit_s=600)[1]:
            name = line["name"]
            for key in ("blocked_s", "durable_s", "written_s"):
                if key in line:
                    found.setdefault(f"{name} {key}", []).append(line[key])
            if line.get("during_s"):
                usual = mean(line["before_s"] + line["after_s"])
                found.setdefault(f"{name} slower", []).append(100 * (mean(line["during_s"]) / usual - 1))
                found.setdefault(f"{name} longest", []).append(1e3 * (max(line["during_s"]) - usual))
        shutil.rmtree(folder, ignore_errors=True)
        return []

    def ours():
        before = len(found.get("alone durable_s", []))
        side([bench.program("checkpoint"), *arguments])
        del found["alone durable_s"][before]  # the first touches all memory for the first time
        return []

    peer = bench.python(bench.peer_script("dcp_async.py"), *arguments)
    in_turn(bench.rounds, ours, peer_side(side, peer))

    def of(key, scale=1):
        figure = median(found.get(key))
        return None if figure is None else figure * scale

    stalled = of("beside training blocked_s", 1e3)
    yield Row("training stalled by a checkpoint of 1.5 GB", "ms", stalled, goal=AtMost(20, "ms"))
    yield Row("training stalled by a checkpoint of 1.5 GB", "ms", stalled, of("dcp async blocked_s", 1e3), "DCP async")
    yield Row("steps slower while it uploads", "%", of("beside training slower"), goal=AtMost(2, "%"))
    yield Row("steps slower while it uploads", "%", of("beside training slower"), of("dcp async slower"), "DCP async")
    yield Row("the longest of these steps, longer by", "ms", of("beside training longest"), of("dcp async longest"),
              "DCP async")
    durable = of("alone durable_s")
    name = "a checkpoint of 1.5 GB durable on disk"
    yield Row(name, "s", durable, of("save_file durable_s"), "safetensors save_file, fsync", False, Times(1.5))
    yield Row(name, "s", durable, of("save_file written_s"), "safetensors save_file, not synced")
    yield Row(name, "s", durable, of("dcp durable_s"), "DCP", False, Times(5))
