"""What every bench needs: starting both sides in turn, reading what they print, and rows with a goal."""
import glob
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

NOT_MEASURED = "not measured"


class Row:
    """One measurement. A ratio is always how many times better ours is than the peer's."""

    def __init__(self, name, unit, ours, peer=None, peer_name=None, more_is_better=False, goal=None):
        self.name, self.unit, self.ours, self.peer, self.peer_name, self.goal = name, unit, ours, peer, peer_name, goal
        if ours is None or peer is None:
            self.ratio = None
        else:
            better, worse = (ours, peer) if more_is_better else (peer, ours)
            self.ratio = better / worse if worse > 0 else None
        if peer_name is not None and peer is None or ours is None:
            self.met = NOT_MEASURED
        else:
            self.met = goal.met(self) if goal is not None else None

    def record(self, machine):
        def rounded(value):
            return None if value is None else float(f"{value:.5g}")

        return {"name": self.name, "unit": self.unit, "ours": rounded(self.ours), "peer": rounded(self.peer),
                "peer_name": self.peer_name, "ratio": rounded(self.ratio),
                "goal": None if self.goal is None else str(self.goal), "met": self.met, "machine": machine}


class Times:
    """Ours must be so many times better than the peer."""

    def __init__(self, ratio):
        self.ratio = ratio

    def met(self, row):
        return row.ratio is not None and row.ratio >= self.ratio

    def __str__(self):
        return f">= {self.ratio:g}x"


class AtMost:
    """Ours must not exceed a figure in the row's unit."""

    def __init__(self, limit, unit):
        self.limit, self.unit = limit, unit

    def met(self, row):
        return row.ours <= self.limit

    def __str__(self):
        return f"<= {self.limit:g} {self.unit}"


class Failed(Exception):
    """A side did not run; says how it was started and the end of what it said."""


def json_lines(text):
    """The JSON objects among the lines, without the prefix that a launcher may put before a worker's line."""
    found = []
    for line in text.splitlines():
        start = line.find("{")
        if start < 0:
            continue
        try:
            found.append(json.loads(line[start:]))
        except ValueError:
            pass
    return found


def machine():
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            model = re.search(r"model name\s*: (.*)", f.read()).group(1).strip()
    except (OSError, AttributeError):
        pass
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}"


class Bench:
    def __init__(self, build, rounds):
        self.build = os.path.abspath(build)
        self.rounds = rounds
        self.source = os.path.dirname(os.path.abspath(__file__))
        self.folder = tempfile.TemporaryDirectory(prefix="trainrun-bench-")
        self.runs = os.path.join(self.folder.name, "runs")
        self.run_number = 0
        # Open MPI refuses root without these; they change nothing else.
        self.environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    # Where things are. A peer that is not there is None.

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def peer_script(self, name):
        return os.path.join(self.source, "peers", name)

    def mpirun(self, name, *arguments):
        """The command of an MPI peer with two ranks, or None."""
        if not os.access(self.program(name), os.X_OK) or not any(
                os.access(os.path.join(folder, "mpirun"), os.X_OK) for folder in os.environ.get("PATH", "").split(":")):
            return None
        return ["mpirun", "--oversubscribe", "-np", "2", self.program(name), *arguments]

    def python(self, *arguments):
        """The command of a Python peer in build/peers, or None."""
        python = os.path.join(self.build, "peers", "bin", "python")
        return [python, *arguments] if os.access(python, os.X_OK) else None

    def torchrun(self, *arguments):
        """The command of a Python peer with two ranks, or None."""
        return self.python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments)

    def trainrun(self, *arguments, workers=2):
        """The command of a new run of ours; .run_folder(name) finds what it left."""
        self.run_number += 1
        return [os.path.join(self.build, "trainrun"), "--workers", str(workers), "--fresh", "--run-dir", self.runs,
                "--run-id", f"r{self.run_number}", *arguments]

    def run_folder(self, name):
        """Of the newest command made by trainrun(), for a job of this name."""
        return os.path.join(self.runs, name, f"r{self.run_number}")

    # Running.

    def start(self, command):
        """Starts a command in a process group of its own, its output in a file; returns (process, begun_ns, output)."""
        output = tempfile.TemporaryFile(dir=self.folder.name)
        begun = time.monotonic_ns()
        process = subprocess.Popen(command, cwd=self.folder.name, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        return process, begun, output

    def stop(self, process):
        """Ends a process that is still there with all it started, some of which may lead groups of their own."""
        if process.poll() is None:
            for pid in descendants(process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            process.kill()
        process.wait()

    def run(self, command, limit_s=120):
        """Runs to the end; returns (begun_ns, its JSON lines)."""
        process, begun, output = self.start(command)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"took longer than {limit_s} s: {' '.join(command)}") from None
        finally:
            self.stop(process)
            output.seek(0)
            text = output.read().decode(errors="replace")
            output.close()
        if process.returncode != 0:
            raise Failed(f"ended with {process.returncode}: {' '.join(command)}\n" + text[-2000:])
        return begun, json_lines(text)


def children(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as f:
                found += [int(word) for word in f.read().split()]
        except OSError:
            pass
    return found


def descendants(pid):
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def peer_side(run, command):
    """A side for in_turn that runs a peer's command; None where it is not installed. One that does not work here is said
    and gives no figures."""
    if command is None:
        return None

    def side():
        try:
            return run(command)
        except Failed as reason:
            say_nothing()
            print(f"peer: {reason}", file=sys.stderr, flush=True)
            return []

    return side


def in_turn(rounds, *sides):
    """Calls each side once a round, in turn; a side is a function that returns a list of figures, or None where it is not
    installed. Returns the figures of each, all rounds together (None for a side that is None)."""
    figures = [None if side is None else [] for side in sides]
    for _ in range(rounds):
        for side, found in zip(sides, figures):
            if side is not None:
                found.extend(side())
    return figures


def median(figures):
    return None if not figures else statistics.median(figures)


def say(text):
    """What goes on, for who waits; not part of the table."""
    if sys.stderr.isatty():
        print(f"\r\033[K  ... {text}", end="", file=sys.stderr, flush=True)


def say_nothing():
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
