#!/usr/bin/env python3
"""ddp_smoke.py under `trainrun --workers 2`, where a Python with PyTorch is at hand (make bench-peers)."""
import os
import re
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(SOURCE, "build")


def find_python():
    for python in (os.environ.get("TRAINRUN_PEERS_PYTHON"), os.path.join(BUILD, "peers", "bin", "python"),
                   os.path.join(SOURCE, "build", "peers", "bin", "python")):
        if python and os.access(python, os.X_OK) and subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0:
            return python
    return None


def main():
    python = find_python()
    if python is None:
        print("no Python with PyTorch: make bench-peers installs one")
        return 77
    script = os.path.join(SOURCE, "tests", "launcher", "ddp_smoke.py")
    env = dict(os.environ, PATH=os.path.dirname(python) + os.pathsep + os.environ["PATH"])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([os.path.join(BUILD, "trainrun"), "--workers", "2", script], cwd=folder, env=env,
                              capture_output=True, text=True, timeout=280)
    equal = re.findall(r"\[0/(\d)\] ddp rank \1 of 2: .*parameters equal", done.stdout)
    if done.returncode == 0 and sorted(equal) == ["0", "1"]:
        print("ok 1 - an unmodified DDP script trains\n1..1")
        return 0
    print("not ok 1 - an unmodified DDP script trains\n1..1\n# exit %d\n%s\n%s" % (done.returncode, done.stdout, done.stderr))
    return 1


sys.exit(main())
