"""What the tests of whole jobs share: TAP, a small data set, running trainrun, reading what a run left.

The data are images of ten noisy patterns, so that a model learns something within a few steps; a test of whole jobs is about
bits, processes and files, and uses the real data only where it says so.
"""
import gzip
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(os.path.dirname(__file__), "..", "..", "build")
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRAINRUN = os.path.join(os.path.abspath(BUILD), "trainrun")
EXAMPLES = os.path.join(os.path.abspath(BUILD), "examples")
TESTS = os.path.join(os.path.abspath(BUILD), "tests")
LONG = os.environ.get("TRAINRUN_TEST_LONG") == "1"
REAL_DATA = "/usr/share/datasets/fashion-mnist"
# Open MPI leaks from plugins that it has unloaded, which no suppression can name: no leaks are sought under it.
MPIRUN = ["env", "ASAN_OPTIONS=%s:detect_leaks=0" % os.environ.get("ASAN_OPTIONS", ""), "mpirun", "--oversubscribe", "-np"]


class Tap:
    def __init__(self):
        self.count, self.failed = 0, 0

    def check(self, good, name, detail=""):
        self.count += 1
        if not good:
            self.failed += 1
            for line in str(detail).splitlines()[-40:]:
                print("# " + line)
        print("%s %d - %s" % ("ok" if good else "not ok", self.count, name), flush=True)
        return good

    def skip(self, name, reason):
        self.count += 1
        print("ok %d - %s # SKIP %s" % (self.count, name, reason), flush=True)

    def end(self):
        print("1..%d" % self.count, flush=True)
        sys.exit(1 if self.failed else 0)


def write_idx(path, dims, data):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">BBBB", 0, 0, 8, len(dims)))
        file.write(struct.pack(">%dI" % len(dims), *dims))
        file.write(bytes(data))


def make_data(folder, samples, seed=1):
    """folder/train-… and folder/t10k-…, 28 x 28 pixels."""
    source = random.Random(seed)
    patterns = [[source.randrange(200) for _ in range(784)] for _ in range(10)]
    for name, count in (("train", samples), ("t10k", max(1, samples // 5))):
        labels = [source.randrange(10) for _ in range(count)]
        pixels = bytearray()
        for label in labels:
            noise = source.getrandbits(784 * 6).to_bytes(588, "little") * 2
            pixels += bytes(p + (n & 55) for p, n in zip(patterns[label], noise))
        write_idx(os.path.join(folder, name + "-images-idx3-ubyte.gz"), [count, 28, 28], pixels)
        write_idx(os.path.join(folder, name + "-labels-idx1-ubyte.gz"), [count], labels)


class Folder:
    """A place for jobs: data, job files, runs. Removed by the runner of the tests."""

    def __init__(self, samples=600):
        self.path = tempfile.mkdtemp(prefix="trainrun-jobs-")
        make_data(self.path, samples)

    def job(self, name, text="", variant="plain", width=4, batch=48, **tables):
        """A job file of the main example on the small data. tables: train = "steps = 12", checkpoint = …"""
        tables.setdefault("train", "steps = 20\nmicro-batch = 6")
        tables.setdefault("checkpoint", 'every = "4 steps"')
        tables.setdefault("metrics", 'log-every = "1 step"')
        tables.setdefault("params", 'width = %d\nvariant = "%s"' % (width, variant))
        lines = ['name = "%s"' % name, 'program = "%s/fashion_mnist"' % EXAMPLES, "seed = 5", text, "[data]",
                 'train = "%s/train"' % self.path, 'valid = "%s/t10k"' % self.path, 'format = "idx"',
                 "batch-size = %d" % batch]
        for table, body in tables.items():
            lines += ["[%s]" % table, body]
        path = os.path.join(self.path, name + ".toml")
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def run(self, *arguments, timeout=120, env=None):
        """trainrun with arguments, in this folder."""
        return run([TRAINRUN, *map(str, arguments)], cwd=self.path, timeout=timeout, env=env)

    def start(self, *arguments, env=None):
        return subprocess.Popen([TRAINRUN, *map(str, arguments)], cwd=self.path, env=environment(env), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)

    def runs(self, name):
        folder = os.path.join(self.path, "runs", name)
        found = [os.path.join(folder, run) for run in os.listdir(folder)] if os.path.isdir(folder) else []
        found = [run for run in found if os.path.exists(os.path.join(run, "control.json"))]
        return sorted(found, key=lambda run: read_json(os.path.join(run, "control.json"))["created_ns"])

    def summary(self, name):
        runs = self.runs(name)
        path = os.path.join(runs[-1], "summary.json") if runs else ""
        return read_json(path) if os.path.exists(path) else {}

    def metrics(self, name):
        with open(os.path.join(self.runs(name)[-1], "metrics.jsonl")) as file:
            return [json.loads(line) for line in file]

    def workers(self):
        """Pids of workers (and anything else) that run below this folder."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as file:
                    command = file.read()
                if os.readlink("/proc/%s/cwd" % pid) == self.path and b"fashion_mnist" in command.split(b"\0")[0]:
                    found.append(int(pid))
            except OSError:
                pass
        return found


def environment(extra=None):
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    env.update(extra or {})
    return env


class Result:
    def __init__(self, code, output, seconds):
        self.code, self.output, self.seconds = code, output, seconds


def run(command, cwd=None, timeout=120, env=None):
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, env=environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Result(124, output.decode(errors="replace") + "\n(timed out)", time.monotonic() - begun)
    return Result(process.returncode, output.decode(errors="replace"), time.monotonic() - begun)


def sanitized():
    """Whether this build runs under a sanitizer, which makes the ends of processes long."""
    return any(word in run(["ldd", TRAINRUN]).output for word in ("libasan", "libtsan"))


def have(program):
    return any(os.access(os.path.join(folder, program), os.X_OK) for folder in os.environ["PATH"].split(":"))


def read_json(path):
    with open(path) as file:
        return json.load(file)


def losses(metrics):
    """What must be alike in two runs: everything but rates and times."""
    return [{key: value for key, value in line.items() if key not in ("samples_per_s",)} for line in metrics]


def debris(folder, name):
    """Half-written checkpoints and temporary files of the newest run; [] when there are none."""
    found = []
    for top, folders, files in os.walk(folder.runs(name)[-1]):
        if os.path.basename(top).startswith("step-") and files and "manifest.json" not in files:
            found.append(top)
        found += [os.path.join(top, file) for file in files if ".tmp" in file]
    return found
