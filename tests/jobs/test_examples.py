#!/usr/bin/env python3
"""The examples do what they say: alone, under trainrun, under mpirun, and as C++."""
from jobs import *

tap = Tap()
folder = Folder()
mpi = have("mpirun") and os.path.exists(os.path.join(BUILD, "libtrainrun_mpi.so"))


def example(name):
    return os.path.join(EXAMPLES, name)


# ---- hello_allreduce ----
for workers in (1, 2, 5):
    result = folder.run("--workers", workers, example("hello_allreduce"))
    tap.check(result.code == 0 and result.output.count("the sum is %d" % workers) == workers, "hello_allreduce: %d workers" % workers,
              result.output)
result = run([example("hello_allreduce")])
tap.check(result.code == 0 and "rank 0 of 1: the sum is 1" in result.output, "hello_allreduce alone", result.output)
if mpi:
    result = run(MPIRUN + ["3", example("hello_allreduce")])
    tap.check(result.code == 0 and result.output.count("the sum is 3") == 3, "hello_allreduce under mpirun", result.output)
else:
    tap.skip("hello_allreduce under mpirun", "no Open MPI, or the module was not built")

# ---- regression on a table ----
job = os.path.join(SOURCE, "examples", "regression", "job.toml")
found = set()
for workers in (1, 2, 3):
    result = folder.run("--workers", workers, "--fresh", job)
    summary = folder.summary("regression")
    if tap.check(result.code == 0 and summary.get("metrics", {}).get("loss", 9) < 0.02, "regression: %d workers learn the function" % workers,
                 "%s\n%s" % (result.output, summary)):
        found.add(summary["params_crc32c"])
tap.check(len(found) == 1, "regression: the same bits", found)

# ---- a loop of one's own ----
with open(os.path.join(folder.path, "own.toml"), "w") as file:
    file.write('name = "own"\nprogram = "%s"\nseed = 2\n[data]\ntrain = "train"\nformat = "idx"\nbatch-size = 4\n' % example("bring_your_own_loop"))


def means(output):
    return sorted(line.split("label ")[1] for line in output.splitlines() if "mean pixel" in line)


alone = run([example("bring_your_own_loop"), "own.toml"], cwd=folder.path)
tap.check(alone.code == 0 and len(means(alone.output)) == 10, "bring_your_own_loop alone", alone.output)
for workers in (2, 3):
    result = folder.run("--workers", workers, "--fresh", "own.toml")
    tap.check(result.code == 0 and means(result.output) == means(alone.output), "bring_your_own_loop: %d workers" % workers, result.output)
steps = [name for name in os.listdir(os.path.join(folder.runs("own")[-1], "checkpoints")) if name.startswith("step-")]
tap.check(steps, "bring_your_own_loop commits checkpoints", steps)

source = os.path.join(SOURCE, "examples", "bring_your_own_loop.c")
api = [os.path.join(SOURCE, room, "api") for room in ("runtime", "collective", "dataloader", "checkpoint", "ops")]
output = os.path.join(folder.path, "own_loop_cc")
flags = ["-Wl,--unresolved-symbols=ignore-in-shared-libs"]
result = run(["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-x", "c++", *["-I" + path for path in api], source, "-x", "none",
              "-o", output, "-L" + os.path.abspath(BUILD), "-ltrainrun", "-Wl,-rpath," + os.path.abspath(BUILD), *flags])
tap.check(result.code == 0, "bring_your_own_loop compiles as C++17", result.output)
# A library built with sanitizers needs their runtime first, which a plain program does not bring.
sanitized = "asan" in run(["ldd", os.path.join(BUILD, "libtrainrun.so")]).output or "tsan" in run(["ldd", os.path.join(BUILD, "libtrainrun.so")]).output
if sanitized:
    tap.skip("and runs", "the library is built with a sanitizer")
else:
    result = run([output, "own.toml"], cwd=folder.path, env={"TRAINRUN_CHECKPOINT_RESUME": "never"})
    tap.check(result.code == 0 and means(result.output) == means(alone.output), "and runs", result.output)

# ---- --describe ----
result = run([example("fashion_mnist"), "--describe"])
tap.check(result.code == 0 and [param["name"] for param in json.loads(result.output)["params"]] == ["width", "variant"],
          "--describe lists the parameters", result.output)
tap.end()
