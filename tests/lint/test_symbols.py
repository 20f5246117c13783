#!/usr/bin/env python3
"""What the built objects show and need: exports, modules, rooms that link with the rooms below them alone."""
import glob
import os
import re
import shlex
import subprocess

import house

LIBRARY = os.path.join(house.BUILD, "libtrainrun.so")
# Beside the C library, a worker of a local CPU job loads no more than this.
MAY_NEED = r"lib(isal|jansson|crypto|ssl|z|zstd|jpeg|png16|curl|stdc\+\+|gcc_s|m|c|asan|ubsan|tsan|gomp)\.so|ld-linux"
ROOM_LIBRARIES = "-lisal -ljansson -lcrypto -lz -lzstd -ljpeg -lpng -lstdc++ -lpthread -ldl -lm".split()
# Written at run time although it stands at file level, and why that is no state of a session.
WRITABLE = {}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C"))


def nm(path, *options):
    return [line.split() for line in run("nm", *options, path).stdout.splitlines()]


def cached(name):
    with open(os.path.join(house.BUILD, "CMakeCache.txt")) as file:
        match = re.search(r"^%s:\w+=(.*)$" % name, file.read(), re.MULTILINE)
    return match.group(1) if match else ""


def declared():
    names = set()
    for path in house.public_headers().values():
        text = house.strip(house.read(path))
        for statement in re.findall(r"\bTR_API\b([^;{]*)", text):
            match = re.search(r"\b(tr_\w+)\s*\(", statement) or re.search(r"\b(tr_\w+)\s*(?:\[\w*\])?\s*$", statement)
            if match:
                names.add(match.group(1))
    return names


def exported():
    return {fields[-1].split("@")[0] for fields in nm(LIBRARY, "-D", "--defined-only")}


def exports_differ():
    for name in sorted(declared() - exported()):
        yield "%s is declared TR_API and not there" % name
    for name in sorted(exported() - declared()):
        yield "%s is exported and in no public header" % name


def needed(path):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", path).stdout)


def needs_more():
    for path in [LIBRARY, os.path.join(house.BUILD, "trainrun")]:
        for name in needed(path):
            if not re.match(MAY_NEED, name) and not name.startswith("libtrainrun.so"):
                yield "%s needs %s" % (os.path.basename(path), name)


def modules():
    return [path for path in glob.glob(os.path.join(house.BUILD, "libtrainrun_*.so"))]


def module_imports():
    for path in modules():
        for fields in nm(path, "-D", "--undefined-only"):
            if fields[-1].startswith("tr_"):
                yield "%s imports %s" % (os.path.basename(path), fields[-1])
        if any(name.startswith("libtrainrun") for name in needed(path)):
            yield "%s is linked to libtrainrun" % os.path.basename(path)


def archive(room):
    return os.path.join(house.BUILD, "rooms", "libtrainrun_%s.a" % room)


def rooms_that_do_not_link():
    flags = shlex.split(cached("CMAKE_C_FLAGS")) + (["--coverage"] if cached("TRAINRUN_COVERAGE") == "ON" else [])
    for room in house.ROOMS:
        if not os.path.exists(archive(room)):
            continue
        below = [archive(name) for name in reversed(house.BELOW[room]) if os.path.exists(archive(name))]
        done = run("c++", "-shared", *flags, "-o", os.devnull, "-Wl,--whole-archive", archive(room),
                   "-Wl,--no-whole-archive", "-Wl,--start-group", *below, "-Wl,--end-group", *ROOM_LIBRARIES,
                   "-Wl,--no-undefined")
        for name in sorted(set(re.findall(r"undefined reference to `(\w+)'", done.stderr))):
            yield "%s needs %s, which no room below it has" % (room, name)
        if done.returncode != 0 and "undefined reference" not in done.stderr:
            yield "%s: %s" % (room, done.stderr.strip()[:500])


def writable_state():
    """Objects in .data and .bss: constants with pointers in them stand in .data.rel.ro and are fine."""
    for room in house.ROOMS:
        if not os.path.exists(archive(room)):
            continue
        for line in run("objdump", "-t", archive(room)).stdout.splitlines():
            match = re.match(r"^[0-9a-f]+ .{7} \.(?:data|bss)(?:\.(?!rel\.ro)\S+)?\s+([0-9a-f]+)\s+(?:\.hidden )?(\S+)$",
                             line)
            if match and int(match.group(1), 16) > 0 and " O " in line:
                name = re.sub(r"\.\d+$", "", match.group(2))
                if name not in WRITABLE and not name.startswith(("_ZGV", "__gcov", "DW.ref.")):
                    yield "%s: %s is writable at file level" % (room, name)


report = house.Report()
no_library = None if os.path.exists(LIBRARY) else "no libtrainrun.so in %s" % house.BUILD
sanitized = "sanitizers add symbols" if not no_library and cached("TRAINRUN_SANITIZE") else None
report.rule("exports are what the public headers declare", [] if no_library else exports_differ(), no_library)
report.rule("few dependencies", [] if no_library else needs_more(), no_library)
report.rule("modules import nothing of trainrun", module_imports(), None if modules() else "no module built")
plain_only = no_library or sanitized
report.rule("each room links with the rooms below it", [] if plain_only else rooms_that_do_not_link(), plain_only)
report.rule("no room has global mutable state", [] if plain_only else writable_state(), plain_only)
report.end()
