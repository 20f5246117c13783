#!/usr/bin/env python3
"""Which run a command goes on with, what stops it, and what is kept."""
import shutil

from jobs import *

tap = Tap()
folder = Folder()
STEPS = "steps = 12\nmicro-batch = 6"


def ids(name):
    return [os.path.basename(run) for run in folder.runs(name)]


# ---- Finished, unfinished, changed ----
job = folder.job("runs", train=STEPS)
result = folder.run("--workers", 2, job)
whole = folder.summary("runs")
tap.check(result.code == 0 and len(ids("runs")) == 1, "a first command makes a run", result.output)
result = folder.run("--workers", 2, job)
tap.check(result.code == 0 and len(ids("runs")) == 2, "when all are finished the same command makes another", result.output)
first = ids("runs")[0]
result = folder.run("--workers", 2, "--run-id", first, job)
tap.check(result.code == 0 and len(ids("runs")) == 2, "--run-id of a finished run does nothing and exits 0", result.output)
result = folder.run("--workers", 2, "--run-id", "mine", job)
tap.check(result.code == 0 and os.path.isdir(os.path.join(folder.path, "runs", "runs", "mine")), "--run-id names a new run", result.output)


def interrupt(name, job, *flags):
    """Leaves an unfinished run with a checkpoint."""
    process = folder.start("--workers", 2, *flags, job)
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        root = os.path.join(folder.runs(name)[-1], "checkpoints") if folder.runs(name) else ""
        if os.path.isdir(root) and any(os.path.exists(os.path.join(root, step, "manifest.json")) for step in os.listdir(root)):
            break
        time.sleep(0.005)
    process.kill()
    process.communicate()
    return not os.path.exists(os.path.join(folder.runs(name)[-1], "summary.json"))


LONGER = "steps = 400\nmicro-batch = 6"
job = folder.job("cut", train=LONGER)
tap.check(interrupt("cut", job), "a killed run is unfinished")
one = ids("cut")
result = folder.run("--workers", 2, "--set", "optimizer.lr=0.002", "--set", "train.steps=12", job)
tap.check(result.code == 0 and len(ids("cut")) == 2 and "optimizer.lr" in result.output,
          "another fingerprint starts a new run and names the key", result.output)
result = folder.run("--workers", 3, "--set", "train.steps=60", job)
tap.check(result.code == 0 and len(ids("cut")) == 2 and "resume" in result.output
          and json.load(open(os.path.join(folder.path, "runs", "cut", one[0], "summary.json")))["steps"] == 60,
          "the length of the run may change: the unfinished one goes on", result.output)

job = folder.job("fresh", train=LONGER)
interrupt("fresh", job)
result = folder.run("--workers", 2, "--fresh", "--set", "train.steps=12", job)
tap.check(result.code == 0 and len(ids("fresh")) == 2 and folder.summary("fresh")["resumed_step"] == -1, "--fresh never resumes", result.output)
result = folder.run("--workers", 2, "--set", "checkpoint.resume=never", "--set", "train.steps=12", job)
tap.check(result.code == 0 and len(ids("fresh")) == 3, "nor does resume = never", result.output)

# ---- A job of this name that is alive ----
process = folder.start("--workers", 2, folder.job("alive", train='time = "60s"\nmicro-batch = 6'))
end = time.monotonic() + 20
while time.monotonic() < end and not folder.workers():
    time.sleep(0.02)
result = folder.run("--workers", 2, folder.job("alive", train='time = "60s"\nmicro-batch = 6'))
tap.check(result.code not in (0, 124) and "pid %d" % process.pid in result.output and "host" in result.output,
          "a job of the same name that is alive is refused with its host and pid", result.output)
process.send_signal(signal.SIGINT)
process.communicate(timeout=30)

# ---- Data that changed under a run ----
data = tempfile.mkdtemp(prefix="trainrun-jobs-")
make_data(data, 120, seed=2)
job = folder.job("data", train=LONGER)
with open(job) as file:
    text = file.read().replace(folder.path + "/train", data + "/train")
with open(job, "w") as file:
    file.write(text)
