#!/usr/bin/env python3
"""On a terminal: a live line that is redrawn, colors, and Ctrl-C as a person types it."""
import os
import pty
import re
import select
import signal
import sys
import tempfile
import time

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(SOURCE, "build")
WORKER = os.path.join(BUILD, "tests", "fake_worker")
results = []


def check(name, good, note=""):
    results.append(bool(good))
    print("%s %d - %s" % ("ok" if good else "not ok", len(results), name))
    if not good:
        print("#   %r" % note)


class Terminal:
    def __init__(self, folder, arguments, environment=None):
        self.pid, self.descriptor = pty.fork()
        self.text, self.code = "", None
        if self.pid == 0:
            os.chdir(folder)
            env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
            env.update({"TERM": "xterm", "LANG": "C.UTF-8"}, **(environment or {}))
            os.execve(os.path.join(BUILD, "trainrun"), ["trainrun"] + arguments, env)

    def read(self, seconds, until=None):
        """Reads until the text has `until`, the program ends or the time is over; true for the text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and re.search(until, self.text)):
            if not select.select([self.descriptor], [], [], 0.05)[0]:
                continue
            try:
                got = os.read(self.descriptor, 65536)
            except OSError:
                got = b""
            if not got:
                break
            self.text += got.decode(errors="replace")
        return bool(until and re.search(until, self.text))

    def finish(self, seconds=20):
        self.read(seconds)
        for _ in range(100):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.05)
        else:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.descriptor)
        return self.code


def check_live_line(folder):
    terminal = Terminal(folder, ["--workers", "2", WORKER, "steps=300", "step-ms=5"])
    shown = terminal.read(20, r"step \d+.*loss 0\.\d+.*samples/s")
    check("shows a live line with step, loss and rate", shown, terminal.text)
    code = terminal.finish()
    check("ends with 0", code == 0, terminal.text)
    check("redraws it in its place", len(re.findall(r"\rstep \d+", terminal.text)) >= 3, terminal.text)
    last = terminal.text[terminal.text.rindex("\rstep"):]
    check("takes it away at the end", "\r\x1b[K" in last, last)
    check("colors the prefixes", "\x1b[32m[0/0]\x1b[0m" in terminal.text, terminal.text)


def check_interrupt(folder):
    terminal = Terminal(folder, ["--workers", "2", WORKER, "steps=100000", "step-ms=5"])
    terminal.read(20, r"rank 0 of 2[\s\S]*rank 1 of 2|rank 1 of 2[\s\S]*rank 0 of 2")
    os.write(terminal.descriptor, b"\x03")
    code = terminal.finish()
    check("Ctrl-C stops after the step, with 130", code == 130 and "Ctrl-C again stops now" in terminal.text, terminal.text)
    check("says that it was stopped", "stopped" in terminal.text and "--fresh starts anew" in terminal.text, terminal.text)


def check_second_interrupt(folder):
    terminal = Terminal(folder, ["--workers", "2", WORKER, "steps=100000", "step-ms=5", "deaf=1"])
    terminal.read(20, r"rank 0 of 2[\s\S]*rank 1 of 2|rank 1 of 2[\s\S]*rank 0 of 2")
    begin = time.monotonic()
    os.write(terminal.descriptor, b"\x03")
    terminal.read(5, "stops now")
    os.write(terminal.descriptor, b"\x03")
    code = terminal.finish()
    check("Ctrl-C twice stops now", code == 130 and time.monotonic() - begin < 10, terminal.text)


def check_plain(folder):
    terminal = Terminal(folder, ["--no-color", "--quiet", "--workers", "1", WORKER, "steps=20"])
    code = terminal.finish()
    check("--no-color and --quiet leave the workers' lines alone", code == 0 and "\x1b" not in terminal.text and
          terminal.text.strip() == "[0/0] rank 0 of 1 from step -1", terminal.text)


try:
    for descriptor in pty.openpty():
        os.close(descriptor)
except OSError as error:
    print("no pseudo-terminals here: %s" % error)
    sys.exit(77)

with tempfile.TemporaryDirectory() as scratch:
    for number, part in enumerate((check_live_line, check_interrupt, check_second_interrupt, check_plain)):
        folder = os.path.join(scratch, str(number))
        os.mkdir(folder)
        part(folder)
print("1..%d" % len(results))
sys.exit(0 if all(results) else 1)
