#!/usr/bin/env python3
"""The test runner counts what happened: a failure, a crash, a hang or a missing report is never lost."""
import os
import stat
import subprocess
import sys
import tempfile

SOURCE = os.environ["TRAINRUN_SOURCE_DIR"]
GOOD = 'for a in "$@"; do case $a in --tap=*) tap=${a#--tap=};; esac; done\n'
CASES = {
    "good": (GOOD + 'printf "TAP version 13\\n1..2\\nok - a::b  (0.00s)\\nok - a::c # SKIP no GPU\\n" >"$tap"',
             "1 passed, 0 failed, 1 skipped", 0),
    "bad": (GOOD + 'printf "1..2\\nok - a::b\\nnot ok - a::c  (0.00s)\\n" >"$tap"; exit 1', "1 passed, 1 failed, 0 skipped", 1),
    "short": (GOOD + 'printf "1..3\\nok - a::b\\n" >"$tap"', "1 passed, 1 failed, 0 skipped", 1),
    "crash": ("kill -SEGV $$", "0 passed, 1 failed, 0 skipped", 1),
    "serverless": (GOOD + 'printf "1..1\\nok - a::b # SKIP no minio here\\n" >"$tap"', "0 passed, 1 failed, 0 skipped", 1),
    "silent": ("exit 0", "0 passed, 1 failed, 0 skipped", 1),
    "hang": ("sleep 60 & wait", "0 passed, 1 failed, 0 skipped", 1),
    "litter": (GOOD + 'printf "1..1\\nok - a::b\\n" >"$tap"; : >/dev/shm/trainrun-test-runner-litter',
               "1 passed, 1 failed, 0 skipped", 1),
}


def run(build, name, body):
    path = os.path.join(build, "tests", "fake", "test_" + name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write("#!/bin/bash\n" + body + "\n")
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    command = [sys.executable, os.path.join(SOURCE, "scripts", "test"), "--build", build, "--limit", "2", "fake/test_" + name]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, TRAINRUN_REQUIRE_SERVERS="1"))
    return done.stdout.strip().splitlines()[-1], done.returncode


print("1..%d" % len(CASES))
failed = 0
with tempfile.TemporaryDirectory() as build:
    for name, (body, line, status) in CASES.items():
        got = run(build, name, body)
        good = got == (line, status)
        failed += not good
        print("%s - counts a %s program%s" % ("ok" if good else "not ok", name, "" if good else ": %r" % (got,)))
if os.path.exists("/dev/shm/trainrun-test-runner-litter"):
    os.unlink("/dev/shm/trainrun-test-runner-litter")
sys.exit(1 if failed else 0)
