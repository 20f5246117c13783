#!/usr/bin/env python3
"""The ledger adds up, and the verdict names what was slowed down: decoding, one rank, or nothing."""
from jobs import *

tap = Tap()
folder = Folder(samples=10)
gaps = []  # what is missing in the account of each run to the time of its command, beyond 1 %

with open(os.path.join(folder.path, "table.csv"), "w") as file:
    file.write("x,y\n" + "".join("%d,%d\n" % (i % 9, i % 4) for i in range(640)))


def diagnose(name, workers, **params):
    """16 rows a step in 4 micro-batches."""
    path = os.path.join(folder.path, name + ".toml")
    with open(path, "w") as file:
        file.write('name = "%s"\nprogram = "%s/jobs/diagnosed"\n[data]\ntrain = "table.csv"\nformat = "csv"\n' % (name, TESTS))
        file.write('fields = { x = "x,y", y = "y" }\nbatch-size = 16\n[train]\nsteps = 40\nmicro-batch = 4\n[params]\n')
        file.write("".join("%s = %s\n" % (key.replace("_", "-"), json.dumps(value)) for key, value in params.items()))
    result = folder.run("--workers", workers, "--fresh", path)
    summary = folder.summary(name)
    if not tap.check(result.code == 0 and "ledger" in summary, "%s finishes" % name, result.output):
        return "", {}
    total = sum(summary["ledger"].values())
    tap.check(abs(total - summary["time_s"]) <= 0.01 * summary["time_s"], "%s: the ledger adds up to its time within 1 %%" % name,
              "%f, not %f" % (total, summary["time_s"]))
    gaps.append(abs(result.seconds - summary["time_s"]) - 0.01 * result.seconds)
    return summary["verdict"], summary["ledger"]


# A rank computes 2 micro-batches a step: 10 ms; it decodes 8 samples a step.
verdict, ledger = diagnose("healthy", 2, compute_ms=5)
tap.check(verdict == "nothing starves", "a healthy job starves for nothing", verdict)
verdict, ledger = diagnose("hidden", 2, compute_ms=5, decode_ms=0.5)
tap.check(verdict == "nothing starves", "a delay that prefetch hides is no starving", verdict)
verdict, ledger = diagnose("decode", 2, compute_ms=5, decode_ms=30 / 8)
tap.check("(decode)" in verdict and "rank" not in verdict, "decoding three times as long as computing is named", verdict)
tap.check(ledger.get("decode", 0) > 0.4 * sum(ledger.values()), "and is charged", ledger)
verdict, ledger = diagnose("slow", 2, compute_ms=5, slow_rank=1, factor=3.0)
tap.check("(compute)" in verdict and "rank 1" in verdict, "a rank that computes three times as long is named", verdict)
verdict, ledger = diagnose("slow-of-three", 3, compute_ms=5, slow_rank=0, factor=3.0)
tap.check("(compute)" in verdict and "rank 0" in verdict, "also among three", verdict)
verdict, ledger = diagnose("slow-decode", 2, compute_ms=5, decode_ms=1.0, slow="decode", slow_rank=1, factor=4.0)
tap.check("(decode)" in verdict and "rank 1" in verdict, "a rank that decodes slowly is named with its own cause", verdict)
# The end of processes is not in the account; a busy machine draws it out, and a sanitizer looks for leaks in it.
tap.check(min(gaps) <= (0.5 if sanitized() else 0.03), "the time of a run is the command's", gaps)
tap.end()