interrupt("data", job)
make_data(data, 240, seed=3)
result = folder.run("--workers", 2, "--set", "failure.max-restarts=0", job)
tap.check(result.code not in (0, 124) and "train-images-idx3-ubyte.gz" in result.output and "lock" in result.output.lower()
          or "changed" in result.output.lower(), "data that changed stop the resume by name", result.output)
shutil.rmtree(data)

# ---- What is kept, and how it is named ----
job = folder.job("keep", train=STEPS + '\neval-every = "2 steps"', checkpoint='every = "2 steps"\nkeep = { last = 2, best = "max loss" }')
result = folder.run("--workers", 2, job)
root = os.path.join(folder.runs("keep")[-1], "checkpoints")
steps = sorted(int(name[5:]) for name in os.listdir(root) if name.startswith("step-"))
best = max((line["metrics"]["loss"], line["step"]) for line in folder.metrics("keep") if "metrics" in line)[1]
tap.check(result.code == 0 and set(steps) == {10, 12, best}, "keep = last two and the best", "%s, best %s\n%s" % (steps, best, result.output))
for which, step in (("", 12), ("@latest", 12), ("@best", best), ("@step-10", 10)):
    result = folder.run("ckpt", "show", "keep" + which)
    tap.check(result.code == 0 and str(step) in result.output, "ckpt show keep%s is step %d" % (which, step), result.output)
result = folder.run("ckpt", "ls", "keep")
tap.check(result.code == 0 and all(str(step) in result.output for step in steps), "ckpt ls lists all", result.output)
result = folder.run("ckpt", "verify", "keep")
tap.check(result.code == 0, "ckpt verify reads every byte", result.output)
result = folder.run("ckpt", "cp", "keep@step-10", os.path.join(folder.path, "copied", "step-10"))
tap.check(result.code == 0 and os.path.exists(os.path.join(folder.path, "copied", "step-10", "manifest.json")), "ckpt cp copies", result.output)
job = folder.job("from", train="steps = 12\nmicro-batch = 6", checkpoint='resume = "%s/copied/step-10"' % folder.path)
result = folder.run("--workers", 3, job)
tap.check(result.code == 0 and folder.summary("from").get("resumed_step") == 10
          and folder.summary("from")["params_crc32c"] == folder.summary("keep")["params_crc32c"],
          "a run that begins at a named checkpoint ends with the same bits", result.output)
result = folder.run("ckpt", "rm", "keep@step-10")
tap.check(result.code == 0 and not os.path.exists(os.path.join(root, "step-10", "manifest.json")), "ckpt rm removes", result.output)
with open(os.path.join(root, "step-12", sorted(n for n in os.listdir(os.path.join(root, "step-12")) if "shard" in n)[0]), "r+b") as file:
    file.seek(-40, 2)
    file.write(b"\xff\x00\xff")
result = folder.run("ckpt", "verify", "keep@step-12")
tap.check(result.code != 0 and "shard-0000" in result.output, "ckpt verify finds a wrong byte and names its shard", result.output)

# ---- Evaluation ----
job = folder.job("judged", train=STEPS)
folder.run("--workers", 2, job)
trained = folder.summary("judged")
result = folder.run("eval", "--workers", 3, job)
judged = folder.summary("judged")
tap.check(result.code == 0 and judged.get("kind") == "eval" and judged["metrics"] == trained["metrics"]
          and judged["epochs"] == trained["epochs"] and judged["steps"] == 12,
          "eval of the newest checkpoint gives the metrics of training's end", "%s\n%s\n%s" % (result.output, judged, trained))
result = folder.run("eval", "--workers", 2, folder.job("never-trained", train=STEPS))
tap.check(result.code == 0 and folder.summary("never-trained").get("kind") == "eval", "eval without a checkpoint judges the start", result.output)

# ---- Early stop ----
job = folder.job("early", train='steps = 60\nmicro-batch = 6\neval-every = "2 steps"\nearly-stop = { metric = "accuracy", patience = 2 }',
                 optimizer="lr = 0.0")
result = folder.run("--workers", 2, job)
tap.check(result.code == 0 and folder.summary("early")["steps"] == 6 and folder.summary("early")["status"] == "done",
          "early-stop ends a run that gets no better", "%s %s" % (folder.summary("early").get("steps"), result.output))
tap.end()
