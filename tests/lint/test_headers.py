#!/usr/bin/env python3
"""Public headers stand alone in C17 and C++17 and name nothing of a third party."""
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import house

STANDARD = set("assert complex ctype errno float inttypes limits math signal stdalign stdarg stdatomic stdbool stddef "
               "stdint stdio stdlib stdnoreturn string time sys/types".split())
THIRD_PARTY = (r"\b(MPI_\w+|nccl\w+|cuda\w*_t|cu(?:blas|dnn)\w+|CURL\w*|curl_\w+|grpc_\w+|dnnl_\w+|json_t|png_\w+|"
               r"jpeg_\w+|toml_\w+|SSL_\w+|EVP_\w+|ucp_\w+|z_stream)\b")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only"]


def include_folders():
    return sorted({os.path.join(house.SOURCE, path.split("trainrun/")[0]) for path in house.public_headers().values()})


def compile_alone(compiler, language, standard):
    def one(name):
        command = [compiler, "-x", language, "-std=" + standard] + WARNINGS + ["-I" + d for d in include_folders()] + ["-"]
        # Twice, so that a missing include guard shows.
        text = "#include <trainrun/%s.h>\n#include <trainrun/%s.h>\nextern int unused;\n" % (name, name)
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        return None if done.returncode == 0 else "%s: %s" % (name, done.stderr.strip().replace("\n", "\n#   "))
    with ThreadPoolExecutor() as pool:
        return [finding for finding in pool.map(one, house.public_headers()) if finding]


def foreign_includes():
    for path in house.public_headers().values():
        for number, match in house.lines_matching(house.strip(house.read(path), strings=False),
                                                  r'#\s*include\s*[<"]([^>"]+)[>"]'):
            name = match.group(1)
            if not name.startswith("trainrun/") and name[:-2] not in STANDARD:
                yield "%s:%d: <%s>" % (path, number, name)


def foreign_types():
    for path in house.public_headers().values():
        for number, match in house.lines_matching(house.strip(house.read(path)), THIRD_PARTY):
            yield "%s:%d: %s" % (path, number, match.group(0))


def missing_prefix():
    """Every function and struct a header shows is called tr_*, every macro TR_*."""
    for path in house.public_headers().values():
        text = house.strip(house.read(path))
        for number, match in house.lines_matching(text, r"#\s*define\s+(\w+)"):
            if not re.match(r"(TR_|TRAINRUN_)", match.group(1)):
                yield "%s:%d: macro %s" % (path, number, match.group(1))
        for number, match in house.lines_matching(text, r"\b(?:struct|enum|union)\s+(\w+)\s*\{"):
            if not match.group(1).startswith("tr_"):
                yield "%s:%d: type %s" % (path, number, match.group(1))


def umbrella():
    for name, path in house.public_headers().items():
        if not reached(name):
            yield "%s is not reached from <trainrun/trainrun.h>" % path


def reached(wanted):
    seen, left = set(), ["trainrun"]
    while left:
        name = left.pop()
        if name in seen or name not in house.public_headers():
            continue
        seen.add(name)
        left += re.findall(r"#include <trainrun/(\w+)\.h>", house.read(house.public_headers()[name]))
    return wanted in seen


report = house.Report()
for command, language, standard in (("gcc", "c", "c17"), ("g++", "c++", "c++17"), ("clang", "c", "c17"),
                                    ("clang++", "c++", "c++17")):
    rule = "each compiles alone as %s with %s" % (standard, command)
    found = shutil.which(command) or shutil.which(command + "-14")
    if found:
        report.rule(rule, compile_alone(found, language, standard))
    elif command.startswith("g"):
        report.rule(rule, [], skip="no %s here" % command)
report.rule("they include the standard library and each other only", foreign_includes())
report.rule("they name no third-party type", foreign_types())
report.rule("they keep to the prefix", missing_prefix())
report.rule("trainrun.h reaches all of them", umbrella())
report.end()
