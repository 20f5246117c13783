"""The plan of the house, as the lint tests see it: rooms, floors, whose header is whose, and how to read a source file.

Each lint test is a script that speaks TAP: one line a rule, the findings under it as comments.
"""
import os
import re
import subprocess
import sys

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(SOURCE, "build")

ROOMS = {
    "base": "runtime/base", "store": "runtime/store", "device": "runtime/device", "ops": "ops",
    "collective": "collective", "dataloader": "dataloader", "checkpoint": "checkpoint", "train": "runtime/train",
}
# What a room may call; itself is always allowed. Siblings of one floor are not in each other's lists.
BELOW = {
    "base": [], "store": ["base"], "device": ["base"],
    "ops": ["base", "store", "device"], "collective": ["base", "store", "device"],
    "dataloader": ["base", "store", "device"], "checkpoint": ["base", "store", "device"],
    "train": ["base", "store", "device", "ops", "collective", "dataloader", "checkpoint"],
}
DOORS = ["launcher", "examples", "bench"]

# runtime/api is one folder for four rooms; the other rooms have one of their own.
RUNTIME_HEADERS = {
    "base": "alloc arena base bytes clock config crc32c log macros rng split status trace".split(),
    "store": ["s3", "store"],
    "device": ["device"],
    "train": "run train worker".split(),
    "everything": ["trainrun"],
}


def files(*suffixes):
    """Tracked files and new ones that git does not ignore, as paths relative to the source folder."""
    command = ["git", "-C", SOURCE, "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:
        names = [os.path.relpath(os.path.join(folder, name), SOURCE)
                 for folder, _, found in os.walk(SOURCE) for name in found]
        names = [name for name in names if not re.match(r"(build[^/]*|\.git|runs)/", name)]
    return sorted(name for name in set(names)
                  if (not suffixes or name.endswith(suffixes)) and os.path.isfile(os.path.join(SOURCE, name)))


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def room_of(path):
    """The room or door whose folder holds a file, None elsewhere."""
    for room, folder in ROOMS.items():
        if path.startswith(folder + "/"):
            return room
    if path.startswith("runtime/api/"):
        return header_owner(os.path.basename(path)[:-2])
    return path.split("/")[0] if path.split("/")[0] in DOORS + ["tests"] else None


def public_headers():
    """{name without .h: path}"""
    return {os.path.basename(path)[:-2]: path for path in files(".h") if "/api/trainrun/" in path}


def header_owner(name):
    for room, names in RUNTIME_HEADERS.items():
        if name in names:
            return room
    path = public_headers().get(name, "")
    for room, folder in ROOMS.items():
        if path.startswith(folder + "/api/"):
            return room
    return None


def strip(text, strings=True):
    """C source with its comments (and string contents) blanked, line numbers kept."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def blank(match):
        found = match.group(0)
        if found[0] in "\"'":
            return found if not strings else found[0] + found[0]
        return " " + "\n" * found.count("\n")
    return pattern.sub(blank, text)


def lines_matching(text, pattern):
    for number, line in enumerate(text.splitlines(), 1):
        for match in re.finditer(pattern, line):
            yield number, match


class Report:
    """Collects findings rule by rule and prints TAP."""

    def __init__(self):
        self.results = []

    def rule(self, name, findings, skip=None):
        self.results.append((name, list(findings), skip))

    def end(self):
        print("TAP version 13\n1..%d" % len(self.results))
        for number, (name, findings, skip) in enumerate(self.results, 1):
            if skip:
                print("ok %d - %s # SKIP %s" % (number, name, skip))
                continue
            print("%s %d - %s" % ("not ok" if findings else "ok", number, name))
            for finding in findings:
                print("#   %s" % finding)
        sys.exit(1 if any(findings for _, findings, skip in self.results if not skip) else 0)
