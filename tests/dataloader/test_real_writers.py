#!/usr/bin/env python3
"""Data sets written by webdataset and mosaicml-streaming are read byte for byte: small ones that are kept beside this file,
and larger ones written now where TRAINRUN_PEERS_PYTHON names a Python that has the packages (scripts/bench_peers makes
build/peers)."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(SOURCE, "tests", "jobs")]
from jobs import TESTS, Tap

FIXTURES = os.path.join(HERE, "fixtures")
SHOW = os.path.join(TESTS, "dataloader", "show_data")
tap = Tap()


def show(*arguments):
    run = subprocess.run([SHOW, *arguments], capture_output=True, text=True, timeout=120)
    lines = [json.loads(line, parse_int=int) for line in run.stdout.splitlines()]
    return lines, run.stderr + "\n".join(json.dumps(line) for line in lines if "error" in line)


def read_lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def difference(found, expected):
    for a, b in zip(found, expected):
        for name in sorted(set(a["fields"]) | set(b["fields"])):
            if a["fields"].get(name) != b["fields"].get(name):
                return "sample %d, %s: %r, written was %r" % (b["index"], name, a["fields"].get(name), b["fields"].get(name))
        if a != b:
            return "%r, written was %r" % (a, b)
    return "%d samples, written were %d" % (len(found), len(expected)) if len(found) != len(expected) else ""


def same(name, url, lines):
    found, errors = show(url)
    wrong = errors.strip() or difference(found, read_lines(lines))
    tap.check(not wrong, name, wrong)


def check_set(what, folder, name):
    url = os.path.join(folder, name)
    tar = os.path.exists(url + ".tar")
    same("%s: %s as it was written" % (what, name), url + ".tar" if tar else url, url + ".jsonl")


def written_now(python):
    with tempfile.TemporaryDirectory() as folder:
        code = ("import sys; sys.path.insert(0, %r)\nimport real_writers as w\nf = %r\n"
                "w.write_mds(f, 'raw', 200, 11, size_limit=100000)\n"
                "w.write_mds(f, 'zstd', 200, 12, compression='zstd', size_limit=200000)\n"
                "w.write_mds(f, 'one', 1, 13)\nw.write_webdataset(f, 'tar', 300, 14)\n" % (HERE, folder))
        made = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=600)
        if not tap.check(made.returncode == 0, "the packages write", made.stderr):
            return
        for name in ("raw", "zstd", "one", "tar"):
            check_set("now", folder, name)


with tempfile.TemporaryDirectory() as copy:
    # An index is kept beside the data, so they are read elsewhere.
    shutil.copytree(FIXTURES, copy, dirs_exist_ok=True)
    for fixture in ("mds-raw", "mds-zstd", "webdataset"):
        check_set("kept", copy, fixture)
peers = os.environ.get("TRAINRUN_PEERS_PYTHON", "")
if peers:
    written_now(peers)
else:
    tap.skip("data sets written now", "TRAINRUN_PEERS_PYTHON names no Python with webdataset and mosaicml-streaming")
tap.end()
