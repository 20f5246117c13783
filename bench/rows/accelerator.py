"""How busy accelerators are kept from MinIO on this machine: the three models of MLPerf Storage.

An accelerator is a worker that sleeps for the time that an H100 computes on a batch (MLPerf Storage's presets, see
docs/performance.md). Samples have the models' mean sizes, as tar shards; there are fewer of them and epochs are repeated,
nothing is cached. AU is time computed divided by time passed, from the first batch on. First `data bench` measures what
this bucket feeds to that batch; then so many accelerators run as 0.8 of it carries, and where one H100 wants more than
that the time of its compute is stretched and the row says so."""
import json
import os
import subprocess

from harness import Failed, Row, say

from . import s3

# name, bytes of a sample, samples of a batch, seconds of compute, shards, samples a shard, steps, AU that must be reached
MODELS = (
    ("unet3d", 146600628, 7, 0.323, 14, 1, 50, 99),
    ("resnet50", 114660, 400, 0.224, 16, 500, 500, 99),
    ("cosmoflow", 2828486, 1, 0.0035, 16, 16, 2000, 95),
)
SHARE, WORKERS_MAX = 0.8, 8


class AtLeast:
    """Ours must reach a figure in the row's unit."""

    def __init__(self, limit, unit):
        self.limit, self.unit = limit, unit

    def met(self, row):
        return row.ours >= self.limit

    def __str__(self):
        return f">= {self.limit:g} {self.unit}"


def feed(bench, url, batch, prefetch):
    """Bytes a second that the loader gets when nothing computes."""
    command = [os.path.join(bench.build, "trainrun"), "data", "bench", "--json", "--batch-size", str(batch), "--micro-batch",
               str(batch), "--seconds", "10", "--set", "data.prefetch=" + prefetch, url]
    done = subprocess.run(command, env=bench.environment, capture_output=True, text=True, timeout=180)
    if done.returncode != 0:
        raise Failed(" ".join(command) + "\n" + done.stderr[-2000:])
    return json.loads(done.stdout)["loader"]["bytes_per_s"]


def run(bench, url, batch, workers, steps, compute_s, prefetch):
    lines = bench.run(bench.trainrun(
        "--set", "program=" + bench.program("stream"), "--set", "data.train=" + url, "--set", "data.batch-size=%d" % (batch * workers), "--set",
        "train.micro-batch=%d" % batch, "--set", "data.prefetch=" + prefetch, "--set", "params.steps=%d" % steps, "--set",
        "params.compute-ms=%r" % (compute_s * 1e3), os.path.join(bench.source, "stream.toml"), workers=workers), 600)[1]
    lines = [line for line in lines if "first_ns" in line]
    return 100 * sum(line["compute_s"] for line in lines) / sum(line["seconds"] for line in lines)


def rows(bench):
    for name, sample, batch, compute_s, shards, samples, steps, goal in MODELS:
        say("AU of " + name)
        with s3.minio() as server:
            s3.let_in(bench, server)
            url = s3.put_shards(server, "bench", name, shards, samples, sample)
            bench.run([os.path.join(bench.build, "trainrun"), "data", "index", "--quiet", url], 300)
            need = sample * batch / compute_s
            prefetch = "%dMiB" % max(256, 3 * sample * batch >> 20)
            carried = SHARE * feed(bench, url, batch, prefetch)
            workers = min(max(int(carried / need), 1), WORKERS_MAX)
            stretched = max(compute_s, sample * batch / carried)
            au = run(bench, url, batch, workers, steps, stretched, prefetch)
            words = "%d accelerator%s" % (workers, "" if workers == 1 else "s")
            if stretched > compute_s:
                words += ", compute stretched %.2fx" % (stretched / compute_s)
            yield Row("AU of %s, %s, %.2f GB/s" % (name, words, workers * sample * batch / stretched / 1e9), "%", au,
                      goal=AtLeast(goal, "%"))
