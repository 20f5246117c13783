#!/usr/bin/env python3
"""Includes go down only, siblings never meet, private headers stay in their room."""
import os
import re

import house

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(path):
    # Comments go, strings stay: the name of an include is one.
    for number, line in enumerate(house.strip(house.read(path), strings=False).splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def sources():
    return [path for path in house.files(".c", ".h", ".cc", ".inc") if house.room_of(path)]


def upward():
    for path in sources():
        room = house.room_of(path)
        if room not in house.ROOMS:
            continue
        for number, _, name in includes(path):
            if not name.startswith("trainrun/"):
                continue
            owner = house.header_owner(name[len("trainrun/"):-2])
            if owner != room and owner not in house.BELOW[room]:
                yield "%s:%d: %s may not include <%s> of %s" % (path, number, room, name, owner or "nobody")


def is_inner(path, name):
    """Tests of a room may name what its public headers do not show (kernels and their twins, a module's border); a fuzz
    target is a test of the room whose parser it tries."""
    of = path.split("/")[1]
    folders = house.ROOMS.values() if of == "fuzz" else [house.ROOMS[of]] if of in house.ROOMS else []
    return any(file.startswith(folder + "/") and file.endswith("/" + name)
               for folder in folders for file in house.files(".h"))


def crossing():
    for path in sources():
        room = house.room_of(path)
        for number, quote, name in includes(path):
            if quote != '"':
                continue
            if room == "tests" and (os.path.exists(os.path.join(house.SOURCE, "tests", name)) or is_inner(path, name)):
                continue
            target = os.path.normpath(os.path.join(os.path.dirname(path), name))
            if not os.path.exists(os.path.join(house.SOURCE, target)):
                yield '%s:%d: "%s" is not beside the file' % (path, number, name)
            elif house.room_of(target) != room:
                yield '%s:%d: "%s" is private to another room' % (path, number, name)


def unowned():
    for name, path in house.public_headers().items():
        if house.header_owner(name) is None:
            yield "%s: whose is it? Say so in tests/lint/house.py" % path


def cmake_floors():
    for room, folder in house.ROOMS.items():
        text = house.read(folder + "/CMakeLists.txt")
        match = re.search(r"trainrun_room\(\s*%s\b([^)]*)\)" % room, text)
        if not match:
            yield "%s/CMakeLists.txt: no trainrun_room(%s ...)" % (folder, room)
            continue
        depends = re.search(r"DEPENDS((?:\s+[a-z]+)*)", match.group(1))
        for name in depends.group(1).split() if depends else []:
            if name not in house.BELOW[room]:
                yield "%s/CMakeLists.txt: %s may not depend on %s" % (folder, room, name)


report = house.Report()
report.rule("includes go down only", upward())
report.rule("private headers do not cross a room", crossing())
report.rule("every public header has a room", unowned())
report.rule("CMake's dependencies go down only", cmake_floors())
report.end()
