#!/usr/bin/env python3
"""Death at random moments: the launcher or a worker killed -9, SIGTERM, Ctrl-C; then the same bits, and nothing left behind."""
import random

from jobs import *

tap = Tap()
folder = Folder()
chance = random.Random(11)
MOMENTS = 50 if LONG else 6


def wait_gone(seconds=10.0):
    """True when no worker of this folder is left."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not folder.workers():
            return True
        time.sleep(0.005)
    return False


def shared_memory():
    return [name for name in os.listdir("/dev/shm") if "trainrun" in name]


def finish(name, job, workers, what, before=""):
    """The same command again, which must end with the bits of the undisturbed run."""
    result = folder.run("--workers", workers, job)
    summary = folder.summary(name)
    good = (result.code == 0 and summary.get("status") == "done" and len(folder.runs(name)) == 1
            and all(summary[key] == reference[key] for key in ("params_crc32c", "order_crc32c", "steps", "samples"))
            and losses(folder.metrics(name)) == metrics and not debris(folder, name) and not shared_memory())
    return tap.check(good, what, "%s\n%s\nruns %s\ndebris %s\n%s" % (before, result.output, folder.runs(name),
                                                                    debris(folder, name), summary))


def job_of(name, **tables):
    return folder.job(name, variant="norm", width=8, train="steps = 60\nmicro-batch = 6", **tables)


result = folder.run("--workers", 2, "--fresh", job_of("whole"))
reference = folder.summary("whole")
if not tap.check(result.code == 0 and reference.get("status") == "done", "the undisturbed run finishes", result.output):
    tap.end()
metrics = losses(folder.metrics("whole"))
length = result.seconds

for i in range(MOMENTS):
    name = "launcher-%d" % i
    job = job_of(name)
    process = folder.start("--workers", 2, job)
    time.sleep(chance.uniform(0.0, 0.9 * length))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    # The same command at once: it must not trip over workers that are still dying.
    workers = (2, 1, 3, 4)[i % 4]
    finish(name, job, workers, "the launcher killed at moment %d, then %d workers%s" % (i, workers, " (it had ended)" if ended else ""))
    tap.check(wait_gone(), "no worker is left (%d)" % i, folder.workers())

for i in range(MOMENTS):
    name = "worker-%d" % i
    process = folder.start("--workers", 2, job_of(name))
    end = time.monotonic() + chance.uniform(0.0, 0.9 * length)
    killed = None
    while time.monotonic() < end or not killed:
        workers = folder.workers()
        if workers and time.monotonic() >= end:
            killed = chance.choice(workers)
            try:
                os.kill(killed, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if process.poll() is not None:
            break
        time.sleep(0.002)
    output, _ = process.communicate(timeout=120)
    summary = folder.summary(name)
    good = (process.returncode == 0 and summary.get("status") == "done" and len(folder.runs(name)) == 1
            and all(summary[key] == reference[key] for key in ("params_crc32c", "order_crc32c", "steps", "samples"))
            and losses(folder.metrics(name)) == metrics and not debris(folder, name) and not shared_memory() and wait_gone())
    tap.check(good, "a worker killed at moment %d: the launcher restarts all (restarts: %s)" % (i, summary.get("restarts")),
              "%s\n%s" % (output.decode(errors="replace"), summary))

for i, (number, code, status) in enumerate([(signal.SIGTERM, 75, "preempted"), (signal.SIGINT, 130, "stopped")] * (MOMENTS // 2)):
    name = "stop-%d" % i
    job = job_of(name)
    process = folder.start("--workers", 2, job)
    time.sleep(chance.uniform(0.3, 0.8) * length)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    text = output.decode(errors="replace")
    summary = folder.summary(name)
    if process.returncode == 0 and summary.get("status") == "done":
        tap.check(True, "stopped at moment %d: it had ended" % i)
        continue
    saved = [run for run in os.listdir(os.path.join(folder.runs(name)[-1], "checkpoints")) if run.startswith("step-")]
    tap.check(process.returncode == code and summary.get("status") == status and summary.get("exit_code") == code
              and ("step-%d" % summary.get("steps", -1) in saved or summary.get("steps", 0) == 0) and wait_gone(),
              "%s at moment %d: status %s, exit %d, a checkpoint of the last step" % (number.name, i, status, code),
              "%s\nexit %d %s %s" % (text, process.returncode, summary, saved))
    finish(name, job, (1, 2, 3)[i % 3], "and goes on to the same bits (%d)" % i, text)
tap.end()
