#!/usr/bin/env python3
"""What a worker of a local CPU job loads: no MPI, no gRPC, no CUDA, no Python; and that nothing of it stays behind."""
from jobs import *

tap = Tap()
folder = Folder()
FOREIGN = ("mpi", "grpc", "cuda", "nccl", "ucx", "ucp", "python", "duckdb")

program = os.path.join(EXAMPLES, "fashion_mnist")
linked = [line.split()[0] for line in run(["ldd", program]).output.splitlines() if line.strip()]
foreign = [name for name in linked if any(word in os.path.basename(name).lower() for word in FOREIGN)]
tap.check(linked and not foreign, "ldd of a worker names no MPI, no gRPC and no CUDA", linked)

process = folder.start("--workers", 2, folder.job("maps", train='time = "30s"\nmicro-batch = 6'))
end = time.monotonic() + 20
mapped, pids = set(), []
while time.monotonic() < end and not mapped:
    time.sleep(0.1)
    # A line of metrics means that all libraries a step needs are there.
    runs = folder.runs("maps")
    log = os.path.join(runs[-1], "metrics.jsonl") if runs else ""
    if not os.path.exists(log) or os.path.getsize(log) == 0:
        continue
    pids = folder.workers()
    for pid in pids if len(pids) == 2 else []:
        try:
            with open("/proc/%d/maps" % pid) as file:
                mapped |= {line.split()[5] for line in file if len(line.split()) > 5}
        except OSError:
            mapped = set()
            break
libraries = sorted(os.path.basename(name) for name in mapped if ".so" in name)
tap.check(any(name.startswith("libtrainrun") for name in libraries)
          and not [name for name in libraries if any(word in name.lower() for word in FOREIGN)],
          "a running worker has no MPI, no gRPC and no CUDA in its memory", "\n".join(libraries))
tap.check(not [name for name in mapped if name.startswith("/dev/shm/")], "and nothing of /dev/shm", mapped)
process.send_signal(signal.SIGINT)
output, _ = process.communicate(timeout=30)
tap.check(process.returncode == 130, "it stops when asked", output.decode(errors="replace"))
tap.check(not folder.workers(), "no worker is left")
tap.end()
