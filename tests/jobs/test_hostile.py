#!/usr/bin/env python3
"""Bad job files, bad data, bad checkpoints, full disks: a clear error that names file and place, nothing started, nothing lost."""
import shutil

from jobs import *

tap = Tap()
folder = Folder(samples=120)

# ---- A job file with eight mistakes ----
with open(os.path.join(folder.path, "wrong.toml"), "w") as file:
    file.write('''name = "wrong"
program = "%s/fashion_mnist"
sede = 1

[data]
train = "train"
batch-size = "many"
suffle = true

[train]
epochs = 2
steps = 10
precision = "fp23"

[optimizer]
learning-rate = 0.1

[cluster]
workers-per-node = -3

[checkpoint]
every = "200 stepps"
''' % EXAMPLES)
for command in (["check", "wrong.toml"], ["run", "wrong.toml"]):
    result = folder.run(*command)
    errors = result.output.count("error")
    tap.check(result.code == 78, "%s of a wrong job exits 78" % command[0], result.output)
    for wanted in ("'sede'", "seed", "3:1", "batch-size", "'suffle'", "shuffle", "8:1", "precision", "fp32", "lr", "workers-per-node",
                   "every", "steps"):
        tap.check(wanted in result.output, "%s: the message speaks of %s" % (command[0], wanted), result.output)
    tap.check(errors >= 8, "%s: there are eight errors" % command[0], result.output)
tap.check(not os.path.exists(os.path.join(folder.path, "runs", "wrong")), "nothing was started")

# ---- Bad data ----


def spoil(path, how):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    with open(path, "wb") as file:
        file.write(how(data))


def flip(data):
    data[len(data) // 2] ^= 4
    return data


images = os.path.join(folder.path, "train-images-idx3-ubyte.gz")
kept = images + ".kept"
shutil.copy(images, kept)
for what, how in (("a wrong bit in gzip", flip), ("a truncated gzip", lambda data: data[:-100]),
                  ("no gzip at all", lambda data: b"hello" + data), ("an empty file", lambda data: b"")):
    shutil.copy(kept, images)
    spoil(images, how)
    result = folder.run("--workers", 2, "--fresh", folder.job("data"))
    tap.check(result.code not in (0, 124) and result.code < 128 and "train-images-idx3-ubyte.gz" in result.output
              and not folder.workers(), "%s is an error that names the file" % what, "%d\n%s" % (result.code, result.output))
shutil.copy(kept, images)

with open(os.path.join(folder.path, "a.cls"), "w") as file:
    file.write("3")
for key in ("s0", "s1"):
    shutil.copy(os.path.join(folder.path, "a.cls"), os.path.join(folder.path, key + ".cls"))
run(["tar", "-cf", "shard.tar", "s0.cls", "s1.cls"], cwd=folder.path)
os.truncate(os.path.join(folder.path, "shard.tar"), 700)
job = folder.job("tar")
with open(job) as file:
    text = file.read()
with open(job, "w") as file:
    file.write(text.replace('train = "%s/train"' % folder.path, 'train = "shard.tar"').replace('format = "idx"', 'format = "webdataset"'))
result = folder.run("--workers", 2, "--fresh", job)
tap.check(result.code not in (0, 124) and result.code < 128 and "shard.tar" in result.output, "a truncated tar is an error that names it",
          "%d\n%s" % (result.code, result.output))

# ---- A corrupt checkpoint ----
job = folder.job("ckpt", train="steps = 20\nmicro-batch = 6")
result = folder.run("--workers", 2, "--fresh", "--set", "train.steps=8", job)
tap.check(result.code == 0, "a job writes checkpoints", result.output)
os.remove(os.path.join(folder.runs("ckpt")[-1], "summary.json"))
newest = os.path.join(folder.runs("ckpt")[-1], "checkpoints", "step-8")
shards = sorted(name for name in os.listdir(newest) if name.endswith(".safetensors"))
shutil.copy(os.path.join(newest, shards[0]), os.path.join(folder.path, "shard.kept"))
for what, how in (("a wrong bit", flip), ("a cut", lambda data: data[:-64])):
    spoil(os.path.join(newest, shards[0]), how)
    result = folder.run("--workers", 2, job)
    tap.check(result.code not in (0, 124) and result.code < 128 and shards[0] in result.output,
              "%s in a shard is an error that names the shard" % what, "%d\n%s" % (result.code, result.output))
    shutil.copy(os.path.join(folder.path, "shard.kept"), os.path.join(newest, shards[0]))
result = folder.run("--workers", 1, job)
tap.check(result.code == 0 and folder.summary("ckpt").get("steps") == 20, "mended, it goes on", result.output)

# ---- A full disk ----
mount = os.path.join(folder.path, "small-disk")
os.mkdir(mount)
mounted = os.geteuid() == 0 and run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", mount]).code == 0
if not mounted:
    tap.skip("a full disk", "needs root, for a small tmpfs")
else:
    try:
        job = folder.job("full", width=16, checkpoint='every = "2 steps"\nurl = "%s/ckpt"' % mount)
        result = folder.run("--workers", 2, "--fresh", "--set", "failure.max-restarts=0", job)
        tap.check(result.code not in (0, 124) and result.code < 128 and "No space left" in result.output and "small-disk" in result.output,
                  "a full disk is an error that names the file", "%d\n%s" % (result.code, result.output))
        left = [name for top, _, files in os.walk(mount) for name in files if name == "manifest.json"]
        tap.check(not left and folder.summary("full").get("status") == "failed", "and leaves no checkpoint that is none", left)
    finally:
        run(["umount", mount])

# ---- Parameters of the program ----
result = folder.run("--workers", 2, "--fresh", "--set", "params.widht=3", folder.job("params"))
tap.check(result.code == 78 and "widht" in result.output and "width" in result.output, "an unknown parameter of the program is named",
          "%d\n%s" % (result.code, result.output))
tap.end()
