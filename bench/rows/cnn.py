"""The main example's network, two workers with one thread each, 64 samples a worker and step, AdamW.

Ours reads and decodes its data as in any job; the peer has it in memory. Each side first finds its best way by its
fastest window (ours the micro-batch, the peer plain, channels_last or compiled), then the best two run in turn. A figure is the median over windows
of 40 steps."""
import json
import os

from harness import AtMost, Row, Times, in_turn, median, peer_side, say

MICRO_BATCHES = (16, 32, 64)
VARIANTS = ("plain", "channels_last", "compiled", "compiled_channels_last")
STEPS = 240


def train(bench, micro_batch):
    """Windows in samples/s, and the summary."""
    bench.run(bench.trainrun("--set", f"train.micro-batch={micro_batch}", "--set", f"train.steps={STEPS}",
                             os.path.join(bench.source, "cnn.toml")))
    folder = bench.run_folder("bench-cnn")
    with open(os.path.join(folder, "metrics.jsonl")) as f:
        windows = [json.loads(line)["samples_per_s"] for line in f][1:]
    with open(os.path.join(folder, "summary.json")) as f:
        return windows, json.load(f)


def exposed_percent(summary):
    """Of a step's time, what the step thread spent in communication. Waiting for a slower rank is not communication."""
    ledger = summary["ledger"]
    step = sum(ledger[key] for key in ("first_byte", "bandwidth", "decode", "h2d", "compute", "collective_wait",
                                       "collective", "optimizer"))
    return 100 * ledger["collective"] / step


def rows(bench):
    say("CNN, the best micro-batch")
    tried = {size: max(train(bench, size)[0]) for size in MICRO_BATCHES}
    best = max(tried, key=tried.get)
    say("CNN, PyTorch's best way")
    command = bench.python(bench.peer_script("ddp_cnn.py"))
    name, peer = "PyTorch DDP over gloo", None
    ways = []
    for variant in VARIANTS if command is not None else ():
        ways += peer_side(lambda command: bench.run(command, limit_s=180)[1][-1:], command + ["--variants", variant])()
    if ways:
        way = max(ways, key=lambda way: way["samples_per_s"])
        name = f"PyTorch {way['torch'].split('+')[0]} DDP over gloo, {way['best']}"
        peer = peer_side(lambda command: bench.run(command, limit_s=180)[1][0]["windows"],
                         command + ["--variants", way["best"]])
    exposed = []

    def ours():
        windows, summary = train(bench, best)
        exposed.append(exposed_percent(summary))
        return windows

    say("CNN, both in turn")
    mine, other = in_turn(bench.rounds - 1, ours, peer)
    yield Row(f"CNN on Fashion-MNIST, 2 workers, micro-batch {best}", "samples/s", median(mine), median(other), name, True,
              Times(2.4))
    yield Row(f"communication not hidden, CNN, micro-batch {best}", "%", median(exposed), goal=AtMost(2, "%"))
