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

def disturb(kind, number, least, most, disturbance):
    """Starts the job and disturbs it at a random moment at which it still runs; (name, job, exit code, output)."""
    for attempt in range(20):
        name = "%s-%d-%d" % (kind, number, attempt)
        job = job_of(name)
        process = folder.start("--workers", 2, job)
        time.sleep(chance.uniform(least * length, most * length / (1 + attempt / 4)))
        hit = process.poll() is None and disturbance(process)
        output, _ = process.communicate(timeout=120)
        if hit and "done after" not in output.decode(errors="replace") or hit and kind == "worker":
            break
    return name, job, process.returncode, output.decode(errors="replace")


def kill_launcher(process):
    process.kill()
    return True


def kill_worker(process):
    end = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < end:
        workers = folder.workers()
        if workers:
            try:
                os.kill(chance.choice(workers), signal.SIGKILL)
                return True
            except ProcessLookupError:
                pass
    return False


for i in range(MOMENTS):
    name, job, _, text = disturb("launcher", i, 0.0, 0.9, kill_launcher)
    # The same command at once: it must not trip over workers that are still dying.
    workers = (2, 1, 3, 4)[i % 4]
    finish(name, job, workers, "the launcher killed at moment %d, then %d workers" % (i, workers), text)
    tap.check(wait_gone(), "no worker is left (%d)" % i, folder.workers())

for i in range(MOMENTS):
    name, job, code, text = disturb("worker", i, 0.0, 0.8, kill_worker)
    summary = folder.summary(name)
    good = (code == 0 and summary.get("status") == "done" and len(folder.runs(name)) == 1
            and all(summary[key] == reference[key] for key in ("params_crc32c", "order_crc32c", "steps", "samples"))
            and losses(folder.metrics(name)) == metrics and not debris(folder, name) and not shared_memory() and wait_gone())
    tap.check(good, "a worker killed at moment %d: the launcher restarts all (restarts: %s)" % (i, summary.get("restarts")),
              "%s\n%s" % (text, summary))

for i, (number, code, status) in enumerate([(signal.SIGTERM, 75, "preempted"), (signal.SIGINT, 130, "stopped")] * (MOMENTS // 2)):
    def stop(process):
        process.send_signal(number)
        return True

    # Before the workers have joined there is nothing to save, and the exit code is the signal's.
    name, job, exit_code, text = disturb(status, i, 0.3, 0.7, stop)
    summary = folder.summary(name)
    root = os.path.join(folder.runs(name)[-1], "checkpoints")
    saved = [run for run in os.listdir(root) if run.startswith("step-")] if os.path.isdir(root) else []
    tap.check(exit_code == code and summary.get("status") == status and summary.get("exit_code") == code
              and ("step-%d" % summary.get("steps", -1) in saved or summary.get("steps", 0) == 0) and wait_gone(),
              "%s at moment %d: status %s, exit %d, a checkpoint of the last step" % (number.name, i, status, code),
              "%s\nexit %d %s %s" % (text, exit_code, summary, saved))
    finish(name, job, (1, 2, 3)[i % 3], "and goes on to the same bits (%d)" % i, text)
tap.end()
