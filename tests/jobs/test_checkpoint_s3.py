#!/usr/bin/env python3
"""Checkpoints in a bucket: the same bits as in a folder, by every command, through kills of the job and of the server."""
import json
import os
import signal
import sys
import time

import weights
from jobs import LONG, SOURCE, Folder, Tap

sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import servers  # noqa: E402

tap = Tap()
STEPS = "steps = 12\nmicro-batch = 6"
S3 = 'every = "2 steps"\nkeep = { last = 2 }\nurl = "s3://runs/jobs"'


def keys_of(server, name):
    return [key for key in server.list("runs", "jobs/%s/" % name)]


def wait_for_checkpoint(server, name, process, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if any(key.endswith("manifest.json") for key in keys_of(server, name)):
            return True
        time.sleep(0.02)
    return False


def check_server(server, folder, expected):
    env = server.environment()
    server.make_bucket("runs")
    server.make_bucket("models")
    label = server.name
    job = folder.job("bucket-" + label, train=STEPS, checkpoint=S3)
    result = folder.run("--workers", 2, job, env=env)
    summary = folder.summary("bucket-" + label)
    tap.check(result.code == 0 and summary.get("params_crc32c") == expected, label + ": a job with checkpoints in a bucket has the same bits",
              result.output)
    run_id = summary.get("run_id", "")
    url = "s3://runs/jobs/bucket-%s/%s" % (label, run_id)
    keys = [key.split("/", 3)[3] for key in keys_of(server, "bucket-" + label)]
    steps = sorted({key.split("/")[0] for key in keys if key.startswith("step-")})
    tap.check(steps == ["step-10", "step-12"], label + ": the last two are kept", keys)
    for name in ("summary.json", "job.resolved.toml", "events.jsonl"):
        path = os.path.join(folder.runs("bucket-" + label)[-1], name)
        with open(path, "rb") as file:
            tap.check(name in keys and server.get("runs", "jobs/bucket-%s/%s/%s" % (label, run_id, name)) == file.read(),
                      label + ": %s is beside them" % name, keys)
    tap.check(server.uploads("runs") == [], label + ": no upload is left unfinished")

    # By every command, named by URL and by the job.
    for spec in (url, url + "@latest", url + "@step-12", url + "/step-12", "bucket-" + label):
        result = folder.run("ckpt", "show", spec, "--json", "-f", job, env=env)
        tap.check(result.code == 0 and json.loads(result.output)["params_crc32c"] == expected, label + ": ckpt show " + spec.replace(run_id, "ID"),
                  result.output)
    result = folder.run("ckpt", "ls", url, env=env)
    tap.check(result.code == 0 and url + "/step-10" in result.output, label + ": ckpt ls", result.output)
    result = folder.run("ckpt", "verify", url, env=env)
    tap.check(result.code == 0, label + ": ckpt verify", result.output)
    result = folder.run("ckpt", "export", url + "@latest", "s3://models/" + label, env=env)
    found = weights.read_file(server.get("models", label + "/model.safetensors")) if result.code == 0 else {}
    tap.check(weights.params_crc32c(found) == expected, label + ": ckpt export from bucket to bucket", result.output)
    result = folder.run("ckpt", "cp", url + "@step-12", "copied-" + label, env=env)
    verified = folder.run("ckpt", "verify", "copied-%s/step-12" % label)
    tap.check(result.code == 0 and verified.code == 0, label + ": ckpt cp to a folder", result.output + verified.output)
    result = folder.run("ckpt", "cp", "copied-%s/step-12" % label, "s3://models/again", env=env)
    verified = folder.run("ckpt", "verify", "s3://models/again/step-12", env=env)
    tap.check(result.code == 0 and verified.code == 0, label + ": ckpt cp to a bucket", result.output + verified.output)
    result = folder.run("ckpt", "rm", url + "@step-10", env=env)
    tap.check(result.code == 0 and not any("step-10" in key for key in keys_of(server, "bucket-" + label)), label + ": ckpt rm", result.output)


def check_kills(server, folder, expected, number):
    """The launcher killed after a checkpoint; on again with another number of workers."""
    env, label = server.environment(), "%s-%d" % (server.name, number)
    job = folder.job("killed-" + label, train=STEPS, checkpoint=S3)
    process = folder.start("--workers", 2, job, env=env)
    seen = wait_for_checkpoint(server, "killed-" + label, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    result = folder.run("--workers", 3, job, env=env)
    summary = folder.summary("killed-" + label)
    tap.check(seen and result.code == 0 and summary.get("params_crc32c") == expected and summary.get("resumed_step", 0) >= 2,
              label + ": killed, it goes on from the bucket on three workers and ends with the same bits", result.output)
    half = {key.rsplit("/", 1)[0] for key in keys_of(server, "killed-" + label) if "/step-" in key}
    half -= {key.rsplit("/", 1)[0] for key in keys_of(server, "killed-" + label) if key.endswith("manifest.json")}
    tap.check(not half and server.uploads("runs") == [], label + ": nothing half written is left", half)


def check_outage(server, folder, expected, number):
    """The server killed while checkpoints are written, and back a moment later."""
    env, label = server.environment(), "%s-%d" % (server.name, number)
    job = folder.job("outage-" + label, train=STEPS, checkpoint=S3.replace("2 steps", "1 step"))
    process = folder.start("--workers", 2, job, env=env)
    seen = wait_for_checkpoint(server, "outage-" + label, process)
    server.kill()
    time.sleep(1)
    server.start()
    output, _ = process.communicate(timeout=180)
    summary = folder.summary("outage-" + label)
    tap.check(seen and process.returncode == 0 and summary.get("params_crc32c") == expected,
              label + ": killed in the middle of a checkpoint and back, the job goes on to the same bits", output.decode(errors="replace"))
    result = folder.run("ckpt", "verify", "outage-" + label, "-f", job, env=env)
    tap.check(result.code == 0, label + ": and its last checkpoint is whole", result.output)


def check_large(server, folder):
    """Shards of several parts."""
    env, label = server.environment(), server.name
    result = folder.run("--workers", 1, folder.job("large-local", train="steps = 2\nmicro-batch = 48", width=64, checkpoint="every = '1 step'"))
    job = folder.job("large-" + label, train="steps = 2\nmicro-batch = 48", width=64, checkpoint=S3.replace("2 steps", "1 step"))
    result = folder.run("--workers", 1, job, env=env)
    tap.check(result.code == 0 and folder.summary("large-" + label).get("params_crc32c") == folder.summary("large-local").get("params_crc32c"),
              label + ": shards of several parts", result.output)
    result = folder.run("ckpt", "verify", "large-" + label, "-f", job, env=env)
    tap.check(result.code == 0 and server.uploads("runs") == [], label + ": are whole", result.output)


folder = Folder(samples=200)
result = folder.run("--workers", 2, folder.job("local", train=STEPS, checkpoint='every = "2 steps"'))
expected = folder.summary("local").get("params_crc32c")
tap.check(result.code == 0 and expected, "a job with checkpoints in a folder", result.output)
for make in (servers.minio, servers.versitygw):
    reason = servers.missing(make.__name__)
    if reason:
        tap.skip("checkpoints in " + make.__name__, reason)
        continue
    with make() as server:
        check_server(server, folder, expected)
        check_large(server, folder)
        for number in range(5 if LONG else 1):
            check_kills(server, folder, expected, number)
            check_outage(server, folder, expected, number)
result = folder.run("--workers", 1, folder.job("run-dir", text='run-dir = "s3://runs/x"', train=STEPS))
tap.check(result.code not in (0, 124) and "run-dir" in result.output and "planned" in result.output, "a run-dir in a bucket is planned", result.output)
tap.end()
