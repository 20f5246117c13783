#!/usr/bin/env python3
"""A job whose samples are in one bucket and whose checkpoints are in another server's: one order of samples and one set of
bits on any number of workers, cut anywhere in an epoch and gone on with on another number; data that changed are named.

Short: 1,000 samples and three cuts; long: 10,000 samples and twenty."""
import os
import random
import signal
import sys
import time

from jobs import LONG, SOURCE, Folder, Tap, make_data

sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import servers  # noqa: E402

SAMPLES, CUTS = (10000, 20) if LONG else (1000, 3)
BATCH = 100
STEPS = SAMPLES // BATCH * 3 // 2  # into the second epoch
SHARD_SAMPLES = SAMPLES // 20

STORAGE = """
[storage.data]
buckets    = ["data"]
endpoint   = "%s"
access-key = { env = "DATA_KEY" }
secret-key = { env = "DATA_SECRET" }
[storage.runs]
buckets    = ["runs"]
endpoint   = "%s"
access-key = { env = "RUNS_KEY" }
secret-key = { env = "RUNS_SECRET" }
"""


class Job(Folder):
    """Jobs of this test: packed samples in the bucket `data`, checkpoints in `runs`."""

    def stream(self, name, data, runs, *lines, steps=STEPS):
        text = STORAGE % (data.endpoint, runs.endpoint)
        path = self.job(name, train="steps = %d\nmicro-batch = 13" % steps, batch=BATCH,
                        checkpoint='every = "%d steps"\nurl = "s3://runs/jobs"' % (STEPS // 15),
                        metrics='log-every = "%d steps"' % STEPS)
        with open(path) as file:
            body = file.read()
        shards = "s3://data/train-{000000..%06d}.tar" % (SAMPLES // SHARD_SAMPLES - 1)
        body = body.replace('train = "%s/train"' % self.path, 'train = "%s"' % shards)
        body = body.replace('valid = "%s/t10k"' % self.path, "\n".join(lines))
        body = body.replace('format = "idx"', 'format = "webdataset"\nfields = { image = "png", label = "cls" }')
        with open(path, "w") as file:
            file.write(body + text)
        return path


def bits(summary):
    return {key: summary.get(key) for key in ("params_crc32c", "order_crc32c", "steps", "samples", "loss")}


def manifests(runs, name):
    return sum(key.endswith("manifest.json") for key in runs.list("runs", "jobs/%s/" % name))


def cut(folder, runs, name, job, env, workers, wanted, moment):
    """Starts, kills the launcher (-9) after `wanted` checkpoints and a moment (seconds); True where it was still at work."""
    process = folder.start("--workers", workers, job, env=env)
    end = time.monotonic() + 120
    while process.poll() is None and manifests(runs, name) < wanted and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def check(data, runs, tap):
    chance = random.Random(4)
    env = {"DATA_KEY": data.access_key, "DATA_SECRET": data.secret_key, "RUNS_KEY": runs.access_key,
           "RUNS_SECRET": runs.secret_key}
    data.make_bucket("data")
    runs.make_bucket("runs")
    folder = Job(samples=10)
    make_data(folder.path, SAMPLES)
    packed = folder.run("data", "pack", "--shard-samples", SHARD_SAMPLES, folder.path + "/train", "s3://data/train",
                        env=data.environment())
    tap.check(packed.code == 0, "samples are packed into a bucket", packed.output)

    result = folder.run("--workers", 2, folder.stream("whole", data, runs), env=env, timeout=600)
    whole = folder.summary("whole")
    expected, step = bits(whole), whole.get("time_s", 0) / STEPS
    tap.check(result.code == 0 and expected["samples"] == STEPS * BATCH,
              "a job trains from one server and has its checkpoints in another", result.output)
    for workers in (1, 3, 4):
        name = "on-%d" % workers
        result = folder.run("--workers", workers, folder.stream(name, data, runs), env=env, timeout=600)
        found = bits(folder.summary(name))
        tap.check(result.code == 0 and found == expected, "one order and the same bits on %d" % workers,
                  "%s\n%s\n%s" % (expected, found, result.output))
    result = folder.run("--workers", 2, folder.stream("cached", data, runs, 'cache = { memory = "64MiB" }'), env=env, timeout=600)
    found = bits(folder.summary("cached"))
    tap.check(result.code == 0 and found == expected, "the same bits through a cache", "%s\n%s" % (found, result.output))

    for number in range(CUTS):
        name, first, second = "cut-%d" % number, chance.randrange(1, 5), chance.randrange(1, 5)
        job = folder.stream(name, data, runs)
        at_work = cut(folder, runs, name, job, env, first, chance.randrange(1, 5), chance.random() * STEPS / 3 * step)
        result = folder.run("--workers", second, job, env=env, timeout=600)
        summary = folder.summary(name)
        tap.check(result.code == 0 and bits(summary) == expected and (not at_work or summary.get("resumed_step", 0) > 0),
                  "cut on %d workers, gone on with on %d from step %s: no sample lost or twice, the same bits" %
                  (first, second, summary.get("resumed_step")), "%s\n%s\n%s" % (expected, bits(summary), result.output))

    # A job that cannot be done before it is killed.
    job = folder.stream("changed", data, runs, steps=1000 * STEPS)
    cut(folder, runs, "changed", job, env, 2, 1, 0)
    shard = "train-%06d.tar" % (SAMPLES // SHARD_SAMPLES // 2)
    data.put("data", shard, data.get("data", shard.replace("%06d" % (SAMPLES // SHARD_SAMPLES // 2), "000000")))
    result = folder.run("--workers", 2, job, env=env)
    tap.check(result.code not in (0, 124) and shard in result.output, "a changed shard stops the resume by name", result.output)


tap = Tap()
why = servers.missing("minio") or servers.missing("versitygw")
if why:
    tap.skip("streams from a bucket", why)
else:
    with servers.minio() as data, servers.versitygw() as runs:
        check(data, runs, tap)
tap.end()
