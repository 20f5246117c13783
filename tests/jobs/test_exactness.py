#!/usr/bin/env python3
"""One job, any number of workers, any way to start it: the same order, the same bits, the same losses to the last digit."""
from jobs import *

tap = Tap()
folder = Folder()


def same(name, reference, metrics, what, result):
    summary = folder.summary(name)
    good = result.code == 0 and summary.get("status") == "done"
    tap.check(good, "%s finishes" % what, result.output)
    if not good:
        return
    for key in ("params_crc32c", "order_crc32c", "samples"):
        tap.check(summary[key] == reference[key], "%s has the same %s" % (what, key), "%s, not %s" % (summary[key], reference[key]))
    tap.check(losses(folder.metrics(name)) == metrics, "%s has the same losses to the last digit" % what)


for variant in ("plain", "norm"):
    # 600 samples in batches of 48: the last batch of an epoch is short, and its micro-batches too.
    job = folder.job(variant, variant=variant, train="epochs = 2\nmicro-batch = 6")
    result = folder.run("--workers", 1, "--fresh", job)
    reference = folder.summary(variant)
    if not tap.check(result.code == 0 and reference.get("status") == "done", "%s: one worker finishes" % variant, result.output):
        continue
    metrics = losses(folder.metrics(variant))
    tap.check(reference["steps"] == 26 and reference["samples"] == 1200, "%s: every sample is seen once an epoch" % variant, reference)
    for workers in (2, 3, 4, 8):
        result = folder.run("--workers", workers, "--fresh", job)
        same(variant, reference, metrics, "%s: %d workers" % (variant, workers), result)
    program = os.path.join(EXAMPLES, "fashion_mnist")
    result = run([program, job], cwd=folder.path, env={"TRAINRUN_CHECKPOINT_RESUME": "never"})
    same(variant, reference, metrics, "%s: the program alone" % variant, result)
    for ranks in (1, 2, 3):
        if not have("mpirun") or not os.path.exists(os.path.join(BUILD, "libtrainrun_mpi.so")):
            tap.skip("%s: %d ranks of mpirun" % (variant, ranks), "no Open MPI, or the module was not built")
            continue
        result = run(MPIRUN + [str(ranks), program, job], cwd=folder.path, env={"TRAINRUN_CHECKPOINT_RESUME": "never"})
        same(variant, reference, metrics, "%s: %d ranks of mpirun" % (variant, ranks), result)

# The same job in another order or with another seed has other bits: equal bits say something.
other = folder.job("other", train="epochs = 2\nmicro-batch = 6").replace(".toml", "")
result = folder.run("--workers", 2, "--fresh", "--set", "seed=6", other + ".toml")
tap.check(result.code == 0 and folder.summary("other")["params_crc32c"] != folder.summary("plain")["params_crc32c"]
          and folder.summary("other")["order_crc32c"] != folder.summary("plain")["order_crc32c"], "another seed has other bits",
          result.output)

# Random transforms draw by seed, epoch and sample, whoever decodes it.
crops = ["--fresh", "--set", 'data.transforms=["random-crop 28 pad 3", "flip"]', folder.job("crops", train="epochs = 2\nmicro-batch = 6")]
result = folder.run("--workers", 1, *crops)
reference = folder.summary("crops")
if tap.check(result.code == 0 and reference.get("params_crc32c") not in (None, folder.summary("plain")["params_crc32c"]),
             "transforms change what is trained on", result.output):
    metrics = losses(folder.metrics("crops"))
    same("crops", reference, metrics, "transforms: 3 workers", folder.run("--workers", 3, *crops))
tap.end()
