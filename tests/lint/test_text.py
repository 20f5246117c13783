#!/usr/bin/env python3
"""What the text of the sources may not hold: a library that exits, prints or reads the environment; leftovers."""
import re

import house

# Calls a library may not make, and why.
CALLS = {
    "ends the process": r"(?<![\w.>])(exit|abort|_exit|_Exit|quick_exit|raise)\s*\(",
    "prints": r"(?<![\w.>])(printf|vprintf|puts|putchar|perror|psignal|putc)\s*\(|\b(stdout|stderr)\b",
    "reads the environment": r"(?<![\w.>])(getenv|secure_getenv)\s*\(|\benviron\b",
    "changes the environment": r"(?<![\w.>])(setenv|putenv|unsetenv|clearenv)\s*\(",
    "installs a signal handler": r"(?<![\w.>])(signal|sigaction|sigprocmask)\s*\(",
    "runs a shell": r"(?<![\w.>])(system|popen|wordexp)\s*\(",
    "is unsafe": r"(?<![\w.>])(gets|sprintf|vsprintf|tmpnam|mktemp|strtok|rand|srand)\s*\(",
}
# Where one of them is right: {file: [(rule, what it may do)]}.
ALLOWED = {
    # The one door: a session hands the environment to the config's table.
    "runtime/train/session.c": [("reads the environment", r"\benviron\b")],
}
FILE_LINES = 800
CODE = (".c", ".h", ".cc", ".inc", ".cu", ".py", ".sh")


def library_files():
    return [path for path in house.files(".c", ".h", ".cc", ".inc") if house.room_of(path) in house.ROOMS]


def calls(rule):
    for path in library_files():
        allowed = [what for of_rule, what in ALLOWED.get(path, []) if of_rule == rule]
        for number, match in house.lines_matching(house.strip(house.read(path)), CALLS[rule]):
            if any(re.search(what, match.group(0)) for what in allowed):
                continue
            yield "%s:%d: %s" % (path, number, match.group(0).strip(" ("))


def leftovers():
    for path in house.files(*CODE):
        if path == "tests/lint/test_text.py":
            continue
        for number, match in house.lines_matching(house.read(path), r"\b(TODO|FIXME|XXX|HACK)\b"):
            yield "%s:%d: %s" % (path, number, match.group(0))


def long_files():
    for path in house.files(*CODE):
        lines = house.read(path).count("\n")
        if lines > FILE_LINES:
            yield "%s has %d lines" % (path, lines)


def untidy_lines():
    """clang-format keeps code at 120 columns; a comment may run a few past it, no line far."""
    for path in house.files(".c", ".h", ".cc", ".inc"):
        for number, line in enumerate(house.read(path).splitlines(), 1):
            if len(line) > 130 or line != line.rstrip() or "\t" in line:
                yield "%s:%d: %s" % (path, number, "far too long" if len(line) > 130 else "a tab or trailing blanks")


def no_opening():
    """Each source opens with a paragraph that says what it is."""
    for path in house.files(".c", ".h", ".cc"):
        if not house.read(path).lstrip().startswith(("/*", "//")):
            yield path


def empty_allowances():
    for path in ALLOWED:
        if path not in library_files():
            yield "%s is gone" % path


report = house.Report()
for rule in CALLS:
    report.rule("no library file %s" % rule, calls(rule))
report.rule("allowances name files that exist", empty_allowances())
report.rule("no leftovers", leftovers())
report.rule("no file past %d lines" % FILE_LINES, long_files())
report.rule("no line far too long, no tab, no trailing blank", untidy_lines())
report.rule("each source says first what it is", no_opening())
report.end()
