#!/usr/bin/env python3
"""Each variable that torchrun gives its workers, and its restart of all, as a plain script sees them under trainrun."""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(SOURCE, "build")
SCRIPT = os.path.join(SOURCE, "tests", "launcher", "contract_worker.py")
results = []


def check(name, good, note=""):
    results.append(bool(good))
    print("%s %d - %s" % ("ok" if good else "not ok", len(results), name))
    if not good:
        print("#   %s" % str(note).replace("\n", "\n#   "))


def run(arguments, folder, environment=None):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "TORCH", "MASTER_"))}
    env.update(environment or {})
    return subprocess.run([os.path.join(BUILD, "trainrun")] + arguments, cwd=folder, env=env, capture_output=True,
                          text=True, timeout=60)


def seen(text):
    """{rank: [what it saw in each attempt]}"""
    found = {}
    for rank, line in re.findall(r"^\[0/(\d+)\] SEEN (.*)$", text, re.MULTILINE):
        found.setdefault(int(rank), []).append(json.loads(line))
    return found


def check_variables(folder):
    done = run(["--nproc_per_node", "3", SCRIPT, "--lr", "0.1"], folder)
    ranks = seen(done.stdout)
    check("exits with 0", done.returncode == 0, done.stderr)
    check("starts each rank once", sorted(ranks) == [0, 1, 2] and all(len(ranks[r]) == 1 for r in ranks), done.stdout)
    check("hands the script's arguments on", ranks[0][0]["argv"] == ["--lr", "0.1"], ranks[0])
    wanted = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "ROLE_WORLD_SIZE": "3",
              "ROLE_NAME": "default", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0",
              "TORCHELASTIC_USE_AGENT_STORE": "False", "OMP_NUM_THREADS": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
    for name in ("RANK", "LOCAL_RANK", "ROLE_RANK"):
        check(name, all(ranks[r][0]["env"][name] == str(r) for r in ranks), ranks)
    for name, value in wanted.items():
        check(name, all(ranks[r][0]["env"][name] == value for r in ranks), ranks)
    ports = {ranks[r][0]["env"]["MASTER_PORT"] for r in ranks}
    check("MASTER_PORT is one for all", len(ports) == 1, ports)
    with socket.socket() as free:
        free.bind(("", int(ports.pop())))
        check("MASTER_PORT is free", True)
    address = {ranks[r][0]["env"]["MASTER_ADDR"] for r in ranks}
    check("MASTER_ADDR is this machine", address in ({"127.0.0.1"}, {"localhost"}), address)
    run_ids = {ranks[r][0]["env"]["TORCHELASTIC_RUN_ID"] for r in ranks}
    check("TORCHELASTIC_RUN_ID is one for all", len(run_ids) == 1 and run_ids != {""}, run_ids)
    files = {ranks[r][0]["env"]["TORCHELASTIC_ERROR_FILE"] for r in ranks}
    check("TORCHELASTIC_ERROR_FILE is one a rank, in a folder that is there",
          len(files) == 3 and all(os.path.isabs(f) and os.path.isdir(os.path.dirname(f)) for f in files), files)


def check_user_values(folder):
    done = run(["--nproc-per-node=2", SCRIPT], folder, {"OMP_NUM_THREADS": "5", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"})
    env = seen(done.stdout)[1][0]["env"]
    check("leaves the user's OMP_NUM_THREADS", env["OMP_NUM_THREADS"] == "5", env)
    check("leaves the user's TORCH_NCCL_ASYNC_ERROR_HANDLING", env["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3", env)
    done = run(["--nproc-per-node=1", SCRIPT], folder)
    env = seen(done.stdout)[0][0]["env"]
    check("leaves OMP_NUM_THREADS unset for one worker", env["OMP_NUM_THREADS"] is None, env)


def check_restart(folder):
    with open(os.path.join(folder, "job.toml"), "w") as file:
        file.write('command = ["python3", "%s", "--fail-once"]\n[failure]\nmax-restarts = 2\n' % SCRIPT)
    done = run(["--workers", "2", "job.toml"], folder)
    ranks = seen(done.stdout)
    check("a restart ends with 0", done.returncode == 0, done.stderr)
    counts = [attempt["env"]["TORCHELASTIC_RESTART_COUNT"] for attempt in ranks[1]]
    check("restarts all and counts it", counts == ["0", "1"] and ranks[0][-1]["env"]["TORCHELASTIC_RESTART_COUNT"] == "1", ranks)
    check("says how many restarts there are", ranks[1][0]["env"]["TORCHELASTIC_MAX_RESTARTS"] == "2", ranks)
    check("takes a new port", len({attempt["env"]["MASTER_PORT"] for attempt in ranks[1]}) == 2, ranks)
    check("tells what the error file says", "ValueError: no such luck" in done.stderr, done.stderr)


with tempfile.TemporaryDirectory() as scratch:
    for number, part in enumerate((check_variables, check_user_values, check_restart)):
        folder = os.path.join(scratch, str(number))
        os.mkdir(folder)
        part(folder)
print("1..%d" % len(results))
sys.exit(0 if all(results) else 1)
